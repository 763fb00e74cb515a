//! State of the process, and not of one context: descriptors 0 to 2, the supervisor, signals and the
//! log.
//!
//! # Locks
//!
//! `LOG` before `CLIENT`: whether a client waits decides where the log goes. Under `CLIENT`, one byte is
//! written to a pipe that has room for it, and nothing else is called. `LOG` is held while the log starts;
//! nothing is logged meanwhile, since what logs takes no lock of this file. No other lock of the library is
//! held when either is taken.

use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Once};

use parking_lot::{Mutex, MutexGuard};

use cvmcache::admin::LogLevel;
use cvmcache::config_keys::{ALLOW, ALLOW_USERS, ConfigKey, DEBUG_LOG, POLL};
use cvmcache::{Log, LogError, LogTarget, Options, Supervisor};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigHandler, Signal, signal};
use tracing::level_filters::LevelFilter;

use crate::ffi::{guard, report_error};

/// Says that callbacks may be called on several threads at once.
pub(crate) const CONCURRENT: &str = "CVMFS_CACHE_PLUGIN_CONCURRENT";

/// Settings of the server in the environment. The configuration file is the plugin's, and this
/// library does not know it.
pub(crate) const SETTINGS: [ConfigKey; 4] = [ALLOW, ALLOW_USERS, DEBUG_LOG, POLL];

/// The client that has started this process.
enum Client {
    /// The environment has not been read yet.
    Unknown,
    None,
    Waits(Supervisor),
    /// It has been answered, or cannot be.
    Told,
}

/// Invariant: `Unknown` until [`prepare`] has run, and `Told` once a byte was written: a client reads one.
static CLIENT: Mutex<Client> = Mutex::new(Client::Unknown);

/// Gets the process into order. Whatever a plugin calls first calls this.
pub(crate) fn prepare() {
    static PREPARED: Once = Once::new();
    PREPARED.call_once(|| {
        if let Err(error) = open_standard_descriptors(Path::new("/dev/null")) {
            report_error(format_args!("cannot open /dev/null: {error}"));
        }
        let mut client = client();
        *client = match Supervisor::from_env() {
            Ok(Some(supervisor)) => Client::Waits(supervisor),
            Ok(None) => Client::None,
            Err(error) => {
                report_error(error);
                Client::Told
            }
        };
    });
}

/// Takes the lowest descriptors, if they are free: otherwise the next files that are opened get
/// them, and whatever is printed goes there. Fails if it is not `null` that they are open on.
fn open_standard_descriptors(null: &Path) -> io::Result<()> {
    let mut opened = Ok(());
    loop {
        let null = File::options().read(true).write(true).open(null);
        let stand_in: OwnedFd = match null {
            Ok(null) => null.into(),
            Err(error) => {
                opened = Err(error);
                end_of_pipe()?
            }
        };
        if stand_in.as_raw_fd() > 2 {
            return opened;
        }
        // Programs that the plugin starts need it, too.
        fcntl(&stand_in, FcntlArg::F_SETFD(FdFlag::empty()))?;
        let _stays_open = stand_in.into_raw_fd();
    }
}

/// What nothing can be read from or written to, and no connection, where there is no `/dev/null`: what is
/// printed to a connection ends it.
fn end_of_pipe() -> io::Result<OwnedFd> {
    let (reader, _writer) = io::pipe()?;
    Ok(reader.into())
}

/// True if a client has started this process.
pub(crate) fn is_supervised() -> bool {
    prepare();
    !matches!(*client(), Client::None | Client::Unknown)
}

/// Tells the client that waits, if there is one, that it can connect.
pub(crate) fn tell_ready() {
    tell(Supervisor::ready);
}

/// Tells the client that waits, if there is one, that the plugin will not listen.
pub(crate) fn tell_failed() {
    tell(Supervisor::failed);
}

fn tell(what: fn(&mut Supervisor) -> io::Result<()>) {
    let mut client = client();
    if let Client::Waits(supervisor) = &mut *client {
        if let Err(error) = what(supervisor) {
            report_error(format_args!(
                "cannot tell the client that waits for this plugin: {error}"
            ));
        }
        *client = Client::Told;
    }
}

fn client() -> MutexGuard<'static, Client> {
    CLIENT.lock()
}

/// The settings of the server in the environment.
pub(crate) fn settings() -> Options {
    let mut options = Options::new();
    for key in SETTINGS.map(|key| key.name()) {
        if let Some(value) = env::var_os(key) {
            options.set(key, value);
        }
    }
    options
}

/// True if the environment allows callbacks on several threads at once.
pub(crate) fn is_concurrent() -> bool {
    env::var_os(CONCURRENT).is_some_and(|value| value == "yes")
}

/// Starts the log, and has writing to a socket that is closed fail instead of ending the process.
/// To be called once there will be no fork any more: the log has threads.
///
/// All contexts share it. It ends with the process: what came last is written then.
pub(crate) fn start_log() -> Result<(), LogError> {
    ignore_broken_pipes();
    let mut log = LOG.lock();
    if log.is_none() {
        let target = if is_supervised() { LogTarget::Syslog } else { LogTarget::Stderr };
        *log = Some(Log::start(&program(), target, &settings())?);
        at_exit(end_log);
    }
    Ok(())
}

/// How the level of the log is changed, once it has started.
pub(crate) fn log_level() -> Option<Arc<dyn LogLevel>> {
    LOG.lock().as_ref().and_then(Log::level)
}

/// Invariant: filled once, and emptied by the end of the process only.
static LOG: Mutex<Option<Log>> = Mutex::new(None);

extern "C" fn end_log() {
    // The lock may be held by a thread that this has interrupted.
    let log = LOG.try_lock().and_then(|mut log| log.take());
    guard("exit", (), || drop(log));
}

/// What the plugin goes by in reports.
pub(crate) fn program() -> String {
    let path = env::current_exe().ok();
    let name = path.as_ref().and_then(|path| path.file_name());
    name.map_or_else(|| "plugin".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Has what is logged before there are threads go to standard error.
pub(crate) fn log_meanwhile<T>(body: impl FnOnce() -> T) -> T {
    let subscriber = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_target(false)
        .with_max_level(LevelFilter::INFO)
        .finish();
    tracing::subscriber::with_default(subscriber, body)
}

#[expect(unsafe_code, reason = "a function of the C library")]
fn at_exit(what: extern "C" fn()) {
    // SAFETY: it may be called at any time, and so may `what`, once the process ends.
    if unsafe { libc::atexit(what) } != 0 {
        report_error(
            "the last lines of the log may be lost: there is no memory to remember them by",
        );
    }
}

#[expect(unsafe_code, reason = "what is done with a signal is the whole process's")]
fn ignore_broken_pipes() {
    // SAFETY: no handler is installed that could do what is not allowed in one.
    if let Err(error) = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) } {
        report_error(format_args!("cannot ignore SIGPIPE: {error}"));
    }
}
