//! The status report: what the server holds, written to the log on request.

use std::cmp::Reverse;
use std::fmt::Display;
use std::time::{Duration, Instant};

use cvmcache_proto::CacheInfo;
use humantime::format_duration;
use tracing::info;

use super::gauges::Gauges;
use crate::service::{SessionReport, UploadReport};
use crate::{Limits, REPORT, Session};

/// How often a report is written, at most. It is long, and of all that is logged the only thing that
/// is not limited.
const PERIOD: Duration = Duration::from_secs(1);

/// How many sessions and uploads a report names.
const MAX_SESSIONS: usize = 50;
const MAX_UPLOADS: usize = 10;

/// Which reports have been written, and what is to follow.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    last: Option<Instant>,
    /// The last line is to follow: the fill of the cache is requested from the plugin.
    awaits_usage: bool,
}

/// What is reported.
#[derive(Debug)]
pub(crate) struct StatusReport<'a> {
    /// The server's name, escaped.
    pub(crate) name: &'a str,
    pub(crate) uptime: Duration,
    pub(crate) limits: &'a Limits,
    pub(crate) gauges: Gauges,
    pub(crate) has_workers: bool,
    pub(crate) sessions: Vec<SessionStatus<'a>>,
}

/// What is reported of a session.
#[derive(Debug)]
pub(crate) struct SessionStatus<'a> {
    pub(crate) session: &'a Session,
    pub(crate) holds: SessionReport,
    pub(crate) in_flight: usize,
    pub(crate) unsent_bytes: usize,
    pub(crate) buffered_bytes: usize,
}

impl Reporter {
    /// True if a report is to be written now, with the usage of the cache to follow. False if one has
    /// just been written.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < PERIOD) {
            return false;
        }
        (self.last, self.awaits_usage) = (Some(now), true);
        true
    }

    /// Writes the last line of a report, if it is to follow. `None`: the plugin does not report it.
    pub(crate) fn on_usage(&mut self, usage: Option<&CacheInfo>) {
        if !std::mem::take(&mut self.awaits_usage) {
            return;
        }
        info!(target: REPORT, "{}", usage_line(usage));
    }
}

/// The last line of a report. `None`: the plugin does not report it.
pub(crate) fn usage_line(usage: Option<&CacheInfo>) -> String {
    let Some(usage) = usage else {
        return "cache: the plugin does not report how full it is".to_owned();
    };
    let clean_ups = usage.shrink_count.map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    format!(
        "cache: {} bytes used, {} of them pinned, of {}; {clean_ups} clean-ups",
        usage.used_bytes, usage.pinned_bytes, usage.size_bytes,
    )
}

impl StatusReport<'_> {
    /// Writes the report to the log.
    pub(crate) fn write(self) {
        self.lines().iter().for_each(|line| info!(target: REPORT, "{line}"));
    }

    /// Its lines, but for the last one, which is [`usage_line`].
    pub(crate) fn lines(mut self) -> Vec<String> {
        let gauges = self.gauges;
        let (process, age) = (std::process::id(), seconds(self.uptime));
        let mut lines = vec![
            format!("state of {}, process {process}, serving for {age}", self.name),
            format!("{:?}", self.limits),
            format!(
                "{} connections, {} sessions, {} uploads with {} bytes, {} clients away for a reload, \
                 {} bytes of replies not sent, {} bytes in buffers",
                gauges.connections,
                gauges.sessions,
                gauges.uploads,
                gauges.upload_bytes,
                gauges.reloads,
                gauges.unsent_bytes,
                gauges.buffered_bytes,
            ),
        ];
        if self.has_workers {
            lines.push(format!(
                "workers: {} requests to do, {} connections wait, {} callbacks over the deadline",
                gauges.jobs, gauges.waiting, gauges.overdue,
            ));
        }
        self.sessions.sort_by_key(|status| status.session.id());
        let rest = self.sessions.split_off(self.sessions.len().min(MAX_SESSIONS));
        lines.extend(self.sessions.iter().map(SessionStatus::line));
        lines.extend(rest_line(&rest));
        lines.extend(oldest_uploads(self.sessions.iter().chain(&rest)));
        lines
    }
}

impl SessionStatus<'_> {
    fn line(&self) -> String {
        let Self { session, holds, in_flight, unsent_bytes, buffered_bytes } = self;
        format!(
            "{session}: {} objects open, {} uploads with {} bytes, {} listings, {in_flight} requests \
             in flight, {unsent_bytes} bytes of replies not sent, {buffered_bytes} bytes in buffers, open \
             for {}",
            holds.objects,
            holds.uploads,
            holds.upload_bytes,
            holds.listings,
            seconds(holds.age),
        )
    }
}

/// The sessions that a report does not name.
fn rest_line(rest: &[SessionStatus<'_>]) -> Option<String> {
    let objects: usize = rest.iter().map(|status| status.holds.objects).sum();
    let uploads: usize = rest.iter().map(|status| status.holds.uploads).sum();
    let upload_bytes: u64 = rest.iter().map(|status| status.holds.upload_bytes).sum();
    let sessions = rest.len();
    (sessions > 0).then(|| {
        format!("{sessions} more sessions: {objects} objects open, {uploads} uploads with {upload_bytes} bytes")
    })
}

fn oldest_uploads<'a>(
    sessions: impl Iterator<Item = &'a SessionStatus<'a>>,
) -> impl Iterator<Item = String> {
    let oldest = |status: &'a SessionStatus<'a>| {
        status.holds.oldest_upload.as_ref().map(|upload| (status.session, upload))
    };
    let mut uploads: Vec<_> = sessions.filter_map(oldest).collect();
    uploads.sort_by_key(|(_, upload)| Reverse(upload.age));
    uploads.into_iter().take(MAX_UPLOADS).map(|(session, upload)| {
        let UploadReport { object, age, received, expected } = upload;
        let of = expected.map(|bytes| format!(" of {bytes}")).unwrap_or_default();
        let age = seconds(*age);
        format!("oldest upload of {session}: {object}, {received}{of} bytes, begun {age} ago")
    })
}

fn seconds(time: Duration) -> impl Display {
    format_duration(Duration::from_secs(time.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_written_at_most_once_a_second() {
        let start = Instant::now();
        let mut reporter = Reporter::default();
        assert!(reporter.begin(start));
        assert!(!reporter.begin(start + PERIOD / 2));
        assert!(reporter.begin(start + PERIOD));
    }

    #[test]
    fn the_usage_ends_a_report_once() {
        let mut reporter = Reporter::default();
        assert!(reporter.begin(Instant::now()));
        assert!(reporter.awaits_usage);
        reporter.on_usage(None);
        assert!(!reporter.awaits_usage);
    }
}
