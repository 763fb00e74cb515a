//! `cvmcache tier scrub`: reads objects and compares them with their digests.

use std::io::Write;

use clap::Args;
use cvmcache_tier::command::SCRUB;
use serde_json::json;

use super::Common;
use super::job::Plan;
use super::status::Answer;
use super::target::Target;
use crate::Verdict;
use crate::error::Result;

const EXAMPLES: &str = "\
Examples:
  cvmcache tier scrub --config CONF
  cvmcache tier scrub --remote --config CONF

A damaged object here is moved aside, and clients fetch it anew. One in the
store is counted as lost (state error) until a later scrub finds it whole.
--remote downloads what it verifies.";

/// Verify all objects here, and those in the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Scrub {
    #[command(flatten)]
    common: Common,
    /// Also those in the store
    #[arg(long)]
    remote: bool,
}

impl Scrub {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let target = Target::find(&self.common)?;
        let status = Answer::of(&target)?;
        let here = status.hot.and_then(|hot| hot.objects);
        let total = here.map(|here| here + if self.remote { status.marked() } else { 0 });
        let plan = Plan::once(SCRUB, json!({"remote": self.remote}), total);
        plan.run(&target)?.report(out, &self.common, "verified")
    }
}
