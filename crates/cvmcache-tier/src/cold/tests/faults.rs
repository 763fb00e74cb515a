//! Faults of a server of S3 and of the network before it.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::cold::download::Reading;
use crate::cold::{Registry, StoreSettings, send};
use crate::servers::proxy::{Line, Proxy};
use crate::servers::s3_server::{Fault, S3Server};

const TIMEOUT: Duration = Duration::from_secs(1);
const KIB: u64 = 1024;

struct Test {
    server: S3Server,
    proxy: Proxy,
    directory: TempDir,
    store: Arc<dyn ColdStore>,
}

impl Test {
    /// A store with an object `x` of this length, behind a proxy.
    async fn new(len: usize) -> Self {
        let (server, directory) = (S3Server::start(), tempfile::tempdir().unwrap());
        let proxy = Proxy::start(server.address());
        let mut settings = server.settings_through(proxy.address(), directory.path());
        settings.timeout = TIMEOUT;
        let store = Registry::builtin().open(&settings).unwrap();
        upload(&*store, "x", &bytes(len)).await.unwrap();
        Self { server, proxy, directory, store }
    }

    async fn read(&self) -> Result<Bytes, ColdError> {
        let mut reading = Reading::begin(Arc::clone(&self.store), key("x"), TIMEOUT).await?;
        reading.read(usize::MAX).await
    }

    /// Reads an object of 1 MiB, with these lines for the next connections.
    async fn reads_through(count: usize, line: Line) {
        let test = Self::new(MIB).await;
        test.proxy.next(count, line.clone());
        assert!(test.read().await.expect("it can be read") == bytes(MIB), "{line:?}");
    }
}

#[tokio::test]
async fn a_reading_that_is_cut_at_each_64_kib_goes_on_to_the_end() {
    for line in [Line::Cut(64 * KIB), Line::Reset(64 * KIB)] {
        let test = Test::new(MIB).await;
        test.proxy.all(line);
        assert!(test.read().await.unwrap() == bytes(MIB));
    }
}

#[tokio::test]
async fn a_reading_that_stalls_is_resumed() {
    Test::reads_through(2, Line::Stall(100 * KIB)).await;
    Test::reads_through(1, Line::Stall(0)).await;
}

#[tokio::test]
async fn a_slow_reading_takes_longer_than_the_timeout() {
    let test = Test::new(MIB).await;
    test.proxy.all(Line::Slow(64 * 1024, TIMEOUT / 5));
    let start = Instant::now();
    assert!(test.read().await.unwrap() == bytes(MIB));
    assert!(start.elapsed() > 2 * TIMEOUT);
}

#[tokio::test]
async fn connections_that_end_before_an_answer_are_tried_again() {
    Test::reads_through(2, Line::Reset(0)).await;
    Test::reads_through(2, Line::Cut(0)).await;
    Test::reads_through(2, Line::CutRequests(10)).await;
}

#[tokio::test]
async fn answers_that_contradict_themselves_are_not_used() {
    let head = "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nLast-Modified: Sat, 01 Jan 2000 00:00:00 GMT\r\n";
    for answer in [
        // Less than it says, closed cleanly.
        format!("{head}Content-Length: 1048576\r\n\r\nshort"),
        // No length.
        format!("{head}\r\nsomething"),
        format!("{head}Content-Length: -1\r\n\r\n"),
        format!("{head}Content-Length: 99999999999999999999\r\n\r\n"),
        "no HTTP at all".into(),
        String::new(),
    ] {
        Test::reads_through(1, Line::Answer(answer.into())).await;
    }
}

#[tokio::test]
async fn a_range_other_than_that_asked_for_is_not_used() {
    let test = Test::new(MIB).await;
    let etag = test.store.download(&key("x"), 0, None).await.unwrap().etag.unwrap();
    let head = format!(
        "HTTP/1.1 206 Partial Content\r\nETag: {etag}\r\nLast-Modified: Sat, 01 Jan 2000 00:00:00 GMT\r\n"
    );
    for range in [
        "Content-Range: bytes 0-3/1048576\r\nContent-Length: 4\r\n\r\nfour",
        "Content-Range: bytes 10-13/1048576\r\nContent-Length: 4\r\n\r\nfour",
        "Content-Range: bytes 10-13/14\r\nContent-Length: 9\r\n\r\nninebytes",
        "Content-Range: bytes 10-13/14\r\nContent-Length: 2\r\n\r\nno",
        "Content-Range: bytes 10-5/14\r\nContent-Length: 2\r\n\r\nno",
        "Content-Range: bytes 10-18446744073709551614/14\r\nContent-Length: 2\r\n\r\nno",
        "Content-Length: 4\r\n\r\nfour",
    ] {
        test.proxy.all(Line::Answer(format!("{head}{range}").into()));
        let read = download(&*test.store, "x", 10, Some(&etag)).await;
        assert!(
            matches!(read, Err(ColdError::Failed(_) | ColdError::Unavailable(_))),
            "{range}: {read:?}"
        );
    }
}

