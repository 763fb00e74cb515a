//! `cvmcache doctor`: finds mistakes in the configuration of a client and its plugin.
//!
//! It changes nothing. `client_conf` and `plugin_conf` check the files, `socket` and `running` what
//! their locators lead to, and `administration` looks into the plugin there. `program` tells what is
//! started, and `self_check` asks it; `kind` has the names of all findings.

mod administration;
mod client_conf;
mod command_line;
mod file;
mod kind;
mod locators;
mod plugin_conf;
mod program;
mod report;
mod running;
mod self_check;
mod shell;
mod socket;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use cvmcache::Locator;
use thiserror::Error;

use crate::Verdict;
use crate::error::{self, Result};
use crate::output;
use crate::user::User;
use client_conf::{ClientConf, Instance};
use command_line::{CommandLine, Configuration, Starter};
use file::ConfFile;
use kind::Kind;
use plugin_conf::PluginConf;
use report::{Report, Section};

const EXAMPLES: &str = "\
Examples:
  cvmcache doctor /etc/cvmfs/default.local
  cvmcache doctor /etc/cvmfs/default.local --config /etc/cvmfs/cache-ram.conf
  cvmcache doctor --config /etc/cvmfs/cache-ram.conf --user cvmfs \
    --program /usr/libexec/cvmfs/cache/cvmcache-ram
  cvmcache doctor --json /etc/cvmfs/default.local | jq -r '.[].name'

The plugin's configuration and program are found in the client's CVMFS_CACHE_NAME_CMDLINE
unless they are given. A program of the SDK judges its configuration itself, asked with
--check. As root, doctor can look everywhere. It changes nothing.

Exit status:
  0  there are no errors, at most warnings
  1  there are errors
  2  it was not understood";

/// The default user of the client.
const USUAL_USER: &str = "cvmfs";

/// Find mistakes in the configuration of a client and its plugin, and show how to fix them
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    #[command(flatten)]
    files: Files,
    /// The plugin's program, where the client does not start it [default: the one that runs]
    #[arg(long, value_name = "PROGRAM", requires = "config")]
    program: Option<PathBuf>,
    /// The user that the client runs as [default: CVMFS_USER, or cvmfs, or you]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Files {
    /// The client's configuration, such as /etc/cvmfs/default.local
    #[arg(value_name = "CLIENT_CONF")]
    client: Option<PathBuf>,
    /// The plugin's configuration
    #[arg(long, value_name = "PLUGIN_CONF")]
    config: Option<PathBuf>,
}

/// The user that is to be examined does not exist.
#[derive(Debug, Error)]
#[error("there is no user {0:?}: name the one that the client runs as, as in --user cvmfs")]
pub(crate) struct UnknownUser(String);

impl From<UnknownUser> for error::Error {
    fn from(error: UnknownUser) -> Self {
        Self::usage(error)
    }
}

impl Doctor {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let user = match &self.user {
            None => None,
            Some(name) => Some(User::named(name).ok_or_else(|| UnknownUser(name.clone()))?),
        };
        let report = self.examine(user);
        if self.json {
            report.print_json(out)?;
        } else {
            report.print(out, output::terminal_width())?;
        }
        Ok(if report.has_errors() { Verdict::Bad } else { Verdict::Good })
    }

    fn examine(&self, user: Option<User>) -> Report {
        let mut report = Report::default();
        let mut plugins = Vec::new();
        let mut fallback = User::named(USUAL_USER).unwrap_or_else(User::current);
        if let Some(path) = &self.files.client {
            let mut section = Section::new(format!("Client configuration {}", path.display()));
            if let Some(file) = ConfFile::read(path, &mut section) {
                let client = ClientConf::new(file);
                client.check_lines(&mut section);
                fallback = client_user(&client, fallback, &mut section);
                let user = user.as_ref().unwrap_or(&fallback);
                section.fine(format!("the client is taken to run as user {user}"));
                plugins = client.instances(user, &mut section);
                check_shared(&plugins, &mut section);
                self.check_choice(&plugins, &mut section);
            }
            report.push(section);
        }
        let user = user.unwrap_or(fallback);
        let chosen = self.files.config.as_ref().map(|path| (self.index(&plugins), path));
        let mut ports = Vec::new();
        if plugins.is_empty()
            && let Some((_, path)) = chosen
        {
            let conf = Some((path.as_path(), false));
            self.examine_plugin(None, conf, &user, &mut ports, &mut report);
        }
        for (index, plugin) in plugins.iter().enumerate() {
            let conf = match chosen {
                Some((chosen, path)) if chosen == index => Some((path.as_path(), false)),
                _ => configuration(plugin).map(|conf| (conf.path.as_path(), conf.is_reported)),
            };
            self.examine_plugin(Some(plugin), conf, &user, &mut ports, &mut report);
        }
        report
    }

    /// Which of the client's plugins `--config` is for: the one that is started with it, or else
    /// the first that is started with none.
    fn index(&self, plugins: &[Instance]) -> usize {
        let is = |plugin: &Instance| {
            let path = configuration(plugin).map(|conf| &conf.path);
            path.is_some() && path == self.files.config.as_ref()
        };
        let is_free = |plugin: &Instance| configuration(plugin).is_none();
        let found = plugins.iter().position(is).or_else(|| plugins.iter().position(is_free));
        found.unwrap_or(0)
    }

    /// Compares `--config` with what the client has.
    fn check_choice(&self, plugins: &[Instance], section: &mut Section) {
        let Some(chosen) = &self.files.config else { return };
        let Some(plugin) = plugins.get(self.index(plugins)) else { return };
        let Some(conf) = configuration(plugin) else { return };
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if real(&conf.path) != real(chosen) {
            let key = client_conf::key(&plugin.name, "CMDLINE");
            let found = format!("{key} names {}, not {}", conf.path.display(), chosen.display());
            let remedy = format!("leave --config out, or write {} in {key}", chosen.display());
            section.found(Kind::OtherConfiguration, found, remedy);
        }
    }
}

