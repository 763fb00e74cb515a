//! Jobs in flight: those that workers run, and those that wait for another one of their ordering key.
//! Pure: no thread and no clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use cvmcache_proto::{Envelope, Request, ServerMessage, Status};
use mio::Token;

use super::jobs::{Job, Outcome, Serial, Ticket};
use super::ordering::{KeyedQueues, OrderingKey};
use crate::sparse::shrink_if_sparse;

/// The jobs in flight, by serial.
///
/// Invariants: `running` is the number of entries that are with the workers, and `overdue` of those
/// that are so for too long. An entry that waits behind another one is in `queues` under its key. A
/// request is answered exactly once: by its worker, or by a timeout, and after that its entry is
/// overdue if its worker has it, and gone if not. So a request that was answered with TIMEOUT before
/// it began never runs.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    entries: HashMap<Serial, Entry>,
    queues: KeyedQueues<(Option<Token>, OrderingKey), (Serial, Job)>,
    last_serial: u64,
    running: usize,
    overdue: usize,
}

#[derive(Debug)]
struct Entry {
    /// `None` for a job of the server itself.
    token: Option<Token>,
    ticket: Ticket,
    /// How to answer it without its worker; `None` for what is no request.
    envelope: Option<Envelope>,
    key: Option<OrderingKey>,
    state: State,
    /// The end of a session is never overdue: it may take as long as all its references do; nor is a call for
    /// an administrator.
    has_deadline: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It waits behind another one.
    Queued,
    /// A worker has it, or is to find it next.
    Running,
    /// The same, for too long. If it is a request, it has been answered.
    Overdue,
}

/// A job that a worker has done.
#[derive(Debug)]
pub(crate) struct Completed {
    /// The connection; `None` for a job of the server itself.
    pub(crate) token: Option<Token>,
    pub(crate) ticket: Ticket,
    pub(crate) outcome: Outcome,
    /// The request was answered with TIMEOUT meanwhile: its reply is not to be sent.
    pub(crate) is_late: bool,
}

/// A request that is to be answered because it took too long.
#[derive(Debug)]
pub(crate) struct TimedOut {
    pub(crate) token: Token,
    pub(crate) ticket: Ticket,
    pub(crate) reply: ServerMessage,
    /// It had not begun, and never will: the memory it took is free.
    pub(crate) is_over: bool,
}

impl InFlight {
    /// True if a request has to wait for another one of its ordering key.
    pub(super) fn must_wait(&self, token: Option<Token>, request: &Request) -> bool {
        OrderingKey::of(request).is_some_and(|key| self.queues.is_busy(&(token, key)))
    }

    /// Takes a job in. Returns it if it is to be submitted now.
    pub(super) fn begin(
        &mut self,
        token: Option<Token>,
        job: Job,
        ticket: Ticket,
    ) -> Option<(Serial, Job)> {
        self.last_serial += 1;
        let serial = Serial(self.last_serial);
        let (envelope, key) = match &job {
            Job::Handle(_, request) => (Some(request.envelope()), OrderingKey::of(request)),
            Job::EndSession(_) | Job::Usage | Job::Call(_) => (None, None),
        };
        let has_deadline = !matches!(job, Job::EndSession(_) | Job::Call(_));
        let passed = match key {
            None => Some((serial, job)),
            Some(key) => self.queues.enter((token, key), (serial, job)),
        };
        let state = if passed.is_some() { State::Running } else { State::Queued };
        self.running += usize::from(passed.is_some());
        let entry = Entry { token, ticket, envelope, key, state, has_deadline };
        self.entries.insert(serial, entry);
        passed
    }

    /// A worker has done a job. Returns what is to be submitted in its place, if another one waited
    /// behind it.
    pub(super) fn complete(
        &mut self,
        serial: Serial,
        outcome: Outcome,
    ) -> (Option<Completed>, Option<(Serial, Job)>) {
        let Some(entry) = self.entries.remove(&serial) else { return (None, None) };
        shrink_if_sparse(&mut self.entries);
        let Entry { token, ticket, key, state, .. } = entry;
        let is_late = state == State::Overdue;
        self.running -= 1;
        self.overdue -= usize::from(is_late);
        let next = key.and_then(|key| self.queues.leave(&(token, key)));
        if let Some((serial, _)) = &next
            && let Some(entry) = self.entries.get_mut(serial)
        {
            entry.state = State::Running;
            self.running += 1;
        }
        (Some(Completed { token, ticket, outcome, is_late }), next)
    }

    /// Finds the jobs that have been in flight for longer than `timeout`; returns the requests among
    /// them, in the order in which they were received. Each is found once.
    pub(super) fn time_out(&mut self, now: Instant, timeout: Duration) -> Vec<TimedOut> {
        let is_overdue = |entry: &Entry| {
            let time = now.saturating_duration_since(entry.ticket.received);
            entry.has_deadline && entry.state != State::Overdue && time > timeout
        };
        let overdue = self.entries.iter().filter(|(_, entry)| is_overdue(entry));
        let mut overdue: Vec<Serial> = overdue.map(|(serial, _)| *serial).collect();
        overdue.sort_unstable();
        overdue.into_iter().filter_map(|serial| self.give_up(serial)).collect()
    }

