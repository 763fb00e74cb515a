//! A watchdog: a second process that writes a crash report when a plugin dies.
//!
//! When a plugin dies, so does every mount on the node; then there should be more to go by than an
//! exit status. `cvmcache::run` starts a watchdog for every plugin. A program with a main
//! function of its own starts one with [`Watchdog::builder`], before anything else:
//!
//! ```no_run
//! use cvmcache_watchdog::Watchdog;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let watchdog = Watchdog::builder("mine").crash_dump("/var/log/cvmfs/mine.crash").start()?;
//! watchdog.record_panics();
//! // Make a server, and wait for it.
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! - **A crash** (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGXFSZ; a stack overflow is a SIGSEGV) or
//!   SIGQUIT, which asks for it, is reported: time, version, executable, process, thread, signal,
//!   reason, address, errno, and the stacks of all threads. They come from gdb, if it is installed,
//!   and otherwise from the watchdog (with the cargo feature `unwind`, which is on by default, on
//!   x86-64 and aarch64). Then the process ends by that signal, with a core dump if the system makes
//!   one.
//! - **A panic** is reported with its backtrace, if [`Watchdog::record_panics`] was called; 100 of
//!   them at most.
//! - **An end without a report**, as by SIGKILL when memory runs out, is reported in a line.
//! - **A normal end**, by returning from main, by `exit`, or by SIGTERM, SIGINT or SIGHUP where the plugin
//!   does not handle them, as during its start, ends the watchdog, too.
//!
//! Reports are appended to the crash dump, if one is named, and sent to syslog (facility `daemon`),
//! which gets 500 lines of each. Standard error gets a line, and all of what cannot be written to the
//! file, or has none to go to.
//!
//! # What it costs
//!
//! A process that sleeps, and a thread that sleeps in the plugin. A plugin that crashes waits for at
//! most 30 s until it is looked at: gdb gets 20 s of that. It is let go when the report is written,
//! or after 2 s if the file system stands still; the watchdog writes on for at most a minute.

// Why it is as it is.
//
// When it forks. `start` forks before there is any other thread, which it makes sure of, and in `run`
// after the fork for the background mode. The plugin stays in the process that was started, because its
// parent waits for that process id. The watchdog is its child and runs no other program, so there is
// nothing to install or find.
//
// What the watchdog holds. No descriptor of the plugin's, see `process`: a client that waits for the
// ready pipe to be closed, the reader of the plugin's output, and a plugin that wants its lock or socket
// wait for the plugin alone. Signals for the plugin's group and terminal do not reach it: it has a
// session of its own and blocks signals. A service manager that signals all processes of a service
// reaches it, but SIGTERM is blocked as well, and it ends with the plugin anyway.
//
// How they talk. By a SOCK_SEQPACKET pair; the end of one process is the end of file of the other. The
// handler sends a few numbers and waits for a reply, for the end of the watchdog, or for 30 s. It needs
// an alternate stack, because the thread's own may have overflown: the standard library gives one to each
// of its threads if the program has a Rust main function, `alternate_stack` to those of the SDK
// otherwise. The report has what the standard library prints of a stack overflow.
//
// Where threads meet. Several threads may crash, or panic, at once. The handler takes no lock and
// allocates nothing, because the thread that crashed may hold any lock, the allocator's included.
// Invariant: the thread that sets `CRASHING` reports; the others wait for it to end the process, for 30 s
// at most. The socket is never closed, because a handler may be about to use it: `disarm` shuts it down,
// and a thread that crashes after that ends by its signal without a report. The flags are relaxed: each
// stands for nothing but itself, and the messages pass through the kernel.
//
// Which process may trace. Yama lets only ancestors trace a process, unless the process names another
// one with PR_SET_PTRACER: it names the watchdog, which includes its children, such as gdb.
//
// Own handlers instead of a crate: `signal-hook` runs what was there before, so the standard library
// would abort on a stack overflow first, and not on the alternate stack; `crash-handler` knows
// neither SIGQUIT nor SIGXFSZ, and defines its own `pthread_create` for the whole program, which
// clashes with allocators that do the same. `minidump-writer` writes what needs another program and
// symbol files to be read.

