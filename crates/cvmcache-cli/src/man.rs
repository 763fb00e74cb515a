//! `cvmcache man`: manual pages, for who makes a package.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::Verdict;
use crate::arguments::Arguments;
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Example:
  cvmcache man /usr/local/share/man/man1";

/// Write a manual page for this program and one for each of its commands
#[derive(Debug, Args)]
#[command(hide = true, after_help = EXAMPLES)]
pub(crate) struct Man {
    /// The directory to write them to; it is made if it is not there
    directory: PathBuf,
}

impl Man {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        fs::create_dir_all(&self.directory).map_err(Error::System)?;
        clap_mangen::generate_to(Arguments::command(), &self.directory).map_err(Error::System)?;
        writeln!(out, "manual pages are in {}", self.directory.display())?;
        Ok(Verdict::Good)
    }
}
