//! `cvmcache man`: manual pages, for packages.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use crate::Verdict;
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Example:
  cvmcache man /usr/local/share/man/man1";

/// Write a manual page for this program and one for each of its commands
#[derive(Debug, Args)]
#[command(hide = true, after_help = EXAMPLES)]
pub(crate) struct Man {
    /// The directory to write them to; created if it is missing
    directory: PathBuf,
}

impl Man {
    pub(crate) fn run(self, program: clap::Command, out: &mut dyn Write) -> Result<Verdict> {
        fs::create_dir_all(&self.directory).map_err(Error::System)?;
        clap_mangen::generate_to(program, &self.directory).map_err(Error::System)?;
        writeln!(out, "manual pages are in {}", self.directory.display())?;
        Ok(Verdict::Good)
    }
}
