//! The pause between two polls, which commands of the user interrupt.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// The commands of the user to a thread that polls.
pub(super) enum Command {
    Now,
    Every(Duration),
}

/// Waits for the interval, which commands may change; false if the view has ended.
pub(super) fn pause(
    interval: &mut Duration,
    commands: &Receiver<Command>,
    at_least: Duration,
) -> bool {
    let began = Instant::now();
    loop {
        let left = at_least.max(*interval).saturating_sub(began.elapsed());
        match commands.recv_timeout(left) {
            Ok(Command::Every(new)) => *interval = new,
            Ok(Command::Now) | Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}
