//! `cvmcache tier status`: how many objects are in which tier.

use std::io::Write;

use clap::Args;
use cvmcache::admin::Arguments;
use cvmcache_tier::command::STATUS;
use serde::Deserialize;

use super::Common;
use super::error::Error;
use super::job::Job;
use super::target::Target;
use crate::Verdict;
use crate::error::Result;
use crate::output::{self, BAD, FAINT};

const EXAMPLES: &str = "\
Examples:
  cvmcache tier status --config /etc/cvmfs/cvmcache-tiered.conf
  cvmcache tier status --json --config CONF | jq .states.remote.bytes

Lines:
  here       in the cache on this node, whether in the store or not
  local      in the store, and here unless evicted since
  remote     in the store alone
  repair     in the store; the bytes here are about to go
  error      lost or damaged in the store: exit status 1
  recalling  coming back from the store
  queued     waiting to be written to the store";

/// Show how many objects are on this node and in the store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Status {
    #[command(flatten)]
    common: Common,
}

/// What the tier answers.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Answer {
    cache: String,
    store: String,
    pub(super) states: States,
    pub(super) hot: Option<Hot>,
    recalling: u64,
    queued: u64,
    job: Option<Job>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct States {
    local: Count,
    pub(super) remote: Count,
    repair: Count,
    error: Count,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Count {
    pub(super) objects: u64,
    bytes: u64,
}

/// What the cache on this node holds. Not all kinds of caches count objects.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Hot {
    pub(super) objects: Option<u64>,
    size_bytes: u64,
    used_bytes: u64,
}

impl Status {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let target = Target::find(&self.common)?;
        let json = target.execute(STATUS, Arguments::new())?;
        let answer = Answer::deserialize(&json)
            .map_err(|source| Error::Answer { command: STATUS.to_owned(), source })?;
        let is_running = matches!(target, Target::Running(_));
        match self.common.json {
            true => output::json(out, &json)?,
            false => print(out, &answer, is_running)?,
        }
        Ok(if answer.states.error.objects == 0 { Verdict::Good } else { Verdict::Bad })
    }
}

impl Answer {
    pub(super) fn of(target: &Target) -> Result<Self, Error> {
        target.ask(STATUS, Arguments::new())
    }

    /// All objects that have a marker.
    pub(super) fn marked(&self) -> u64 {
        let States { local, remote, repair, error } = self.states;
        [local, remote, repair, error].iter().map(|count| count.objects).sum()
    }
}

fn print(out: &mut dyn Write, answer: &Answer, is_running: bool) -> Result<()> {
    let plugin = if is_running { "the plugin runs" } else { "no plugin runs" };
    writeln!(out, "store  {}", output::escaped(&answer.store))?;
    writeln!(out, "cache  {}{FAINT}, {plugin}{FAINT:#}", output::escaped(&answer.cache))?;
    writeln!(out)?;
    let row = |name: &str, objects: Option<u64>, bytes: Option<u64>, meaning: &str| {
        let objects = objects.map_or_else(|| "-".to_owned(), output::count);
        let bytes = bytes.map_or_else(|| "-".to_owned(), output::bytes);
        vec![name.to_owned(), objects, bytes, meaning.to_owned()]
    };
    let mut rows = Vec::new();
    if let Some(hot) = answer.hot {
        let of = match hot.size_bytes {
            u64::MAX => "on this node".to_owned(),
            size => format!("on this node, of {}", output::bytes(size)),
        };
        rows.push(row("here", hot.objects, Some(hot.used_bytes), &of));
    }
    let States { local, remote, repair, error } = answer.states;
    for (name, count, meaning) in [
        ("local", local, "in the store, and here unless evicted"),
        ("remote", remote, "in the store alone"),
        ("repair", repair, "in the store; bytes here are about to go"),
        ("error", error, "lost or damaged in the store"),
    ] {
        rows.push(row(name, Some(count.objects), Some(count.bytes), meaning));
    }
    rows.push(row("recalling", Some(answer.recalling), None, "coming back from the store"));
    rows.push(row("queued", Some(answer.queued), None, "waiting to be written to the store"));
    print_rows(out, &rows)?;
    if answer.states.error.objects > 0 {
        writeln!(out, "{BAD}objects are lost:{BAD:#} cvmcache tier scrub --remote tells why")?;
    }
    print_job(out, answer.job.as_ref())
}

