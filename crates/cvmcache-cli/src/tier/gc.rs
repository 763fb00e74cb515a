//! `cvmcache tier gc`: finds objects of the store that no cache needs.

use std::io::Write;

use clap::Args;
use cvmcache_tier::command::GC;
use serde_json::json;

use super::Common;
use super::job::{Plan, to_arguments};
use super::period::Period;
use super::target::Target;
use crate::Verdict;
use crate::error::Result;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  cvmcache tier gc --config CONF
  cvmcache tier gc --delete --config CONF
  cvmcache tier gc --forget 0123456789abcdef0123456789abcdef --config CONF

Without --delete, nothing goes. What any cache with this store and prefix has
in its list stays. A list that cannot be read or is older than the grace period
stops it: that of a cache that is no more goes by --forget; cvmcache tier
status has the name of this one.";

/// Find and delete objects in the store that no cache needs any more
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Gc {
    #[command(flatten)]
    common: Common,
    /// Delete them
    #[arg(long)]
    delete: bool,
    /// Leave what was written since, as in 7d or 12h
    #[arg(long, value_name = "DURATION", default_value = "7d")]
    grace: Period,
    /// Forget a cache that is no more, by its name in the store
    #[arg(long, value_name = "CACHE", conflicts_with_all = ["delete", "grace"])]
    forget: Option<String>,
}

impl Gc {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let target = Target::find(&self.common)?;
        if let Some(cache) = self.forget {
            return forget(out, &target, &self.common, &cache);
        }
        let arguments = json!({"grace": self.grace.as_secs(), "delete": self.delete});
        let job = Plan::once(GC, arguments, None).run(&target)?;
        let verdict =
            job.report(out, &self.common, if self.delete { "freed" } else { "would free" })?;
        if !self.delete && !self.common.json && job.done > 0 {
            writeln!(out, "with --delete, they go")?;
        }
        Ok(verdict)
    }
}

fn forget(out: &mut dyn Write, target: &Target, common: &Common, cache: &str) -> Result<Verdict> {
    let answer = target.execute(GC, to_arguments(json!({"forget": cache})))?;
    match common.json {
        true => output::json(out, &answer)?,
        false => writeln!(out, "forgot cache {}", output::escaped(cache))?,
    }
    Ok(Verdict::Good)
}