mod alternate_stack;
#[doc(hidden)]
pub mod fork;
mod handler;
mod message;
mod output;
mod process;
mod report;
mod stacks;

use std::backtrace::Backtrace;
use std::env;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{self, PanicHookInfo};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, recv, setsockopt, socketpair, sockopt,
};
use nix::sys::time::TimeVal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, getpid};
use rustix::process::{PTracer, set_ptracer};
use thiserror::Error;
use tracing::{debug, warn};

use output::Output;
use report::About;

/// How long the watchdog may take to settle, in seconds.
const START: i64 = 5;

/// How long a plugin waits for the end of its watchdog, before it ends itself.
const END: Duration = Duration::from_secs(1);

/// There is no watchdog.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WatchdogError {
    /// There is, or was, another one in this process.
    #[error("this process has, or had, a watchdog already; start it once, and keep it")]
    AlreadyStarted,
    /// The system, or that there are threads already.
    #[error("cannot {what} the watchdog: {source}")]
    System {
        /// What failed.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A process that watches this one.
///
/// Dropping it is a normal end: the watchdog ends as well, and a crash after that is not reported.
/// It waits for the end of the watchdog, for a second at most. There can be no other one in the
/// process after that.
#[derive(Debug)]
#[must_use = "dropping it ends the watchdog"]
pub struct Watchdog {
    process: Pid,
    ended: Receiver<()>,
}

/// What is to be known of a plugin before it is watched; see [`Watchdog::builder`].
#[derive(Debug, Clone)]
#[must_use = "a watchdog has to be started"]
pub struct WatchdogBuilder {
    name: String,
    version: String,
    dump: Option<PathBuf>,
    stderr: bool,
}

impl Watchdog {
    /// A watchdog for the plugin of this name, such as `ram`.
    pub fn builder(name: impl Into<String>) -> WatchdogBuilder {
        WatchdogBuilder {
            name: name.into(),
            version: format!("cvmcache {}", env!("CARGO_PKG_VERSION")),
            dump: None,
            stderr: true,
        }
    }

    /// The number of the watchdog's process, not of the plugin's.
    pub fn pid(&self) -> u32 {
        self.process.as_raw().cast_unsigned()
    }

    /// Reports panics from now on, before whatever is done about them so far. Not to be called where
    /// `cvmcache::Log::start` is: it sees to that, and panics would be reported twice.
    ///
    /// # Panics
    ///
    /// On a thread that is panicking.
    pub fn record_panics(&self) {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            report_panic(panic, &Backtrace::force_capture());
            before(panic);
        }));
    }
}

impl WatchdogBuilder {
    /// The version of the plugin, for reports. Default: that of the SDK.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// The file that reports are appended to. It is made with mode 0600 when there is something to
    /// report. A relative path is taken from the working directory at the [start](Self::start).
    /// Default: none.
    pub fn crash_dump(mut self, file: impl Into<PathBuf>) -> Self {
        self.dump = Some(file.into());
        self
    }

    /// Whether the watchdog writes to standard error, too, and keeps it open. Default: true.
    pub fn stderr(mut self, keep: bool) -> Self {
        self.stderr = keep;
        self
    }