    fn give_up(&mut self, serial: Serial) -> Option<TimedOut> {
        let entry = self.entries.get_mut(&serial)?;
        let is_over = entry.state == State::Queued;
        let (token, ticket, key) = (entry.token, entry.ticket, entry.key);
        let reply = entry.envelope.map(|envelope| envelope.fail(Status::Timeout));
        if is_over {
            self.entries.remove(&serial);
            // Never run a request that was answered with TIMEOUT before it began.
            let _ = key.and_then(|key| self.queues.remove(&(token, key), |(s, _)| *s == serial));
        } else {
            entry.state = State::Overdue;
            self.overdue += 1;
        }
        Some(TimedOut { token: token?, ticket, reply: reply?, is_over })
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn overdue(&self) -> usize {
        self.overdue
    }
}

#[cfg(test)]
mod tests {
    use cvmcache_proto::{HashAlgorithm, ObjectId, Operation, Request};

    use super::*;
    use crate::server::testing;

    const TOKEN: Option<Token> = Some(Token(2));

    struct Fixture {
        in_flight: InFlight,
        job: Box<dyn FnMut(u64, i32) -> Job>,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            let service = testing::service();
            let (_, open) = service.handshake(None, None);
            let job = move |id, change_by| {
                let object = ObjectId::new(HashAlgorithm::Sha1, [1; 20]);
                let operation = Operation::Refcount { object, change_by };
                Job::Handle(open.clone(), Request { session: 1, id, operation })
            };
            let start = Instant::now();
            Self { in_flight: InFlight::default(), job: Box::new(job), start }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.start + Duration::from_secs(seconds)
        }

        /// Begins a request that was received after so many seconds, and returns what is submitted.
        fn begin(&mut self, token: Option<Token>, change_by: i32, seconds: u64) -> Option<u64> {
            let job = (self.job)(seconds, change_by);
            let ticket = Ticket::new(self.at(seconds));
            self.in_flight.begin(token, job, ticket).map(|(serial, _)| serial.0)
        }

        fn complete(&mut self, serial: u64) -> (Completed, Option<u64>) {
            let (completed, next) = self.in_flight.complete(Serial(serial), Outcome::SessionEnded);
            (completed.unwrap(), next.map(|(serial, _)| serial.0))
        }

        /// The requests that are over their deadline of 10 s, by when they were received, and
        /// whether they are over.
        fn time_out(&mut self, seconds: u64) -> Vec<(u64, bool)> {
            let (now, start) = (self.at(seconds), self.start);
            let timed_out = self.in_flight.time_out(now, Duration::from_secs(10)).into_iter();
            let seconds = |it: &TimedOut| (it.ticket.received - start).as_secs();
            timed_out.map(|it| (seconds(&it), it.is_over)).collect()
        }

        fn counts(&self) -> (usize, usize) {
            (self.in_flight.running(), self.in_flight.overdue())
        }
    }

    #[test]
    fn requests_with_one_key_run_one_by_one() {
        let mut f = Fixture::new();
        assert_eq!(f.begin(TOKEN, 1, 0), Some(1));
        assert_eq!(f.begin(TOKEN, -1, 0), None);
        assert_eq!(f.begin(TOKEN, 0, 0), Some(3), "without a key");
        assert_eq!(f.begin(Some(Token(3)), 1, 0), Some(4), "another connection");
        assert_eq!(f.counts(), (3, 0));
        assert_eq!(f.complete(1).1, Some(2));
        assert_eq!(f.counts(), (3, 0));
        assert_eq!(f.complete(2).1, None);
        assert_eq!(f.complete(4).0.token, Some(Token(3)));
        assert_eq!(f.begin(TOKEN, 1, 0), Some(5));
    }

    #[test]
    fn a_request_is_answered_by_its_worker_or_by_a_timeout_and_not_by_both() {
        let mut f = Fixture::new();
        f.begin(TOKEN, 0, 0);
        f.begin(TOKEN, 0, 5);
        assert_eq!(f.time_out(10), []);
        assert_eq!(f.time_out(11), [(0, false)]);
        assert_eq!(f.time_out(12), []);
        assert_eq!(f.counts(), (2, 1));
        assert!(f.complete(1).0.is_late);
        assert!(!f.complete(2).0.is_late);
        assert_eq!(f.counts(), (0, 0));
        assert!(f.in_flight.complete(Serial(1), Outcome::SessionEnded).0.is_none());
    }

    #[test]
    fn a_request_that_times_out_before_it_began_never_runs() {
        let mut f = Fixture::new();
        f.begin(TOKEN, 1, 9);
        assert_eq!(f.begin(TOKEN, 1, 0), None);
        assert_eq!(f.begin(TOKEN, 1, 8), None);
        assert_eq!(f.time_out(11), [(0, true)]);
        assert_eq!(f.counts(), (1, 0), "it keeps no worker busy");
        assert_eq!(f.complete(1).1, Some(3));
    }

    #[test]
    fn an_info_request_of_the_server_times_out_and_the_end_of_a_session_does_not() {
        let mut f = Fixture::new();
        let Job::Handle(open, _) = (f.job)(0, 0) else { panic!("a request") };
        let ticket = Ticket::new(f.start);
        f.in_flight.begin(None, Job::Usage, ticket).unwrap();
        f.in_flight.begin(TOKEN, Job::EndSession(open), ticket).unwrap();
        assert_eq!(f.time_out(11), [], "no client waits for a reply");
        assert_eq!(f.counts(), (2, 1));
        assert_eq!(f.complete(1).0.token, None);
        assert_eq!(f.counts(), (1, 0));
    }
}
