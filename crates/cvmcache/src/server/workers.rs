//! The threads that run callbacks when the I/O thread does not.
//!
//! Jobs that nobody works on yet are few: who has more of them waits for a turn, so that the
//! threads are shared between connections and not taken by who comes first with most.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender};
use cvmcache_proto::{Reply, Request};
use mio::Token;

use super::mailbox::{Mailbox, Note};
use super::order::Lane;
use crate::service::{OpenSession, Service};

/// Something to do for a session.
#[derive(Debug)]
pub(super) struct Job {
    /// The connection.
    pub(super) token: Token,
    pub(super) open: Arc<OpenSession>,
    pub(super) work: Work,
    /// The lane that the request keeps busy.
    pub(super) lane: Option<Lane>,
    /// The memory that the request and its answer take.
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) enum Work {
    Handle(Request),
    EndSession,
}

/// What came of a job.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) token: Token,
    /// `None` for the end of a session.
    pub(super) reply: Option<Reply>,
    pub(super) lane: Option<Lane>,
    pub(super) bytes: usize,
}

/// A pool of threads, as the I/O thread sees it.
#[derive(Debug)]
pub(super) struct Workers {
    jobs: Sender<Job>,
    threads: Vec<JoinHandle<()>>,
    /// Jobs that are not done.
    outstanding: Cell<usize>,
}

impl Workers {
    /// Starts `count` threads; `None` for none.
    pub(super) fn start(
        count: usize,
        service: &Arc<Service>,
        mailbox: &Mailbox,
    ) -> io::Result<Option<Self>> {
        let (jobs, queue) = crossbeam_channel::unbounded();
        let threads = (0..count)
            .map(|number| {
                let (queue, service, mailbox) = (queue.clone(), service.clone(), mailbox.clone());
                thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn(move || work(&queue, &service, &mailbox))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok((count > 0).then_some(Self { jobs, threads, outstanding: Cell::new(0) }))
    }

    /// How many more jobs there should be: one for each thread, and one that it finds next.
    pub(super) fn room(&self) -> usize {
        (2 * self.threads.len()).saturating_sub(self.outstanding.get())
    }

    /// Hands a job to whoever is free next.
    pub(super) fn submit(&self, job: Job) {
        self.outstanding.set(self.outstanding.get() + 1);
        // The threads live as long as the sender does.
        let _ = self.jobs.send(job);
    }

    /// Takes note that a job is done.
    pub(super) fn done(&self) {
        self.outstanding.set(self.outstanding.get() - 1);
    }

    /// Ends the threads that are idle, and waits for them. A thread that is stuck in a callback
    /// is left behind if `all_idle` is false.
    pub(super) fn stop(self, all_idle: bool) {
        drop(self.jobs);
        for thread in self.threads {
            if all_idle || thread.is_finished() {
                // Panics do not leave the guard around callbacks.
                let _ = thread.join();
            }
        }
    }
}

fn work(queue: &Receiver<Job>, service: &Service, mailbox: &Mailbox) {
    for Job { token, open, work, lane, bytes } in queue {
        let reply = match work {
            Work::Handle(request) => Some(service.handle(&open, request)),
            Work::EndSession => {
                service.end(&open, usize::MAX);
                None
            }
        };
        mailbox.send(Note::Done(Done { token, reply, lane, bytes }));
    }
}
