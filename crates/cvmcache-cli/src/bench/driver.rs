//! The closed loop: each task has one request under way, and the next when it is answered.
//!
//! A connection carries as many tasks as there are to be requests in flight, as a mount carries
//! many threads. What the tasks do is not known here, nor whom they talk to: plugins and bare
//! sockets are measured by the same loop.

use std::thread;
use std::time::{Duration, Instant};

use cvmcache::client::ClientError;

use super::measure::{Round, Samples};

/// A connection, whose answers may come in any order.
pub(super) trait Link: Send {
    type Request;
    type Answer;

    /// Has a request of a task sent before the next wait.
    fn queue(&mut self, task: usize, request: Self::Request) -> Result<(), ClientError>;

    /// Waits for an answer, and says to which task.
    fn receive(&mut self) -> Result<(usize, Self::Answer), ClientError>;
}

/// A thread of a client: it does one thing again and again, in one request or several.
pub(super) trait Task<Q, A>: Send {
    /// Begins anew.
    fn begin(&mut self) -> Q;

    /// Goes on with an answer.
    fn proceed(&mut self, answer: A) -> Result<Next<Q>, ClientError>;
}

impl<Q, A, T: Task<Q, A> + ?Sized> Task<Q, A> for Box<T> {
    fn begin(&mut self) -> Q {
        (**self).begin()
    }

    fn proceed(&mut self, answer: A) -> Result<Next<Q>, ClientError> {
        (**self).proceed(answer)
    }
}

pub(super) enum Next<Q> {
    Request(Q),
    Done(Done),
}

/// What has been done.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    /// Bytes read or stored.
    pub(super) bytes: u64,
    /// Of which stored.
    pub(super) stored: u64,
    /// The object had to be stored first: not what is to be timed.
    pub(super) missed: bool,
}

/// Something that can be measured, round by round.
pub(super) trait Measurable {
    fn round(&mut self, warm_up: Duration, duration: Duration) -> Result<Round, ClientError>;
}

/// Connections with their tasks.
pub(super) struct Loops<L, T>(pub(super) Vec<(L, Vec<T>)>);

impl<L, T> Measurable for Loops<L, T>
where
    L: Link,
    T: Task<L::Request, L::Answer>,
{
    fn round(&mut self, warm_up: Duration, duration: Duration) -> Result<Round, ClientError> {
        let from = Instant::now() + warm_up;
        let window = Window { from, until: from + duration };
        let samples: Result<Vec<Samples>, ClientError> = thread::scope(|scope| {
            let run = |(link, tasks): (_, &mut Vec<T>)| run(link, tasks, window);
            let threads: Vec<_> =
                self.0.iter_mut().map(|(l, t)| scope.spawn(move || run((l, t)))).collect();
            // A panic of a thread is one of the program.
            threads
                .into_iter()
                .map(|thread| {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
                .collect()
        });
        Ok(Round::of(samples?))
    }
}

/// When things are measured: what is begun within.
#[derive(Debug, Clone, Copy)]
struct Window {
    from: Instant,
    until: Instant,
}

/// Keeps all tasks busy until the time is over, and then waits for what is under way.
fn run<L, T>(link: &mut L, tasks: &mut [T], window: Window) -> Result<Samples, ClientError>
where
    L: Link,
    T: Task<L::Request, L::Answer>,
{
    let mut samples = Samples::default();
    let mut begun = Vec::with_capacity(tasks.len());
    for (number, task) in tasks.iter_mut().enumerate() {
        begun.push(Instant::now());
        link.queue(number, task.begin())?;
    }
    let mut active = tasks.len();
    while active > 0 {
        let (number, answer) = link.receive()?;
        samples.all_requests += 1;
        let is_measured = begun[number] >= window.from;
        samples.requests += u64::from(is_measured);
        let done = match tasks[number].proceed(answer)? {
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
        // Something is measured in each round, however short it is.
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

    /// Answers the newest request first, and takes note of how many wait.
    #[derive(Default)]
    struct Stack {
        waiting: Vec<(usize, u32)>,
        most: usize,
    }

    impl Link for Stack {
        type Request = u32;
        type Answer = u32;

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

        fn proceed(&mut self, answer: u32) -> Result<Next<u32>, ClientError> {
            Ok(match answer {
                3 => Next::Done(Done { bytes: 3, ..Done::default() }),
                n => Next::Request(n + 1),
            })
        }
    }

    /// Is not done before a certain time.
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
    fn each_task_has_one_request_under_way_and_ends_what_it_began() {
        let now = Instant::now();
        let mut stack = Stack::default();
        let window = Window { from: now, until: now };
        let samples = run(&mut stack, &mut [ToThree, ToThree], window).unwrap();
        assert_eq!((stack.most, stack.waiting.len()), (2, 0));
        assert_eq!((samples.ops, samples.requests, samples.bytes), (2, 6, 6));
    }

    #[test]
    fn something_is_measured_however_short_the_round_is() {
        let soon = Instant::now() + Duration::from_millis(1);
        let window = Window { from: soon, until: soon };
        let samples = run(&mut Stack::default(), &mut [Patient(soon)], window).unwrap();
        assert_eq!(samples.ops, 1);
    }

    #[test]
    fn what_is_begun_while_warming_up_does_not_count() {
        let now = Instant::now();
        let window = Window { from: now + Duration::from_secs(3600), until: now };
        let samples = run(&mut Stack::default(), &mut [ToThree], window).unwrap();
        assert_eq!((samples.ops, samples.requests, samples.all_requests), (0, 0, 3));
    }
}
