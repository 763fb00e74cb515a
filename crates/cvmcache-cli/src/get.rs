//! `cvmcache get`: copies the content of an object to a file or to standard output.
//!
//! This command writes to standard output itself: content must be written unchanged, and the stream
//! of the other commands drops what has the form of colours.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use cvmcache::client::{Client, ClientError, RequestKind};
use cvmcache::plugin::{ObjectId, Status};
use tempfile::NamedTempFile;
use thiserror::Error;

use crate::Verdict;
use crate::error::{self, Result};
use crate::hashing::Hasher;
use crate::interrupt;
use crate::remote::{self, Remote};

const EXAMPLES: &str = "\
Examples:
  cvmcache get unix=/var/lib/cvmfs/cvmcache-ram.socket da39a3ee5e6b4b0d3255bfef95601890afd80709 > x
  cvmcache get -o x da39a3ee5e6b4b0d3255bfef95601890afd80709    # CVMCACHE_LOCATOR is set

The object is held open meanwhile, so that it is not evicted. The file is renamed into place
when it is complete.

--verify is for objects that are named by the hash of their content, as cvmcache put does.
CernVM-FS names a file by the hash of its compressed content, while a cache holds it
uncompressed: --verify fails for such an object.";

/// How many reads are in flight, each of at most 512 KiB.
const READS_IN_FLIGHT: usize = 16;

/// Copy an object to a file or to the output
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "cvmcache get [OPTIONS] [LOCATOR] <ID>")]
pub(crate) struct Get {
    #[command(flatten)]
    remote: Remote,
    /// The object: 40 hexadecimal digits, then nothing, -rmd160 or -shake128
    id: Option<OsString>,
    /// Where to write it, instead of to the output; - is the output, even if it is a terminal
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Check that the content hashes to the id
    #[arg(long)]
    verify: bool,
}

/// Why an object is not copied.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error(
        "the content of an object may hold terminal control sequences: name a file with -o FILE, \
         redirect the output, or insist with -o -"
    )]
    BytesToTerminal,
    #[error(
        "{id} is damaged, or not named by its content: it hashes to {found}. CernVM-FS names files \
         by the hash of their compressed content, so this says nothing about most of its objects"
    )]
    OtherContent { id: ObjectId, found: ObjectId },
    #[error("cannot write {path:?}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

impl From<Error> for error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::BytesToTerminal => Self::usage(error),
            _ => Self::failed(error),
        }
    }
}

/// An object that is being copied.
struct Transfer<'a> {
    remote: &'a Remote,
    client: Client,
    id: ObjectId,
    hasher: Option<Hasher>,
}

impl Get {
    pub(crate) fn run(mut self) -> Result<Verdict> {
        let id = self.remote.take_id(self.id)?;
        let file = self.output.as_deref().filter(|path| *path != Path::new("-"));
        if self.output.is_none() && io::stdout().is_terminal() {
            return Err(Error::BytesToTerminal.into());
        }
        let hasher = self.verify.then(|| Hasher::new(id.algorithm()));
        let client = self.remote.connect("get")?;
        let mut transfer = Transfer { remote: &self.remote, client, id, hasher };
        // The reference is released after an error, too: a plugin may keep it beyond the session.
        let copied = transfer.open().and_then(|()| {
            let copied = match file {
                Some(path) => transfer.copy_to_file(path),
                None => transfer.copy_to_output(),
            };
            copied.and(transfer.close())
        });
        let quit = transfer.client.quit().map_err(|error| self.remote.error(error).into());
        copied.and(quit)?;
        Ok(Verdict::Good)
    }
}

impl Transfer<'_> {
    fn open(&mut self) -> Result<()> {
        match remote::unless_unsupported(self.client.open(&self.id)) {
            Err(error) if error.status() == Some(Status::NoEntry) => {
                Err(self.remote.no_object(self.id).into())
            }
            result => {
                Ok(result.map_err(|error| self.remote.error_while("opening the object", error))?)
            }
        }
    }

    fn close(&mut self) -> Result<()> {
        let closed = remote::unless_unsupported(self.client.close(&self.id));
        Ok(closed.map_err(|error| self.remote.error_while("closing the object", error))?)
    }

    fn copy_to_output(&mut self) -> Result<()> {
        let mut stdout = io::stdout().lock();
        self.copy(&mut stdout, &error::Error::Output)?;
        stdout.flush()?;
        self.verify()
    }

    fn copy_to_file(&mut self, path: &Path) -> Result<()> {
        let failed = |source| error::Error::from(Error::Write { path: path.to_owned(), source });
        // A device or a pipe is written to, and a symbolic link followed; neither is replaced.
        let target = match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => fs::canonicalize(path).map_err(failed)?,
            Ok(_) => {
                let mut file = File::options().write(true).open(path).map_err(failed)?;
                self.copy(&mut file, &failed)?;
                return self.verify();
            }
            Err(_) => path.to_owned(),
        };
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let mut file = new_file_in(directory).map_err(failed)?;
        let unfinished = file.path().to_owned();
        let remove = move || {
            // Once it is renamed, there is nothing left under this name.
            let _ = fs::remove_file(unfinished);
        };
        interrupt::on_termination(remove).map_err(error::Error::System)?;
        self.copy(file.as_file_mut(), &failed)?;
        self.verify()?;
        file.persist(&target).map_err(|error| failed(error.error))?;
        Ok(())
    }

    fn copy(
        &mut self,
        out: &mut dyn Write,
        failed: &dyn Fn(io::Error) -> error::Error,
    ) -> Result<()> {
        let size = match self.client.object_info(&self.id) {
            Ok(info) => info.size,
            Err(error) if error.status() == Some(Status::NoEntry) => {
                return Err(self.remote.no_object(self.id).into());
            }
            Err(error) => return Err(self.remote.error(error).into()),
        };
        let largest = self.client.max_object_size() as u64;
        let (mut asked, mut reads) = (0, VecDeque::with_capacity(READS_IN_FLIGHT));
        loop {
            while reads.len() < READS_IN_FLIGHT && asked < size {
                let len = largest.min(size - asked) as u32;
                let ticket = self.client.queue_read(&self.id, asked, len);
                reads.push_back((
                    ticket.map_err(|error| self.read_error(asked, error))?,
                    asked,
                    len,
                ));
                asked += u64::from(len);
            }
            let Some((ticket, offset, len)) = reads.pop_front() else { return Ok(()) };
            let piece = self.client.wait(ticket);
            let piece = piece.map_err(|error| self.read_error(offset, error))?.into_bytes();
            if piece.len() != len as usize {
                let reason = "it has another length than the object has there";
                let error = ClientError::Unexpected { asked: RequestKind::Read, reason };
                return Err(self.read_error(offset, error).into());
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&piece);
            }
            out.write_all(&piece).map_err(failed)?;
        }
    }

    fn verify(&mut self) -> Result<()> {
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found != self.id => {
                Err(Error::OtherContent { id: self.id, found }.into())
            }
            _ => Ok(()),
        }
    }

    fn read_error(&self, offset: u64, error: ClientError) -> remote::Error {
        self.remote.error_while(format!("reading the object at byte {offset}"), error)
    }
}

/// A temporary file, with the mode of any new file.
fn new_file_in(directory: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".cvmcache-").permissions(Permissions::from_mode(0o666));
    // The user has not written its name, so the error does not show it.
    builder.tempfile_in(directory).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::other(format!("there is no directory {directory:?}: make it first"))
        }
        kind => kind.into(),
    })
}
