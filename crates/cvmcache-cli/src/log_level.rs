//! `cvmcache log-level`: shows or changes the level of a plugin's log.

use std::ffi::OsString;
use std::io::Write;

use clap::Args;

use crate::Verdict;
use crate::admin::AdminRemote;
use crate::admin::schema::LogLevel as Answer;
use crate::error::Result;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  cvmcache log-level unix=/var/lib/cvmfs/cvmcache-ram.socket
  cvmcache log-level unix=/var/lib/cvmfs/cvmcache-ram.socket debug
  cvmcache log-level info    # CVMCACHE_LOCATOR is set

LEVEL is error, warn, info, debug or trace. It holds until the plugin ends.

It uses the plugin's administration socket, as the plugin's user or root.";

const INSTEAD: &str = "the protocol knows no log: its configuration sets it";

/// Show or change the level of the plugin's log
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "cvmcache log-level [OPTIONS] [LOCATOR] [LEVEL]")]
pub(crate) struct LogLevel {
    #[command(flatten)]
    remote: AdminRemote,
    /// The new level
    level: Option<OsString>,
}

impl LogLevel {
    pub(crate) fn run(mut self, out: &mut dyn Write) -> Result<Verdict> {
        let mut words = Vec::from_iter(self.level.take());
        self.remote.shift(&mut words);
        let admin = self.remote.find("log-level", INSTEAD)?;
        let answer = match words.first() {
            None => admin.get::<Answer>("/v1/log-level")?,
            Some(level) => {
                let body = serde_json::json!({ "level": level.to_string_lossy() });
                admin.post("/v1/log-level", Some(&body))?
            }
        };
        writeln!(out, "{}", output::escaped(&answer.value.level))?;
        Ok(Verdict::Good)
    }
}
