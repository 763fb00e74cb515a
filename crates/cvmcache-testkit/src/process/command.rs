//! The command that starts a plugin: its arguments, and a configuration file made for it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use cvmcache::Locator;
use thiserror::Error;

use super::{PluginProcess, StartError, TIMEOUT};

/// What stands for the path of the configuration file in a command.
const CONFIGURATION: &str = "{conf}";

/// How to start a plugin.
///
/// It is a command line as a shell has it, in which `{conf}` stands for the path of a
/// configuration file; without, the path is the last argument. Nothing but words and quotes is
/// understood: it is not run by a shell.
///
/// ```no_run
/// use cvmcache::client::Client;
/// use cvmcache_testkit::PluginCommand;
///
/// let command: PluginCommand = "/usr/libexec/cvmfs/cache/cvmfs_cache_ram {conf}".parse()?;
/// let plugin = command.option("CVMFS_CACHE_PLUGIN_SIZE", "200").start()?;
/// let client = Client::connect(plugin.locator(), "test.cern.ch:1")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginCommand {
    program: OsString,
    arguments: Vec<OsString>,
    options: BTreeMap<String, String>,
    tcp: bool,
    patience: Duration,
}

/// A text is no command.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is not a command: {reason}; write the plugin's program and its arguments, with \
     {CONFIGURATION} for the path of its configuration file"
)]
pub struct ParseCommandError {
    text: String,
    reason: &'static str,
}

impl PluginCommand {
    /// Starts `program` with one argument, the path of the configuration file.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            arguments: vec![CONFIGURATION.into()],
            options: BTreeMap::new(),
            tcp: false,
            patience: TIMEOUT,
        }
    }

    /// The program that is started.
    pub fn program(&self) -> &OsStr {
        &self.program
    }

    /// Adds a line to the configuration file, or replaces the one with this key. Both are written as
    /// they are. `CVMFS_CACHE_PLUGIN_LOCATOR` is there already: a plugin with another one is not
    /// found.
    #[must_use]
    pub fn option(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.insert(key.into(), value.into());
        self
    }

    /// Has the plugin listen on a loopback port that is free now, instead of a unix socket.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.tcp = true;
        self
    }

    /// How long it may take until a client can connect; default 20 s. A plugin under a tool that looks
    /// into it takes its time.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts the plugin, with a directory of its own for socket and configuration, and waits until it
    /// lets a client in. It has this process's environment and working directory, and a standard input
    /// that stays open.
    ///
    /// # Errors
    ///
    /// [`StartError`], with what the plugin has printed. The process is killed then.
    pub fn start(&self) -> Result<PluginProcess, StartError> {
        let directory = tempfile::tempdir()?;
        let locator = self.locator(directory.path())?;
        let configuration = directory.path().join("conf");
        let mut lines = format!("CVMFS_CACHE_PLUGIN_LOCATOR={locator}\n");
        for (key, value) in &self.options {
            lines += &format!("{key}={value}\n");
        }
        fs::write(&configuration, lines)?;
        let log = File::create(directory.path().join("log"))?;
        let mut command = Command::new(&self.program);
        command
            .args(self.arguments.iter().map(|argument| fill_in(argument, &configuration)))
            .env_remove("__CVMFS_CACHE_EXTERNAL_PIPE_READY__")
            // The plugins of the reference end with their standard input.
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log);
        let program = &self.program;
        let mut process = PluginProcess::spawn(locator, directory, &mut command)
            .map_err(|source| StartError::Program { program: program.clone(), source })?;
        process.wait_until_ready(program, self.patience)?;
        Ok(process)
    }

    fn locator(&self, directory: &Path) -> io::Result<Locator> {
        if !self.tcp {
            return Ok(Locator::Unix(directory.join("socket")));
        }
        let free = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let port = free.local_addr()?.port();
        Ok(Locator::Tcp { host: "127.0.0.1".to_owned(), port })
    }
}

impl FromStr for PluginCommand {
    type Err = ParseCommandError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason| ParseCommandError { text: text.to_owned(), reason };
        let mut words = shlex::split(text)
            .ok_or_else(|| error("a quote is not closed, or a backslash ends it"))?
            .into_iter();
        let program = words.next().ok_or_else(|| error("it is empty"))?;
        let mut command = Self::new(program);
        let arguments: Vec<OsString> = words.map(OsString::from).collect();
        let is_filled_in = |a: &OsString| a.to_str().is_some_and(|a| a.contains(CONFIGURATION));
        if arguments.iter().any(is_filled_in) {
            command.arguments.clear();
        }
        command.arguments.splice(0..0, arguments);
        Ok(command)
    }
}

fn fill_in(argument: &OsStr, configuration: &Path) -> OsString {
    match argument.to_str() {
        Some(text) => text.replace(CONFIGURATION, &configuration.to_string_lossy()).into(),
        None => argument.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(command: &str) -> Vec<OsString> {
        command.parse::<PluginCommand>().unwrap().arguments
    }

    #[test]
    fn the_configuration_file_replaces_its_placeholder_or_is_the_last_argument() {
        assert_eq!(arguments("plugin"), ["{conf}"]);
        assert_eq!(arguments("plugin -v 'a b'"), ["-v", "a b", "{conf}"]);
        assert_eq!(arguments("plugin --config={conf} -v"), ["--config={conf}", "-v"]);
        let filled_in = fill_in("--config={conf}".as_ref(), Path::new("/etc/x"));
        assert_eq!(filled_in, "--config=/etc/x");
    }

    #[test]
    fn an_invalid_command_line_is_named_in_the_error() {
        for (text, reason) in [("", "empty"), ("plugin 'x", "quote")] {
            let error = text.parse::<PluginCommand>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")) && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let error = PluginCommand::new("/nowhere/plugin").start().unwrap_err().to_string();
        assert!(error.starts_with("cannot start \"/nowhere/plugin\": No such file"), "{error}");
    }

    #[test]
    fn a_program_that_exits_is_an_error_with_its_output() {
        let command: PluginCommand =
            r#"sh -c "echo no socket >&2; exit 3" {conf}"#.parse().unwrap();
        let error = command.start().unwrap_err().to_string();
        assert!(error.contains("ended with status 3") && error.ends_with("\nno socket"), "{error}");
    }
}
