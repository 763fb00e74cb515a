//! `cvmcache completions`: completion scripts for shells.

use std::io::Write;

use clap::Args;
use clap_complete::Shell;

use crate::Verdict;
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  source <(cvmcache completions bash)
  cvmcache completions zsh > ~/.zfunc/_cvmcache
  cvmcache completions fish > ~/.config/fish/completions/cvmcache.fish";

/// Print a script that completes command lines in a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self, mut program: clap::Command, out: &mut dyn Write) -> Result<Verdict> {
        // The generator cannot report that it could not write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "cvmcache", &mut script);
        out.write_all(&script)?;
        Ok(Verdict::Good)
    }
}
