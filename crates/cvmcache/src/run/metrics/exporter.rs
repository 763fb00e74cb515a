//! Metrics in the text format of Prometheus, by HTTP.
//!
//! All peers that can connect may scrape, so no request costs much: a few threads serve one connection
//! each, for a short time, and rest after it. Other connections wait in the backlog of the socket, and
//! the plugin notices nothing of them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use metrics_prometheus::failure::strategy::NoOp;
use prometheus::{HistogramOpts, HistogramVec, Registry, TextEncoder};
use tracing::{debug, info, warn};

use super::{MetricsError, wait_for_port};
use crate::server::DURATION;
use crate::threads;

/// How many connections are served at once.
const THREADS: usize = 2;
/// How long a connection may take, from its beginning to its end.
const LONGEST: Duration = Duration::from_secs(2);
/// How long a thread rests after a connection, so that it uses a small part of a processor.
const REST: Duration = Duration::from_millis(20);
/// How many bytes a request may have.
const MAX_REQUEST: usize = 8 * 1024;

/// The upper bounds of the histogram of latencies, in seconds: from a request that memory answers
/// to one that a network does not.
const BOUNDS: [f64; 17] = [
    2e-6, 5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 1e-1,
    0.5, 2.5, 10.0,
];

/// All metrics of the process, and where they will be served.
pub(crate) struct Exporter {
    address: SocketAddr,
    registry: Registry,
}

impl Exporter {
    /// Metrics can be served.
    pub(crate) fn available() -> Result<(), MetricsError> {
        Ok(())
    }

    /// Records the metrics of this process from now on.
    pub(crate) fn install(address: SocketAddr) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let options = HistogramOpts::new(DURATION, "Latency").buckets(BOUNDS.to_vec());
        let installed = HistogramVec::new(options, &["operation"]).and_then(|durations| {
            let builder = metrics_prometheus::Recorder::builder()
                .with_registry(&registry)
                // A plugin whose metrics contradict each other loses some, and nothing else.
                .with_failure_strategy(NoOp)
                .try_with_metric(durations)?;
            Ok(builder.try_build_and_install())
        });
        match installed {
            Ok(Ok(_)) => Ok(Self { address, registry }),
            _ => Err(MetricsError::Recorder),
        }
    }

    /// Serves them until the process ends.
    pub(crate) fn serve(self) -> Result<(), MetricsError> {
        let error = |source| MetricsError::Bind { address: self.address, source };
        let listener = Arc::new(wait_for_port(|| TcpListener::bind(self.address)).map_err(error)?);
        let address = listener.local_addr().map_err(error)?;
        info!("metrics are served at http://{address}/metrics");
        if !address.ip().is_loopback() {
            warn!("all that reach {address} can read the metrics");
        }
        for number in 0..THREADS {
            let (listener, registry) = (Arc::clone(&listener), self.registry.clone());
            let serve = move || serve(&listener, &registry);
            threads::spawn(&format!("metrics-{number}"), serve).map_err(MetricsError::Thread)?;
        }
        Ok(())
    }
}

fn serve(listener: &TcpListener, registry: &Registry) {
    loop {
        let served = listener.accept().and_then(|(socket, _)| {
            let mut connection = Connection { socket, until: Instant::now() + LONGEST };
            connection.serve(registry)
        });
        if let Err(error) = served {
            debug!(%error, "metrics were not taken");
        }
        thread::sleep(REST);
    }
}

struct Connection {
    socket: TcpStream,
    until: Instant,
}

impl Connection {
    fn serve(&mut self, registry: &Registry) -> io::Result<()> {
        let Some((method, path)) = self.receive()? else {
            return self.send("400 Bad Request", "not a request\n", true);
        };
        let with_body = match method.as_str() {
            "GET" => true,
            "HEAD" => false,
            _ => return self.send("405 Method Not Allowed", "use GET\n", true),
        };
        if path.split('?').next() != Some("/metrics") {
            return self.send("404 Not Found", "metrics are at /metrics\n", with_body);
        }
        match TextEncoder::new().encode_to_string(&registry.gather()) {
            Ok(text) => self.send("200 OK", &text, with_body),
            Err(error) => self.send("500 Internal Server Error", &format!("{error}\n"), with_body),
        }
    }

    /// The method and the path of a request; `None` if it is not one, or too long.
    fn receive(&mut self) -> io::Result<Option<(String, String)>> {
        let mut buffer = [0; MAX_REQUEST];
        let mut len = 0;
        while len < buffer.len() {
            self.socket.set_read_timeout(Some(self.time_left()?))?;
            match self.socket.read(&mut buffer[len..])? {
                0 => return Ok(None),
                more => len += more,
            }
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut request = httparse::Request::new(&mut headers);
            match request.parse(&buffer[..len]) {
                Ok(httparse::Status::Partial) => {}
                Ok(httparse::Status::Complete(_)) => {
                    let (method, path) = (request.method, request.path);
                    return Ok(method.map(str::to_owned).zip(path.map(str::to_owned)));
                }
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    fn send(&mut self, status: &str, text: &str, with_body: bool) -> io::Result<()> {
        let (format, len) = (prometheus::TEXT_FORMAT, text.len());
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {format}\r\nContent-Length: {len}\r\n\
             Connection: close\r\n\r\n"
        );
        if with_body {
            answer += text;
        }
        let mut left = answer.as_bytes();
        while !left.is_empty() {
            self.socket.set_write_timeout(Some(self.time_left()?))?;
            match self.socket.write(left)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => left = &left[sent..],
            }
        }
        Ok(())
    }

    fn time_left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}
