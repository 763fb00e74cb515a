//! `cvmcache tier rebuild`: makes lost markers again from what is in the store.

use std::io::Write;

use clap::Args;
use cvmcache_tier::command::REBUILD;
use serde_json::json;

use super::Common;
use super::job::Plan;
use super::target::Target;
use crate::Verdict;
use crate::error::Result;

const EXAMPLES: &str = "\
Example:
  cvmcache tier rebuild --config CONF

Without its marker, an object in the store is a miss. This lists the store, and
reads the header of each object that has none here.";

/// Make markers again that were lost, from the objects in the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Rebuild {
    #[command(flatten)]
    common: Common,
}

impl Rebuild {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let target = Target::find(&self.common)?;
        let plan = Plan::once(REBUILD, json!({}), None);
        plan.run(&target)?.report(out, &self.common, "found again")
    }
}