fn print_rows(out: &mut dyn Write, rows: &[Vec<String>]) -> Result<()> {
    let header = ["state", "objects", "bytes", "meaning"];
    let widths: Vec<_> = (0..3)
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].len());
            cells.chain([header[column].len()]).max().unwrap_or_default()
        })
        .collect();
    let title = output::TITLE;
    let line = |cells: [&str; 4]| {
        let [name, objects, bytes, meaning] = cells;
        format!(
            "{name:<0$}  {objects:>1$}  {bytes:>2$}  {meaning}",
            widths[0], widths[1], widths[2]
        )
    };
    writeln!(out, "{title}{}{title:#}", line(header))?;
    for row in rows {
        writeln!(out, "{}", line([&row[0], &row[1], &row[2], &row[3]]))?;
    }
    Ok(())
}

fn print_job(out: &mut dyn Write, job: Option<&Job>) -> Result<()> {
    let Some(job) = job else { return Ok(()) };
    let (kind, done) = (output::escaped(&job.job), output::count(job.done));
    let bytes = output::bytes(job.bytes);
    let state = match &job.error {
        _ if job.running => "is running",
        Some(_) => "has failed",
        None if job.stopped => "was stopped",
        None => "has ended",
    };
    let failed = match job.failed {
        0 => String::new(),
        failed => format!(", {BAD}{} failed{BAD:#}", output::count(failed)),
    };
    writeln!(out, "\nlast job: {kind} {state}: {done} objects, {bytes}{failed}")?;
    if let Some(error) = &job.error {
        writeln!(out, "  {}", output::escaped(error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use snapbox::{assert_data_eq, str};

    use super::*;

    #[test]
    fn the_largest_numbers_fit_into_80_columns() {
        let count = json!({"objects": 10_000_000, "bytes": 900_u64 << 40});
        let answer = json!({
            "cache": "0123456789abcdef0123456789abcdef",
            "store": "s3://bucket/prefix",
            "states": {"local": count, "remote": count, "repair": count, "error": count},
            "hot": {"objects": null, "size_bytes": 1_u64 << 40, "used_bytes": 1_u64 << 39, "pinned_bytes": 0},
            "recalling": 3,
            "queued": 0,
            "job": {
                "job": "archive", "number": 2, "running": true, "looked_at": 3, "done": 2, "bytes": 4096,
                "skipped": 0, "failed": 1, "failures": ["object x: y"], "stopped": false,
            },
        });
        let mut shown = Vec::new();
        print(&mut shown, &serde_json::from_value(answer).unwrap(), true).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        let shown = anstream::adapter::strip_str(&shown).to_string();
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
        assert_data_eq!(
            shown,
            str![[r#"
store  s3://bucket/prefix
cache  0123456789abcdef0123456789abcdef, the plugin runs

state         objects      bytes  meaning
here                -  512.0 GiB  on this node, of 1.0 TiB
local      10,000,000  900.0 TiB  in the store, and here unless evicted
remote     10,000,000  900.0 TiB  in the store alone
repair     10,000,000  900.0 TiB  in the store; bytes here are about to go
error      10,000,000  900.0 TiB  lost or damaged in the store
recalling           3          -  coming back from the store
queued              0          -  waiting to be written to the store
objects are lost: cvmcache tier scrub --remote tells why

last job: archive is running: 2 objects, 4.0 KiB, 1 failed

"#]]
        );
    }
}
