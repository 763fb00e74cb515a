//! A mount: threads of a client that share a connection, and work between a reply and the next request.
//!
//! As in the client (`CallRemotely` and `MainRead` in `cache_extern.cc`), a thread sends its request under a
//! lock and sleeps until a receiver thread hands it the reply, so a reply costs two context switches. The
//! closed loop of `driver` has one thread a connection, which never sleeps while another request is in
//! flight, and never works: a plugin that polls looks better there than under a mount.

pub(super) mod traffic;

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cvmcache::client::{
    ClientError, ClientMessage, Connection, Operation, Reply, ReplyBody, Request, RequestKind,
    ServerMessage,
};
use cvmcache::{Locator, threads};
use cvmcache_proto::frame;
use nix::time::{ClockId, clock_gettime};

use super::driver::Measurable;
use super::measure::{Done, Round, Samples};
use super::objects::{Generator, Object};
use super::session;
use super::size_distribution::Quantiles;
use super::tasks::{self, close, open};
use traffic::{CLOSE_TO_OPEN, OPEN_TO_READ, PAGE, READ_TO_CLOSE, READ_TO_READ};

/// Mounts that read all files in each round.
pub(super) struct Mounts {
    mounts: Vec<Mount>,
    threads: u64,
    files: Files,
}

/// The files of a pass, one after the other.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) generator: Generator,
    pub(super) count: u64,
    /// The size of a read, in bytes.
    pub(super) step: u64,
}

struct Mount {
    receiver: Connection,
    sender: Mutex<File>,
    session: u64,
}

/// A pass of a mount over the files.
struct Pass<'a> {
    sender: &'a Mutex<File>,
    session: u64,
    files: &'a Files,
    next_file: AtomicU64,
    next_id: AtomicU64,
    /// One for each thread.
    mailboxes: Vec<Mailbox>,
    /// Threads that have more to request, and requests in flight: while there are any, replies will come.
    outstanding: AtomicU64,
}

/// Where a thread waits for its reply.
#[derive(Default)]
struct Mailbox {
    mail: Mutex<Mail>,
    arrived: Condvar,
}

#[derive(Default)]
enum Mail {
    #[default]
    None,
    Reply(ReplyBody),
    /// There will be no more.
    Ended,
}

impl Mounts {
    pub(super) fn open(
        locator: &Locator,
        connections: usize,
        threads: u64,
        files: Files,
    ) -> Result<Self, ClientError> {
        let mounts = (0..connections).map(|_| Mount::open(locator)).collect::<Result<_, _>>()?;
        Ok(Self { mounts, threads: threads.min(files.count), files })
    }
}

impl Measurable for Mounts {
    /// A pass of each mount, however long it takes. Reading all files is the same work in each round: a few
    /// large files have most of the bytes, so any part of a pass may have many or few of them.
    fn round(&mut self, _: Duration, _: Duration) -> Result<Round, ClientError> {
        let Self { mounts, threads, files } = self;
        let passes: Result<Vec<_>, ClientError> = thread::scope(|scope| {
            let start = |mount| {
                threads::spawn_scoped(scope, "mount", || Mount::pass(mount, *threads, files))
            };
            let started = mounts.iter_mut().map(start).collect::<Result<Vec<_>, _>>()?;
            started.into_iter().map(joined).collect()
        });
        Ok(Round::of(passes?.into_iter().flatten().collect()))
    }
}

/// A panic of a thread is one of the program.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Mount {
    fn open(locator: &Locator) -> Result<Self, ClientError> {
        let client = session::connect(locator)?;
        let session = client.session();
        let receiver = client.into_connection();
        let sender = Mutex::new(File::from(receiver.as_fd().try_clone_to_owned()?));
        Ok(Self { receiver, sender, session })
    }

    fn pass(&mut self, threads: u64, files: &Files) -> Result<Vec<Samples>, ClientError> {
        let pass = Pass {
            sender: &self.sender,
            session: self.session,
            files,
            // Each thread begins with a file of its own.
            next_file: AtomicU64::new(threads),
            next_id: AtomicU64::new(0),
            mailboxes: (0..threads).map(|_| Mailbox::default()).collect(),
            outstanding: AtomicU64::new(threads),
        };
        let begun = Instant::now();
        let samples: Result<Vec<Samples>, ClientError> = thread::scope(|scope| {
            let pass = &pass;
            let start = |n| threads::spawn_scoped(scope, "client", move || pass.read_files(n));
            let started: io::Result<Vec<_>> = (0..threads).map(start).collect();
            let received = match &started {
                Ok(_) => pass.receive(&mut self.receiver),
                Err(_) => Ok(()),
            };
            pass.mailboxes.iter().for_each(|mailbox| mailbox.put(Mail::Ended));
            let samples: Vec<_> = started?.into_iter().map(joined).collect();
            received?;
            samples.into_iter().collect()
        });
        let elapsed = begun.elapsed();
        Ok(samples?.into_iter().map(|samples| samples.lasting(elapsed)).collect())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // If that fails, the connection has ended anyway.
        let _ = self.receiver.send(ClientMessage::Quit { session: self.session });
    }
}

