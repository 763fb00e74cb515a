//! `cvmcache doctor`: finds mistakes in the configuration of a client and its plugin.
//!
//! It changes nothing. `client_conf` and `plugin_conf` check the files, `socket` and `running` what
//! their locators lead to. `kind` has the names of all findings; `self_check` runs the check of the
//! plugin itself.

mod client_conf;
mod command_line;
mod file;
mod kind;
mod locators;
mod plugin_conf;
mod report;
mod running;
mod self_check;
mod shell;
mod socket;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use cvmcache::Locator;
use thiserror::Error;

use crate::Verdict;
use crate::error::{self, Result};
use crate::user::User;
use client_conf::{ClientConf, Instance};
use command_line::{Configuration, Starter};
use file::ConfFile;
use kind::Kind;
use plugin_conf::PluginConf;
use report::{Report, Section};

const EXAMPLES: &str = "\
Examples:
  cvmcache doctor /etc/cvmfs/default.local
  cvmcache doctor /etc/cvmfs/default.local --config /etc/cvmfs/cache-ram.conf
  cvmcache doctor --config /etc/cvmfs/cache-ram.conf --user cvmfs
  cvmcache doctor --json /etc/cvmfs/default.local | jq -r '.[].name'

The plugin's configuration is found in the client's CVMFS_CACHE_NAME_CMDLINE unless it
is given. As root, doctor can look everywhere. It changes nothing.

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
            report.print(out)?;
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
                self.check_choice(&plugins, &mut section);
            }
            report.push(section);
        }
        let user = user.unwrap_or(fallback);
        let chosen = self.files.config.as_ref().map(|path| (self.index(&plugins), path));
        if plugins.is_empty()
            && let Some((_, path)) = chosen
        {
            examine_plugin(None, Some((path, false)), &user, &mut report);
        }
        for (index, plugin) in plugins.iter().enumerate() {
            let conf = match chosen {
                Some((chosen, path)) if chosen == index => Some((path.as_path(), false)),
                _ => configuration(plugin).map(|conf| (conf.path.as_path(), conf.is_reported)),
            };
            examine_plugin(Some(plugin), conf, &user, &mut report);
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
        Starter::Client { configuration, .. } => configuration.as_ref(),
        Starter::External | Starter::Unknown => None,
    }
}

/// Checks a plugin's configuration: the plugin itself does, if it can.
fn check_conf(
    file: &ConfFile,
    plugin: Option<&Instance>,
    user: &User,
    section: &mut Section,
) -> PluginConf {
    if let Some(Instance { starter: Starter::Client { program, .. }, .. }) = plugin
        && self_check::check(program, file.path(), user, section)
    {
        let mut own = Section::new("");
        let conf = PluginConf::check(file, user, &mut own);
        // The check of a plugin does not find these, or less of them.
        section.take(own, &[Kind::PathRelative, Kind::NotLookedAt]);
        return conf;
    }
    PluginConf::check(file, user, section)
}

/// Checks a plugin's configuration, if there is one, and what is where it listens.
fn examine_plugin(
    plugin: Option<&Instance>,
    conf: Option<(&Path, bool)>,
    user: &User,
    report: &mut Report,
) {
    let client = plugin.and_then(|plugin| plugin.locator.as_ref());
    let conf = conf.and_then(|(path, is_reported)| {
        let mut section = Section::new(format!("Plugin configuration {}", path.display()));
        let conf = ConfFile::read(path, &mut section)
            .map(|file| check_conf(&file, plugin, user, &mut section));
        if let (Some(conf), Some(plugin), Some(client)) = (&conf, plugin, client) {
            let key = client_conf::key(&plugin.name, "LOCATOR");
            conf.check_client(&key, client, &mut section);
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
