//! `cvmcache stat`: what a plugin knows of one object.

use std::ffi::OsString;
use std::io::Write;

use clap::Args;
use cvmcache::plugin::{ObjectInfo, Status};
use serde::Serialize;

use crate::Verdict;
use crate::error::Result;
use crate::output;
use crate::remote::Remote;

const EXAMPLES: &str = "\
Examples:
  cvmcache stat unix=/var/lib/cvmfs/cvmcache-ram.socket da39a3ee5e6b4b0d3255bfef95601890afd80709
  cvmcache stat --json da39a3ee5e6b4b0d3255bfef95601890afd80709    # CVMCACHE_LOCATOR is set

The exit status is 1 if the object is not in the cache. Whether it is pinned only a listing
tells: see cvmcache ls --pinned.";

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

/// What there is to show; the size is in bytes.
#[derive(Debug, Serialize)]
struct Facts {
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
                return Err(self.remote.no_object(id));
            }
            info => info.map_err(|error| self.remote.error(error))?,
        };
        quit.map_err(|error| self.remote.error(error))?;
        let object_type = output::object_type(object_type);
        let facts = Facts { id: id.to_string(), object_type, size };
        if self.json {
            output::json(out, &facts)?;
        } else {
            facts.print(out)?;
        }
        Ok(Verdict::Good)
    }
}

impl Facts {
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
