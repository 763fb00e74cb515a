//! The threads that run callbacks when the I/O thread does not.
//!
//! Jobs that nobody works on yet are few: who has more of them waits for a turn, so that the
//! threads are shared between connections and not taken by who comes first with most.

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender};
use cvmcache_proto::{CacheInfo, Request, ServerMessage, Status};
use mio::Token;
use tracing::{trace_span, warn};

use crate::server::workers::completions::{Mailbox, Note};
use crate::server::workers::ordering::OrderingKey;
use crate::service::{OpenSession, Service};
use crate::watchdog;

/// A request on its way to the service.
#[derive(Debug)]
pub(crate) struct Call {
    /// Names the call among those of its connection.
    pub(crate) serial: u64,
    pub(crate) open: Arc<OpenSession>,
    pub(crate) request: Request,
}

/// Something to do for a connection.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) token: Token,
    pub(crate) work: Work,
    /// The lane that the request keeps busy.
    pub(crate) lane: Option<OrderingKey>,
}

#[derive(Debug)]
pub(crate) enum Work {
    Call(Call),
    EndSession(Arc<OpenSession>),
    /// Find out how full the cache is.
    Usage,
}

/// What came of a job.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) token: Token,
    pub(crate) outcome: Outcome,
    pub(crate) lane: Option<OrderingKey>,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Replied { serial: u64, reply: ServerMessage },
    SessionEnded,
    Usage(Option<CacheInfo>),
}

/// A pool of threads, as the I/O thread sees it.
#[derive(Debug)]
pub(crate) struct Workers {
    jobs: Sender<Job>,
    queue: Receiver<Job>,
    service: Arc<Service>,
    mailbox: Mailbox,
    /// How many of them there should be that are not stuck.
    count: usize,
    threads: RefCell<Vec<JoinHandle<()>>>,
    /// Jobs that are not done, and those of them that take too long.
    outstanding: Cell<usize>,
    stuck: Cell<usize>,
}

/// For each thread that should be there, how many may be started instead of stuck ones.
const MAX_REPLACEMENTS: usize = 3;

impl Workers {
    /// Starts `count` threads; `None` for none.
    pub(crate) fn start(
        count: usize,
        service: &Arc<Service>,
        mailbox: &Mailbox,
    ) -> io::Result<Option<Self>> {
        let (jobs, queue) = crossbeam_channel::unbounded();
        let workers = Self {
            jobs,
            queue,
            service: service.clone(),
            mailbox: mailbox.clone(),
            count,
            threads: RefCell::default(),
            outstanding: Cell::new(0),
            stuck: Cell::new(0),
        };
        for _ in 0..count {
            workers.start_thread()?;
        }
        Ok((count > 0).then_some(workers))
    }

    fn start_thread(&self) -> io::Result<()> {
        let mut threads = self.threads.borrow_mut();
        let (queue, service) = (self.queue.clone(), self.service.clone());
        let mailbox = self.mailbox.clone();
        let name = format!("worker-{}", threads.len());
        let work = move || {
            watchdog::prepare_thread();
            work(&queue, &service, &mailbox);
        };
        threads.push(thread::Builder::new().name(name).spawn(work)?);
        Ok(())
    }

    /// Takes note that a job takes too long, and has somebody else do what its thread does not.
    pub(crate) fn replace(&self) {
        self.stuck.set(self.stuck.get() + 1);
        let threads = self.threads.borrow().len();
        let spare = threads - self.count;
        if self.stuck.get() <= spare || spare >= MAX_REPLACEMENTS * self.count {
            return;
        }
        match self.start_thread() {
            Ok(()) => warn!(threads = threads + 1, "a callback takes too long: one more worker"),
            Err(error) => warn!(%error, "a callback takes too long, and no other worker can start"),
        }
    }

    /// Takes note that such a job is done after all.
    pub(crate) fn recovered(&self) {
        self.stuck.set(self.stuck.get() - 1);
    }

    /// How many jobs are not done.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding.get()
    }

    /// How many of them take too long.
    pub(crate) fn stuck(&self) -> usize {
        self.stuck.get()
    }

    /// True if there are jobs that are not done.
    pub(crate) fn are_busy(&self) -> bool {
        self.outstanding.get() > 0
    }

    /// How many more jobs there should be: one for each thread, and one that it finds next.
    pub(crate) fn room(&self) -> usize {
        (2 * self.count + self.stuck.get()).saturating_sub(self.outstanding.get())
    }

    /// Hands a job to whoever is free next.
    pub(crate) fn submit(&self, job: Job) {
        self.outstanding.set(self.outstanding.get() + 1);
        // The threads live as long as the sender does.
        let _ = self.jobs.send(job);
    }

    /// Takes note that a job is done.
    pub(crate) fn done(&self) {
        self.outstanding.set(self.outstanding.get() - 1);
    }

    /// Ends the threads that are idle, and waits for them. A thread that is stuck in a callback
    /// is left behind if `all_idle` is false.
    pub(crate) fn stop(self, all_idle: bool) {
        drop((self.jobs, self.queue));
        for thread in self.threads.into_inner() {
            if all_idle || thread.is_finished() {
                // Panics do not leave the guard around callbacks.
                let _ = thread.join();
            }
        }
    }
}

fn work(queue: &Receiver<Job>, service: &Service, mailbox: &Mailbox) {
    for Job { token, work, lane } in queue {
        let outcome = match work {
            Work::Call(Call { serial, open, request }) => {
                let session = open.session();
                let _request = trace_span!("request", number = request.id, %session).entered();
                let envelope = request.envelope();
                // Plugins have a guard of their own; this is for what nobody has thought of.
                let handled = catch_unwind(AssertUnwindSafe(|| service.handle(&open, request)));
                let reply = handled.map(ServerMessage::Reply);
                let reply = reply.unwrap_or_else(|_| envelope.fail(Status::IoErr));
                Outcome::Replied { serial, reply }
            }
            Work::EndSession(open) => {
                let _ = catch_unwind(AssertUnwindSafe(|| service.end(&open, usize::MAX)));
                Outcome::SessionEnded
            }
            Work::Usage => Outcome::Usage(service.usage()),
        };
        mailbox.send(Note::Done(Done { token, outcome, lane }));
    }
}
