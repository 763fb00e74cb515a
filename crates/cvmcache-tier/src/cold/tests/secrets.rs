//! No secret is in an error, in debug output or in the log.

use std::io::Write;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::cold::{Registry, StoreSettings};
use crate::servers::proxy::{Line, Proxy};
use crate::servers::s3_server::{Fault, S3Server, SECRET};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The texts of all errors that a store can be brought to.
async fn texts(store: &dyn ColdStore) -> String {
    format!(
        "{store:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        download(store, "x", 0, None).await.err(),
        download(store, "x", 5, Some("\"x\"")).await.err(),
        store.read_range(&key("x"), 0..9).await.err(),
        upload(store, "x", &bytes(9)).await.err(),
        store.exists(&key("x")).await.err(),
        store.delete(&key("x")).await.err(),
        store.list("").next().await.and_then(Result::err),
    )
}

#[test]
fn no_secret_is_in_errors_debug_output_or_the_log() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let (server, directory) = (S3Server::start(), tempfile::tempdir().unwrap());
    let proxy = Proxy::start(server.address());
    let mut settings = server.settings_through(proxy.address(), directory.path());
    settings.timeout = std::time::Duration::from_millis(100);
    let store = Registry::builtin().open(&settings).unwrap();
    let mut all = format!("{settings:?} {store:?}");
    let faults = [
        Fault::Error(403, "SignatureDoesNotMatch"),
        Fault::Error(400, "ExpiredToken"),
        Fault::Error(400, "InvalidRequest"),
        Fault::Error(404, "NoSuchBucket"),
        Fault::Error(500, "InternalError"),
        Fault::Html(200),
        Fault::Html(403),
        Fault::Html(404),
        Fault::Redirect(format!("http://127.0.0.1:1/?X-Amz-Signature={SECRET}")),
        Fault::Redirect(format!("ftp://{SECRET}@host/?{SECRET}")),
    ];
    for fault in faults {
        server.fail_next(999, fault);
        all += &runtime.block_on(texts(&*store));
        server.fail_no_more();
    }
    for line in [Line::Cut(0), Line::Stall(0), Line::Answer("hunter2".into())] {
        proxy.all(line);
        all += &runtime.block_on(texts(&*store));
    }

    // Web servers have user, password and signatures in their URLs.
    let url = format!("http://user:{SECRET}@{}/dir?sig={SECRET}", proxy.address());
    let settings = StoreSettings {
        timeout: std::time::Duration::from_millis(100),
        ..StoreSettings::new(url.parse().unwrap())
    };
    let store = Registry::builtin().open(&settings).unwrap();
    all += &format!("{settings:?}");
    for line in [
        Line::Cut(0),
        Line::Stall(0),
        Line::Answer("HTTP/1.1 403 No\r\nContent-Length: 7\r\n\r\nhunter2".into()),
        Line::Answer("HTTP/1.1 404 No\r\nContent-Length: 7\r\n\r\nhunter2".into()),
        Line::Answer("HTTP/1.1 500 No\r\nContent-Length: 7\r\n\r\nhunter2".into()),
        Line::Answer("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nhunter2".into()),
        Line::Answer(
            "HTTP/1.1 206 OK\r\nContent-Range: hunter2\r\nContent-Length: 7\r\n\r\nhunter2".into(),
        ),
        Line::Answer("HTTP/1.1 302 Go\r\nLocation: /?hunter2\r\nContent-Length: 0\r\n\r\n".into()),
    ] {
        proxy.all(line);
        all += &runtime.block_on(texts(&*store));
    }

    let log = String::from_utf8(log.0.lock().clone()).unwrap();
    for (what, text) in [("an error", all), ("the log", log)] {
        let found = text.find(SECRET).map(|at| {
            let start = text[..at].char_indices().rev().nth(300).map_or(0, |(start, _)| start);
            &text[start..at + SECRET.len()]
        });
        assert_eq!(found, None, "in {what}");
    }
}
