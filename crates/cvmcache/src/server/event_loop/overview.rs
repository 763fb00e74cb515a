//! What the server tells of itself to whoever runs it: levels for the metrics, every now and then,
//! and the report on the state of everything, when somebody asks for it.
//!
//! How full the cache is, the plugin is asked in the same way as by clients: on this thread, or on a
//! worker if there are any.

use std::time::{Duration, Instant};

use cvmcache_proto::CacheInfo;
use humantime::format_duration;
use tracing::info;

use super::super::meters::Level;
use super::super::workers::{Job, Work};
use super::{Connection, EventLoop, WAKER, is_due};
use crate::REPORT;
use crate::service::{SessionReport, UploadReport};

/// How often levels are told.
const PERIOD: Duration = Duration::from_secs(2);

/// How often the state of everything is reported, at most. It is long, and of all that is logged the
/// only thing that is not limited.
const REPORT_PERIOD: Duration = Duration::from_secs(1);

/// How many sessions and uploads a report names.
const MAX_SESSIONS: usize = 50;
const MAX_UPLOADS: usize = 10;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Overview {
    next: Option<Instant>,
    /// Since when a worker has been asking the plugin.
    asking_since: Option<Instant>,
    is_stuck: bool,
    /// Somebody waits for what the plugin says.
    is_awaited: bool,
    reported: Option<Instant>,
}

impl Overview {
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking_since.is_some()
    }
}

impl EventLoop {
    /// Tells levels, if it is time.
    pub(super) fn measure(&mut self) {
        let Some(meters) = &self.meters else { return };
        let is_first = self.state.overview.next.is_none();
        if is_due(&mut self.state.overview.next, PERIOD) || is_first {
            meters.set_level(self.level());
            self.ask_usage();
        }
    }

    /// Takes note of what the plugin says of itself; `None` if that is nothing.
    pub(super) fn learn_usage(&mut self, usage: Option<CacheInfo>) {
        let overview = &mut self.state.overview;
        overview.asking_since = None;
        if let Some(workers) = self.workers.as_ref().filter(|_| overview.is_stuck) {
            overview.is_stuck = false;
            workers.recovered();
        }
        if let (Some(meters), Some(usage)) = (&self.meters, usage) {
            meters.set_usage(usage);
        }
        if std::mem::take(&mut overview.is_awaited) {
            match usage {
                Some(usage) => info!(
                    target: REPORT,
                    "cache: {} bytes used, {} of them pinned, of {}; {} clean-ups",
                    usage.used_bytes,
                    usage.pinned_bytes,
                    usage.size_bytes,
                    usage.shrink_count.map_or_else(|| "unknown".to_owned(), |n| n.to_string()),
                ),
                None => info!(target: REPORT, "cache: the plugin does not say how full it is"),
            }
        }
    }

    /// Has somebody else work if the question takes too long.
    pub(super) fn expire_question(&mut self, deadline: Duration) {
        let overview = &mut self.state.overview;
        let takes_too_long = overview.asking_since.is_some_and(|since| since.elapsed() > deadline);
        if let Some(workers) = self.workers.as_ref().filter(|_| takes_too_long)
            && !std::mem::replace(&mut overview.is_stuck, true)
        {
            workers.replace();
        }
    }

    /// Writes the state of everything to the log, unless that has just been done.
    pub(super) fn report(&mut self) {
        let reported = &mut self.state.overview.reported;
        if reported.is_some_and(|then| then.elapsed() < REPORT_PERIOD) {
            return;
        }
        *reported = Some(Instant::now());
        self.service.set_clock(self.begun.elapsed());
        let level = self.level();
        info!(
            target: REPORT,
            "state of {}, process {}, serving for {}",
            self.name,
            std::process::id(),
            since(self.begun.elapsed()),
        );
        info!(target: REPORT, "{:?}", self.service.limits());
        info!(
            target: REPORT,
            "{} connections, {} sessions, {} uploads with {} bytes, {} clients away for a reload, \
             {} bytes of answers not taken",
            level.connections,
            level.sessions,
            level.uploads,
            level.upload_bytes,
            level.reloads,
            level.unsent_bytes,
        );
        if self.workers.is_some() {
            info!(
                target: REPORT,
                "workers: {} requests to do, {} connections wait, {} callbacks over the deadline",
                level.jobs,
                level.waiting,
                level.stuck,
            );
        }
        self.report_sessions();
        self.state.overview.is_awaited = true;
        self.ask_usage();
    }

