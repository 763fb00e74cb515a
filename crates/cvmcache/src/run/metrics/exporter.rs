//! Metrics in the text format of Prometheus, by HTTP.
//!
//! All peers that can connect may scrape, so no request costs much: a few threads serve one connection
//! each, for a short time, and rest after it. Other connections wait in the backlog of the socket, and
//! the plugin notices nothing of them.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use metrics_prometheus::failure::strategy::NoOp;
use prometheus::{HistogramOpts, HistogramVec, Registry, TextEncoder};
use tracing::{debug, info, warn};

use super::{MetricsError, wait_for_port};
use crate::http::{self, Bounds, Method, Request, Response, StatusCode};
use crate::server::DURATION;
use crate::threads;

/// How many connections are served at once.
const THREADS: usize = 2;
/// What a connection may take. No request has a body.
const BOUNDS: Bounds = Bounds { time: Duration::from_secs(2), head: 8 * 1024, body: 0 };
/// How long a thread rests after a connection, so that it uses a small part of a processor.
const REST: Duration = Duration::from_millis(20);

/// The upper bounds of the histogram of latencies, in seconds: from a request that memory answers
/// to one that a network does not.
const BUCKETS: [f64; 17] = [
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
        let options = HistogramOpts::new(DURATION, "Latency").buckets(BUCKETS.to_vec());
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
        let served = listener.accept().and_then(|(mut socket, _)| {
            http::serve(&mut socket, &BOUNDS, |request| respond(request, registry))
        });
        if let Err(error) = served {
            debug!(%error, "metrics were not taken");
        }
        thread::sleep(REST);
    }
}

fn respond(request: &Request, registry: &Registry) -> Response {
    if !matches!(request.method, Method::Get | Method::Head) {
        let refusal = Response::text(StatusCode::MethodNotAllowed, "use GET\n");
        return Response { allow: Some("GET, HEAD"), ..refusal };
    }
    if request.path != "/metrics" {
        return Response::text(StatusCode::NotFound, "metrics are at /metrics\n");
    }
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => {
            let response = Response::text(StatusCode::Ok, text);
            Response { content_type: prometheus::TEXT_FORMAT, ..response }
        }
        Err(error) => Response::text(StatusCode::InternalServerError, format!("{error}\n")),
    }
}
