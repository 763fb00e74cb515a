//! `cvmcache`: check, measure and look after any CernVM-FS cache plugin.
//!
//! Each command has a module of its own, with its arguments and a function `run` that writes what
//! it has to say to a stream; so commands know nothing of terminals, but for `get` and `top`, and
//! this file nothing of plugins. `remote` reaches a plugin that runs, `target` is one to be tried
//! out, `hashing` names objects by their content, `output` has what several commands print alike,
//! `interrupt` leaves nothing behind, and `error` is all that can go wrong.

mod arguments;
mod bench;
mod check;
mod completions;
mod doctor;
mod error;
mod get;
mod hashing;
mod info;
mod interrupt;
mod ls;
mod man;
mod output;
mod put;
mod remote;
mod shrink;
mod soak;
mod stat;
mod target;
mod top;
mod usage;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use cvmcache_testkit::PluginProcess;

use arguments::{Arguments, Command};
use error::{Error, Result};
use output::Tireless;

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
        Tireless(&mut out).flush()?;
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
        Command::Bench(command) => ending_plugins(|| command.run(out)),
        Command::Check(command) => ending_plugins(|| command.run(&mut Tireless(out))),
        Command::Completions(command) => command.run(out),
        Command::Doctor(command) => command.run(&mut Tireless(out)),
        Command::Get(command) => command.run(),
        Command::Info(command) => command.run(out),
        Command::Ls(command) => command.run(out),
        Command::Man(command) => command.run(out),
        Command::Put(command) => command.run(out),
        Command::Shrink(command) => command.run(&mut Tireless(out)),
        Command::Soak(command) => ending_plugins(|| command.run(&mut Tireless(out))),
        Command::SoakClient(command) => command.run(out),
        Command::Stat(command) => command.run(out),
        Command::Top(command) => command.run(),
    }
}

/// Runs a command that may start plugins, which are not to stay when a signal ends it.
fn ending_plugins(run: impl FnOnce() -> Result<Verdict>) -> Result<Verdict> {
    interrupt::before_the_end(PluginProcess::kill_all).map_err(Error::System)?;
    run()
}
