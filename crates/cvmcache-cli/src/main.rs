//! `cvmcache`: checks, measures and inspects CernVM-FS cache plugins.
//!
//! Each command has a module of its own, with its arguments, its errors and a function `run` that
//! writes to a stream; only `get` and `top` use terminals, and only `tier` depends on a plugin.
//! `remote` connects to a running plugin, `admin` to its administration socket, and `unreachable` has the
//! remedies if there is none; `target` is a plugin under test, `object_type` has the names of object types,
//! `hashing` names objects by their content, `user` has users and their permissions, `output` what several
//! commands print alike, `interrupt` cleans up on signals, and `error` decides on the exit status.

mod admin;
mod arguments;
mod bench;
mod check;
mod completions;
mod config;
mod detach;
mod doctor;
mod error;
mod get;
mod hashing;
mod info;
mod interrupt;
mod log_level;
mod ls;
mod man;
mod object_type;
mod output;
mod put;
mod remote;
mod sessions;
mod shrink;
mod soak;
mod stat;
mod stats;
mod target;
#[cfg(feature = "tier")]
mod tier;
mod top;
mod unreachable;
mod usage;
mod user;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use cvmcache_testkit::PluginProcess;

use arguments::{Arguments, Command};
use error::{Error, Result};
use output::IgnoreBrokenPipe;

/// The result of a command that could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// All is well.
    Good,
    /// It found something wrong, and has printed it.
    Bad,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    arguments.color.write_global();
    let mut out = anstream::stdout().lock();
    let result = run(arguments.command, &mut out).and_then(|verdict| {
        IgnoreBrokenPipe(&mut out).flush()?;
        Ok(verdict)
    });
    match result {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::FAILURE,
        // A broken pipe, as after `| head`, is no failure.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; the exit status remains.
            let mark = output::BAD;
            let _ = writeln!(anstream::stderr(), "{mark}cvmcache:{mark:#} {error}");
            ExitCode::from(error.exit_status())
        }
    }
}

fn run(command: Command, out: &mut dyn Write) -> Result<Verdict> {
    match command {
        Command::Admin(command) => command.run(out),
        Command::Bench(command) => ending_plugins(|| command.run(out)),
        Command::Check(command) => ending_plugins(|| command.run(&mut IgnoreBrokenPipe(out))),
        Command::Completions(command) => command.run(Arguments::command(), out),
        Command::Config(command) => command.run(out),
        Command::Detach(command) => command.run(out),
        Command::Doctor(command) => command.run(&mut IgnoreBrokenPipe(out)),
        Command::Get(command) => command.run(),
        Command::Info(command) => command.run(out),
        Command::LogLevel(command) => command.run(out),
        Command::Ls(command) => command.run(out),
        Command::Man(command) => command.run(Arguments::command(), out),
        Command::Put(command) => command.run(out),
        Command::Sessions(command) => command.run(out),
        Command::Shrink(command) => command.run(&mut IgnoreBrokenPipe(out)),
        Command::Soak(command) => ending_plugins(|| command.run(&mut IgnoreBrokenPipe(out))),
        Command::SoakClient(command) => Ok(command.run()),
        Command::Stat(command) => command.run(out),
        Command::Stats(command) => command.run(out),
        #[cfg(feature = "tier")]
        Command::Tier(command) => command.run(&mut IgnoreBrokenPipe(out)),
        Command::Top(command) => command.run(),
    }
}

/// Runs a command that may start plugins, which are killed when a signal ends it.
fn ending_plugins(run: impl FnOnce() -> Result<Verdict>) -> Result<Verdict> {
    interrupt::on_termination(PluginProcess::kill_all).map_err(Error::System)?;
    run()
}
