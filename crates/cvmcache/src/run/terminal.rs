//! Commands on the terminal of a plugin that was started by hand.
//!
//! Nothing here fails: a plugin does not end because its standard output is closed.

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use crate::{Locator, ServerHandle, Users, threads};

pub(super) fn print(text: &str) -> ExitCode {
    let mut stdout = io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    ExitCode::SUCCESS
}

pub(super) fn complain(name: &str, error: &dyn Error) -> ExitCode {
    let _ = writeln!(io::stderr(), "cvmcache {name}: {error}");
    ExitCode::FAILURE
}

/// Prints where the plugin listens and, if that is the default, how clients are configured for it.
pub(super) fn greet(name: &str, locator: &Locator, users: &Users, is_default: bool) {
    let mut text = format!("cvmcache {name} serves CernVM-FS clients on {locator}\n");
    if is_default {
        text += &format!(
            "
Clients on this machine use it with these lines in /etc/cvmfs/default.local:

    CVMFS_CACHE_PRIMARY={name}
    CVMFS_CACHE_{name}_TYPE=external
    CVMFS_CACHE_{name}_LOCATOR={locator}
"
        );
    }
    if let Locator::Unix(_) = locator {
        text += &format!("\nClients of {users} can connect.\n");
    }
    print(&text);
}

/// Reads commands from the terminal.
pub(super) fn listen(control: ServerHandle) -> io::Result<()> {
    print("R and Enter asks clients to release nested catalogs, Ctrl+D quits.\n");
    let read = move || {
        // In the background, a read from the terminal stops the whole process; without the signal
        // it just fails.
        let _ = SigSet::from(Signal::SIGTTIN).thread_block();
        let mut line = Vec::new();
        loop {
            line.clear();
            match io::stdin().lock().read_until(b'\n', &mut line) {
                Ok(0) => return control.terminate(),
                Ok(_) if line.to_ascii_uppercase().contains(&b'R') => {
                    print("  ... asking clients to release nested catalogs\n");
                    control.ask_detach();
                }
                Ok(_) => {}
                // No event reports that it is in the foreground again.
                Err(_) => thread::sleep(Duration::from_secs(1)),
            }
        }
    };
    threads::spawn("terminal", read).map(|_| ())
}
