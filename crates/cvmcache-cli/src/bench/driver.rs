//! The closed loop: each task has one request in flight, and sends the next after the reply.
//!
//! A connection carries as many tasks as requests are to be in flight, as a mount carries many
//! threads. The loop knows neither tasks nor peers: plugins and raw sockets are measured by the same
//! code.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use cvmcache::client::ClientError;
use cvmcache::threads;

use super::measure::{Done, Round, Samples};

/// A connection; replies may arrive in any order.
pub(super) trait Link: Send {
    type Request;
    type Reply;

    /// Queues a request of a task, which is sent before the next wait at the latest.
    fn queue(&mut self, task: usize, request: Self::Request) -> Result<(), ClientError>;

    /// Waits for a reply; returns its task, too.
    fn receive(&mut self) -> Result<(usize, Self::Reply), ClientError>;
}

/// A thread of a client: repeats an operation of one or several requests.
pub(super) trait Task<Q, A>: Send {
    /// The first request of an operation.
    fn begin(&mut self) -> Q;

    /// The next request after a reply, or the end of the operation.
    fn proceed(&mut self, reply: A) -> Result<Next<Q>, ClientError>;
}

impl<Q, A, T: Task<Q, A> + ?Sized> Task<Q, A> for Box<T> {
    fn begin(&mut self) -> Q {
        (**self).begin()
    }

    fn proceed(&mut self, reply: A) -> Result<Next<Q>, ClientError> {
        (**self).proceed(reply)
    }
}

pub(super) enum Next<Q> {
    Request(Q),
    Done(Done),
}

/// What is measured in rounds.
pub(super) trait Measurable {
    fn round(&mut self, warm_up: Duration, duration: Duration) -> Result<Round, ClientError>;
}

/// Connections with their tasks.
pub(super) struct Loops<L, T>(pub(super) Vec<(L, Vec<T>)>);

impl<L, T> Measurable for Loops<L, T>
where
    L: Link,
    T: Task<L::Request, L::Reply>,
{
    fn round(&mut self, warm_up: Duration, duration: Duration) -> Result<Round, ClientError> {
        let from = Instant::now() + warm_up;
        let window = Window { from, until: from + duration };
        let samples: Result<Vec<Samples>, ClientError> = thread::scope(|scope| {
            let run = |(link, tasks): (_, &mut Vec<T>)| run(link, tasks, window);
            let spawn =
                |(link, tasks)| threads::spawn_scoped(scope, "client", move || run((link, tasks)));
            let started: io::Result<Vec<_>> =
                self.0.iter_mut().map(|(l, t)| spawn((l, t))).collect();
            // A panic of a thread is one of the program.
            started
                .map_err(ClientError::Io)?
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        });
        Ok(Round::of(samples?))
    }
}

/// The time window of a round: operations that begin in it are measured.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
}

/// Runs all tasks until the window ends, and then waits for the requests in flight.
fn run<L, T>(link: &mut L, tasks: &mut [T], window: Window) -> Result<Samples, ClientError>
where
    L: Link,
    T: Task<L::Request, L::Reply>,
{
    let mut samples = Samples::default();
    let mut begun = Vec::with_capacity(tasks.len());
    for (number, task) in tasks.iter_mut().enumerate() {
        begun.push(Instant::now());
        link.queue(number, task.begin())?;
    }
    let mut active = tasks.len();
    while active > 0 {
        let (number, reply) = link.receive()?;
        samples.all_requests += 1;
        let is_measured = begun[number] >= window.from;
        samples.requests += u64::from(is_measured);
        let done = match tasks[number].proceed(reply)? {
            Next::Request(request) => {
                link.queue(number, request)?;
                continue;
            }
            Next::Done(done) => done,
        };
        let now = Instant::now();
        samples.all_stored += done.stored;
        if is_measured {
            samples.add(done, now - begun[number], now - window.from);
        }
        // Each round measures at least one operation, however short the window is.
        let is_empty = samples.ops == 0 && now >= window.from;
        if now < window.until || is_empty {
            begun[number] = now;
            link.queue(number, tasks[number].begin())?;
        } else {
            active -= 1;
        }
    }
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers the newest request first, and records the most requests in flight.
    #[derive(Default)]
    struct Stack {
        waiting: Vec<(usize, u32)>,
        most: usize,
    }

    impl Link for Stack {
        type Request = u32;
        type Reply = u32;

        fn queue(&mut self, task: usize, request: u32) -> Result<(), ClientError> {
            self.waiting.push((task, request));
            self.most = self.most.max(self.waiting.len());
            Ok(())
        }

        fn receive(&mut self) -> Result<(usize, u32), ClientError> {
            self.waiting.pop().ok_or(ClientError::Closed)
        }
    }

    /// Counts to three.
    struct ToThree;

    impl Task<u32, u32> for ToThree {
        fn begin(&mut self) -> u32 {
            1
        }

        fn proceed(&mut self, reply: u32) -> Result<Next<u32>, ClientError> {
            Ok(match reply {
                3 => Next::Done(Done { bytes: 3, ..Done::default() }),
                n => Next::Request(n + 1),
            })
        }
    }

    /// An operation that ends at a given time.
    struct Patient(Instant);

    impl Task<u32, u32> for Patient {
        fn begin(&mut self) -> u32 {
            1
        }

        fn proceed(&mut self, _: u32) -> Result<Next<u32>, ClientError> {
            while Instant::now() < self.0 {}
            Ok(Next::Done(Done::default()))
        }
    }

    #[test]
    fn each_task_has_one_request_in_flight_and_finishes_its_operation() {
        let now = Instant::now();
        let mut stack = Stack::default();
        let window = Window { from: now, until: now };
        let samples = run(&mut stack, &mut [ToThree, ToThree], window).unwrap();
        assert_eq!((stack.most, stack.waiting.len()), (2, 0));
        assert_eq!((samples.ops, samples.requests, samples.bytes), (2, 6, 6));
    }

    #[test]
    fn the_shortest_round_measures_an_operation() {
        let soon = Instant::now() + Duration::from_millis(1);
        let window = Window { from: soon, until: soon };
        let samples = run(&mut Stack::default(), &mut [Patient(soon)], window).unwrap();
        assert_eq!(samples.ops, 1);
    }

    #[test]
    fn an_operation_that_begins_during_warm_up_is_not_measured() {
        let now = Instant::now();
        let window = Window { from: now + Duration::from_secs(3600), until: now };
        let samples = run(&mut Stack::default(), &mut [ToThree], window).unwrap();
        assert_eq!((samples.ops, samples.requests, samples.all_requests), (0, 0, 3));
    }
}
