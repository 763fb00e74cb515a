//! Which connection has the next turn, and which may hand a job to the workers. Pure: it knows
//! tokens, no sockets, no threads and no clock.
//!
//! Turns go round robin: a connection that is ready is queued once, and every queued connection gets
//! one turn between two calls of `epoll_wait`. Workers are shared in the same way: while they have
//! enough to do, a connection with more requests waits in line, first come, first served, and is
//! granted one job when it gets to the front. So no connection takes all workers by being first
//! with the most requests.
//!
//! ```text
//!          ready                       wait_for_worker
//!   Idle ────────► Queued ──next_turn──► (turn) ────────► Waiting ──grant──► Granted ──next_turn──► (turn)
//!    ▲                                     │
//!    └─────────────────────────────────────┘
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mio::Token;

/// How long a round of turns takes at most; the connections share it. One more callback may be
/// running when a turn is over.
const ROUND: Duration = Duration::from_millis(20);
const LONGEST_TURN: Duration = Duration::from_millis(2);
const SHORTEST_TURN: Duration = Duration::from_micros(100);

/// What the scheduler knows of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has nothing to do.
    Idle,
    /// It has a place in `turns`.
    Queued,
    /// It has requests for the workers and a place in `line`; and one in `turns` if it has something
    /// else to do, such as to send a reply.
    Waiting { is_queued: bool },
    /// It has a place in `turns`, and may hand over one job.
    Granted,
}

/// The states of all connections.
///
/// Invariant: a token is in `turns` exactly once if its state is `Queued`, `Granted` or `Waiting`
/// with `is_queued`, and in `line` exactly once if it is `Waiting`; otherwise in neither.
#[derive(Debug, Default)]
pub(crate) struct Scheduler {
    /// A tree: a look-up takes less than the hash of a token.
    states: BTreeMap<Token, State>,
    turns: VecDeque<Token>,
    line: VecDeque<Token>,
}

/// The turns of all connections that are queued at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) turns: usize,
    /// How long each of them may take.
    pub(crate) time: Duration,
}

/// A turn of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) token: Token,
    /// How many jobs it may hand to the workers.
    pub(crate) jobs: usize,
}

impl Scheduler {
    /// Takes a new connection in, idle.
    pub(crate) fn add(&mut self, token: Token) {
        self.states.insert(token, State::Idle);
    }

    /// Forgets a connection.
    pub(crate) fn remove(&mut self, token: Token) {
        let removed = self.states.remove(&token);
        match removed {
            None | Some(State::Idle) => {}
            // Rare: a connection usually closes in a turn, and then it is idle.
            Some(_) => {
                self.turns.retain(|queued| *queued != token);
                self.line.retain(|waiting| *waiting != token);
            }
        }
    }

    /// Queues a connection for a turn, unless it is queued. Ignores one that is not known any more.
    pub(crate) fn ready(&mut self, token: Token) {
        let Some(state) = self.states.get_mut(&token) else { return };
        *state = match *state {
            State::Idle => State::Queued,
            State::Waiting { is_queued: false } => State::Waiting { is_queued: true },
            State::Queued | State::Waiting { is_queued: true } | State::Granted => return,
        };
        self.turns.push_back(token);
    }

    /// Puts a connection in line for a worker, unless it is there.
    pub(crate) fn wait_for_worker(&mut self, token: Token) {
        let Some(state) = self.states.get_mut(&token) else { return };
        *state = match *state {
            State::Idle => State::Waiting { is_queued: false },
            State::Queued => State::Waiting { is_queued: true },
            State::Waiting { .. } | State::Granted => return,
        };
        self.line.push_back(token);
    }

    /// Grants a job to each of the first connections in line, as many as workers have room for.
    pub(crate) fn grant(&mut self, room: usize) {
        for _ in 0..room {
            let Some(token) = self.line.pop_front() else { break };
            let Some(state) = self.states.get_mut(&token) else { continue };
            let was_queued = *state == State::Waiting { is_queued: true };
            *state = State::Granted;
            if !was_queued {
                self.turns.push_back(token);
            }
        }
    }

    /// Begins a round: a connection that gets ready from now on has its turn in the next one.
    pub(crate) fn round(&self) -> Round {
        let turns = self.turns.len();
        let time = (ROUND / turns.max(1) as u32).clamp(SHORTEST_TURN, LONGEST_TURN);
        Round { turns, time }
    }

    /// Takes the connection that has the next turn out of the queue. `room` is how many more jobs the
    /// workers should have. While connections wait in line, only those that are granted get any.
    pub(crate) fn next_turn(&mut self, room: usize) -> Option<Turn> {
        let token = self.turns.pop_front()?;
        let state = self.states.get_mut(&token)?;
        let jobs = match *state {
            State::Granted => 1,
            _ if self.line.is_empty() => room,
            _ => 0,
        };
        *state = match *state {
            State::Waiting { .. } => State::Waiting { is_queued: false },
            _ => State::Idle,
        };
        Some(Turn { token, jobs })
    }

