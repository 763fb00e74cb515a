//! Which objects are being recalled, and which could not be: each is recalled once, however many threads ask for
//! it, and a failure is remembered for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cvmcache::plugin::ObjectId;
use parking_lot::{Condvar, Mutex};

/// What came of a recall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The object is in the hot tier. The thread that has recalled it holds a reference.
    Recalled { is_leader: bool },
    /// It is not; the client fetches it from its servers.
    Failed,
}

/// The recalls of a tier.
#[derive(Debug)]
pub(crate) struct Recalls {
    state: Mutex<State>,
    /// How many threads may wait for the store at once. Invariant: fewer than there are workers, so that the
    /// others have some.
    max_waiting: usize,
}

#[derive(Debug, Default)]
struct State {
    running: HashMap<ObjectId, Arc<Recall>>,
    failed: HashMap<ObjectId, Instant>,
    waiting: usize,
}

/// A recall that other threads may wait for.
#[derive(Debug, Default)]
struct Recall {
    succeeded: Mutex<Option<bool>>,
    ended: Condvar,
}

/// After a miss, the client asks a second time while it holds a lock that all other misses of the mount need: this
/// is answered at once.
pub(crate) const FAILURE_REMEMBERED: Duration = Duration::from_secs(5);

/// At this many failures, those that are over are forgotten.
const MAX_FAILED: usize = 10_000;

impl Recalls {
    pub(crate) fn new(max_waiting: usize) -> Self {
        Self { state: Mutex::default(), max_waiting }
    }

    /// Runs `work`, which recalls the object, or waits for the thread that already does.
    pub(crate) fn recall(
        &self,
        id: &ObjectId,
        now: Instant,
        work: impl FnOnce() -> bool,
    ) -> Outcome {
        let (recall, is_leader) = {
            let mut state = self.state.lock();
            if state.failed.get(id).is_some_and(|&until| now < until)
                || state.waiting >= self.max_waiting
            {
                return Outcome::Failed;
            }
            state.waiting += 1;
            match state.running.get(id) {
                Some(recall) => (Arc::clone(recall), false),
                None => {
                    let recall = Arc::new(Recall::default());
                    state.running.insert(*id, Arc::clone(&recall));
                    (recall, true)
                }
            }
        };
        let mut waiting =
            Waiting { recalls: self, id: *id, now, recall, is_leader, succeeded: false };
        if is_leader {
            waiting.succeeded = work();
        } else {
            let mut succeeded = waiting.recall.succeeded.lock();
            while succeeded.is_none() {
                waiting.recall.ended.wait(&mut succeeded);
            }
            let succeeded = *succeeded == Some(true);
            waiting.succeeded = succeeded;
        }
        if waiting.succeeded { Outcome::Recalled { is_leader } } else { Outcome::Failed }
    }

    /// How many objects are being recalled.
    pub(crate) fn running(&self) -> usize {
        self.state.lock().running.len()
    }

    /// The object is here again: a failure before that is of no matter.
    pub(crate) fn forget_failure(&self, id: &ObjectId) {
        self.state.lock().failed.remove(id);
    }

    /// True if a recall of the object has just failed.
    pub(crate) fn has_failed(&self, id: &ObjectId, now: Instant) -> bool {
        self.state.lock().failed.get(id).is_some_and(|&until| now < until)
    }
}

/// A thread that recalls, or waits for one that does; ended also if the work panics.
struct Waiting<'a> {
    recalls: &'a Recalls,
    id: ObjectId,
    now: Instant,
    recall: Arc<Recall>,
    is_leader: bool,
    succeeded: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.recalls.state.lock();
        state.waiting -= 1;
        if !self.is_leader {
            return;
        }
        state.running.remove(&self.id);
        if self.succeeded {
            state.failed.remove(&self.id);
        } else {
            if state.failed.len() >= MAX_FAILED {
                let now = self.now;
                state.failed.retain(|_, until| now < *until);
                if state.failed.len() >= MAX_FAILED {
                    state.failed.clear();
                }
            }
            // From the end of the attempt on: it may have taken longer than this.
            let until = self.now.max(Instant::now()) + FAILURE_REMEMBERED;
            state.failed.insert(self.id, until);
        }
        drop(state);
        *self.recall.succeeded.lock() = Some(self.succeeded);
        self.recall.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::thread;

    use cvmcache::plugin::HashAlgorithm;

    use super::*;

    fn id(number: u8) -> ObjectId {
        ObjectId::new(HashAlgorithm::Sha1, [number; ObjectId::DIGEST_LEN])
    }

    #[test]
    fn an_object_is_recalled_once_however_many_threads_ask() {
        let recalls = Recalls::new(8);
        let times = AtomicUsize::new(0);
        let now = Instant::now();
        let leaders: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        recalls.recall(&id(1), now, || {
                            // Until all others wait for it.
                            while recalls.state.lock().waiting < 8 {
                                thread::yield_now();
                            }
                            times.fetch_add(1, Ordering::Relaxed);
                            true
                        })
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(times.into_inner(), 1);
        let is_leader = |outcome: &&Outcome| **outcome == Outcome::Recalled { is_leader: true };
        assert_eq!(leaders.iter().filter(is_leader).count(), 1);
        assert_eq!(leaders.iter().filter(|outcome| **outcome == Outcome::Failed).count(), 0);
        assert_eq!(recalls.running(), 0);
    }

    #[test]
    fn a_failure_is_remembered_and_answered_at_once() {
        let recalls = Recalls::new(8);
        let now = Instant::now();
        assert_eq!(recalls.recall(&id(1), now, || false), Outcome::Failed);
        assert!(recalls.has_failed(&id(1), now));
        assert_eq!(recalls.recall(&id(1), now, || unreachable!()), Outcome::Failed);
        assert_ne!(recalls.recall(&id(2), now, || true), Outcome::Failed);
        let later = Instant::now() + FAILURE_REMEMBERED;
        assert_ne!(recalls.recall(&id(1), later, || true), Outcome::Failed);
        assert!(!recalls.has_failed(&id(1), now));
    }

    #[test]
    fn no_more_threads_wait_than_may() {
        let recalls = Recalls::new(1);
        let now = Instant::now();
        let (end, ended) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        thread::scope(|scope| {
            let recalls = &recalls;
            scope.spawn(move || {
                recalls.recall(&id(1), now, || {
                    begin.send(()).unwrap();
                    ended.recv().is_err()
                })
            });
            begun.recv().unwrap();
            assert_eq!(recalls.recall(&id(2), now, || unreachable!()), Outcome::Failed);
            assert!(!recalls.has_failed(&id(2), now), "it was not tried");
            drop(end);
        });
        assert_ne!(recalls.recall(&id(2), now, || true), Outcome::Failed);
    }

    #[test]
    fn a_panic_is_a_failure() {
        let recalls = Recalls::new(1);
        let now = Instant::now();
        let panicked =
            catch_unwind(AssertUnwindSafe(|| recalls.recall(&id(1), now, || panic!("a test"))));
        assert!(panicked.is_err());
        assert!(recalls.has_failed(&id(1), now));
        assert_ne!(recalls.recall(&id(2), now, || true), Outcome::Failed);
    }
}
