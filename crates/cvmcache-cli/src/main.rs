//! `cvmcache`: check, measure and look after any CernVM-FS cache plugin.
//!
//! Each command has a module of its own, with its arguments and a function `run` that writes what
//! it has to say to a stream; so commands know nothing of terminals, and this file nothing of
//! plugins. `remote` reaches a plugin that
//! runs, `target` is one to be tried out, `output` has what several commands print alike,
//! and `error` all that can go wrong.

mod arguments;
mod check;
mod completions;
mod doctor;
mod error;
mod info;
mod output;
mod remote;
mod soak;
mod target;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};
use error::{Error, Result};

/// What came of a command that could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// All is well.
    Good,
    /// It found something wrong, and has said so.
    Bad,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    arguments.color.write_global();
    let mut out = anstream::stdout().lock();
    let result = run(arguments.command, &mut out).and_then(|verdict| {
        out.flush()?;
        Ok(verdict)
    });
    match result {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::FAILURE,
        // Whoever reads has seen enough: that is no failure.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be there to read it; the status tells all the same.
            let mark = output::BAD;
            let _ = writeln!(anstream::stderr(), "{mark}cvmcache:{mark:#} {error}");
            ExitCode::from(error.exit_status())
        }
    }
}

fn run(command: Command, out: &mut dyn Write) -> Result<Verdict> {
    match command {
        Command::Check(command) => command.run(out),
        Command::Completions(command) => command.run(out),
        Command::Doctor(command) => command.run(out),
        Command::Info(command) => command.run(out),
        Command::Soak(command) => command.run(out),
        Command::SoakClient(command) => command.run(out),
    }
}
