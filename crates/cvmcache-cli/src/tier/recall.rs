//! `cvmcache tier recall`: brings objects back from the store.

use std::io::Write;

use clap::{ArgGroup, Args};
use cvmcache::admin::Arguments;
use cvmcache::plugin::ObjectId;
use cvmcache_tier::command::RECALL;
use serde_json::json;

use super::Common;
use super::job::{Plan, to_arguments};
use super::status::Answer;
use super::target::Target;
use crate::Verdict;
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  cvmcache tier recall df773e9a5cb233e9b40854d423944d70a042bc5d --config CONF
  cvmcache tier recall --all --config CONF

With --all, what does not fit into the cache evicts what came before: compare
the lines remote and here of cvmcache tier status.";

/// Bring objects back from the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("which").args(["ids", "all"]).required(true)))]
pub(super) struct Recall {
    #[command(flatten)]
    common: Common,
    /// These objects
    #[arg(value_name = "ID")]
    ids: Vec<ObjectId>,
    /// All that are in the store alone
    #[arg(long)]
    all: bool,
}

/// So many ids are below the bound on requests to the administration socket, 64 KiB.
const BATCH: usize = 1000;

impl Recall {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let target = Target::find(&self.common)?;
        let plan = if self.all {
            let remote = Answer::of(&target)?.states.remote.objects;
            Plan::once(RECALL, json!({"all": true}), Some(remote))
        } else {
            let total = Some(self.ids.len() as u64);
            Plan { command: RECALL, batches: batches(&self.ids), total }
        };
        plan.run(&target)?.report(out, &self.common, "recalled")
    }
}

/// Ids as arguments of commands.
pub(super) fn batches(ids: &[ObjectId]) -> Vec<Arguments> {
    let batch = |ids: &[ObjectId]| {
        let ids: Vec<_> = ids.iter().map(ObjectId::to_string).collect();
        to_arguments(json!({"ids": ids}))
    };
    ids.chunks(BATCH).map(batch).collect()
}
