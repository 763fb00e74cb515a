//! Serves a plugin, from its configuration to the end of its server.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::{error, warn};

use super::background::{self, Fork};
use super::starter::Starter;
use super::{
    Failure, PluginContext, admin, appendable, default_locator, metrics, shortage, signals,
    terminal, unknown_keys,
};
use crate::config_keys::{CRASH_DUMP, ConfigKey, LOCATOR, TEST};
use crate::server::{self, Settings};
use crate::watchdog::{Watchdog, WatchdogError};
use crate::{
    CachePlugin, Locator, Log, LogTarget, Options, OptionsError, Server, ServerError, ServerHandle,
    log,
};

/// What a program says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    pub(super) keys: &'a [ConfigKey],
}

/// Serves clients until the plugin is terminated, and reports to the process that started it if it
/// cannot.
pub(super) fn serve<P, E>(
    about: About<'_>,
    config: Option<PathBuf>,
    make: impl FnOnce(&PluginContext) -> Result<P, E>,
) -> ExitCode
where
    P: CachePlugin,
    E: Into<Failure>,
{
    let name = about.name;
    let mut starter = match Starter::from_env() {
        Ok(starter) => starter,
        Err(error) => return terminal::complain(name, &*error),
    };
    // It outlives the server, so that its last lines are not lost.
    let mut log = None;
    match try_serve(about, config, make, &mut starter, &mut log) {
        Ok(code) => code,
        Err(error) if starter.is_client() && is_in_use(&error) => {
            starter.leave_to_other_process(&*error);
            ExitCode::SUCCESS
        }
        Err(error) => {
            starter.failed();
            let error = match shortage::remedy(&*error) {
                Some(remedy) => format!("{error}; {remedy}").into(),
                None => error,
            };
            match &log {
                Some(log) if log.is_syslog() => error!(%error, "the plugin ends"),
                // Perhaps there is none because there are no threads for it.
                None if starter.is_client() => log::write_to_syslog(name, &*error),
                _ => {}
            }
            terminal::complain(name, &*error)
        }
    }
}

fn try_serve<P, E>(
    about: About<'_>,
    config: Option<PathBuf>,
    make: impl FnOnce(&PluginContext) -> Result<P, E>,
    starter: &mut Starter,
    log: &mut Option<Log>,
) -> Result<ExitCode, Failure>
where
    P: CachePlugin,
    E: Into<Failure>,
{
    let About { name, keys, .. } = about;
    let signals = signals::hold_back()?;
    let options = match &config {
        Some(path) => Options::from_file(path)?,
        None => match starter.socket() {
            Some(socket) => default_locator::of(&server::locator_of(socket)?),
            None => default_locator::options(name)?,
        },
    };
    let options = options.for_plugin(name);
    let background = match options.get(TEST) {
        None => None,
        Some(_) => match background::fork()? {
            Fork::Parent(code) => return Ok(code),
            Fork::Child(background) => Some(background),
        },
    };
    let by_hand = !starter.is_client() && background.is_none();
    let on_terminal = by_hand && io::stdin().is_terminal();

    let watchdog = start_watchdog(name, &options, background.is_none());
    let target = if by_hand { LogTarget::Stderr } else { LogTarget::Syslog };
    *log = Some(Log::start(name, target, &options)?);
    for warning in unknown_keys::warnings(&options, name, keys) {
        warn!("{warning}");
    }
    warn_of_no_dump(&watchdog, &options);
    raise_descriptor_limit();
    let (locator, settings) = (locator(&options)?, Settings::from_options(&options)?);
    let users = settings.users();
    let admin = admin::Choice::of(&options)?;
    // Before the plugin: it may have metrics of its own.
    let exporter = metrics::prepare(&options)?;
    let context = PluginContext::new(options, ServerHandle::new());
    let plugin = make(&context).map_err(Into::into)?;
    let builder = Server::builder(plugin)
        .handle(context.handle())
        .name(format!("cvmcache {name}"))
        .supervised(starter.is_client())
        .metrics(exporter.is_some());
    let builder = starter.report_on(settings.apply(builder), &locator);
    let (options, file) = (context.options(), config.as_deref());
    let builder = match admin::socket(admin, &locator, about, file, options, log.as_ref()) {
        Some(socket) => builder.admin(socket),
        None => builder,
    };
    let listening = match starter.take_socket() {
        Some(socket) => builder.listen_on(socket, &locator)?,
        None => builder.listen(&locator)?,
    };
    let locator = listening.locator()?;
    // After the socket: a plugin that finds it in use leaves the client to the other process.
    exporter.map_or(Ok(()), metrics::Exporter::serve)?;
    // Before the server: if there is no thread to spare, nothing is left behind.
    signals::watch(signals, context.handle(), on_terminal)?;
    let running = listening.spawn()?;
    starter.ready(&locator);
    if by_hand {
        terminal::greet(name, &locator, &users, config.is_none());
    }
    if on_terminal && let Err(error) = terminal::listen(running.handle().clone()) {
        warn!(%error, "commands are not read from the terminal");
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
        && let Err(error) = appendable::check(path)
    {
        let path = path.display();
        let hint = appendable::REMEDY;
        let key = CRASH_DUMP.name();
        warn!("{key}={path}: {error}; {hint}; crashes are reported to syslog only");
    }
}

pub(super) fn locator(options: &Options) -> Result<Locator, OptionsError> {
    let key = LOCATOR.name();
    let text = options.get(key).ok_or_else(|| {
        options.missing(key, format!("add a line like {key}=unix=/path/to/socket"))
    })?;
    Locator::from_os_str(text).map_err(|error| options.bad_value(key, error))
}

fn is_in_use(error: &Failure) -> bool {
    error.downcast_ref().is_some_and(ServerError::is_in_use)
}

/// One descriptor a mount: the soft limit of 1024 is soon used up.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(%error, "cannot raise the limit on open descriptors");
    }
}