    /// Starts it. To be called before anything that starts a thread, and after a program has gone to
    /// the background.
    ///
    /// It waits until the watchdog is ready, for 5 s at most. `SIGSEGV` and the other signals are
    /// handled from now on, in place of what handled them before. `SIGTERM`, `SIGINT` and `SIGHUP`, which
    /// wait meanwhile, end the process as before, unless they are ignored or handled, now or later.
    ///
    /// # Errors
    ///
    /// [`WatchdogError::AlreadyStarted`] if the process has started a watchdog before;
    /// [`WatchdogError::System`] if it has other threads, or the system refuses.
    pub fn start(self) -> Result<Watchdog, WatchdogError> {
        if handler::is_armed() {
            return Err(WatchdogError::AlreadyStarted);
        }
        let failed = |what| move |source| WatchdogError::System { what, source };
        let dump = self.dump.as_ref().map(std::path::absolute).transpose();
        let dump = dump.map_err(failed("find the crash dump of"))?;
        let (ours, its) = sockets().map_err(failed("talk to"))?;
        let about = About {
            name: format!("cvmcache {}", self.name),
            version: self.version,
            executable: executable(),
            process: getpid(),
        };
        let output = Output {
            dump,
            tag: format!("cvmcache-{}[{}]", self.name, about.process),
            name: about.name.clone(),
        };
        let process = handler::without_requests(|| {
            let process = match fork::fork()? {
                ForkResult::Parent { child } => child,
                ForkResult::Child => {
                    drop(ours);
                    process::run(its, about, output, self.stderr)
                }
            };
            drop(its);
            settle(process, ours).map(|()| process)
        });
        let process = process.map_err(failed("start"))?;
        match wait_for_end(process) {
            Ok(ended) => Ok(Watchdog { process, ended }),
            Err(source) => {
                handler::disarm();
                Err(WatchdogError::System { what: "wait for", source })
            }
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        handler::disarm();
        let _ = self.ended.recv_timeout(END);
    }
}

/// Reports a panic, if there is a watchdog. For a hook of the program's own; see
/// [`Watchdog::record_panics`].
pub fn report_panic(panic: &PanicHookInfo<'_>, backtrace: &Backtrace) {
    if !handler::is_armed() {
        return;
    }
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let text = format!("thread {name} {panic}\n\nstack backtrace:\n{backtrace}");
    if let Err(error) = handler::tell(&message::panic(&text)) {
        debug!(%error, "the watchdog takes no panics");
    }
}

/// Ends the process by the default action of a signal that requests its end, such as SIGTERM, and tells the watchdog
/// that it was requested. When the calling handler returns, the process ends.
///
/// This is for handlers of a program: it is async-signal-safe. Without a watchdog it does the same. Programs that do
/// not handle such signals need not call it.
pub fn end_by_request(signal: std::ffi::c_int) {
    handler::end_by_request(signal);
}

/// Gives the calling thread an alternate stack, if there is a watchdog, so that a stack overflow is
/// reported even if the thread was not started by Rust.
pub fn prepare_thread() {
    if handler::is_armed() {
        alternate_stack::ensure();
    }
}

/// The two ends of a line, above the standard descriptors: those may be closed, and opened by
/// other code.
fn sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, its) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    let above = |socket: OwnedFd| socket.as_fd().try_clone_to_owned();
    Ok((above(ours)?, above(its)?))
}

fn executable() -> String {
    let path = env::current_exe().map(|path| path.display().to_string());
    path.unwrap_or_else(|_| "unknown".to_owned())
}

/// Waits until the watchdog is ready, and handles crashes from then on. It ends if that fails.
fn settle(process: Pid, ours: OwnedFd) -> io::Result<()> {
    // From here on, the end of `ours` is the end of the watchdog.
    let settled = wait_until_settled(&ours).and_then(|()| {
        let _ = set_ptracer(PTracer::ProcessID(
            rustix::process::Pid::from_raw(process.as_raw()).ok_or(ErrorKind::InvalidData)?,
        ));
        handler::arm(ours)
    });
    settled.inspect_err(|_| {
        let _ = kill(process, Signal::SIGKILL);
        let _ = waitpid(process, None);
    })
}

fn wait_until_settled(socket: &OwnedFd) -> io::Result<()> {
    let timeout = TimeVal::new(START, 0);
    setsockopt(socket, sockopt::ReceiveTimeout, &timeout)?;
    match recv(socket.as_raw_fd(), &mut [0], MsgFlags::empty())? {
        0 => Err(io::Error::other("it ended; is /proc there, and are there threads to spare?")),
        _ => Ok(()),
    }
}

/// Waits in a thread of its own, so that a watchdog that ends leaves a line in the log, and nothing
/// else.
fn wait_for_end(process: Pid) -> io::Result<Receiver<()>> {
    let (sender, ended) = mpsc::channel();
    let wait = move || {
        let status = waitpid(process, None);
        if let (Ok(status), false) = (status, handler::is_disarmed()) {
            warn!(?status, "the watchdog has ended: a crash of this plugin will not be reported");
        }
        drop(sender);
    };
    thread::Builder::new().name("watchdog".to_owned()).spawn(wait)?;
    Ok(ended)
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
