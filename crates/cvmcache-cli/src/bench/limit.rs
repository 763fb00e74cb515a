//! The limit of the machine: the same bytes over a bare socket, without a plugin.
//!
//! Operations of a workload are recorded with an ideal plugin: the length of each message. Then an echo
//! of those lengths is measured by the same loop as plugins.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use cvmcache::client::{
    ClientError, ClientMessage, Operation, Reply, ReplyBody, Request, ServerMessage,
};
use cvmcache::plugin::{Data, ObjectInfo, ObjectType};
use cvmcache::{Locator, threads};
use cvmcache_proto::frame;

use super::driver::{Link, Next, Task};
use super::measure::Done;
use super::tasks::PluginTask;

/// A session id and request id of the usual length in Protobuf.
const SOME_NUMBER: u64 = 1 << 20;

/// Both ends move bytes in pieces of this size.
const BUFFER: usize = 256 * 1024;

/// The head of a request: its own length, and that of the reply.
const HEAD: usize = 8;

/// The source of the bytes, used from its beginning to its end and over again; no end interprets them. A
/// smaller one would stay in the processor's nearest cache, unlike the objects of a plugin.
#[derive(Debug)]
struct Content {
    bytes: Arc<[u8]>,
    next: usize,
}

/// The lengths of a request and its reply on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exchange {
    request: u32,
    reply: u32,
}

/// The exchanges of an operation, and its outcome.
type Script = (Vec<Exchange>, Done);

/// Records operations of a task.
pub(super) fn record(mut task: PluginTask, times: usize) -> Result<Vec<Script>, ClientError> {
    let once = |_| {
        let mut exchanges = Vec::new();
        let mut operation = task.begin();
        loop {
            let reply = ideal_reply(&operation);
            exchanges.push(Exchange::new(operation, reply.clone())?);
            match task.proceed(reply)? {
                Next::Request(next) => operation = next,
                Next::Done(done) => return Ok((exchanges, done)),
            }
        }
    };
    (0..times).map(once).collect()
}

/// The reply of a plugin that has all objects.
pub(super) fn ideal_reply(operation: &Operation) -> ReplyBody {
    match operation {
        Operation::Read { size, .. } => {
            let result = Ok(Data::from(vec![0; *size as usize]));
            ReplyBody::Read { result, data_crc32: None }
        }
        Operation::ObjectInfo { .. } => {
            let info = ObjectInfo::new(SOME_NUMBER, ObjectType::Regular);
            ReplyBody::ObjectInfo(Ok(info))
        }
        Operation::Store(part) => ReplyBody::Store { result: Ok(()), part: part.number },
        _ => ReplyBody::Refcount(Ok(())),
    }
}

impl Exchange {
    fn new(operation: Operation, body: ReplyBody) -> Result<Self, ClientError> {
        let request = Request { session: SOME_NUMBER, id: SOME_NUMBER, operation };
        let (message, attachment) = ClientMessage::Request(request).into_wire();
        let mut bytes = Vec::new();
        frame::encode(message, attachment.len(), &mut bytes)?;
        let request = bytes.len() + attachment.len();
        bytes.clear();
        let reply = Reply { id: SOME_NUMBER, body };
        let (message, attachment) = ServerMessage::Reply(reply).into_wire();
        frame::encode(message, attachment.len(), &mut bytes)?;
        let reply = bytes.len() + attachment.len();
        // Frames are smaller than 16 MiB.
        Ok(Self { request: request.max(HEAD) as u32, reply: reply as u32 })
    }

    fn head(self) -> [u8; HEAD] {
        (u64::from(self.request) << 32 | u64::from(self.reply)).to_le_bytes()
    }

    fn from_head(head: [u8; HEAD]) -> Self {
        let both = u64::from_le_bytes(head);
        Self { request: (both >> 32) as u32, reply: both as u32 }
    }
}

/// Replays recorded operations in random order.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) scripts: Arc<[Script]>,
    pub(super) script: usize,
    pub(super) next: usize,
}

impl Task<Exchange, ()> for Replay {
    fn begin(&mut self) -> Exchange {
        (self.script, self.next) = (fastrand::usize(..self.scripts.len()), 1);
        self.scripts[self.script].0[0]
    }

    fn proceed(&mut self, (): ()) -> Result<Next<Exchange>, ClientError> {
        let (exchanges, done) = &self.scripts[self.script];
        self.next += 1;
        Ok(match exchanges.get(self.next - 1) {
            Some(exchange) => Next::Request(*exchange),
            None => Next::Done(*done),
        })
    }
}

/// A bare socket, with an echo at its other end.
pub(super) struct EchoLink {
    stream: Box<dyn Stream>,
    content: Content,
    /// Queued bytes.
    outgoing: Vec<u8>,
    /// The tasks and lengths of the replies to come.
    waiting: VecDeque<(usize, usize)>,
    arrived: usize,
    buffer: Vec<u8>,
}

impl Content {
    fn new(bytes: &Arc<[u8]>) -> Self {
        Self { bytes: Arc::clone(bytes), next: 0 }
    }

    /// The next bytes: at most `len`, and at least one if that is not zero.
    fn next(&self, len: usize) -> &[u8] {
        let rest = &self.bytes[self.next..];
        &rest[..len.min(rest.len())]
    }

    fn advance(&mut self, len: usize) {
        self.next = (self.next + len) % self.bytes.len();
    }
}

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

