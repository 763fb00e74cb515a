//! `cvmcache admin`: what the administration socket has, and the plugin's own commands.

use std::ffi::OsString;
use std::io::Write;

use clap::Args;
use serde_json::{Map, Value};
use thiserror::Error;

use super::AdminRemote;
use super::schema::{Index, Resource};
use crate::Verdict;
use crate::error::{self, Result};
use crate::output::{self, TITLE};

const EXAMPLES: &str = "\
Examples:
  cvmcache admin unix=/var/lib/cvmfs/cvmcache-ram.socket
  cvmcache admin unix=/var/lib/cvmfs/cvmcache-ram.socket COMMAND '{\"ARGUMENT\": 1}'
  cvmcache admin report    # CVMCACHE_LOCATOR is set

Without COMMAND, what there is is listed. COMMAND is one of those that are sent by POST, as report,
or one of the plugin's own; JSON is the object of its arguments. What it answers is printed.

It uses the plugin's administration socket, as the plugin's user or root.";

const INSTEAD: &str = "cvmcache info, ls, shrink and top do what the protocol can";

/// Where the plugin's own commands are.
const PLUGIN: &str = "/v1/plugin/";

/// List what the administration socket can, or run a command of the plugin
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "cvmcache admin [OPTIONS] [LOCATOR] [COMMAND] [JSON]")]
pub(crate) struct AdminCommand {
    #[command(flatten)]
    remote: AdminRemote,
    /// The command
    command: Option<OsString>,
    /// Its arguments, as a JSON object
    arguments: Option<OsString>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

/// The command line cannot be carried out.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error(
        "{text:?} is no JSON object ({source}): write its arguments as in '{{\"bytes\": 1000}}'"
    )]
    Json { text: String, source: serde_json::Error },
    #[error("there is no command {0:?}: cvmcache admin without one lists them")]
    Unknown(String),
    #[error("too many arguments: write a command and a JSON object")]
    TooMany,
}

impl From<Error> for error::Error {
    fn from(error: Error) -> Self {
        Self::usage(error)
    }
}

impl AdminCommand {
    pub(crate) fn run(mut self, out: &mut dyn Write) -> Result<Verdict> {
        let mut words: Vec<_> =
            [self.command.take(), self.arguments.take()].into_iter().flatten().collect();
        self.remote.shift(&mut words);
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let (command, arguments) = match words.as_slice() {
            [] => (None, None),
            [command] => (Some(command), None),
            [command, json] => (Some(command), Some(parse(json)?)),
            _ => return Err(Error::TooMany.into()),
        };
        let admin = self.remote.find("admin", INSTEAD)?;
        let index = admin.get::<Index>("/v1")?;
        let Some(command) = command else {
            match self.json {
                true => output::json(out, &index.json)?,
                false => print(out, &index.value)?,
            }
            return Ok(Verdict::Good);
        };
        let path =
            resource(&index.value, command).ok_or_else(|| Error::Unknown(command.clone()))?;
        let answer = admin.post::<Value>(&path, arguments.map(Value::Object).as_ref())?;
        output::json(out, &answer.json)?;
        Ok(Verdict::Good)
    }
}

fn parse(text: &str) -> Result<Map<String, Value>, Error> {
    serde_json::from_str(text).map_err(|source| Error::Json { text: text.to_owned(), source })
}

/// The path of a command: of the plugin's own first.
fn resource(index: &Index, command: &str) -> Option<String> {
    let paths = [format!("{PLUGIN}{command}"), format!("/v1/{command}")];
    let has = |path: &&String| {
        let is = |resource: &&Resource| resource.method == "POST" && resource.path == **path;
        index.resources.iter().any(|resource| is(&resource))
    };
    paths.iter().find(has).cloned()
}

fn print(out: &mut dyn Write, index: &Index) -> Result<()> {
    writeln!(out, "{TITLE}{}{TITLE:#}", output::escaped(&index.name))?;
    let widest = index.resources.iter().map(|resource| resource.path.chars().count()).max();
    let width = widest.unwrap_or_default();
    for resource in &index.resources {
        let [method, path, description] =
            [&resource.method, &resource.path, &resource.description].map(|it| output::escaped(it));
        writeln!(out, "{method:<4}  {path:<width$}  {description}")?;
    }
    Ok(())
}
