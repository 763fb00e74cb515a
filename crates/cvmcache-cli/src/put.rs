//! `cvmcache put`: stores a file as an object, named by the hash of its content.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;

use bytes::Bytes;
use clap::Args;
use cvmcache::client::{Client, NewUpload, Upload};
use cvmcache::plugin::{Capabilities, ObjectId, ObjectType};
use thiserror::Error;

use crate::Verdict;
use crate::error::{self, Result};
use crate::hashing::{Algorithm, Hasher};
use crate::object_type;
use crate::output;
use crate::remote::{self, Remote};

const EXAMPLES: &str = "\
Examples:
  cvmcache put unix=/var/lib/cvmfs/cvmcache-ram.socket /etc/hosts
  cvmcache put --type volatile --algorithm shake128 x    # CVMCACHE_LOCATOR is set
  tar c . | cvmcache put --description backup -

The id is printed. It is the hash of the content as it is, so CernVM-FS, which names files by
the hash of their compressed content, does not find the object under it; --id sets any id.
An object that is in the cache already is not replaced.

A file is read twice, first for its id; a pipe is copied to a temporary file (TMPDIR) first. The
object may be evicted as soon as it is stored: no client holds it open.";

/// How much of a file is read at once, for its id.
const BUFFER: usize = 64 * 1024;

/// Store a file as an object, and print its id
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "cvmcache put [OPTIONS] [LOCATOR] <FILE>")]
pub(crate) struct Put {
    #[command(flatten)]
    remote: Remote,
    /// The file; - is the input
    file: Option<OsString>,
    /// The hash that names it
    #[arg(long, value_enum, default_value_t = Algorithm::Sha1, conflicts_with = "id")]
    algorithm: Algorithm,
    /// Its id, instead of the hash of its content
    #[arg(long)]
    id: Option<ObjectId>,
    /// Its type: plugins evict volatile objects first
    #[arg(long = "type", value_name = "TYPE", default_value = "regular",
          value_parser = object_type::parser())]
    object_type: ObjectType,
    /// What listings show [default: the path of the file]
    #[arg(long, value_name = "TEXT")]
    description: Option<OsString>,
}

/// Why a file is not stored.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error("{path}: it changed while it was read; nothing was stored, try again")]
    Changed { path: String },
    #[error("cannot read {path}: {source}")]
    Read { path: String, source: io::Error },
    /// The plugin, or the connection to it.
    #[error(transparent)]
    Plugin(#[from] remote::Error),
}

impl From<Error> for error::Error {
    fn from(error: Error) -> Self {
        Self::failed(error)
    }
}

/// What is stored: a file that has been read once.
struct Content {
    name: String,
    file: File,
    size: u64,
    /// What it hashes to.
    hash: ObjectId,
}

impl Put {
    pub(crate) fn run(mut self, out: &mut dyn Write) -> Result<Verdict> {
        let path = self.remote.take_argument(self.file.take(), "FILE")?;
        // A variable of a script that is not set is an empty argument.
        if path.is_empty() {
            return Err(remote::Error::MissingArgument("FILE").into());
        }
        let algorithm = self.id.map_or_else(|| self.algorithm.into(), |id| id.algorithm());
        // Connects first, so that an error of the connection is reported before the file is read.
        let mut client = self.remote.connect_for("put", Capabilities::WRITE)?;
        let mut content = Content::open(&path, Hasher::new(algorithm))?;
        let id = self.id.unwrap_or(content.hash);
        let exists = client.exists(&id).map_err(|error| self.remote.error(error))?;
        if exists {
            output::note("it is in the cache already; nothing was stored");
        } else {
            let upload = client.begin_upload(self.new_upload(id, &path, content.size));
            self.store(&mut client, upload, &mut content)?;
            // A commit opens the object, too.
            remote::unless_unsupported(client.close(&id))
                .map_err(|error| self.remote.error_while("closing the stored object", error))?;
        }
        writeln!(out, "{id}")?;
        client.quit().map_err(|error| self.remote.error(error))?;
        Ok(Verdict::Good)
    }

    fn new_upload(&self, id: ObjectId, path: &OsStr, size: u64) -> NewUpload {
        let new = NewUpload::new(id).object_type(self.object_type).expected_size(size);
        let description = self.description.as_deref().or((path != "-").then_some(path));
        match description {
            Some(text) => new.description(text.as_bytes().to_vec()),
            None => new,
        }
    }

    fn store(
        &self,
        client: &mut Client,
        mut upload: Upload,
        content: &mut Content,
    ) -> Result<(), Error> {
        let stored = self.store_parts(client, &mut upload, content);
        let sent = upload.next_part() - 1;
        // A plugin that refused the first part has no upload to abort.
        let refused_at_once = sent == 1 && matches!(stored, Err(Error::Plugin(_)));
        if stored.is_err() && sent > 0 && !refused_at_once {
            // The first error has the cause; this one would only repeat it.
            let _ = upload.abort(client);
        }
        stored
    }

    fn store_parts(
        &self,
        client: &mut Client,
        upload: &mut Upload,
        content: &mut Content,
    ) -> Result<(), Error> {
        let largest = client.max_object_size() as u64;
        let mut hasher = Hasher::new(content.hash.algorithm());
        let mut left = content.size;
        loop {
            let part = content.read_part(largest.min(left))?;
            left -= part.len() as u64;
            hasher.update(&part);
            let last = left == 0;
            if last && (content.has_more()? || hasher.clone().finish() != content.hash) {
                return Err(content.changed());
            }
            let number = upload.next_part();
            let ticket = upload.submit(client, part, last);
            ticket.and_then(|ticket| client.wait(ticket)).map_err(|error| {
                self.remote.error_while(format!("storing part {number}"), error)
            })?;
            if last {
                return Ok(());
            }
        }
    }
}

impl Content {
    fn open(path: &OsStr, mut hasher: Hasher) -> Result<Self, Error> {
        let name = match path.as_bytes() {
            b"-" => "standard input".to_owned(),
            bytes => output::text(bytes),
        };
        let read_error = |source| Error::Read { path: name.clone(), source };
        let mut file = (if path == "-" { spool(io::stdin().lock()) } else { open_twice(path) })
            .map_err(read_error)?;
        let mut buffer = vec![0; BUFFER];
        let mut size = 0;
        loop {
            let len = file.read(&mut buffer).map_err(read_error)?;
            if len == 0 {
                break;
            }
            size += len as u64;
            hasher.update(&buffer[..len]);
        }
        file.rewind().map_err(read_error)?;
        Ok(Self { name, file, size, hash: hasher.finish() })
    }

    fn read_part(&mut self, len: u64) -> Result<Bytes, Error> {
        let mut part = vec![0; len as usize];
        match self.file.read_exact(&mut part) {
            Ok(()) => Ok(part.into()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.changed()),
            Err(source) => Err(Error::Read { path: self.name.clone(), source }),
        }
    }

    fn has_more(&mut self) -> Result<bool, Error> {
        let read = self.file.read(&mut [0]);
        Ok(read.map_err(|source| Error::Read { path: self.name.clone(), source })? > 0)
    }

    fn changed(&self) -> Error {
        Error::Changed { path: self.name.clone() }
    }
}

/// Opens what can be read twice, or a copy of it.
fn open_twice(path: &OsStr) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { spool(file) }
}

fn spool(mut input: impl Read) -> io::Result<File> {
    let mut copy = tempfile::tempfile()?;
    io::copy(&mut input, &mut copy)?;
    copy.rewind()?;
    Ok(copy)
}