impl EchoLink {
    /// Connects to an echo on a thread of its own, by the same means as a plugin is reached. Both
    /// ends send what is in `content`, which must not be empty.
    pub(super) fn start(like: &Locator, content: &Arc<[u8]>) -> io::Result<Self> {
        let (near, far): (Box<dyn Stream>, Box<dyn Stream>) = match like {
            Locator::Tcp { .. } => {
                let listener = TcpListener::bind(("127.0.0.1", 0))?;
                let near = TcpStream::connect(listener.local_addr()?)?;
                let (far, _) = listener.accept()?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                (Box::new(near), Box::new(far))
            }
            _ => {
                let (near, far) = UnixStream::pair()?;
                (Box::new(near), Box::new(far))
            }
        };
        // The other end closes on an error, which this end detects.
        let theirs = Content::new(content);
        threads::spawn("echo", move || echo(far, theirs))?;
        Ok(Self {
            stream: near,
            content: Content::new(content),
            outgoing: Vec::new(),
            waiting: VecDeque::new(),
            arrived: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Sends what is queued, and `more` bytes.
    fn flush(&mut self, more: usize) -> io::Result<()> {
        write_with(&mut *self.stream, &self.outgoing, &mut self.content, more)?;
        self.outgoing.clear();
        Ok(())
    }
}

impl Link for EchoLink {
    type Request = Exchange;
    type Reply = ();

    fn queue(&mut self, task: usize, exchange: Exchange) -> Result<(), ClientError> {
        self.waiting.push_back((task, exchange.reply as usize));
        self.outgoing.extend_from_slice(&exchange.head());
        let rest = exchange.request as usize - HEAD;
        // As the client of a plugin does: a large attachment is sent at once, without a copy.
        if rest > 4096 {
            return Ok(self.flush(rest)?);
        }
        self.outgoing.resize(self.outgoing.len() + rest, 0);
        Ok(())
    }

    fn receive(&mut self) -> Result<(usize, ()), ClientError> {
        let (task, len) = self.waiting.pop_front().ok_or(ClientError::Closed)?;
        while self.arrived < len {
            self.flush(0)?;
            match self.stream.read(&mut self.buffer)? {
                0 => return Err(ClientError::Closed),
                n => self.arrived += n,
            }
        }
        self.arrived -= len;
        Ok((task, ()))
    }
}

/// Reads requests, and answers all that have arrived together, until the other end closes.
fn echo(mut stream: Box<dyn Stream>, mut content: Content) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let (mut head, mut head_len) = ([0; HEAD], 0);
    // Of the request that is being read: the missing bytes, and the length of its reply.
    let (mut missing, mut reply) = (0, 0);
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(());
        }
        let mut bytes = &buffer[..len];
        let mut replies = 0;
        while !bytes.is_empty() {
            if missing == 0 {
                let part = bytes.len().min(HEAD - head_len);
                head[head_len..head_len + part].copy_from_slice(&bytes[..part]);
                head_len += part;
                bytes = &bytes[part..];
                if head_len < HEAD {
                    break;
                }
                let exchange = Exchange::from_head(head);
                (missing, reply) = (exchange.request as usize - HEAD, exchange.reply as usize);
                head_len = 0;
            }
            let part = bytes.len().min(missing);
            missing -= part;
            bytes = &bytes[part..];
            if missing == 0 {
                replies += reply;
            }
        }
        write_with(&mut *stream, &[], &mut content, replies)?;
    }
}

/// Writes bytes, and `more` arbitrary ones.
fn write_with(
    stream: &mut dyn Stream,
    mut bytes: &[u8],
    content: &mut Content,
    mut more: usize,
) -> io::Result<()> {
    while !bytes.is_empty() || more > 0 {
        let slices = [IoSlice::new(bytes), IoSlice::new(content.next(more))];
        let written = match stream.write_vectored(&slices) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            written => written?,
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let of_bytes = written.min(bytes.len());
        bytes = &bytes[of_bytes..];
        more -= written - of_bytes;
        content.advance(written - of_bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::objects::{Generator, Pool, Sizes};
    use super::super::tasks;
    use super::*;

    #[test]
    fn lengths_are_those_of_real_messages() {
        let objects = Pool::Closed(Generator::new(Sizes::All(300_000)), 1);
        let mixed = tasks::Mixed { objects, step: tasks::READ, file: None };
        let scripts = record(Box::new(mixed), 2).unwrap();
        let (exchanges, done) = &scripts[0];
        assert_eq!((exchanges.len(), done.bytes), (6, 300_000));
        let replies: u32 = exchanges.iter().map(|exchange| exchange.reply).sum();
        assert!((300_030..300_200).contains(&replies), "{replies}");
        assert!(exchanges.iter().all(|exchange| (40..80).contains(&exchange.request)));
    }

    #[test]
    fn a_head_has_the_lengths_of_request_and_reply() {
        let exchange = Exchange { request: 9, reply: 1 << 24 };
        assert_eq!(Exchange::from_head(exchange.head()), exchange);
    }

    #[test]
    fn an_echo_answers_requests_of_any_length_in_order() {
        let content = vec![7; 100_000].into();
        for like in ["unix=/x", "tcp=localhost:1"] {
            let mut link = EchoLink::start(&like.parse().unwrap(), &content).unwrap();
            let lengths = [(8, 1), (2 * BUFFER as u32, 7), (9, 3 * BUFFER as u32), (8, 0)];
            for (task, (request, reply)) in lengths.into_iter().enumerate() {
                link.queue(task, Exchange { request, reply }).unwrap();
            }
            let order = [(); 4].map(|()| link.receive().unwrap().0);
            assert_eq!((order, link.arrived), ([0, 1, 2, 3], 0));
        }
    }
}
