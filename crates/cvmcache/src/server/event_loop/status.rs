//! Gauges, the status report and the fill of the cache, as the event loop collects them.
//!
//! The latter is requested from the plugin as by clients: on this thread, or on a worker if
//! there are any.

use std::time::Instant;

use super::EventLoop;
use crate::server::telemetry::{Gauges, SessionStatus, StatusReport};
use crate::server::workers::{Job, Outcome, Ticket};

impl EventLoop {
    /// Sets the gauges, and requests those of the cache from the plugin.
    pub(super) fn set_gauges(&mut self, now: Instant) {
        let gauges = self.gauges();
        if let Some(metrics) = &self.telemetry.metrics {
            metrics.set_gauges(&gauges);
            self.ask_usage(now);
        }
    }

    /// Writes a status report, unless that has just been done.
    pub(super) fn report(&mut self, now: Instant) {
        if !self.telemetry.reporter.begin(now) {
            return;
        }
        let uptime = now.saturating_duration_since(self.telemetry.started);
        self.service.set_clock(uptime);
        let connections = self.state.connections.values();
        let sessions = connections.filter_map(|connection| {
            let open = connection.open_session()?;
            Some(SessionStatus {
                session: open.session(),
                holds: self.service.report(open),
                in_flight: connection.requests_in_flight(),
                unsent_bytes: connection.unsent_bytes(),
                buffered_bytes: connection.held(),
            })
        });
        let report = StatusReport {
            name: &self.telemetry.name,
            uptime,
            limits: self.service.limits(),
            gauges: self.gauges(),
            has_workers: self.workers.is_some(),
            sessions: sessions.collect(),
        };
        report.write();
        self.ask_usage(now);
    }

    /// Publishes what the workers have, for administrators.
    pub(super) fn publish_load(&self) {
        if let (Some(load), Some(workers)) = (&self.telemetry.load, &self.workers) {
            load.set(workers.running(), self.state.scheduler.waiting(), workers.overdue());
        }
    }

    fn gauges(&self) -> Gauges {
        let mut gauges = Gauges {
            connections: self.state.connections.len(),
            waiting: self.state.scheduler.waiting(),
            reloads: self.service.pending_reloads(),
            references: self.service.references(),
            ..Gauges::default()
        };
        if let Some(workers) = &self.workers {
            (gauges.jobs, gauges.overdue) = (workers.running(), workers.overdue());
        }
        for connection in self.state.connections.values() {
            gauges.unsent_bytes += connection.unsent_bytes();
            gauges.buffered_bytes += connection.held();
            if let Some(open) = connection.open_session() {
                let (uploads, bytes) = self.service.uploads(open);
                gauges.sessions += 1;
                gauges.uploads += uploads;
                gauges.upload_bytes += bytes;
            }
        }
        gauges
    }

    /// Requests the fill of the cache from the plugin, unless such a request is in flight.
    fn ask_usage(&mut self, now: Instant) {
        match &mut self.workers {
            None => self.on_usage(Outcome::Usage(self.service.usage())),
            Some(_) if self.telemetry.asks_usage => {}
            Some(workers) => {
                self.telemetry.asks_usage = true;
                workers.dispatch(None, Job::Usage, Ticket::new(now));
            }
        }
    }

    /// Records how full the cache is.
    pub(super) fn on_usage(&mut self, outcome: Outcome) {
        let Outcome::Usage(usage) = outcome else { return };
        if let (Some(metrics), Some(usage)) = (&self.telemetry.metrics, &usage) {
            metrics.set_usage(usage);
        }
        self.telemetry.reporter.on_usage(usage.as_ref());
    }
}
