//! One connection: its request is received, and the response sent.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Header, Status};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{Shutdown, shutdown};

use super::Bounds;
use super::message::{Method, Request, Response, StatusCode};

/// How many header fields a request may have.
const MAX_FIELDS: usize = 64;

/// Why there is no request.
enum Refused {
    /// The client is told so.
    With(StatusCode, &'static str),
    Io(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Serves one connection: `handle` makes the response to its request.
///
/// # Errors
///
/// Those of the system, and `TimedOut` for a client that takes longer than the bounds allow.
pub(crate) fn serve(
    stream: &mut (impl Read + Write + AsFd),
    bounds: &Bounds,
    handle: impl FnOnce(&Request) -> Response,
) -> io::Result<()> {
    let mut connection = Connection { stream, bounds, until: Instant::now() + bounds.time };
    match connection.receive() {
        Ok(request) => {
            let response = handle(&request);
            connection.until = Instant::now() + bounds.time;
            connection.send(&response, request.method != Method::Head)
        }
        Err(Refused::With(status, text)) => {
            connection.send(&Response::text(status, text), true)?;
            connection.linger()
        }
        Err(Refused::Io(error)) => Err(error),
    }
}

struct Connection<'a, S> {
    stream: &'a mut S,
    bounds: &'a Bounds,
    until: Instant,
}

/// The head of a request, and where its body begins.
struct Head {
    method: Method,
    path: String,
    body_len: usize,
    expects_continue: bool,
    end: usize,
}

impl<S: Read + Write + AsFd> Connection<'_, S> {
    fn receive(&mut self) -> Result<Request, Refused> {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(head) = parse(&bytes)? {
                break head;
            }
            if bytes.len() >= self.bounds.head {
                let text = "the header fields are too large\n";
                return Err(Refused::With(StatusCode::HeaderFieldsTooLarge, text));
            }
            self.read_more(&mut bytes, self.bounds.head)?;
        };
        if head.body_len > self.bounds.body {
            return Err(Refused::With(StatusCode::ContentTooLarge, "the body is too large\n"));
        }
        let mut body = bytes.split_off(head.end);
        if head.expects_continue && body.len() < head.body_len {
            self.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        while body.len() < head.body_len {
            self.read_more(&mut body, head.body_len)?;
        }
        body.truncate(head.body_len);
        Ok(Request { method: head.method, path: head.path, body })
    }

    /// Reads once, so that there are at most so many bytes.
    fn read_more(&mut self, bytes: &mut Vec<u8>, at_most: usize) -> Result<(), Refused> {
        let mut buffer = [0; 4096];
        let room = buffer.len().min(at_most - bytes.len());
        self.bound(Timeout::Recv)?;
        match self.stream.read(&mut buffer[..room])? {
            0 => Err(Refused::With(StatusCode::BadRequest, "the request ends early\n")),
            len => {
                bytes.extend_from_slice(&buffer[..len]);
                Ok(())
            }
        }
    }

    fn send(&mut self, response: &Response, with_body: bool) -> io::Result<()> {
        let Response { status, content_type, allow, body } = response;
        let (status, len) = (status.line(), body.len());
        let allow = allow.map(|methods| format!("Allow: {methods}\r\n")).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len}\r\n{allow}\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n"
        );
        self.write_all(head.as_bytes())?;
        if with_body { self.write_all(body) } else { Ok(()) }
    }

    /// Discards the rest of a request that was refused, as far as the bounds allow: to close a socket with
    /// bytes in it resets the connection, and may take the response from the client (RFC 9112, section 9.6).
    fn linger(&mut self) -> io::Result<()> {
        shutdown(&self.stream, Shutdown::Write)?;
        let mut buffer = [0; 4096];
        let mut left = self.bounds.head + self.bounds.body;
        while left > 0 {
            self.bound(Timeout::Recv)?;
            match self.stream.read(&mut buffer)? {
                0 => break,
                len => left = left.saturating_sub(len),
            }
        }
        Ok(())
    }

    fn write_all(&mut self, mut left: &[u8]) -> io::Result<()> {
        while !left.is_empty() {
            self.bound(Timeout::Send)?;
            match self.stream.write(left)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => left = &left[sent..],
            }
        }
        Ok(())
    }

    /// Has the next read or write fail when there is no time left.
    fn bound(&self, direction: Timeout) -> io::Result<()> {
        Ok(set_socket_timeout(&self.stream, direction, Some(self.time_left()?))?)
    }

    fn time_left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