    /// True if there is a turn to take, or a job to grant, without waiting for an event.
    pub(crate) fn has_work(&self, room: usize) -> bool {
        !self.turns.is_empty() || (!self.line.is_empty() && room > 0)
    }

    /// How many connections wait for a worker.
    pub(crate) fn waiting(&self) -> usize {
        self.line.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scheduler(connections: usize) -> Scheduler {
        let mut scheduler = Scheduler::default();
        (0..connections).for_each(|token| scheduler.add(Token(token)));
        scheduler
    }

    fn turn(scheduler: &mut Scheduler, room: usize) -> Option<(usize, usize)> {
        scheduler.next_turn(room).map(|turn| (turn.token.0, turn.jobs))
    }

    /// Checks the invariant.
    fn check(scheduler: &Scheduler) {
        let places = |queue: &VecDeque<Token>, token| queue.iter().filter(|t| **t == token).count();
        let count = |of: fn(&State) -> bool| scheduler.states.values().filter(|s| of(s)).count();
        for (&token, state) in &scheduler.states {
            let is_waiting = matches!(state, State::Waiting { .. });
            let is_queued = !matches!(state, State::Idle | State::Waiting { is_queued: false });
            assert_eq!(places(&scheduler.turns, token), usize::from(is_queued), "{state:?}");
            assert_eq!(places(&scheduler.line, token), usize::from(is_waiting), "{state:?}");
        }
        let waiting = count(|state| matches!(state, State::Waiting { .. }));
        assert_eq!(scheduler.line.len(), waiting);
        let resting = count(|s| matches!(s, State::Idle | State::Waiting { is_queued: false }));
        assert_eq!(scheduler.turns.len(), scheduler.states.len() - resting);
    }

    #[test]
    fn a_connection_that_is_ready_twice_has_one_turn() {
        let mut scheduler = scheduler(2);
        scheduler.ready(Token(1));
        scheduler.ready(Token(0));
        scheduler.ready(Token(1));
        check(&scheduler);
        assert_eq!(turn(&mut scheduler, 3), Some((1, 3)));
        assert_eq!(turn(&mut scheduler, 3), Some((0, 3)));
        assert_eq!(turn(&mut scheduler, 3), None);
        check(&scheduler);
    }

    #[test]
    fn while_connections_wait_in_line_only_those_granted_hand_over_jobs() {
        let mut scheduler = scheduler(3);
        for token in [0, 1] {
            scheduler.wait_for_worker(Token(token));
            scheduler.wait_for_worker(Token(token));
        }
        assert_eq!(scheduler.waiting(), 2);
        assert!(!scheduler.has_work(0));
        assert!(scheduler.has_work(1));
        scheduler.ready(Token(2));
        scheduler.ready(Token(1));
        check(&scheduler);
        assert_eq!(turn(&mut scheduler, 5), Some((2, 0)));
        assert_eq!(turn(&mut scheduler, 5), Some((1, 0)), "it keeps its place in line");
        scheduler.grant(1);
        check(&scheduler);
        assert_eq!(turn(&mut scheduler, 5), Some((0, 1)), "first come, first served");
        scheduler.grant(5);
        assert_eq!(turn(&mut scheduler, 5), Some((1, 1)));
        check(&scheduler);
        scheduler.ready(Token(2));
        assert_eq!(turn(&mut scheduler, 5), Some((2, 5)), "no connection waits any more");
    }

    #[test]
    fn a_grant_adds_no_second_turn() {
        let mut scheduler = scheduler(1);
        scheduler.wait_for_worker(Token(0));
        scheduler.ready(Token(0));
        scheduler.grant(1);
        scheduler.ready(Token(0));
        check(&scheduler);
        assert_eq!(turn(&mut scheduler, 0), Some((0, 1)));
        assert_eq!(turn(&mut scheduler, 0), None);
    }

    #[test]
    fn a_connection_that_closed_has_no_turn_and_no_grant() {
        let mut scheduler = scheduler(2);
        scheduler.ready(Token(0));
        scheduler.wait_for_worker(Token(0));
        scheduler.ready(Token(1));
        assert_eq!(turn(&mut scheduler, 1), Some((0, 0)));
        scheduler.ready(Token(0));
        scheduler.remove(Token(0));
        check(&scheduler);
        scheduler.ready(Token(0));
        assert_eq!(scheduler.waiting(), 0);
        assert_eq!(turn(&mut scheduler, 1), Some((1, 1)));
        assert_eq!(turn(&mut scheduler, 1), None);
    }

    #[test]
    fn a_round_is_shared_by_all_turns() {
        let mut scheduler = scheduler(1000);
        assert_eq!(scheduler.round().turns, 0);
        scheduler.ready(Token(0));
        assert_eq!(scheduler.round(), Round { turns: 1, time: LONGEST_TURN });
        (0..40).for_each(|token| scheduler.ready(Token(token)));
        assert_eq!(scheduler.round(), Round { turns: 40, time: ROUND / 40 });
        (0..1000).for_each(|token| scheduler.ready(Token(token)));
        assert_eq!(scheduler.round().time, SHORTEST_TURN);
    }
}
