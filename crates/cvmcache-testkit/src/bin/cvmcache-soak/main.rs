//! A soak test: many clients, good and bad, against one plugin, which has to keep its promises.
//!
//! `run.rs` is the parent: it starts the plugin (`plugin.rs`), keeps clients running and kills
//! them, and looks at what is left in the end (`ending.rs`). Each client is a process of its own
//! (`client.rs`), since a client that is killed is a process that is killed. What it does is in
//! `behaviour.rs` and, as far as no client should, in `misbehaviour.rs`.

mod arguments;
mod behaviour;
mod broken;
mod bystander;
mod client;
mod ending;
mod misbehaviour;
mod object;
mod plugin;
mod run;
mod summary;
mod tally;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Client(client)) = arguments.command {
        return client::main(&client);
    }
    match run::run(&arguments.soak) {
        Ok(summary) => {
            // Nobody may be there to read it; the status tells all the same.
            let _ = write!(std::io::stdout(), "{summary}");
            ExitCode::from(u8::from(!summary.is_good()))
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "cvmcache-soak: {error}");
            ExitCode::from(2)
        }
    }
}