/// The head of a request; `None` if there is more of it to come.
fn parse(bytes: &[u8]) -> Result<Option<Head>, Refused> {
    const NO_REQUEST: Refused = Refused::With(StatusCode::BadRequest, "not an HTTP request\n");
    let mut fields = [EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let end = match request.parse(bytes) {
        Ok(Status::Complete(end)) => end,
        Ok(Status::Partial) => return Ok(None),
        Err(_) => return Err(NO_REQUEST),
    };
    let (Some(method), Some(path)) = (request.method, request.path) else { return Err(NO_REQUEST) };
    let field = |name: &str| request.headers.iter().find(|it| it.name.eq_ignore_ascii_case(name));
    if field("Transfer-Encoding").is_some() {
        let text = "send the body with a Content-Length\n";
        return Err(Refused::With(StatusCode::LengthRequired, text));
    }
    let is_len = |field: &&Header<'_>| field.name.eq_ignore_ascii_case("Content-Length");
    let mut lens = request.headers.iter().filter(is_len).map(|field| field.value);
    let first = lens.next();
    let body_len = match first.map(parse_len) {
        // Which one of several holds is not for us to guess (RFC 9110, section 8.6).
        _ if lens.any(|len| Some(len) != first) => return Err(NO_REQUEST),
        None => 0,
        Some(Some(len)) => len,
        Some(None) => return Err(NO_REQUEST),
    };
    let expects = field("Expect").and_then(|field| std::str::from_utf8(field.value).ok());
    Ok(Some(Head {
        method: Method::parse(method),
        path: path.split('?').next().unwrap_or_default().to_owned(),
        body_len,
        expects_continue: expects.is_some_and(|it| it.eq_ignore_ascii_case("100-continue")),
        end,
    }))
}

/// A number of digits, without a sign.
fn parse_len(value: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    use super::*;

    const BOUNDS: Bounds = Bounds { time: Duration::from_secs(10), head: 1024, body: 64 };

    /// The response to these bytes, after which the client has ended its side.
    fn respond(bytes: &[u8]) -> String {
        let (mut server, mut client) = UnixStream::pair().expect("sockets");
        client.write_all(bytes).expect("the socket takes it");
        client.shutdown(Shutdown::Write).expect("it is open");
        let handle = |request: &Request| {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            Response::text(StatusCode::Ok, format!("{:?} {} {body}", request.method, request.path))
        };
        serve(&mut server, &BOUNDS, handle).expect("there is time");
        drop(server);
        let mut response = String::new();
        client.read_to_string(&mut response).expect("a response");
        response
    }

    #[test]
    fn a_request_is_parsed_with_its_body_and_without_its_query() {
        let response = respond(b"GET /v1?a=b HTTP/1.1\r\nHost: plugin\r\n\r\n");
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\nGet /v1 "), "{response}");
        let response = respond(b"POST /v1/x HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcd");
        assert!(response.ends_with("\r\n\r\nPost /v1/x abc"), "{response}");
    }

    #[test]
    fn a_head_request_gets_no_body() {
        let response = respond(b"HEAD / HTTP/1.1\r\n\r\n");
        assert!(response.contains("Content-Length: 7\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\n"), "{response}");
    }

    #[test]
    fn a_client_that_waits_for_it_is_told_to_send_its_body() {
        let request = b"POST / HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n";
        let response = respond(request);
        assert!(response.starts_with("HTTP/1.1 100 Continue\r\n\r\n"), "{response}");
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_status() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2000));
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        for (request, status) in [
            ("", "400"),
            ("GET / HTTP/1.1\r\n", "400"),
            ("\0\0\0\u{1}", "400"),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc", "400"),
            ("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\na", "400"),
            ("POST / HTTP/1.1\r\nContent-Length: \r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", "200"),
            ("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", "400"),
            ("POST / HTTP/1.1\r\nContent-Length: 65\r\n\r\n", "413"),
            (long.as_str(), "431"),
            (chunked, "411"),
        ] {
            let response = respond(request.as_bytes());
            assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {response}");
        }
    }

    #[test]
    fn a_client_that_sends_nothing_takes_no_longer_than_the_bound() {
        let (mut server, _client) = UnixStream::pair().unwrap();
        let bounds = Bounds { time: Duration::from_millis(10), ..BOUNDS };
        let served = serve(&mut server, &bounds, |_| Response::text(StatusCode::Ok, ""));
        let kind = served.unwrap_err().kind();
        assert!(matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{kind:?}");
    }
}
