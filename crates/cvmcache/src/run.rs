//! The main function of a plugin: command line, configuration, log, watchdog and server.

mod admin;
mod appendable;
mod arguments;
mod background;
mod check;
mod default_locator;
mod lock_holder;
mod marker;
mod metrics;
mod serve;
mod shortage;
mod signals;
mod starter;
mod terminal;
mod unknown_keys;

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use crate::{CachePlugin, ConfigKey, PluginContext};

use arguments::Arguments;

pub use check::Findings;
pub use lock_holder::lock_holder;
pub use marker::CHECK_MARKER;
pub use metrics::{InvalidMetricsAddress, MetricsAddress};

/// Why a program could not start or go on, for standard error and the log.
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
/// One argument, a configuration file in the format of [`Options`](crate::Options). Without it, the plugin serves
/// a unix socket of its own and prints which one: `$XDG_RUNTIME_DIR/cvmcache/<name>.socket`, or the
/// same in `cvmcache-<uid>` in the directory for temporary files. If a service manager has handed over
/// a socket, it serves that one. `--help` and `--version` are understood.
///
/// `--check CONFIG` judges a configuration as a start would, but does not serve, disturbs no plugin that
/// serves there, and leaves no files behind: lines, keys and values, the files and users that they name,
/// the socket and the port for metrics, and what [`Program::check`] finds in the plugin itself. It prints
/// all that is wrong, a line each, as [`Findings`] do.
///
/// # Configuration
///
#[doc = include_str!("config_keys.md")]
///
/// A locator must be there if there is a file. The types are described at
/// [`Locator`](crate::Locator), [`ServerBuilder::workers`](crate::ServerBuilder::workers),
/// [`ServerBuilder::poll_for`](crate::ServerBuilder::poll_for), [`Networks`](crate::Networks),
/// [`Users`](crate::Users), [`Log`](crate::Log), [`watchdog`](crate::watchdog) and
/// [`MetricsAddress`], which needs the feature `prometheus` of this crate;
/// [`config_keys`](crate::config_keys) has the table for programs.
///
/// Other keys are the plugin's own, see [`Program::keys`]. `CVMFS_CACHE_<name>_X` is understood as
/// `CVMFS_CACHE_PLUGIN_X`. A key that is not known is a warning in the log, with the key that it may
/// have been meant to be.
///
/// # What it does
///
/// - Started by a client (supervised), it reports to the client when to connect, and ends when the last
///   client has gone. If another process serves the locator already, it reports to the client to
///   connect, too, and ends.
/// - Started by a [service manager](crate::ServiceManager), such as systemd, it reports when clients can
///   connect, and that it is alive, and serves on the socket that it is given, if any. It must be
///   the one of the locator.
/// - Started on a terminal, it prints its locator; `R` and Enter ask the clients to detach, Ctrl+D ends it.
///   A standard input that is no terminal is not read.
/// - SIGTERM and SIGINT end it cleanly, as does SIGHUP on a terminal; a second SIGTERM or
///   SIGINT ends it at once, with status 1. SIGUSR1 writes to the log what the plugin holds, see
///   [`ServerHandle::report`](crate::ServerHandle::report). SIGUSR2 and otherwise SIGHUP do nothing, unless
///   the plugin handles them.
/// - A [watchdog](crate::watchdog) reports what it dies of. Without one, as when there are threads
///   already, it logs that and goes on.
/// - The limit on open descriptors is raised as far as it can be.
///
/// # Exit status
///
/// 0 after a clean end, and if a client has started the plugin and another process serves the
/// locator already; 1 if the plugin cannot start or fails, and 2 for arguments it does not
/// understand, each with a message on standard error. With `--check`, 0 if a start would succeed, and
/// 1 otherwise.
pub fn run<P, E>(name: &str, make: impl FnOnce(&PluginContext) -> Result<P, E>) -> ExitCode
where
    P: CachePlugin,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    Program::new(name).run(make)
}

