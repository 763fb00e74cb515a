//! One HTTP/1.1 request over a unix socket, with one deadline for all of it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::AdminError;

/// The most that is read, in bytes: more than 60,000 sessions.
const MAX_RESPONSE: usize = 64 << 20;

/// The most header fields; the plugin sends four.
const MAX_HEADERS: usize = 64;

#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    Get,
    Post,
}

/// The status and the body of a response.
pub(super) type Response = (u16, Vec<u8>);

/// Sends a request, and waits for its response until the deadline.
pub(super) fn send(
    path: &Path,
    method: Method,
    resource: &str,
    body: &[u8],
    deadline: Instant,
) -> Result<Response, AdminError> {
    let mut stream = open(path, deadline).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => AdminError::TimedOut,
        _ => AdminError::Connect(error),
    })?;
    let method = match method {
        Method::Get => "GET",
        Method::Post => "POST",
    };
    let mut request = format!(
        "{method} {resource} HTTP/1.1\r\nHost: plugin\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    // A response may have been sent before all of the request was read.
    let sent = write(&mut stream, &request, deadline);
    let bytes = match (sent, read(&mut stream, deadline)) {
        (_, Ok(bytes)) if !bytes.is_empty() => bytes,
        (Err(error), _) | (_, Err(error)) => return Err(exchange_error(error)),
        (Ok(()), Ok(_)) => return Err(AdminError::Closed),
    };
    parse(&bytes)
}

fn exchange_error(error: io::Error) -> AdminError {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => AdminError::TimedOut,
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => AdminError::Closed,
        ErrorKind::FileTooLarge => AdminError::NotHttp(error.to_string()),
        _ => AdminError::Exchange(error),
    }
}

fn open(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    // A path that does not fit into an address is reached through a descriptor.
    let (address, _file) = match SocketAddrUnix::new(path) {
        Ok(address) => (address, None),
        Err(_) => {
            let file = File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open(path)?;
            let link = format!("/proc/self/fd/{}", file.as_raw_fd());
            (SocketAddrUnix::new(link)?, Some(file))
        }
    };
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // It bounds connect(2), too, which waits while the backlog is full.
    set_socket_timeout(&socket, Timeout::Send, Some(left(deadline)?))?;
    connect(&socket, &address)?;
    Ok(socket.into())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left.max(Duration::from_millis(1))),
    }
}

fn write(stream: &mut UnixStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until the peer closes, or what its header announces is there.
fn read(stream: &mut UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    let mut end = None;
    while end.is_none_or(|end| bytes.len() < end) {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => bytes.extend_from_slice(&chunk[..len]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // What is there may be all.
            Err(error) if error.kind() == ErrorKind::ConnectionReset && !bytes.is_empty() => break,
            Err(error) => return Err(error),
        }
        if bytes.len() > MAX_RESPONSE {
            let text = format!("it sends more than {} MiB", MAX_RESPONSE >> 20);
            return Err(io::Error::new(ErrorKind::FileTooLarge, text));
        }
        if end.is_none() {
            end = match head(&bytes) {
                Ok(Some(head)) => head.body_len.map(|len| head.len.saturating_add(len)),
                Ok(None) => None,
                // It will not become a response by more bytes.
                Err(_) => break,
            };
        }
    }
    Ok(bytes)
}

/// The header of a response.
struct Head {
    /// The length of the header, in bytes.
    len: usize,
    status: u16,
    body_len: Option<usize>,
}

/// `None` if the header is not complete.
fn head(bytes: &[u8]) -> Result<Option<Head>, AdminError> {
    let not_http = |what: &str| AdminError::NotHttp(what.to_owned());
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let len = match response.parse(bytes) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(AdminError::NotHttp(format!("no HTTP: {error}"))),
    };
    let mut body_len = None;
    for header in &*response.headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(not_http("it sends chunks, which the interface has none of"));
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = str::from_utf8(header.value).ok().map(str::trim);
            let len = text.and_then(|text| text.parse().ok());
            body_len = Some(len.ok_or_else(|| not_http("its Content-Length is no number"))?);
        }
    }
    Ok(Some(Head { len, status: response.code.unwrap_or_default(), body_len }))
}

fn parse(bytes: &[u8]) -> Result<Response, AdminError> {
    let not_http = |what: &str| AdminError::NotHttp(what.to_owned());
    let head = head(bytes)?.ok_or_else(|| not_http("the header of its response is incomplete"))?;
    let rest = &bytes[head.len..];
    let body = match head.body_len {
        None => rest,
        Some(len) => rest.get(..len).ok_or_else(|| {
            AdminError::Exchange(io::Error::new(
                ErrorKind::UnexpectedEof,
                format!("the response ended after {} of {len} bytes", rest.len()),
            ))
        })?,
    };
    Ok((head.status, body.to_vec()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// What becomes of an answer of these bytes.
    fn answered(answer: &'static [u8]) -> Result<Response, AdminError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let len = stream.read(&mut request).unwrap();
            assert!(request[..len].starts_with(b"GET /v1 HTTP/1.1\r\nHost: "));
            stream.write_all(answer).unwrap();
        });
        let response = send(&path, Method::Get, "/v1", b"", Instant::now() + 30 * SECOND);
        peer.join().unwrap();
        response
    }

    #[test]
    fn a_response_has_a_status_and_a_body_with_and_without_a_length() {
        let response = answered(b"HTTP/1.1 409 Conflict\r\ncontent-length: 2\r\n\r\nnoignored");
        assert_eq!(response.unwrap(), (409, b"no".to_vec()));
        let response = answered(b"HTTP/1.1 200 OK\r\n\r\n{}");
        assert_eq!(response.unwrap(), (200, b"{}".to_vec()));
    }

    #[test]
    fn what_is_no_response_is_an_error() {
        for (answer, expected) in [
            (&b""[..], "Closed"),
            (b"\0\0\0\x10 a plugin", "NotHttp(\"no HTTP"),
            (b"HTTP/1.1 200 OK\r\nA", "NotHttp(\"the header"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "NotHttp(\"it sends chunks"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "NotHttp(\"its Content-Length"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\nx",
                "Exchange(Custom",
            ),
        ] {
            let error = format!("{:?}", answered(answer).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn the_deadline_holds_where_the_peer_sends_bytes_for_ever_or_does_not_accept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let ask = || send(&path, Method::Get, "/v1", b"", Instant::now() + SECOND / 20);
        assert!(matches!(ask(), Err(AdminError::TimedOut)));
        let peer = thread::spawn(move || {
            // The first has gone.
            drop(listener.accept().unwrap());
            let (mut stream, _) = listener.accept().unwrap();
            while stream.write_all(b"HTTP/1.1 200 OK\r\nA: ").is_ok() {
                if stream.write_all(b"x\r\n").is_err() {
                    break;
                }
            }
        });
        assert!(matches!(ask(), Err(AdminError::TimedOut | AdminError::NotHttp(_))));
        peer.join().unwrap();
    }

    #[test]
    fn a_path_longer_than_an_address_is_connected_to() {
        let directory = tempfile::tempdir().unwrap();
        let long = directory.path().join("d".repeat(120));
        std::fs::create_dir(&long).unwrap();
        let short = directory.path().join("s");
        let _listener = UnixListener::bind(&short).unwrap();
        std::fs::rename(&short, long.join("socket")).unwrap();
        open(&long.join("socket"), Instant::now() + 30 * SECOND).unwrap();
        let error = open(&long.join("nothing"), Instant::now() + SECOND).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