    fn report_sessions(&self) {
        let connections = self.state.connections.values();
        let mut sessions: Vec<_> = connections.filter_map(Connection::session_and_load).collect();
        sessions.sort_by_key(|(open, ..)| open.session().id());
        let mut rest = Rest::default();
        let mut uploads = Vec::new();
        for (index, (open, under_way, unsent)) in sessions.iter().enumerate() {
            let report = self.service.report(open);
            if let Some(upload) = &report.oldest_upload {
                uploads.push((open.session(), upload.clone()));
            }
            if index >= MAX_SESSIONS {
                rest.add(&report);
                continue;
            }
            info!(
                target: REPORT,
                "{}: {} objects open, {} uploads with {} bytes, {} listings, {under_way} requests \
                 under way, {unsent} bytes of answers not taken, open for {}",
                open.session(),
                report.objects,
                report.uploads,
                report.upload_bytes,
                report.listings,
                since(report.age),
            );
        }
        if rest.sessions > 0 {
            let Rest { sessions, objects, uploads, upload_bytes } = rest;
            info!(
                target: REPORT,
                "{sessions} more sessions: {objects} objects open, {uploads} uploads with \
                 {upload_bytes} bytes",
            );
        }
        uploads.sort_by_key(|(_, upload)| std::cmp::Reverse(upload.age));
        for (session, upload) in uploads.into_iter().take(MAX_UPLOADS) {
            let UploadReport { object, age, received, expected } = upload;
            let of = expected.map(|bytes| format!(" of {bytes}")).unwrap_or_default();
            let age = since(age);
            info!(
                target: REPORT,
                "oldest upload of {session}: {object}, {received}{of} bytes, begun {age} ago"
            );
        }
    }

    fn level(&self) -> Level {
        let state = &self.state;
        let mut level = Level {
            connections: state.connections.len(),
            waiting: state.waiting.len(),
            reloads: self.service.pending_reloads(),
            ..Level::default()
        };
        if let Some(workers) = &self.workers {
            (level.jobs, level.stuck) = (workers.outstanding(), workers.stuck());
        }
        for connection in state.connections.values() {
            level.unsent_bytes += connection.unsent();
            if let Some((open, ..)) = connection.session_and_load() {
                let (uploads, bytes) = self.service.uploads(open);
                level.sessions += 1;
                level.uploads += uploads;
                level.upload_bytes += bytes;
            }
        }
        level
    }

    /// Asks the plugin how full it is, unless it has been asked and has not said.
    fn ask_usage(&mut self) {
        match &self.workers {
            None => self.learn_usage(self.service.usage()),
            Some(_) if self.state.overview.is_asking() => {}
            Some(workers) => {
                self.state.overview.asking_since = Some(Instant::now());
                workers.submit(Job { token: WAKER, work: Work::Usage, lane: None });
            }
        }
    }
}

/// The sessions that a report does not name.
#[derive(Debug, Default)]
struct Rest {
    sessions: usize,
    objects: usize,
    uploads: usize,
    upload_bytes: u64,
}

impl Rest {
    fn add(&mut self, report: &SessionReport) {
        self.sessions += 1;
        self.objects += report.objects;
        self.uploads += report.uploads;
        self.upload_bytes += report.upload_bytes;
    }
}

fn since(time: Duration) -> impl std::fmt::Display {
    format_duration(Duration::from_secs(time.as_secs()))
}
