//! A web server of files in memory, with ranges and tags.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_RANGE, ETAG, IF_MATCH, LAST_MODIFIED, RANGE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use s3s::Body;

use super::Threads;

/// A web server of files.
pub(crate) struct WebServer {
    address: SocketAddr,
    files: Arc<Mutex<Files>>,
    _threads: Threads,
}

#[derive(Default)]
struct Files {
    by_path: BTreeMap<String, Bytes>,
    is_without_ranges: bool,
    authorization: Option<String>,
    requests: Vec<String>,
}

impl WebServer {
    pub(crate) fn start() -> Self {
        let files = Arc::<Mutex<Files>>::default();
        let threads = Threads::start();
        let (listener, address) = threads.listen();
        let state = Arc::clone(&files);
        threads.runtime().spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                let service = service_fn(move |request| {
                    let response = answer(&mut state.lock(), &request);
                    async move { Ok::<_, Infallible>(response) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        Self { address, files, _threads: threads }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts a file at a path, which begins with a slash.
    pub(crate) fn put(&self, path: &str, content: impl Into<Bytes>) {
        self.files.lock().by_path.insert(path.into(), content.into());
    }

    /// From now on, all of a file is answered when a range is asked for.
    pub(crate) fn ignore_ranges(&self) {
        self.files.lock().is_without_ranges = true;
    }

    /// From now on, nothing is answered without this header.
    pub(crate) fn require_authorization(&self, authorization: &str) {
        self.files.lock().authorization = Some(authorization.into());
    }

    /// Method, path and query of all requests that have come.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.files.lock().requests.clone()
    }
}

fn answer(files: &mut Files, request: &Request<Incoming>) -> Response<Body> {
    files.requests.push(format!("{} {}", request.method(), request.uri()));
    let status = |status| {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        response
    };
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Some(content) = files.by_path.get(request.uri().path()) else {
        return status(StatusCode::NOT_FOUND);
    };
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    if files.authorization.is_some() && header(AUTHORIZATION) != files.authorization.as_deref() {
        return status(StatusCode::UNAUTHORIZED);
    }
    let etag = format!("\"{}\"", blake3::hash(content).to_hex());
    if header(IF_MATCH).is_some_and(|wanted| wanted != etag) {
        return status(StatusCode::PRECONDITION_FAILED);
    }
    let range = header(RANGE).filter(|_| !files.is_without_ranges);
    let mut response = match range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) {
        None => Response::new(Body::from(content.clone())),
        Some((start, end)) => {
            let start: usize = start.parse().expect("a number");
            let end = end.parse().map_or(content.len(), |end: usize| content.len().min(end + 1));
            if start >= content.len() {
                return status(StatusCode::RANGE_NOT_SATISFIABLE);
            }
            let mut response = Response::new(Body::from(content.slice(start..end)));
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {start}-{}/{}", end - 1, content.len());
            response.headers_mut().insert(CONTENT_RANGE, range.parse().expect("a header"));
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, etag.parse().expect("a header"));
    headers.insert(LAST_MODIFIED, "Sat, 01 Jan 2000 00:00:00 GMT".parse().expect("a header"));
    response
}
