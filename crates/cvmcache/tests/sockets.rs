//! The socket of a server: its owner, a stale socket before it, and locators that cannot be used.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use cvmcache::client::{Client, ClientError, Connection};
use cvmcache::{Heartbeat, Limits, ListenError, Locator, RunningServer, Server, ServerError};
use support::TestCache;
use support::plugin::eventually;
use support::served::serve;

#[test]
fn the_socket_belongs_to_one_server_and_one_user() {
    let mut f = serve(0);
    let mode = fs::metadata(&f.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = Server::builder(TestCache::default()).listen(&f.locator);
    let error = second.unwrap_err();
    assert!(matches!(&error, ServerError::Listen(ListenError::InUse { .. })), "{error}");
    let look = format!("`cvmcache info {}` shows what it is", f.locator);
    assert!(error.to_string().contains(&look), "{error}");
    assert!(error.to_string().ends_with("choose another locator"), "{error}");
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

/// A supervised server at a path, with a channel that says when it begins to end.
fn supervised(locator: &Locator) -> (RunningServer, mpsc::Receiver<()>) {
    let (ending, ends) = mpsc::channel();
    let builder = Server::builder(TestCache::default()).supervised(true);
    let builder = builder.heartbeat(Duration::MAX, move |heartbeat| {
        if let Heartbeat::Ending = heartbeat {
            let _ = ending.send(());
        }
    });
    (builder.listen(locator).expect("a socket").spawn().expect("a server"), ends)
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("a file").ino()
}

#[test]
fn a_supervised_server_keeps_its_listener_while_a_connection_is_open() {
    for scheme in ["unix", "tcp"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let locator = match scheme {
            "unix" => Locator::Unix(path.clone()),
            _ => "tcp=127.0.0.1:0".parse().unwrap(),
        };
        let builder = Server::builder(TestCache::default()).supervised(true);
        let listening = builder.listen(&locator).unwrap();
        let locator = listening.locator().unwrap();
        let running = listening.spawn().unwrap();
        let mut held = Client::connect(&locator, "held:1").unwrap();
        let before = (scheme == "unix").then(|| inode(&path));
        for number in 0..300 {
            if number % 3 == 0 {
                // No handshake.
                Connection::connect(&locator).unwrap();
            }
            let client = Client::connect(&locator, "other:1").unwrap();
            if number % 2 == 0 {
                client.quit().unwrap();
            }
            assert_eq!((scheme == "unix").then(|| inode(&path)), before, "{number}");
        }
        held.info().unwrap();
        held.quit().unwrap();
        running.wait().unwrap();
        assert!(!path.exists());
    }
}

#[test]
fn a_supervised_server_keeps_its_listener_while_a_reload_is_pending() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let locator = Locator::Unix(path.clone());
    let (running, _ends) = supervised(&locator);
    let before = inode(&path);
    let reload = Client::connect(&locator, "repo:1").unwrap().announce_reload().unwrap();
    for _ in 0..100 {
        Client::connect(&locator, "other:1").unwrap().quit().unwrap();
        assert_eq!(inode(&path), before);
    }
    Client::finish_reload(reload).unwrap().quit().unwrap();
    running.wait().unwrap();
}

#[test]
fn a_client_that_connects_while_the_last_one_leaves_is_served_or_refused_and_never_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let locator = Locator::Unix(path.clone());
    let mut served = 0;
    for _ in 0..100 {
        let (running, _ends) = supervised(&locator);
        let last = Client::connect(&locator, "last:1").unwrap();
        let leaving = std::thread::spawn(move || last.quit().unwrap());
        loop {
            match Client::connect(&locator, "next:1") {
                Ok(client) => client.quit().unwrap(),
                Err(ClientError::Connect { .. }) => break,
                Err(error) => panic!("connected and dropped: {error}"),
            }
            served += 1;
        }
        leaving.join().unwrap();
        running.wait().unwrap();
        assert!(!path.exists());
    }
    assert!(served > 0);
}

/// The server at this path has its socket there again.
fn is_served(path: &Path) -> bool {
    Client::connect(&Locator::Unix(path.to_owned()), "new:1")
        .is_ok_and(|client| client.quit().is_ok())
}

#[test]
fn a_socket_that_is_removed_is_there_again_and_clients_notice_nothing() {
    let removals: [fn(&Path); 5] = [
        |path| fs::remove_file(path).expect("a file"),
        |path| fs::rename(path, path.with_extension("away")).expect("a file"),
        |path| {
            let directory = path.parent().expect("a directory");
            let away = directory.with_extension("away");
            // Removed where it is, it might get a new socket between the last file and itself.
            fs::rename(directory, &away).expect("a directory");
            fs::create_dir(directory).expect("a directory");
            fs::remove_dir_all(away).expect("a directory");
        },
        |path| {
            fs::remove_file(path).expect("a file");
            fs::remove_file(path.with_extension("lock")).expect("a file");
        },
        |path| {
            // A process that was killed has left it there.
            let short = path.with_file_name("short");
            drop(UnixListener::bind(&short).expect("a socket"));
            fs::rename(short, path).expect("a file");
        },
    ];
    let long = "n".repeat(120);
    for name in ["socket", &long] {
        for remove in removals {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("directory").join(name);
            fs::create_dir(path.parent().unwrap()).unwrap();
            let locator = Locator::Unix(path.clone());
            let (running, _ends) = supervised(&locator);
            let mut held = Client::connect(&locator, "held:1").unwrap();
            remove(&path);
            eventually("it serves there again", || is_served(&path));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            let second = Server::builder(TestCache::default()).listen(&locator);
            assert!(second.unwrap_err().is_in_use());
            held.info().unwrap();
            held.quit().unwrap();
            running.wait().unwrap();
            assert!(!path.exists());
        }
    }
}
