//! `cvmcache tier archive`: moves objects to the store.

use std::io::Write;

use clap::{ArgGroup, Args};
use cvmcache::plugin::ObjectId;
use cvmcache_tier::command::ARCHIVE;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Common;
use super::job::{Plan, to_arguments};
use super::period::Period;
use super::recall::batches;
use super::target::Target;
use crate::Verdict;
use crate::error::Result;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  cvmcache tier archive --older-than 30d --dry-run --config CONF
  cvmcache tier archive --older-than 30d --config CONF
  cvmcache tier archive df773e9a5cb233e9b40854d423944d70a042bc5d --config CONF

Each object is written to the store and verified there; only then its bytes
here go. Objects that are open stay, and so do catalogs.";

/// Move objects that are not in use to the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("which").args(["ids", "older_than"]).required(true)))]
pub(super) struct Archive {
    #[command(flatten)]
    common: Common,
    /// These objects
    #[arg(value_name = "ID", conflicts_with = "dry_run")]
    ids: Vec<ObjectId>,
    /// All that have not been used for so long, as in 30d or 12h
    #[arg(long, value_name = "DURATION")]
    older_than: Option<Period>,
    /// Only say how much that would be
    #[arg(long, requires = "older_than")]
    dry_run: bool,
}

/// How much would be archived.
#[derive(Debug, Serialize, Deserialize)]
struct Estimate {
    objects: u64,
    bytes: u64,
}

impl Archive {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let target = Target::find(&self.common)?;
        let Some(age) = self.older_than.map(Period::as_secs) else {
            let total = Some(self.ids.len() as u64);
            let plan = Plan { command: ARCHIVE, batches: batches(&self.ids), total };
            return plan.run(&target)?.report(out, &self.common, "archived");
        };
        let dry_run = to_arguments(json!({"older_than": age, "dry_run": true}));
        let estimate: Estimate = target.ask(ARCHIVE, dry_run)?;
        if self.dry_run {
            match self.common.json {
                true => output::json(out, &estimate)?,
                false => writeln!(
                    out,
                    "would archive up to {} objects, {}",
                    output::count(estimate.objects),
                    output::bytes(estimate.bytes)
                )?,
            }
            return Ok(Verdict::Good);
        }
        let plan = Plan::once(ARCHIVE, json!({"older_than": age}), Some(estimate.objects));
        plan.run(&target)?.report(out, &self.common, "archived")
    }
}