#[tokio::test]
async fn errors_of_the_server_are_what_they_say() {
    let test = Test::new(10).await;
    for (fault, is_expected) in [
        (Fault::Error(500, "InternalError"), is_unavailable as fn(&ColdError) -> bool),
        (Fault::Error(503, "SlowDown"), is_unavailable),
        (Fault::Error(429, "TooManyRequests"), is_unavailable),
        (Fault::Error(409, "OperationAborted"), is_unavailable),
        (Fault::Error(403, "AccessDenied"), is_denied),
        (Fault::Error(403, "SignatureDoesNotMatch"), is_denied),
        (Fault::Error(401, "Unauthorized"), is_denied),
        (Fault::Error(400, "ExpiredToken"), is_denied),
        (Fault::Error(400, "InvalidToken"), is_denied),
        (Fault::Error(400, "TokenRefreshRequired"), is_denied),
        (Fault::Error(400, "InvalidRequest"), is_failed),
        (Fault::Error(404, "NoSuchBucket"), is_failed),
        (Fault::Redirect("http://127.0.0.1:1/".into()), is_neither_denied_nor_missing),
        (Fault::Html(502), is_unavailable),
        (Fault::Html(404), is_failed),
    ] {
        test.server.fail_next(99, fault.clone());
        let store = &*test.store;
        let errors = [
            download(store, "x", 0, None).await.unwrap_err(),
            download(store, "x", 5, None).await.unwrap_err(),
            upload(store, "x", &bytes(10)).await.unwrap_err(),
            store.list("").next().await.unwrap().unwrap_err(),
        ];
        test.server.fail_no_more();
        for error in errors {
            assert!(is_expected(&error), "{fault:?}: {error:?}");
        }
    }
}

fn is_unavailable(error: &ColdError) -> bool {
    matches!(error, ColdError::Unavailable(_))
}

fn is_denied(error: &ColdError) -> bool {
    matches!(error, ColdError::Denied(_))
}

fn is_failed(error: &ColdError) -> bool {
    matches!(error, ColdError::Failed(_))
}

fn is_neither_denied_nor_missing(error: &ColdError) -> bool {
    is_unavailable(error) || is_failed(error)
}

#[tokio::test]
async fn errors_that_pass_are_waited_for() {
    for fault in
        [Fault::Error(500, "InternalError"), Fault::Error(503, "SlowDown"), Fault::Html(502)]
    {
        let test = Test::new(MIB).await;
        test.server.fail_next(6, fault);
        assert!(test.read().await.unwrap() == bytes(MIB));
    }
}

#[tokio::test]
async fn a_page_of_html_with_status_200_is_bytes_with_its_own_length() {
    let test = Test::new(MIB).await;
    test.server.fail_next(1, Fault::Html(200));
    assert!(test.read().await.unwrap().starts_with(b"<html>"));
    // It is no part of an object.
    test.server.fail_next(1, Fault::Html(200));
    let etag = test.store.download(&key("x"), 0, None).await.unwrap().etag;
    test.server.fail_no_more();
    test.proxy.next(1, Line::Cut(64 * KIB));
    let mut reading = Reading::begin(Arc::clone(&test.store), key("x"), TIMEOUT).await.unwrap();
    assert_eq!(reading.len(), MIB as u64);
    test.server.fail_next(2, Fault::Html(200));
    assert!(reading.read(MIB).await.unwrap() == bytes(MIB), "{etag:?}");
}

