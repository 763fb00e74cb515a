//! The watchdog process: it waits for messages of the plugin, and ends with it.
//!
//! It has nothing of the plugin's but the socket between them and, in the foreground, standard
//! error: no lock, no listening socket, no pipe that another process waits for, no terminal, no working
//! directory. Every wait has an end once the plugin has one.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::{self, chdir, setsid};

use super::About;
use super::message::{Crash, DONE, MAX_PANIC, Message, READY};
use super::output::{Entry, Output, Writer};
use super::{report, stacks};
use crate::fork;

/// How long a plugin that has crashed is kept for what is written to be safe before it ends. A
/// file system that stands still must not keep the socket and the lock of a plugin.
const WRITE_FIRST: Duration = Duration::from_secs(2);

/// How long the watchdog outlives a plugin that has crashed, to write.
const AFTER_CRASH: Duration = Duration::from_secs(60);

/// The same after a normal end: there may be panics that are not written yet.
const AFTER_END: Duration = Duration::from_secs(5);

/// How many panics are reported. A plugin that panics over every request must not fill the disk.
const MAX_PANICS: u32 = 100;

/// Watches the process at the other end of the socket until it ends.
pub(super) fn run(socket: OwnedFd, about: About, output: Output, keep_stderr: bool) -> ! {
    // What is above on the stack is the plugin's, and not to be unwound into.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let ready = isolate(&socket, keep_stderr).and_then(|()| {
            // Its threads first: a watchdog that cannot write is none.
            let writer = Writer::start(output)?;
            tell(&socket, READY)?;
            Ok(writer)
        });
        if let Ok(writer) = ready {
            watch(socket, &about, writer);
        }
    }));
    fork::exit()
}

fn watch(socket: OwnedFd, about: &About, mut writer: Writer) {
    let mut panics = 0;
    let limit = loop {
        let news = receive(&socket);
        let now = SystemTime::now();
        match news {
            Some(Message::Panic(text)) => {
                panics += 1;
                match panics {
                    ..=MAX_PANICS => writer.write(report::panic(about, now, &text)),
                    _ if panics == MAX_PANICS + 1 => writer.write(report::panics(about, now)),
                    _ => {}
                }
            }
            Some(Message::Goodbye) => break AFTER_END,
            Some(Message::Crash(crash)) => {
                writer.write(describe(about, now, &crash));
                writer.flush(WRITE_FIRST);
                // A gdb that was killed may have left it stopped.
                let _ = kill(about.process, Signal::SIGCONT);
                let _ = tell(&socket, DONE);
                break AFTER_CRASH;
            }
            None => {
                writer.write(report::vanished(about, now));
                break AFTER_CRASH;
            }
        }
    };
    // Where there is no thread for that, it writes for as long as it takes.
    let _ = thread::Builder::new().spawn(move || {
        thread::sleep(limit);
        fork::exit()
    });
    drop(socket);
    writer.finish();
}

fn describe(about: &About, now: SystemTime, crash: &Crash) -> Entry {
    let stacks = stacks::collect(about.process, crash);
    report::crash(about, now, crash, &stacks)
}

/// The next message; `None` if there will be none.
fn receive(socket: &OwnedFd) -> Option<Message> {
    let mut buffer = vec![0; 1 + MAX_PANIC];
    loop {
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(0) => return None,
            Ok(length) => {
                if let Some(message) = Message::decode(&buffer[..length]) {
                    return Some(message);
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
}

fn tell(socket: &OwnedFd, message: &[u8]) -> nix::Result<usize> {
    send(socket.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL)
}

/// Lets go of everything that is the plugin's.
fn isolate(socket: &OwnedFd, keep_stderr: bool) -> io::Result<()> {
    // Signals that are meant for the plugin reach its group or its terminal, too.
    // But gdb, which inherits this, waits for SIGCHLD of its threads.
    let mut blocked = SigSet::all();
    blocked.remove(Signal::SIGCHLD);
    blocked.thread_block()?;
    setsid()?;
    prctl::set_name(c"watchdog")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    unistd::dup2_stdin(&null)?;
    unistd::dup2_stdout(&null)?;
    if !keep_stderr {
        unistd::dup2_stderr(&null)?;
    }
    drop(null);
    close_all_but(socket.as_raw_fd())?;
    // So that the plugin's working directory can be unmounted.
    Ok(chdir("/")?)
}

/// Closes all descriptors but the standard ones and this one.
fn close_all_but(keep: RawFd) -> io::Result<()> {
    let names = fs::read_dir("/proc/self/fd")?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?;
    for number in names.iter().filter_map(|name| name.to_str()?.parse::<RawFd>().ok()) {
        if number > 2 && number != keep {
            // What owns it is the plugin's and is never used in this process. The directory that
            // was read is among them, and has been closed.
            let _ = unistd::close(number);
        }
    }
    Ok(())
}
