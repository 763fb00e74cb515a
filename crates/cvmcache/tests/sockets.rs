//! The socket of a server: its owner, a stale socket before it, and locators that cannot be used.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use cvmcache::client::Client;
use cvmcache::{Limits, ListenError, Locator, Server, ServerError};
use support::TestCache;
use support::served::serve;

#[test]
fn the_socket_belongs_to_one_server_and_one_user() {
    let mut f = serve(0);
    let mode = fs::metadata(&f.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = Server::builder(TestCache::default()).listen(&f.locator);
    let error = second.unwrap_err();
    assert!(matches!(&error, ServerError::Listen(ListenError::InUse { .. })), "{error}");
    assert!(error.to_string().contains("stop it, or choose another locator"));
    f.client("repo:1").info().unwrap();
    f.end();
    // Now it is free again.
    let listening = Server::builder(TestCache::default()).listen(&f.locator).unwrap();
    assert!(f.socket.exists());
    drop(listening);
    assert!(!f.socket.exists());
}

#[test]
fn a_port_belongs_to_one_server() {
    let first = Server::builder(TestCache::default()).listen(&"tcp=127.0.0.1:0".parse().unwrap());
    let locator = first.as_ref().unwrap().locator().unwrap();
    let error = Server::builder(TestCache::default()).listen(&locator).unwrap_err();
    assert!(matches!(error, ServerError::Listen(ListenError::InUse { .. })), "{error}");
}

#[test]
fn only_a_stale_socket_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let locator = Locator::Unix(path.clone());
    // No server removes this one.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let listening = Server::builder(TestCache::default()).listen(&locator).unwrap();
    drop(listening);
    fs::write(&path, "precious").unwrap();
    let error = Server::builder(TestCache::default()).listen(&locator).unwrap_err();
    assert!(matches!(&error, ServerError::Listen(ListenError::NotASocket { .. })), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
}

#[test]
fn paths_longer_than_a_socket_address_work() {
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("d".repeat(200));
    fs::create_dir(&long).unwrap();
    for path in [long.join("s"), long.join("n".repeat(250)), directory.path().join("n".repeat(120))]
    {
        let locator = Locator::Unix(path.clone());
        let listening = Server::builder(TestCache::default()).listen(&locator).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let running = listening.spawn().unwrap();
        Client::connect(&locator, "repo:1").unwrap().info().unwrap();
        running.handle().terminate();
        running.wait().unwrap();
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        let sockets = left.iter().filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            !name.to_string_lossy().ends_with(".lock") && name.len() < 200
        });
        assert_eq!(sockets.count(), 0, "{left:?}");
    }
}

#[test]
fn a_limit_out_of_bounds_is_an_error_that_names_it() {
    for size in [0, 4095, 512 * 1024 + 1] {
        let mut limits = Limits::default();
        limits.max_object_size = size;
        let builder = Server::builder(TestCache::default()).limits(limits);
        let error = builder.listen(&"unix=/nowhere/socket".parse().unwrap()).unwrap_err();
        let expected = format!("max_object_size is {size}, but must be from 4096 to 524288");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_locator_that_cannot_be_listened_on_is_an_error_that_names_it() {
    let error = |locator: &str| {
        let listening = Server::builder(TestCache::default()).listen(&locator.parse().unwrap());
        listening.unwrap_err().to_string()
    };
    let nowhere = error("unix=/nowhere/at/all/socket");
    assert!(nowhere.contains("cannot lock \"/nowhere/at/all/socket.lock\""), "{nowhere}");
    assert!(nowhere.contains("a directory that exists"), "{nowhere}");
    let unknown = error("tcp=no-such-host.invalid:1");
    assert!(unknown.contains("does not resolve"), "{unknown}");
}

#[test]
fn on_tcp_only_addresses_of_allowed_networks_are_accepted() {
    for (networks, is_let_in) in [("127.0.0.0/8", true), ("10.0.0.0/8, ::1", false), ("", false)] {
        let builder = Server::builder(TestCache::default());
        let builder = builder.allow_networks(networks.parse().unwrap());
        let listening = builder.listen(&"tcp=127.0.0.1:0".parse().unwrap()).unwrap();
        let locator = listening.locator().unwrap();
        let running = listening.spawn().unwrap();
        assert_eq!(Client::connect(&locator, "repo:1").is_ok(), is_let_in, "{networks}");
        running.handle().terminate();
        running.wait().unwrap();
    }
}
