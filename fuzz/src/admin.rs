//! Bytes to an administration socket: whatever they are and however they are cut, there is one answer, which is
//! HTTP and, unless it is about HTTP, JSON; its status does not depend on how they are cut.
//!
//! The lower four bits of an input's first byte say how many of the following are lengths of pieces, which
//! repeat; the rest is the stream. Without lengths, it is sent as one piece.
//!
//! The server is the one that plugins have, in this process, with its threads: a panic there is a close without an
//! answer.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use cvmcache::admin::{
    AdminSocket, Administration, Arguments, Command, CommandError, Gauge, Setting, SettingSource,
    Value,
};
use cvmcache::client::Client;
use cvmcache::plugin::{CacheInfo, Capabilities, Data, ObjectId, ObjectInfo, PluginResult, Status};
use cvmcache::{CachePlugin, Locator, RunningServer, Server, Session};
use tempfile::TempDir;

/// More than the socket gives a request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What an answer may have for a status.
const STATUSES: [u16; 11] = [200, 400, 404, 405, 409, 411, 413, 431, 500, 501, 503];

/// A server with an administration socket, which inputs go to. Dropping this ends it.
#[derive(Debug)]
pub struct Administered {
    path: PathBuf,
    server: Option<RunningServer>,
    _client: Client,
    _directory: TempDir,
}

impl Administered {
    /// Starts a server.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let locator = Locator::Unix(directory.path().join("socket"));
        let path = directory.path().join("admin");
        let setting = Setting::new("KEY", Some("1".to_owned()), SettingSource::File, "A key");
        let admin = AdminSocket::at(&path).version("1").settings(vec![setting]);
        let server = Server::builder(Plugin).admin(admin).listen(&locator).expect("it listens");
        let server = Some(server.spawn().expect("it runs"));
        let client = Client::connect(&locator, "\u{1}.cern.ch:1").expect("a session");
        Self { path, server, _client: client, _directory: directory }
    }

    /// Sends an input, at once and in pieces.
    ///
    /// # Panics
    ///
    /// If a rule is broken.
    pub fn run(&self, input: &[u8]) {
        let Some((&count, rest)) = input.split_first() else { return };
        let lengths = rest.split_at_checked(usize::from(count & 15));
        let Some((lengths, stream)) = lengths else { return };
        let whole = self.ask(&[stream]);
        if !lengths.is_empty() {
            assert_eq!(self.ask(&cut(stream, lengths)), whole, "cut into {lengths:?}");
        }
    }

    /// The status of the answer to a request in pieces.
    fn ask(&self, pieces: &[&[u8]]) -> u16 {
        let mut socket = UnixStream::connect(&self.path).expect("the socket listens");
        socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        socket.set_write_timeout(Some(TIMEOUT)).expect("a timeout");
        for piece in pieces {
            match socket.write_all(piece) {
                Ok(()) => {}
                // What was refused is read no further than to a bound.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => panic!("the socket takes no more: {error}"),
            }
        }
        // If it has been answered, there may be no connection any more.
        let _ = socket.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        if let Err(error) = socket.read_to_end(&mut answer) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "no answer in time");
        }
        status(&answer)
    }
}

impl Drop for Administered {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        server.handle().terminate();
        // That it has failed has shown by then.
        let _ = server.wait();
    }
}

fn cut<'a>(mut stream: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &len in lengths.iter().cycle() {
        let (piece, left) = stream.split_at(stream.len().min(usize::from(len) + 1));
        pieces.push(piece);
        stream = left;
        if stream.is_empty() {
            break;
        }
    }
    pieces
}

/// The status of an answer, which is held to HTTP.
fn status(answer: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(answer);
    let answer = answer.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(answer);
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(answer);
    let Ok(httparse::Status::Complete(end)) = parsed else { panic!("no HTTP: {text}") };
    let field = |name: &str| {
        let field = response.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name));
        let field = field.unwrap_or_else(|| panic!("no {name}: {text}"));
        std::str::from_utf8(field.value).expect("a text")
    };
    let (len, body) = (field("Content-Length").parse::<usize>(), &answer[end..]);
    // The answer to HEAD has none.
    assert!(body.is_empty() || len == Ok(body.len()), "its length is another: {text}");
    assert_eq!(field("Connection"), "close", "{text}");
    let status = response.code.unwrap_or_default();
    assert!(STATUSES.contains(&status), "{text}");
    if field("Content-Type") == "application/json" && !body.is_empty() {
        let body: Value = serde_json::from_slice(body).expect("JSON");
        let has_error = body.get("error").is_some();
        assert_eq!(has_error, !(status == 200 || body.get("problems").is_some()), "{text}");
    }
    status
}

/// A plugin without objects, which answers its command with the arguments.
struct Plugin;

impl CachePlugin for Plugin {
    fn capabilities(&self) -> Capabilities {
        Capabilities::INFO
    }

    fn object_info(&self, _session: &Session, _id: &ObjectId) -> PluginResult<ObjectInfo> {
        Err(Status::NoEntry)
    }

    fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
        Err(Status::NoEntry)
    }

    fn info(&self, _session: Option<&Session>) -> PluginResult<CacheInfo> {
        Ok(CacheInfo::new(3, 2, 1))
    }

    fn administration(&self) -> Option<&dyn Administration> {
        Some(self)
    }
}

impl Administration for Plugin {
    fn gauges(&self) -> Vec<Gauge> {
        vec![Gauge::new("objects", 0, "Objects in the cache")]
    }

    fn commands(&self) -> Vec<Command> {
        vec![Command::new("echo", "Answers its arguments")]
    }

    fn execute(&self, _command: &str, arguments: &Arguments) -> Result<Value, CommandError> {
        match arguments.get("fail") {
            Some(_) => Err(CommandError::Failed("as it was asked to".to_owned())),
            None => Ok(Value::Object(
                [("given".to_owned(), arguments.clone().into())].into_iter().collect(),
            )),
        }
    }
}