fn client_user(client: &ClientConf, fallback: User, section: &mut Section) -> User {
    let key = client_conf::USER;
    let Some(name) = client.user() else { return fallback };
    User::named(name).unwrap_or_else(|| {
        let found = format!("{key}={name}, but there is no such user");
        let remedy = format!("useradd --system {name}, or correct {}", client.path().display());
        section.found(Kind::UserUnknown, found, remedy);
        fallback
    })
}

fn configuration(plugin: &Instance) -> Option<&Configuration> {
    match &plugin.starter {
        Starter::Client(line) => line.configuration.as_ref(),
        Starter::External | Starter::Unknown => None,
    }
}

/// Finds caches that are the same plugin.
fn check_shared(plugins: &[Instance], section: &mut Section) {
    for (index, plugin) in plugins.iter().enumerate() {
        let Some(locator) = &plugin.locator else { continue };
        let is_same = |other: &&Instance| other.locator.as_ref() == Some(locator);
        if let Some(other) = plugins[..index].iter().find(is_same) {
            let keys = [other, plugin].map(|plugin| client_conf::key(&plugin.name, "LOCATOR"));
            let found = format!("{} and {} are both {locator}", keys[0], keys[1]);
            let remedy = format!("have a second plugin, with a locator of its own in {}", keys[1]);
            section.found(Kind::LocatorShared, found, remedy);
        }
    }
}

impl Doctor {
    /// Checks a plugin's configuration, if there is one, and what is where it listens. `ports` has where
    /// the plugins before this one serve metrics.
    fn examine_plugin(
        &self,
        plugin: Option<&Instance>,
        conf: Option<(&Path, bool)>,
        user: &User,
        ports: &mut Vec<SocketAddr>,
        report: &mut Report,
    ) {
        let client = plugin.and_then(|plugin| plugin.locator.as_ref());
        let conf = conf.and_then(|(path, is_reported)| {
            let mut section = Section::new(format!("Plugin configuration {}", path.display()));
            let conf = ConfFile::read(path, &mut section)
                .map(|file| self.check_conf(&file, plugin, user, &mut section));
            if let (Some(conf), Some(plugin), Some(client)) = (&conf, plugin, client) {
                let key = client_conf::key(&plugin.name, "LOCATOR");
                conf.check_client(&key, client, &mut section);
            }
            if let Some(conf) = &conf {
                conf.check_metrics_of_others(ports, &mut section);
            }
            if conf.is_some() || !is_reported {
                report.push(section);
            }
            conf
        });
        let plugins = conf.as_ref().and_then(|conf| conf.locator.as_ref());
        let Some(locator) = plugins.or(client) else { return };
        let mut section = Section::new(format!("Socket and plugin at {locator}"));
        let is_there = match locator {
            // It depends on the working directory of the process.
            Locator::Unix(path) if path.is_relative() => false,
            Locator::Unix(path) => socket::check_directory(path, user, &mut section),
            _ => true,
        };
        if is_there {
            let starter = plugin.map(|plugin| &plugin.starter);
            running::check(locator, conf.as_ref(), starter, user, &mut section);
        }
        report.push(section);
    }

    /// Checks a plugin's configuration: the plugin itself does, if it can.
    fn check_conf(
        &self,
        file: &ConfFile,
        plugin: Option<&Instance>,
        user: &User,
        section: &mut Section,
    ) -> PluginConf {
        let mut own = Section::new("");
        let conf = PluginConf::check(file, user, &mut own);
        let line = match (plugin.map(|plugin| &plugin.starter), &self.program) {
            (_, Some(program)) => Some(CommandLine::of(program, file.path())),
            (Some(Starter::Client(line)), None) => Some(line.clone()),
            _ => {
                let running = conf.locator.as_ref().and_then(running::program);
                running.map(|program| CommandLine::of(&program, file.path()))
            }
        };
        let is_judged = match line {
            Some(line) => self_check::check(&line, file.path(), user, section),
            None => {
                self_check::program_unknown(section);
                false
            }
        };
        if is_judged {
            // The check of a plugin does not find these, or less of them.
            section.take(own, &[Kind::PathRelative, Kind::NotLookedAt]);
        } else {
            section.append(own);
        }
        conf
    }
}
