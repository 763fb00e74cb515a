//! Everything that the main function of a plugin does.

mod arguments;
mod background;
mod default_locator;
mod metrics;
mod terminal;

use std::error::Error;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use tracing::{debug, error, info, warn};

use crate::server::Settings;
use crate::watchdog::{self, Watchdog, WatchdogError};
use crate::{
    CachePlugin, Control, Locator, Log, LogReader, Options, OptionsError, Server, ServerError, Supervisor,
};

use arguments::Arguments;
use background::Fork;

const LOCATOR: &str = "CVMFS_CACHE_PLUGIN_LOCATOR";
const CRASH_DUMP: &str = "CVMFS_CACHE_PLUGIN_CRASH_DUMP";
const TEST: &str = "CVMFS_CACHE_PLUGIN_TEST";

/// A failure on the way, to be told to whoever started the program.
type Failure = Box<dyn Error + Send + Sync>;

/// Runs a plugin: the whole main function of a program that is nothing else.
///
/// `name` is what the plugin is called in messages and in the client's configuration, such as
/// `ram`. `make` makes the plugin from the configuration, in the process that will serve.
///
/// ```no_run
/// # use cvmcache::{CachePlugin, Session, plugin::*};
/// # struct MyCache;
/// # impl MyCache { fn new(_: &cvmcache::Options) -> Result<Self, String> { Ok(Self) } }
/// # impl CachePlugin for MyCache {
/// #     fn capabilities(&self) -> Capabilities { Capabilities::NONE }
/// #     fn object_info(&self, _: &Session, _: &ObjectId) -> Result<ObjectInfo> { Err(Status::NoEntry) }
/// #     fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> Result<Data> { Err(Status::NoEntry) }
/// # }
/// fn main() -> std::process::ExitCode {
///     cvmcache::run("mine", |options| MyCache::new(options))
/// }
/// ```
///
/// # Command line
///
/// One argument, a configuration file in the format of [`Options`]. Without it, the plugin serves
/// a unix socket of its own and says which one. `--help` and `--version` are understood.
///
/// # Configuration
///
/// | key | meaning |
/// |---|---|
/// | `CVMFS_CACHE_PLUGIN_LOCATOR` | where to listen, see [`Locator`](crate::Locator); must be there |
/// | `CVMFS_CACHE_PLUGIN_WORKERS` | threads for callbacks, see [`Builder::workers`](crate::Builder::workers); default: what the plugin asks for, see [`CachePlugin::workers`], mostly 0 |
/// | `CVMFS_CACHE_PLUGIN_POLL` | microseconds to look for requests before sleeping, see [`Builder::poll_for`](crate::Builder::poll_for); 0 to 1000, default 50 |
/// | `CVMFS_CACHE_PLUGIN_ALLOW` | networks whose clients may connect by TCP, as in `10.0.0.0/8, ::1`; default all |
/// | `CVMFS_CACHE_PLUGIN_ALLOW_USERS` | users besides the plugin's own and root whose clients may connect by a unix socket, or `*` |
/// | `CVMFS_CACHE_PLUGIN_DEBUGLOG` | a file to which everything is logged; default: only what matters, to standard error |
/// | `CVMFS_CACHE_PLUGIN_CRASH_DUMP` | a file to which crashes and panics are reported; default: only syslog, and standard error |
/// | `CVMFS_CACHE_PLUGIN_METRICS` | where metrics are served to Prometheus: `127.0.0.1:PORT`, or another address; needs the feature `prometheus` of this crate |
/// | `CVMFS_CACHE_PLUGIN_TEST` | if set: once it listens, it prints its process id and goes to the background |
///
/// Other keys are the plugin's own. `CVMFS_CACHE_<name>_X` is understood as `CVMFS_CACHE_PLUGIN_X`.
///
/// # What it does
///
/// - Started by a client (supervised), it tells the client when to connect, and ends when the last
///   client has gone. If another process serves the locator already, it tells the client to
///   connect, too, and ends.
/// - Started on a terminal, it greets; `R` and Enter ask the clients to detach, Ctrl+D ends it.
///   A standard input that is no terminal is not read.
/// - SIGTERM and SIGINT end it cleanly, as does SIGHUP on a terminal; a second one ends it at
///   once, with status 1. SIGUSR1 writes to the log what the plugin holds, see
///   [`Control::report`]. SIGUSR2 and otherwise SIGHUP do nothing, unless the plugin handles them.
/// - A [watchdog](crate::watchdog) reports what it dies of. Without one, as when there are threads
///   already, it says so and goes on.
/// - The limit on open descriptors is raised as far as it can be.
///
/// # Exit status
///
/// 0 after a clean end; 1 if the plugin cannot start or fails, and 2 for arguments it does not
/// understand, each with a message on standard error.
pub fn run<P, E>(name: &str, make: impl FnOnce(&Options) -> Result<P, E>) -> ExitCode
where
    P: CachePlugin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let config = match Arguments::from_env() {
        Ok(Arguments::Serve(config)) => config,
        Ok(Arguments::Help) => return terminal::print(&arguments::help(name)),
        Ok(Arguments::Version) => return terminal::print(&arguments::version(name)),
        Err(error) => {
            terminal::complain(name, &error);
            return ExitCode::from(2);
        }
    };
    let mut supervisor = match Supervisor::from_env() {
        Ok(supervisor) => supervisor,
        Err(error) => return terminal::complain(name, &error),
    };
    // It lasts longer than the server, so that nothing said at the end is lost.
    let mut log = None;
    match serve(name, config, make, supervisor.as_mut(), &mut log) {
        Ok(code) => code,
        // The client will find the other process.
        Err(error) if supervisor.is_some() && is_in_use(&error) => {
            info!(%error, "leaving the client to the other process");
            tell(supervisor.as_mut(), Supervisor::ready);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(supervisor.as_mut(), Supervisor::failed);
            if log.is_none() && supervisor.is_some() {
                log = Log::start(name, LogReader::System, &Options::new()).ok();
            }
            if log.as_ref().is_some_and(Log::is_system) {
                error!(%error, "the plugin ends");
            }
            terminal::complain(name, &*error)
        }
    }
}

