//! Everything that the main function of a plugin does.

mod arguments;
mod background;
mod context;
mod default_locator;
mod metrics;
mod serve;
mod signals;
mod starter;
mod terminal;

use std::error::Error;
use std::process::ExitCode;

use crate::CachePlugin;

use arguments::{Arguments, Key};

pub use context::PluginContext;
pub use metrics::{InvalidMetricsAddress, MetricsAddress};

/// A failure on the way, to be told to whoever started the program.
type Failure = Box<dyn Error + Send + Sync>;

/// Runs a plugin: the whole main function of a program that is nothing else.
///
/// `name` is what the plugin is called in messages and in the client's configuration, such as
/// `ram`. `make` makes the plugin from the configuration, in the process that will serve, and can keep a
/// [handle](PluginContext::handle) on the server.
///
/// ```no_run
/// # use cvmcache::{CachePlugin, Session, plugin::*};
/// # struct MyCache;
/// # impl MyCache { fn new(_: &cvmcache::Options) -> Result<Self, String> { Ok(Self) } }
/// # impl CachePlugin for MyCache {
/// #     fn capabilities(&self) -> Capabilities { Capabilities::NONE }
/// #     fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> { Err(Status::NoEntry) }
/// #     fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> { Err(Status::NoEntry) }
/// # }
/// fn main() -> std::process::ExitCode {
///     cvmcache::run("mine", |context| MyCache::new(context.options()))
/// }
/// ```
///
/// # Command line
///
/// One argument, a configuration file in the format of [`Options`]. Without it, the plugin serves
/// a unix socket of its own and says which one: `$XDG_RUNTIME_DIR/cvmcache/<name>.socket`, or the
/// same in `cvmcache-<uid>` in the directory for temporary files. If a service manager has handed over
/// a socket, it serves that one. `--help` and `--version` are understood.
///
/// # Configuration
///
/// | key | meaning |
/// |---|---|
/// | `CVMFS_CACHE_PLUGIN_LOCATOR` | where to listen, see [`Locator`](crate::Locator); must be there if there is a file |
/// | `CVMFS_CACHE_PLUGIN_WORKERS` | threads for callbacks, see [`ServerBuilder::workers`](crate::ServerBuilder::workers); default: what the plugin asks for, see [`CachePlugin::workers`], mostly 0; at most 1024 |
/// | `CVMFS_CACHE_PLUGIN_POLL` | microseconds to look for requests before sleeping, see [`ServerBuilder::poll_for`](crate::ServerBuilder::poll_for); 0 to 1000, default 50 |
/// | `CVMFS_CACHE_PLUGIN_ALLOW` | networks whose clients may connect by TCP, as in `10.0.0.0/8, ::1`, see [`Networks`](crate::Networks); default all |
/// | `CVMFS_CACHE_PLUGIN_ALLOW_USERS` | users besides the plugin's own and root whose clients may connect by a unix socket, or `*`, see [`Users`](crate::Users); default none |
/// | `CVMFS_CACHE_PLUGIN_DEBUGLOG` | a file to which everything is logged, see [`Log`](crate::Log); default: only what matters is logged, to standard error or, if a client has started the plugin or it is in the background, to syslog |
/// | `CVMFS_CACHE_PLUGIN_CRASH_DUMP` | a file to which crashes and panics are reported; default: only syslog and, unless it is in the background, standard error |
/// | `CVMFS_CACHE_PLUGIN_METRICS` | where metrics are served to Prometheus, see [`MetricsAddress`]: `127.0.0.1:PORT`, or another address; needs the feature `prometheus` of this crate |
/// | `CVMFS_CACHE_PLUGIN_TEST` | if set: once it listens, it prints its process id and goes to the background; whatever the value |
///
/// Other keys are the plugin's own. `CVMFS_CACHE_<name>_X` is understood as `CVMFS_CACHE_PLUGIN_X`.
///
/// # What it does
///
/// - Started by a client (supervised), it tells the client when to connect, and ends when the last
///   client has gone. If another process serves the locator already, it tells the client to
///   connect, too, and ends.
/// - Started by a [service manager](crate::ServiceManager), such as systemd, it tells when clients can
///   connect, and that it is alive, and serves on the socket that it is given, if any. It must be
///   the one of the locator.
/// - Started on a terminal, it greets; `R` and Enter ask the clients to detach, Ctrl+D ends it.
///   A standard input that is no terminal is not read.
/// - SIGTERM and SIGINT end it cleanly, as does SIGHUP on a terminal; a second SIGTERM or
///   SIGINT ends it at once, with status 1. SIGUSR1 writes to the log what the plugin holds, see
///   [`ServerHandle::report`](crate::ServerHandle::report). SIGUSR2 and otherwise SIGHUP do nothing, unless the plugin handles them.
/// - A [watchdog](crate::watchdog) reports what it dies of. Without one, as when there are threads
///   already, it says so and goes on.
/// - The limit on open descriptors is raised as far as it can be.
///
/// # Exit status
///
/// 0 after a clean end, and if a client has started the plugin and another process serves the
/// locator already; 1 if the plugin cannot start or fails, and 2 for arguments it does not
/// understand, each with a message on standard error.
pub fn run<P, E>(name: &str, make: impl FnOnce(&PluginContext) -> Result<P, E>) -> ExitCode
where
    P: CachePlugin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    Program::new(name).run(make)
}

/// A plugin as a program that can say more of itself than its name.
///
/// ```no_run
/// # use cvmcache::{CachePlugin, PluginContext};
/// # fn main_function<P: CachePlugin>(make: fn(&PluginContext) -> Result<P, String>) -> std::process::ExitCode {
/// cvmcache::Program::new("mine")
///     .key("CVMFS_CACHE_PLUGIN_SIZE", "MB", "how large the cache may grow; 1000 by default")
///     .run(make)
/// # }
/// ```
#[derive(Debug)]
#[must_use = "it does nothing until it runs"]
pub struct Program<'a> {
    name: &'a str,
    keys: Vec<Key>,
}

impl<'a> Program<'a> {
    /// A program for a plugin of this name, as `name` of [`run`].
    pub fn new(name: &'a str) -> Self {
        Self { name, keys: Vec::new() }
    }

    /// Tells users of a key of the plugin's own, in `--help`, which is also what its manual page is
    /// made from: what its value looks like, and what it means and is by default, in a line. It is for
    /// the eyes only: the plugin reads keys from its [`Options`], and unknown ones are no error.
    pub fn key(mut self, name: &'static str, value: &'static str, meaning: &'static str) -> Self {
        self.keys.push(Key { name, value, meaning });
        self
    }

    /// Runs it, and returns when it has ended: `make` is the one of [`run`].
    pub fn run<P, E>(self, make: impl FnOnce(&PluginContext) -> Result<P, E>) -> ExitCode
    where
        P: CachePlugin,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        match Arguments::from_env() {
            Ok(Arguments::Serve(config)) => serve::serve(self.name, config, make),
            Ok(Arguments::Help) => terminal::print(&arguments::help(self.name, &self.keys)),
            Ok(Arguments::Version) => terminal::print(&arguments::version(self.name)),
            Err(error) => {
                terminal::complain(self.name, &error);
                ExitCode::from(2)
            }
        }
    }
}
