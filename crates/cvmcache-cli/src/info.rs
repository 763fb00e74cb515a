//! `cvmcache info`: a plugin's name, capabilities, size and fill.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use cvmcache::Locator;
use cvmcache::plugin::{CacheInfo, Capabilities, Status};
use serde::Serialize;

use crate::Verdict;
use crate::admin::Admin;
use crate::admin::schema::Statistics;
use crate::error::Result;
use crate::output::{self, Document, TITLE};
use crate::remote::Remote;

const EXAMPLES: &str = "\
Examples:
  cvmcache info unix=/var/lib/cvmfs/cvmcache-ram.socket
  cvmcache info --json tcp=localhost:4224 | jq .used_bytes";

/// The width of the bars, in characters.
const BAR: usize = 30;

/// How long the administration socket may take, which adds the least to what is printed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Show a plugin's name, capabilities, size and fill
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Info {
    #[command(flatten)]
    remote: Remote,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed; sizes are in bytes.
#[derive(Debug, Serialize)]
struct PluginSummary {
    locator: String,
    name: String,
    pid: Option<u64>,
    capabilities: Vec<String>,
    max_object_size: u64,
    #[serde(flatten)]
    fill: Option<Fill>,
    /// Since the start, if the plugin has an administration socket.
    #[serde(flatten)]
    hits: Option<Hits>,
}

#[derive(Debug, Serialize)]
struct Hits {
    hits: u64,
    misses: u64,
    hit_ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Fill {
    size_bytes: u64,
    used_bytes: u64,
    pinned_bytes: u64,
    clean_ups: Option<u64>,
}

impl Info {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let mut client = self.remote.connect("info")?;
        let fill = match client.info() {
            Ok(info) => Some(info.into()),
            Err(error) if error.status() == Some(Status::NoSupport) => None,
            Err(error) => return Err(self.remote.error(error).into()),
        };
        let locator = self.remote.locator()?;
        let summary = PluginSummary {
            hits: hits(&locator, client.plugin_pid(), self.remote.timeout()),
            locator: locator.to_string(),
            name: output::text(client.plugin_name()),
            pid: client.plugin_pid(),
            capabilities: names(client.capabilities()),
            max_object_size: client.max_object_size() as u64,
            fill,
        };
        client.quit().map_err(|error| self.remote.error(error))?;
        output::document(out, &summary, self.json)?;
        Ok(Verdict::Good)
    }
}

impl Document for PluginSummary {
    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let pid = self.pid.map(|pid| format!(", process {pid}")).unwrap_or_default();
        let name = output::plugin_name(&self.name);
        writeln!(out, "{TITLE}{name}{TITLE:#} at {}{pid}", self.locator)?;
        writeln!(out, "can           {}", self.capabilities.join(", "))?;
        writeln!(out, "part size     {}", output::bytes(self.max_object_size))?;
        self.print_fill(out)?;
        if let Some(Hits { hits, misses, hit_ratio }) = &self.hits {
            let (hits, misses) = (output::count(*hits), output::count(*misses));
            let ratio = hit_ratio.map(|ratio| format!(", {}", output::percent(Some(ratio))));
            writeln!(out, "hits          {hits}{}", ratio.unwrap_or_default())?;
            writeln!(out, "misses        {misses}")?;
        }
        Ok(())
    }
}

impl PluginSummary {
    fn print_fill(&self, out: &mut dyn Write) -> Result<()> {
        let Some(fill) = &self.fill else {
            writeln!(out, "fill          not reported")?;
            return Ok(());
        };
        let limit = Some(fill.size_bytes).filter(|size| *size != u64::MAX);
        let size = limit.map_or_else(|| "no limit".to_owned(), output::bytes);
        writeln!(out, "size          {size}")?;
        for (name, part) in [("used", fill.used_bytes), ("pinned", fill.pinned_bytes)] {
            let size = output::bytes(part);
            match limit.map(|limit| output::fraction(part, limit)) {
                None => writeln!(out, "{name:<13} {size}")?,
                Some(fraction) => {
                    let (bar, percent) = (output::bar(fraction, BAR), fraction * 100.0);
                    writeln!(out, "{name:<13} {size:<11} {bar} {percent:>3.0} %")?;
                }
            }
        }
        if let Some(clean_ups) = fill.clean_ups {
            writeln!(out, "clean-ups     {clean_ups}")?;
        }
        Ok(())
    }
}

impl From<CacheInfo> for Fill {
    fn from(info: CacheInfo) -> Self {
        let CacheInfo { size_bytes, used_bytes, pinned_bytes, shrink_count, .. } = info;
        Self { size_bytes, used_bytes, pinned_bytes, clean_ups: shrink_count }
    }
}

/// Hits and misses since the start. Many plugins do not tell, and not every user may ask.
fn hits(locator: &Locator, pid: Option<u64>, timeout: Duration) -> Option<Hits> {
    let admin = Admin::of(locator, pid, timeout.min(PATIENCE))?;
    let window = admin.get::<Statistics>("/v1/statistics").ok()?.value.since_start;
    Some(Hits { hits: window.hits, misses: window.misses, hit_ratio: window.hit_ratio })
}

fn names(capabilities: Capabilities) -> Vec<String> {
    capabilities.to_string().split(", ").map(str::to_owned).collect()
}
