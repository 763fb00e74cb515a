//! The timers of the event loop: which of them are set, and what is done when one expires.

use std::time::{Duration, Instant};

use mio::Token;

use super::{EventLoop, State, guarded};
use crate::read_buffer::release_unused;
use crate::server::telemetry::Heartbeat;
use crate::server::timers::Timer;

/// The period of the gauges of the metrics.
const GAUGES_PERIOD: Duration = Duration::from_secs(2);

/// The period of the sweep for idle connections: one without a turn between two sweeps is idle.
const BUFFER_SWEEP_PERIOD: Duration = Duration::from_secs(5);

/// How many idle uploads are aborted at once: connections have their turns before the next ones.
const IDLE_UPLOADS_AT_ONCE: usize = 16;

/// The shortest period of a timer: with a limit of zero, the thread would be busy all the time.
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

    /// Sets the timers that the present connections and jobs need, and cancels the others.
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

    /// Handles the timers that have expired. One that is set again here expires later than `now`, so this ends.
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

    /// Aborts some of the uploads that were given up, and the others when the timer expires again: each abort is
    /// a callback, which takes time.
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

    /// Frees the buffers of connections that have been idle since the last sweep, and those of reads when all
    /// connections have.
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

    /// Answers requests over their deadline with TIMEOUT.
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

    /// Aborts a connection whose client has taken no reply during a shutdown timeout.
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