/// A plugin as a program, with its version, its configuration keys and its check.
///
/// ```no_run
/// # use cvmcache::{CachePlugin, PluginContext};
/// use cvmcache::{ConfigKey, Program};
///
/// static KEYS: &[ConfigKey] = &[
///     ConfigKey::new("CVMFS_CACHE_PLUGIN_SIZE", "MB", "how large the cache may grow")
///         .default_value("1000"),
/// ];
/// # fn main_function<P: CachePlugin>(make: fn(&PluginContext) -> Result<P, String>) -> std::process::ExitCode {
/// Program::new("mine")
///     .keys(KEYS)
///     .run(make)
/// # }
/// ```
#[must_use = "it does nothing until it runs"]
pub struct Program<'a> {
    name: &'a str,
    version: &'a str,
    keys: &'static [ConfigKey],
    check: Option<CheckPlugin<'a>>,
}

/// The check of a plugin's own configuration.
type CheckPlugin<'a> = Box<dyn FnOnce(&PluginContext, &mut Findings) + 'a>;

impl<'a> Program<'a> {
    /// A program for a plugin of this name, as `name` of [`run`].
    pub fn new(name: &'a str) -> Self {
        Self { name, version: env!("CARGO_PKG_VERSION"), keys: &[], check: None }
    }

    /// The version of the program, for `--version` and the [administration socket](crate::admin); by default
    /// that of the SDK. A program passes its own as `env!("CARGO_PKG_VERSION")`.
    pub fn version(mut self, version: &'a str) -> Self {
        self.version = version;
        self
    }

    /// The table of the plugin's own configuration keys. `--help`, which is also what a manual page is
    /// made from, lists them after those of the SDK, and a key of the configuration that is in neither
    /// table is a warning in the log. The plugin reads their values with [`Options::value`](crate::Options::value).
    pub fn keys(mut self, keys: &'static [ConfigKey]) -> Self {
        self.keys = keys;
        self
    }

    /// The plugin's part of `--check`: whether it could be made of this configuration, as far as that
    /// can be found out without disturbing a plugin that serves there, and without leaving anything
    /// behind. What it logs as a warning meanwhile counts as a [warning](Findings::warning). It is
    /// called even if there are errors in the keys of the SDK.
    ///
    /// Without it, the plugin's own keys are not checked, and `--check` prints that: to make the plugin and
    /// drop it would be harmless for some and not for others, such as one that tidies its directory.
    ///
    /// ```no_run
    /// use cvmcache::{Findings, PluginContext, Program};
    ///
    /// fn check(context: &PluginContext, findings: &mut Findings) {
    ///     if let Err(error) = context.options().parse_value::<u32>("CVMFS_CACHE_PLUGIN_SIZE") {
    ///         findings.error(error);
    ///     }
    /// }
    ///
    /// let program = Program::new("mine").check(check);
    /// ```
    pub fn check(mut self, check: impl FnOnce(&PluginContext, &mut Findings) + 'a) -> Self {
        self.check = Some(Box::new(check));
        self
    }

    /// Runs it, and returns when it has ended: `make` is the one of [`run`].
    pub fn run<P, E>(self, make: impl FnOnce(&PluginContext) -> Result<P, E>) -> ExitCode
    where
        P: CachePlugin,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        marker::keep();
        match Arguments::from_env() {
            Ok(Arguments::Serve(config)) => {
                let about =
                    serve::About { name: self.name, version: self.version, keys: self.keys };
                serve::serve(about, config, make)
            }
            Ok(Arguments::Check(config)) => check::check(self.name, self.keys, self.check, &config),
            Ok(Arguments::Help) => terminal::print(&arguments::help(self.name, self.keys)),
            Ok(Arguments::Version) => terminal::print(&arguments::version(self.name, self.version)),
            Err(error) => {
                terminal::complain(self.name, &error);
                ExitCode::from(2)
            }
        }
    }
}

impl fmt::Debug for Program<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut program = f.debug_struct("Program");
        program.field("name", &self.name).field("keys", &self.keys).finish_non_exhaustive()
    }
}
