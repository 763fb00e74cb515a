//! What the loop does at deadlines, and which it keeps.

use std::time::{Duration, Instant};

use mio::Token;

use super::{EventLoop, State, guarded};
use crate::read_buffer::release_unused;
use crate::server::telemetry::Heartbeat;
use crate::server::timers::Timer;

/// How often gauges are set.
const GAUGES_PERIOD: Duration = Duration::from_secs(2);

/// How often connections are looked at for whether they are idle: the second time, one is.
const BUFFER_SWEEP_PERIOD: Duration = Duration::from_secs(5);

/// How many idle uploads are aborted before other things have their turn.
const IDLE_UPLOADS_AT_ONCE: usize = 16;

/// No timer of the server is set for less: a limit of zero must not keep the thread busy.
const SHORTEST_PERIOD: Duration = Duration::from_millis(1);

impl EventLoop {
    pub(super) fn start_timers(&mut self) {
        let now = Instant::now();
        if self.telemetry.heartbeat.period().is_some() {
            self.state.timers.set(Timer::Heartbeat, now);
        }
        if self.telemetry.metrics.is_some() {
            self.state.timers.set(Timer::Gauges, now);
        }
    }

    /// Sets the timers that the present connections and jobs need.
    pub(super) fn keep_timers(&mut self, now: Instant) {
        let State { connections, timers, has_active, .. } = &mut self.state;
        let limits = self.service.limits();
        // An upload is aborted at the third sweep without a part: after 1 to 1.5 times the limit.
        let after = |period: Duration| now + period.max(SHORTEST_PERIOD);
        timers.keep(Timer::UploadSweep, !connections.is_empty(), || after(limits.upload_idle / 2));
        timers.keep(Timer::BufferSweep, *has_active, || after(BUFFER_SWEEP_PERIOD));
        let timeout = limits
            .request_deadline
            .filter(|_| self.workers.as_ref().is_some_and(|workers| workers.running() > 0));
        let check = || after(timeout.unwrap_or_default() / 4);
        timers.keep(Timer::RequestCheck, timeout.is_some(), check);
    }

    /// Does what is due. A timer that is set again here is due later than `now`, so this ends.
    pub(super) fn expire_timers(&mut self, now: Instant) {
        while let Some(timer) = self.state.timers.pop_expired(now) {
            match timer {
                Timer::AcceptRetry => self.acceptor.retry_now(),
                Timer::UploadSweep => {
                    self.sweep_uploads();
                    self.abort_idle_uploads(now);
                }
                Timer::IdleUploads => self.abort_idle_uploads(now),
                Timer::BufferSweep => self.sweep_buffers(),
                Timer::RequestCheck => self.time_out_requests(now),
                Timer::Heartbeat => self.beat(now),
                Timer::Gauges => {
                    self.set_gauges(now);
                    self.state.timers.set(Timer::Gauges, now + GAUGES_PERIOD);
                }
                Timer::Shutdown => self.state.is_timed_out = true,
                Timer::Close(token) => self.abort_unless_it_progresses(token, now),
            }
        }
    }

    fn sweep_uploads(&mut self) {
        for connection in self.state.connections.values() {
            connection.sweep_uploads(&self.service);
        }
    }

    /// Aborts some of the uploads that were given up, and the others next time: the plugin may take its time
    /// for each.
    fn abort_idle_uploads(&mut self, now: Instant) {
        let mut rest = IDLE_UPLOADS_AT_ONCE;
        for connection in self.state.connections.values() {
            rest -= connection.abort_idle_uploads(&self.service, rest);
            if rest == 0 {
                self.state.timers.set(Timer::IdleUploads, now + SHORTEST_PERIOD);
                return;
            }
        }
    }

    /// Frees the buffers of connections that have been idle since the last sweep, and when all are,
    /// those of reads.
    fn sweep_buffers(&mut self) {
        let State { connections, has_active, .. } = &mut self.state;
        *has_active = false;
        for connection in connections.values_mut() {
            *has_active |= connection.release_if_idle();
            connection.count_memory(&mut self.buffers.held);
        }
        if !*has_active {
            release_unused();
        }
    }

    fn beat(&mut self, now: Instant) {
        let clients = self.state.connections.len();
        self.telemetry.heartbeat.emit(Heartbeat::Alive { clients });
        let period = self.telemetry.heartbeat.period();
        let period = period.map(|period| period.max(Duration::from_nanos(1)));
        if let Some(next) = period.and_then(|period| now.checked_add(period)) {
            self.state.timers.set(Timer::Heartbeat, next);
        }
    }

    /// Answers requests that took too long.
    fn time_out_requests(&mut self, now: Instant) {
        let (Some(workers), Some(timeout)) =
            (&mut self.workers, self.service.limits().request_deadline)
        else {
            return;
        };
        let recorders = self.telemetry.recorders();
        let State { connections, scheduler, .. } = &mut self.state;
        for timed_out in workers.time_out(now, timeout) {
            let token = timed_out.token;
            let Some(connection) = connections.get_mut(&token) else { continue };
            guarded(token, connection, &self.service, |connection| {
                connection.on_timed_out(timed_out, recorders, now);
            });
            scheduler.ready(token);
        }
    }

    /// Gives up on a client that has not taken its last replies in time.
    fn abort_unless_it_progresses(&mut self, token: Token, now: Instant) {
        let State { connections, scheduler, timers, .. } = &mut self.state;
        let Some(connection) = connections.get_mut(&token) else { return };
        if connection.take_progress() {
            timers.set(Timer::Close(token), now + self.service.limits().shutdown_timeout);
        } else {
            guarded(token, connection, &self.service, |c| c.abort(&self.service));
            scheduler.ready(token);
        }
    }
}