fn serve<P, E>(
    name: &str,
    config: Option<PathBuf>,
    make: impl FnOnce(&Options) -> Result<P, E>,
    supervisor: Option<&mut Supervisor>,
    log: &mut Option<Log>,
) -> Result<ExitCode, Failure>
where
    P: CachePlugin,
    E: Into<Failure>,
{
    let options = match &config {
        Some(path) => Options::from_file(path)?,
        None => default_locator::options(name)?,
    };
    let options = options.for_plugin(name);
    let background = match options.get(TEST) {
        None => None,
        Some(_) => match background::fork()? {
            Fork::Parent(code) => return Ok(code),
            Fork::Child(background) => Some(background),
        },
    };
    let supervised = supervisor.is_some();
    let by_hand = !supervised && background.is_none();
    let on_terminal = by_hand && io::stdin().is_terminal();

    let watchdog = start_watchdog(name, &options, background.is_none());
    let reader = if by_hand { LogReader::Starter } else { LogReader::System };
    *log = Some(Log::start(name, reader, &options)?);
    warn_of_no_dump(&watchdog, &options);
    raise_descriptor_limit();
    let (locator, settings) = (locator(&options)?, Settings::from_options(&options)?);
    // Before the plugin: it may have metrics of its own.
    let exporter = metrics::prepare(&options)?;
    let plugin = make(&options).map_err(Into::into)?;
    let builder = Server::builder(plugin)
        .name(format!("cvmcache {name}"))
        .supervised(supervised)
        .metrics(exporter.is_some());
    let listening = settings.apply(builder).listen(&locator)?;
    let locator = listening.locator()?;
    // After the socket: who finds that in use leaves the client to the other process.
    exporter.map_or(Ok(()), metrics::Exporter::serve)?;
    let running = listening.spawn()?;
    watch_signals(running.control().clone(), on_terminal)?;
    tell(supervisor, Supervisor::ready);
    if by_hand {
        terminal::greet(name, &locator, config.is_none());
    }
    if on_terminal {
        terminal::listen(running.control().clone())?;
    }
    if let Some(background) = background {
        background.ready()?;
    }
    running.wait()?;
    if by_hand {
        terminal::print("good bye\n");
    }
    Ok(ExitCode::SUCCESS)
}

/// To be called before there are threads, which includes those of the log.
fn start_watchdog(
    name: &str,
    options: &Options,
    in_foreground: bool,
) -> Result<Watchdog, WatchdogError> {
    let watchdog = Watchdog::builder(name).stderr(in_foreground);
    match options.get(CRASH_DUMP) {
        Some(path) => watchdog.crash_dump(path).start(),
        None => watchdog.start(),
    }
}

/// A plugin without a watchdog is better than none.
fn warn_of_no_dump(watchdog: &Result<Watchdog, WatchdogError>, options: &Options) {
    if let Err(error) = watchdog {
        warn!(%error, "a crash will not be reported");
    }
    if let Some(path) = options.get(CRASH_DUMP).map(Path::new)
        && let Err(error) = watchdog::check_crash_dump(path)
    {
        let path = path.display();
        let hint = "name a file in a directory that the plugin can write to";
        warn!("{CRASH_DUMP}={path}: {error}; {hint}; crashes are reported to syslog only");
    }
}

fn locator(options: &Options) -> Result<Locator, OptionsError> {
    let text = options.get(LOCATOR).ok_or_else(|| {
        options.missing(LOCATOR, format!("add a line like {LOCATOR}=unix=/path/to/socket"))
    })?;
    Locator::from_os_str(text).map_err(|error| options.bad_value(LOCATOR, error))
}

fn is_in_use(error: &Failure) -> bool {
    error.downcast_ref().is_some_and(ServerError::is_in_use)
}

/// A client that has gone meanwhile is no reason to end: others may come.
fn tell(supervisor: Option<&mut Supervisor>, what: fn(&mut Supervisor) -> io::Result<()>) {
    if let Some(Err(error)) = supervisor.map(what) {
        warn!(%error, "cannot tell the client that waits for this plugin");
    }
}

fn watch_signals(control: Control, on_terminal: bool) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2])?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut ending = false;
        for signal in signals.forever() {
            match signal {
                // The first did not help: a callback may be stuck on the I/O thread.
                SIGTERM | SIGINT if ending => process::exit(1),
                SIGTERM | SIGINT => {
                    ending = true;
                    control.terminate();
                }
                SIGUSR1 => control.report(),
                SIGHUP if on_terminal => control.terminate(),
                _ => debug!(signal, "signal received"),
            }
        }
    })?;
    Ok(())
}

/// One descriptor a mount: the soft limit of 1024 is soon used up.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(%error, "cannot raise the limit on open descriptors");
    }
}
