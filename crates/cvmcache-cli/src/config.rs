//! `cvmcache config`: the configuration that a plugin runs with.

use std::io::Write;

use clap::Args;
use serde_json::Value;

use crate::Verdict;
use crate::admin::AdminRemote;
use crate::admin::schema::{Configuration, Setting};
use crate::error::Result;
use crate::output::{self, FAINT};

const EXAMPLES: &str = "\
Examples:
  cvmcache config unix=/var/lib/cvmfs/cvmcache-ram.socket
  cvmcache config --changed
  cvmcache config --json | jq -r '.settings[] | select(.source == \"file\").key'

Secrets are not shown. A plugin reads its configuration once, when it starts: cvmcache doctor
compares the file with what is in force.

It uses the plugin's administration socket, as the plugin's user or root.";

const INSTEAD: &str = "the protocol does not tell the configuration: read its file, which cvmcache \
                       doctor --config checks";

/// Show the configuration in force, and where each value comes from
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Config {
    #[command(flatten)]
    remote: AdminRemote,
    /// Only what is not left at its default
    #[arg(long)]
    changed: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Config {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let admin = self.remote.find("config", INSTEAD)?;
        let mut answer = admin.get::<Configuration>("/v1/configuration")?;
        if self.json {
            if self.changed
                && let Some(Value::Array(settings)) = answer.json.get_mut("settings")
            {
                settings.retain(|setting| setting["source"] != DEFAULT);
            }
            output::json(out, &answer.json)?;
            return Ok(Verdict::Good);
        }
        let settings = answer.value.settings.iter();
        let shown: Vec<_> =
            settings.filter(|setting| !self.changed || setting.source != DEFAULT).collect();
        if let Some(file) = &answer.value.file {
            writeln!(out, "{FAINT}# {}{FAINT:#}", output::escaped(file))?;
        }
        let width = shown.iter().map(|setting| setting.source.len()).max().unwrap_or_default();
        for setting in shown {
            print(out, setting, width)?;
        }
        Ok(Verdict::Good)
    }
}

/// The source of a value that nothing has changed.
const DEFAULT: &str = "default";

/// A value that is set, as in a file; the meaning of a default need not be one.
fn print(out: &mut dyn Write, setting: &Setting, width: usize) -> Result<()> {
    let (source, key) = (output::escaped(&setting.source), output::escaped(&setting.key));
    let value = setting.value.as_deref().map(output::escaped);
    let default = setting.default.as_deref().map(output::escaped);
    match value.or(default) {
        Some(value) if setting.source != DEFAULT => {
            writeln!(out, "{source:<width$}  {key}={value}")?;
        }
        Some(value) => writeln!(out, "{source:<width$}  {FAINT}{key}: {value}{FAINT:#}")?,
        None => writeln!(out, "{source:<width$}  {FAINT}{key}: not set{FAINT:#}")?,
    }
    Ok(())
}
