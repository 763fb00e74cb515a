//! The threads that serve connections: started when there are connections, and ended when there are none.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::warn;

use crate::{threads, watchdog};

/// How many connections are served at once: one whose plugin does not answer does not keep out the next.
const THREADS: usize = 2;

/// How many more wait.
const WAITING: usize = 16;

/// Serves items, a few at a time.
pub(super) struct Pool<T>(Arc<Shared<T>>);

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    serve: Box<dyn Fn(T) + Send + Sync>,
}

/// Invariant: nothing waits while fewer than [`THREADS`] threads run, unless one cannot be started.
struct Queue<T> {
    waiting: VecDeque<T>,
    threads: usize,
}

/// There are too many items already.
#[derive(Debug)]
pub(super) struct Full<T>(pub(super) T);

impl<T: Send + 'static> Pool<T> {
    pub(super) fn new(serve: impl Fn(T) + Send + Sync + 'static) -> Self {
        let queue = Queue { waiting: VecDeque::new(), threads: 0 };
        Self(Arc::new(Shared { queue: Mutex::new(queue), serve: Box::new(serve) }))
    }

    /// Has an item served.
    pub(super) fn take(&self, item: T) -> Result<(), Full<T>> {
        let mut queue = self.0.queue.lock();
        if queue.waiting.len() >= WAITING {
            return Err(Full(item));
        }
        queue.waiting.push_back(item);
        if queue.threads == THREADS {
            return Ok(());
        }
        let shared = self.0.clone();
        let started = threads::spawn(&format!("admin-{}", queue.threads), move || {
            watchdog::prepare_thread();
            shared.run();
        });
        match started {
            Ok(_) => queue.threads += 1,
            Err(error) => {
                warn!(%error, "an administrator waits");
                // A thread that runs takes it; without one, none would.
                if queue.threads == 0
                    && let Some(item) = queue.waiting.pop_back()
                {
                    return Err(Full(item));
                }
            }
        }
        Ok(())
    }
}

impl<T> Shared<T> {
    /// Serves items until none waits. A panic, which is logged, costs the item that it comes of.
    fn run(&self) {
        loop {
            let mut queue = self.queue.lock();
            let Some(item) = queue.waiting.pop_front() else {
                queue.threads -= 1;
                return;
            };
            drop(queue);
            let _ = catch_unwind(AssertUnwindSafe(|| (self.serve)(item)));
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{bounded, unbounded};

    use super::*;

    #[test]
    fn a_few_items_are_served_at_once_and_more_wait_than_that_are_refused() {
        let (begun, has_begun) = unbounded();
        let (end, ends) = bounded::<()>(0);
        let pool = Pool::new(move |item: usize| {
            begun.send(item).unwrap();
            let _ = ends.recv();
        });
        for item in 0..THREADS {
            pool.take(item).unwrap();
        }
        let mut first: Vec<_> = has_begun.iter().take(THREADS).collect();
        first.sort_unstable();
        assert_eq!(first, [0, 1]);
        for item in 0..WAITING {
            pool.take(THREADS + item).unwrap();
        }
        assert_eq!(pool.take(99).unwrap_err().0, 99);
        drop(end);
        assert_eq!(has_begun.iter().take(WAITING).count(), WAITING);
        // The threads end, or the channel would not be disconnected.
        drop(pool);
        assert!(has_begun.recv().is_err());
    }

    #[test]
    fn a_thread_that_has_ended_is_started_again() {
        let (served, results) = unbounded();
        let pool = Pool::new(move |item: usize| served.send(item).unwrap());
        for item in 0..100 {
            pool.take(item).unwrap();
            assert_eq!(results.recv(), Ok(item));
        }
    }
}
