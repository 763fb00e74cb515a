//! `cvmcache stat`: the size and type of one object.

use std::ffi::OsString;
use std::io::Write;

use clap::Args;
use cvmcache::plugin::{ObjectInfo, Status};
use serde::Serialize;

use crate::Verdict;
use crate::error::Result;
use crate::object_type;
use crate::output::{self, Document};
use crate::remote::Remote;

const EXAMPLES: &str = "\
Examples:
  cvmcache stat unix=/var/lib/cvmfs/cvmcache-ram.socket da39a3ee5e6b4b0d3255bfef95601890afd80709
  cvmcache stat --json da39a3ee5e6b4b0d3255bfef95601890afd80709    # CVMCACHE_LOCATOR is set

The exit status is 1 if the object is not in the cache. Only a listing shows whether it is
pinned: see cvmcache ls --pinned.";

/// Show the size and type of an object
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "cvmcache stat [OPTIONS] [LOCATOR] <ID>")]
pub(crate) struct Stat {
    #[command(flatten)]
    remote: Remote,
    /// The object: 40 hexadecimal digits, then nothing, -rmd160 or -shake128
    id: Option<OsString>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed; the size is in bytes.
#[derive(Debug, Serialize)]
struct ObjectSummary {
    id: String,
    #[serde(rename = "type")]
    object_type: &'static str,
    size: u64,
}

impl Stat {
    pub(crate) fn run(mut self, out: &mut dyn Write) -> Result<Verdict> {
        let id = self.remote.take_id(self.id)?;
        let mut client = self.remote.connect("stat")?;
        let info = client.object_info(&id);
        let quit = client.quit();
        let ObjectInfo { size, object_type, .. } = match info {
            Err(error) if error.status() == Some(Status::NoEntry) => {
                return Err(self.remote.no_object(id).into());
            }
            info => info.map_err(|error| self.remote.error(error))?,
        };
        quit.map_err(|error| self.remote.error(error))?;
        let object_type = object_type::name(object_type);
        let summary = ObjectSummary { id: id.to_string(), object_type, size };
        output::document(out, &summary, self.json)?;
        Ok(Verdict::Good)
    }
}

impl Document for ObjectSummary {
    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let Self { id, object_type, size } = self;
        writeln!(out, "id            {id}")?;
        writeln!(out, "type          {object_type}")?;
        match size {
            0..1024 => writeln!(out, "size          {size} B")?,
            _ => writeln!(out, "size          {} ({size} B)", output::bytes(*size))?,
        }
        Ok(())
    }
}