impl Pass<'_> {
    /// A thread of the client: reads file after file.
    fn read_files(&self, thread: u64) -> Result<Samples, ClientError> {
        let mut samples = Samples::default();
        let begun = Instant::now();
        let mut number = thread;
        loop {
            let object = self.files.generator.object(number);
            let opened = Instant::now();
            let requests = self.read_file(thread, &object);
            let latency = opened.elapsed();
            number = self.next_file.fetch_add(1, Ordering::Relaxed);
            let is_last = requests.is_err() || number >= self.files.count;
            work(READ_TO_CLOSE)?;
            // The last request takes the place of its thread.
            self.outstanding.fetch_add(u64::from(!is_last), Ordering::SeqCst);
            self.send(thread, close(&object), false)?;
            samples.requests += requests? + 1;
            let done = Done { bytes: object.size, ..Done::default() };
            samples.add(done, latency, begun.elapsed());
            if is_last {
                samples.all_requests = samples.requests;
                return Ok(samples);
            }
            work(CLOSE_TO_OPEN)?;
        }
    }

    /// Opens a file and reads all of it; returns how many requests that took.
    fn read_file(&self, thread: u64, object: &Object) -> Result<u64, ClientError> {
        match self.call(thread, open(object))? {
            ReplyBody::Refcount(Ok(())) => {}
            reply => return tasks::refused(&reply, RequestKind::Refcount),
        }
        work(OPEN_TO_READ)?;
        let (mut requests, mut offset) = (1, 0);
        loop {
            // The kernel asks for whole pages, and takes less at the end of the file.
            let size = (object.size - offset).next_multiple_of(PAGE).min(self.files.step) as u32;
            match self.call(thread, Operation::Read { object: object.id, offset, size })? {
                ReplyBody::Read { result: Ok(data), .. } if !data.is_empty() => {
                    offset += data.len() as u64;
                }
                reply => return tasks::refused(&reply, RequestKind::Read),
            }
            requests += 1;
            if offset >= object.size {
                return Ok(requests);
            }
            work(READ_TO_READ)?;
        }
    }

    /// Sends a request and sleeps until the reply is there.
    fn call(&self, thread: u64, operation: Operation) -> Result<ReplyBody, ClientError> {
        self.outstanding.fetch_add(1, Ordering::SeqCst);
        self.send(thread, operation, true)?;
        self.mailboxes[thread as usize].take().ok_or(ClientError::Closed)
    }

    /// Sends a request. Its id says which thread has sent it, and whether that waits for the reply.
    fn send(&self, thread: u64, operation: Operation, waits: bool) -> Result<(), ClientError> {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let id = (number * self.mailboxes.len() as u64 + thread) * 2 + u64::from(waits);
        let request = Request { session: self.session, id, operation };
        let (message, _) = ClientMessage::Request(request).into_wire();
        let mut bytes = Vec::new();
        frame::encode(message, 0, &mut bytes)?;
        Ok(lock(self.sender).write_all(&bytes)?)
    }

    /// The receiver thread: hands replies to the threads that wait, until there are no more to come.
    fn receive(&self, connection: &mut Connection) -> Result<(), ClientError> {
        loop {
            let reply = connection.receive_first(|message| match message {
                ServerMessage::Reply(reply) => Some(Ok(reply)),
                // There is no file catalog that could be closed.
                ServerMessage::Detach => None,
                _ => Some(Err(ClientError::BadMessage)),
            });
            let Reply { id, body } = reply?.ok_or(ClientError::Closed)??;
            let left = self.outstanding.fetch_sub(1, Ordering::SeqCst) - 1;
            if id % 2 == 1 {
                let thread = (id / 2) as usize % self.mailboxes.len();
                self.mailboxes[thread].put(Mail::Reply(body));
            } else if !matches!(body, ReplyBody::Refcount(Ok(()))) {
                return tasks::refused(&body, RequestKind::Refcount);
            }
            if left == 0 {
                return Ok(());
            }
        }
    }
}

impl Mailbox {
    fn put(&self, mail: Mail) {
        *lock(&self.mail) = mail;
        self.arrived.notify_one();
    }

    /// Waits for a reply; `None` if none will come.
    fn take(&self) -> Option<ReplyBody> {
        let mail = lock(&self.mail);
        let waited = self.arrived.wait_while(mail, |mail| matches!(mail, Mail::None));
        let mut mail = waited.unwrap_or_else(PoisonError::into_inner);
        match mem::take(&mut *mail) {
            Mail::Reply(reply) => Some(reply),
            Mail::None | Mail::Ended => {
                *mail = Mail::Ended;
                None
            }
        }
    }
}

