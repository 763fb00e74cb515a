//! A server of S3 on a directory, which checks signatures and fails as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cvmcache_tier::StoreSettings;
use futures_util::StreamExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3ServiceBuilder, SharedS3Service};
use s3s::{Body, S3Error, S3Result, s3_error};
use s3s_fs::FileSystem;
use tempfile::TempDir;

use super::Threads;

pub(crate) const BUCKET: &str = "bucket";
pub(crate) const PREFIX: &str = "a/prefix";
/// A text in each secret key and session token.
pub(crate) const SECRET: &str = "hunter2";

/// What is answered instead of what was asked for.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// An error of S3, as `(503, "SlowDown")`. Its message has [`SECRET`] in it.
    Error(u16, &'static str),
    /// A page of HTML with this status.
    Html(u16),
    /// A redirect to this URL.
    Redirect(String),
}

/// A server of S3 with one bucket, [`BUCKET`].
pub(crate) struct S3Server {
    directory: TempDir,
    address: SocketAddr,
    shared: Arc<Shared>,
    _threads: Threads,
}

#[derive(Default)]
struct Shared {
    keys: Mutex<BTreeMap<String, String>>,
    keys_made: AtomicU32,
    faults: Mutex<VecDeque<Fault>>,
    requests: Mutex<Vec<String>>,
}

impl S3Server {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join(BUCKET)).expect("a bucket");
        let shared = Arc::<Shared>::default();
        let files = FileSystem::new(directory.path()).expect("a directory");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(Keys(Arc::clone(&shared)));
        let service = service.build().into_shared();

        let threads = Threads::start();
        let (listener, address) = threads.listen();
        let state = Arc::clone(&shared);
        threads.runtime().spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (state, service) = (Arc::clone(&state), service.clone());
                let service =
                    service_fn(move |request| answer(Arc::clone(&state), service.clone(), request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        Self { directory, address, shared, _threads: threads }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Settings of a store on this server, with valid credentials in a file in `directory`.
    pub(crate) fn settings(&self, directory: &Path) -> StoreSettings {
        self.settings_through(self.address, directory)
    }

    /// The same through a proxy.
    pub(crate) fn settings_through(&self, proxy: SocketAddr, directory: &Path) -> StoreSettings {
        let url = format!("s3://{BUCKET}/{PREFIX}").parse().expect("a URL");
        let mut settings = StoreSettings::new(url);
        settings.endpoint = Some(format!("http://{proxy}").parse().expect("a URL"));
        settings.region = Some("garage".into());
        let credentials = directory.join("credentials");
        self.write_credentials(&credentials);
        settings.credentials = Some(credentials);
        settings
    }

    /// Makes new credentials and writes them to a file. Those before stay valid.
    pub(crate) fn write_credentials(&self, file: &Path) {
        let id = format!("key{}", self.shared.keys_made.fetch_add(1, Ordering::Relaxed));
        let secret = format!("{SECRET}/{id}");
        let text = format!(
            "[default]\naws_access_key_id = {id}\naws_secret_access_key = {secret}\n\
             aws_session_token = {SECRET}-token\n"
        );
        let new = file.with_extension("new");
        fs::write(&new, text).expect("the file can be written");
        fs::rename(new, file).expect("the file can be replaced");
        self.shared.keys.lock().insert(id, secret);
    }

    /// Lets all credentials that there are expire: status 400 with `ExpiredToken` from now on.
    pub(crate) fn expire_credentials(&self) {
        self.shared.keys.lock().clear();
    }

    /// Answers the next `count` requests with a fault.
    pub(crate) fn fail_next(&self, count: usize, fault: Fault) {
        let faults = std::iter::repeat_n(fault, count);
        self.shared.faults.lock().extend(faults);
    }

    /// Forgets the faults that have not been answered.
    pub(crate) fn fail_no_more(&self) {
        self.shared.faults.lock().clear();
    }

    /// Method, path and query of all requests that have come.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().clone()
    }

    /// The file that an object is in.
    pub(crate) fn file(&self, key: &str) -> PathBuf {
        self.directory.path().join(BUCKET).join(PREFIX).join(key)
    }

    /// The number of parts that the server keeps of uploads that were neither completed nor aborted.
    pub(crate) fn parts_kept(&self) -> usize {
        let files = fs::read_dir(self.directory.path()).expect("it can be listed");
        files
            .filter_map(|file| file.ok()?.file_name().into_string().ok())
            .filter(|name| name.contains("upload") && name.contains("part"))
            .count()
    }
}

async fn answer(
    shared: Arc<Shared>,
    service: SharedS3Service,
    request: Request<Incoming>,
) -> Result<Response<Body>, S3Error> {
    shared.requests.lock().push(format!("{} {}", request.method(), request.uri()));
    let fault = shared.faults.lock().pop_front();
    let Some(fault) = fault else { return service.call(request).await };
    // Otherwise the connection is reset below the answer.
    let mut body = Body::from(request.into_body());
    while body.next().await.is_some() {}
    let (status, name, value, body) = match fault {
        Fault::Error(status, code) => {
            let body = format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{SECRET}</Message>\
                 <CanonicalRequest>x-amz-security-token:{SECRET}</CanonicalRequest></Error>"
            );
            (status, "content-type", "application/xml".into(), body)
        }
        Fault::Html(status) => {
            let body = format!("<html><body><h1>Sorry, {SECRET}</h1></body></html>");
            (status, "content-type", "text/html".into(), body)
        }
        Fault::Redirect(url) => (307, "location", url, String::new()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response.headers_mut().insert(name, value.parse().expect("a header"));
    // As the header of a version: without one, HTML would be refused for that alone.
    response.headers_mut().insert("etag", "\"fault\"".parse().expect("a header"));
    response
        .headers_mut()
        .insert("last-modified", "Sat, 01 Jan 2000 00:00:00 GMT".parse().expect("a header"));
    Ok(response)
}

struct Keys(Arc<Shared>);

#[async_trait::async_trait]
impl S3Auth for Keys {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.0.keys.lock().get(access_key) {
            Some(secret) => Ok(SecretKey::from(secret.as_str())),
            None => Err(s3_error!(ExpiredToken, "it has expired")),
        }
    }
}