#[tokio::test]
async fn credentials_that_expire_are_read_again() {
    let test = Test::new(MIB).await;
    let file = test.directory.path().join("credentials");
    test.server.expire_credentials();
    assert!(is_denied(&test.read().await.unwrap_err()));
    assert!(is_denied(&upload(&*test.store, "y", &bytes(1)).await.unwrap_err()));
    test.server.write_credentials(&file);
    assert!(test.read().await.unwrap() == bytes(MIB));
    upload(&*test.store, "y", &bytes(1)).await.unwrap();
}

#[tokio::test]
async fn credentials_that_expire_while_an_object_is_read_are_read_again() {
    let test = Test::new(MIB).await;
    test.proxy.next(1, Line::Cut(64 * KIB));
    let mut reading = Reading::begin(Arc::clone(&test.store), key("x"), TIMEOUT).await.unwrap();
    test.server.expire_credentials();
    test.server.write_credentials(&test.directory.path().join("credentials"));
    assert!(reading.read(MIB).await.unwrap() == bytes(MIB));
}

#[tokio::test]
async fn an_object_that_is_replaced_while_it_is_read_is_not_mixed() {
    let test = Test::new(MIB).await;
    test.proxy.next(1, Line::Cut(64 * KIB));
    let mut reading = Reading::begin(Arc::clone(&test.store), key("x"), TIMEOUT).await.unwrap();
    reading.read(1).await.unwrap();
    fs::write(test.server.file("x"), vec![0; MIB]).unwrap();
    assert_eq!(reading.read(MIB).await, Err(ColdError::Changed));
}

#[tokio::test]
async fn an_upload_is_verified_by_its_tag() {
    let test = Test::new(1).await;
    for len in [0, 1, MIB] {
        assert!(upload(&*test.store, "y", &bytes(len)).await.unwrap().is_verified, "{len}");
    }
}

#[tokio::test]
async fn an_upload_in_parts_that_fails_is_aborted() {
    let test = Test::new(1).await;
    let len = 17 * MIB;
    let fails = pieces(&bytes(len))
        .take(40)
        .chain(stream::once(async { Err(ColdError::Source("gone".into())) }));
    let error = test.store.upload(&key("y"), len as u64, fails.boxed()).await.unwrap_err();
    assert_eq!(error, ColdError::Source("gone".into()));
    assert!(!test.server.file("y").exists());
    assert_eq!(aborts(&test.server), 1);
    assert_eq!(test.server.parts_kept(), 0);
}

#[tokio::test]
async fn an_upload_in_parts_that_is_cancelled_is_aborted() {
    let test = Test::new(1).await;
    let len = 17 * MIB;
    let stalls = pieces(&bytes(len)).take(40).chain(stream::pending()).boxed();
    let store = Arc::clone(&test.store);
    let task = tokio::spawn(async move { store.upload(&key("y"), len as u64, stalls).await });
    while !test.server.requests().iter().any(|request| request.contains("partNumber")) {
        tokio::task::yield_now().await;
    }
    task.abort();
    while aborts(&test.server) == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!test.server.file("y").exists());
}

fn aborts(server: &S3Server) -> usize {
    let is_abort =
        |request: &&String| request.starts_with("DELETE") && request.contains("uploadId");
    server.requests().iter().filter(is_abort).count()
}

#[tokio::test]
async fn uploads_that_are_cut_are_sent_again() {
    let test = Test::new(1).await;
    for (name, line) in [
        ("y", Line::CutRequests(64 * KIB)),
        ("z", Line::Reset(0)),
        ("w", Line::Answer("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n".into())),
    ] {
        test.proxy.next(6, line);
        let content = bytes(MIB);
        let sent = send(&*test.store, &key(name), MIB as u64, TIMEOUT, || pieces(&content)).await;
        assert!(sent.unwrap().is_verified);
        assert!(download(&*test.store, name, 0, None).await.unwrap() == content);
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_told_from_an_object_that_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let settings = {
        let server = S3Server::start();
        StoreSettings { timeout: TIMEOUT, ..server.settings(directory.path()) }
    };
    let store = Registry::builtin().open(&settings).unwrap();
    assert!(is_unavailable(&store.exists(&key("x")).await.unwrap_err()));
    assert!(is_unavailable(&download(&*store, "x", 0, None).await.unwrap_err()));
    assert!(is_unavailable(&upload(&*store, "x", &bytes(1)).await.unwrap_err()));
    assert!(is_unavailable(&store.delete(&key("x")).await.unwrap_err()));
}
