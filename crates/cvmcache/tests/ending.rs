//! How a server ends: nothing is lost that can be answered, and nothing is waited for in vain.

mod support;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use cvmcache::client::{Client, ClientError, NewUpload};
use cvmcache::{Limits, Locator, Server};
use support::served::{serve, serve_with};
use support::{TestCache, id};

#[test]
fn a_shutdown_answers_requests_in_flight_and_removes_the_socket() {
    let mut f = serve(2);
    f.cache.insert(id(1), "abc");
    f.cache.change(|state| state.hold_reads = true);
    let mut client = f.client("repo:1");
    client.open(&id(1)).unwrap();
    let slow = client.queue_read(&id(1), 0, 3).unwrap();
    client.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads == 1);
    f.running().handle().terminate();
    // No new connection is accepted, although it has not ended yet.
    while UnixStream::connect(&f.socket).is_ok() {}
    f.cache.change(|state| state.hold_reads = false);
    assert_eq!(client.wait(slow).unwrap().into_bytes(), "abc");
    assert!(matches!(client.info(), Err(ClientError::Closed)));
    f.end();
    assert!(!f.socket.exists());
    assert_eq!(f.cache.references(id(1)), 0);
    // Handles do no harm any more.
    f.cache.state().handle.terminate();
}

#[test]
fn a_shutdown_waits_for_a_callback_until_its_timeout() {
    let mut limits = Limits::default();
    limits.shutdown_timeout = Duration::from_millis(100);
    let mut f = serve_with(1, limits);
    f.cache.insert(id(1), "abc");
    f.cache.change(|state| state.hold_reads = true);
    let mut client = f.client("repo:1");
    let _ticket = client.queue_read(&id(1), 0, 3).unwrap();
    client.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads > 0);
    f.end();
    f.cache.change(|state| state.hold_reads = false);
}

#[test]
fn a_shutdown_waits_for_a_client_until_its_timeout() {
    let mut limits = Limits::default();
    limits.shutdown_timeout = Duration::from_millis(100);
    let mut f = serve_with(0, limits);
    f.cache.insert(id(1), vec![0; 128 * 1024]);
    let mut client = f.client("repo:1");
    let tickets: Vec<_> =
        (0..100).map(|_| client.queue_read(&id(1), 0, 128 * 1024).unwrap()).collect();
    client.flush().unwrap();
    f.cache.wait_until(|state| state.held_reads > tickets.len() / 4);
    f.end();
}

#[test]
fn a_supervised_server_ends_with_its_last_connection() {
    let directory = tempfile::tempdir().unwrap();
    let locator = Locator::Unix(directory.path().join("socket"));
    let cache = TestCache::default();
    let builder = Server::builder(cache.clone()).supervised(true);
    let running = builder.listen(&locator).unwrap().spawn().unwrap();
    let first = Client::connect(&locator, "repo:1").unwrap();
    let mut second = Client::connect(&locator, "repo:2").unwrap();
    second.store(NewUpload::new(id(1)), "abc").unwrap();
    first.quit().unwrap();
    // While a client is away, no connection is open, and the server stays.
    let reload = second.announce_reload().unwrap();
    let mut second = Client::finish_reload(reload).unwrap();
    second.close(&id(1)).unwrap();
    assert_eq!(cache.references(id(1)), 0);
    second.quit().unwrap();
    running.wait().unwrap();
    assert!(!directory.path().join("socket").exists());
}