/// Each critical section is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Works for a time of this distribution. It is processor time, as a client computes between requests: asleep,
/// or preempted by one another, four threads would have more of it than two processors have to give.
fn work(times: Quantiles<'_>) -> io::Result<()> {
    let now = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let until = now()? + Duration::from_nanos(times.at(fastrand::f64()));
    while now()? < until {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use cvmcache::plugin::Status;
    use cvmcache_proto::{Decoder, DecoderLimits};

    use super::super::limit::ideal_reply;
    use super::super::objects::Sizes;
    use super::*;

    /// A plugin that records requests and answers them, until there is no answer.
    fn serve(
        mut stream: UnixStream,
        answer: impl Fn(&Operation, usize) -> Option<ReplyBody>,
    ) -> Vec<Operation> {
        let (mut decoder, mut requests) = (Decoder::new(DecoderLimits::default()), Vec::new());
        let mut buffer = [0; 4096];
        loop {
            while let Some(frame) = decoder.next_frame().unwrap() {
                let ClientMessage::Request(Request { id, operation, .. }) =
                    ClientMessage::from_frame(frame).unwrap()
                else {
                    return requests;
                };
                let Some(body) = answer(&operation, requests.len()) else { return requests };
                requests.push(operation);
                let (message, data) = ServerMessage::Reply(Reply { id, body }).into_wire();
                let mut bytes = Vec::new();
                frame::encode(message, data.len(), &mut bytes).unwrap();
                data.pieces().for_each(|piece| bytes.extend_from_slice(piece));
                // After an error, a client ends without reading the replies of its other threads.
                if stream.write_all(&bytes).is_err() {
                    return requests;
                }
            }
            let len = stream.read(&mut buffer).unwrap();
            assert_ne!(len, 0, "the client quits first");
            decoder.buffer().extend_from_slice(&buffer[..len]);
        }
    }

    /// A pass over files of 300,000 bytes, and what the plugin was asked for.
    fn pass(
        threads: u64,
        count: u64,
        answer: impl Fn(&Operation, usize) -> Option<ReplyBody> + Send + 'static,
    ) -> (Result<Vec<Samples>, ClientError>, Vec<Operation>, Files) {
        let (receiver, stream) = Connection::pair().unwrap();
        let plugin = thread::spawn(move || serve(stream, answer));
        let sender = File::from(receiver.as_fd().try_clone_to_owned().unwrap());
        let mut mount = Mount { receiver, sender: Mutex::new(sender), session: 1 };
        let files =
            Files { generator: Generator::new(Sizes::All(300_000)), count, step: tasks::READ };
        let samples = mount.pass(threads, &files);
        drop(mount);
        (samples, plugin.join().unwrap(), files)
    }

    #[test]
    fn a_file_is_opened_read_in_whole_pages_and_closed() {
        let (samples, requests, files) = pass(1, 2, |request, _| Some(ideal_reply(request)));
        let expected = [0, 1].map(|number| {
            let object = files.generator.object(number);
            let read = |offset, size| Operation::Read { object: object.id, offset, size };
            let reads = [read(0, 131_072), read(131_072, 131_072), read(262_144, 40_960)];
            [&[open(&object)], &reads[..], &[close(&object)]].concat()
        });
        assert_eq!(requests, expected.concat());
        let samples = &samples.unwrap()[0];
        assert_eq!((samples.ops, samples.requests, samples.bytes), (2, 10, 600_000));
    }

    #[test]
    fn threads_read_each_file_once_between_them() {
        let (samples, requests, files) = pass(4, 9, |request, _| Some(ideal_reply(request)));
        for object in (0..files.count).map(|number| files.generator.object(number)) {
            for request in [open(&object), close(&object)] {
                assert_eq!(requests.iter().filter(|other| **other == request).count(), 1);
            }
        }
        assert_eq!(samples.unwrap().iter().map(|samples| samples.ops).sum::<u64>(), 9);
    }

    #[test]
    fn a_failure_status_ends_the_pass_with_an_error() {
        let missing = |_: &Operation, _| Some(ReplyBody::Refcount(Err(Status::NoEntry)));
        let (samples, requests, _) = pass(4, 100, missing);
        assert_eq!(samples.unwrap_err().status(), Some(Status::NoEntry));
        assert!(requests.len() < 100, "{}", requests.len());
    }

    #[test]
    fn a_connection_that_ends_is_an_error() {
        let some = |request: &Operation, n| (n < 20).then(|| ideal_reply(request));
        let (samples, _, _) = pass(4, 100, some);
        assert!(matches!(samples.unwrap_err(), ClientError::Closed), "it has ended");
    }
}
