//! The status report for an administrator: made of what the I/O thread publishes, without asking it.

use super::state::State;
use crate::server::telemetry::{Gauges, SessionStatus, StatusReport};
use crate::service::Service;

/// Its lines, as SIGUSR1 has them written to the log, but for the last one.
pub(super) fn lines(state: &State, service: &Service) -> Vec<String> {
    let uptime = state.server.started.elapsed();
    service.set_clock(uptime);
    let connections = state.server.sessions.all();
    let statuses = connections.iter().filter_map(|counters| {
        let open = counters.session()?;
        Some(SessionStatus {
            session: open.session(),
            holds: service.report(open),
            in_flight: counters.in_flight.get() as usize,
            unsent_bytes: counters.unsent_bytes.get() as usize,
            buffered_bytes: counters.buffered_bytes.get() as usize,
        })
    });
    let sessions: Vec<_> = statuses.collect();
    let mut gauges = Gauges {
        connections: connections.len(),
        sessions: sessions.len(),
        uploads: sessions.iter().map(|status| status.holds.uploads).sum(),
        upload_bytes: sessions.iter().map(|status| status.holds.upload_bytes).sum(),
        unsent_bytes: connections.iter().map(|it| it.unsent_bytes.get() as usize).sum(),
        buffered_bytes: connections.iter().map(|it| it.buffered_bytes.get() as usize).sum(),
        reloads: service.pending_reloads(),
        references: service.references(),
        ..Gauges::default()
    };
    if let Some(load) = &state.server.load {
        load.fill(&mut gauges);
    }
    let report = StatusReport {
        name: &state.server.name,
        uptime,
        limits: service.limits(),
        gauges,
        has_workers: state.server.load.is_some(),
        sessions,
    };
    report.lines()
}
