//! `cvmcache doctor` beside a process that listens, or holds the lock: what it finds, and that its advice ends none.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;

use cvmcache::admin::AdminSocket;
use cvmcache::client::Client;
use cvmcache::plugin::{CacheInfo, Capabilities, Data, ObjectId, ObjectInfo, PluginResult, Status};
use cvmcache::{CachePlugin, Locator, Server, Session};
use cvmcache_testkit::PluginCommand;
use nix::fcntl::{Flock, FlockArg};
use support::site::Site;
use support::{ram, start_ram};

#[test]
fn a_plugin_that_runs_as_another_user_is_a_finding() {
    let plugin = start_ram();
    let site = Site { user: "nobody".to_owned(), ..Site::around(plugin.locator()) };
    site.assert_finds("plugin-foreign");
}

#[test]
fn a_plugin_that_runs_with_another_configuration_is_a_finding() {
    let plugin = start_ram();
    let mut site = Site::around(plugin.locator());
    site.replace_in_plugin("SIZE=100", "SIZE=200");
    site.assert_finds("configuration-not-in-use");
    let output = site.doctor(&[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("CVMFS_CACHE_PLUGIN_SIZE=200, but 100 is in force"), "{text}");
}

#[test]
fn a_plugin_of_another_size_is_a_finding_also_without_an_administration_socket() {
    let command = PluginCommand::new(ram()).option("CVMFS_CACHE_PLUGIN_ADMIN", "no");
    let plugin = command.option("CVMFS_CACHE_PLUGIN_SIZE", "100").start().unwrap();
    let mut site = Site::around(plugin.locator());
    site.replace_in_plugin("SIZE=100", "SIZE=200");
    site.assert_finds("size-not-in-use");
}

#[test]
fn a_program_that_was_replaced_while_it_runs_is_a_finding() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("plugin");
    fs::copy(ram(), &program).unwrap();
    let command = PluginCommand::new(&program).option("CVMFS_CACHE_PLUGIN_SIZE", "100");
    let plugin = command.start().unwrap();
    fs::remove_file(&program).unwrap();
    Site::around(plugin.locator()).assert_finds("program-replaced");
}

#[test]
fn a_lock_file_held_without_a_listener_is_a_finding_with_the_holder() {
    let site = Site::new();
    let lock = File::create(site.path("socket.lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
    site.assert_finds("lock-held");
    let output = site.doctor(&[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("process {} holds", std::process::id())), "{text}");
    assert!(!text.contains("kill"), "{text}");
}

#[test]
fn advice_about_a_plugin_whose_socket_has_lost_its_name_does_not_end_it() {
    let plugin = start_ram();
    let mut client = Client::connect(plugin.locator(), "test.cern.ch:1").unwrap();
    let site = Site::around(plugin.locator());
    let Locator::Unix(socket) = plugin.locator() else { unreachable!() };
    // Taken over by another name, so that the plugin need not notice.
    let lock = socket.with_extension("lock");
    assert!(lock.exists());
    fs::rename(socket, socket.with_extension("gone")).unwrap();
    let output = site.doctor(&[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("kill"), "{text}");
    client.info().unwrap();
}

/// A plugin whose callback does not return before it is let go.
struct Stuck(Arc<Mutex<()>>);

impl CachePlugin for Stuck {
    fn capabilities(&self) -> Capabilities {
        Capabilities::INFO
    }

    fn object_info(&self, _session: &Session, _id: &ObjectId) -> PluginResult<ObjectInfo> {
        Err(Status::NoEntry)
    }

    fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
        Err(Status::NoEntry)
    }

    fn info(&self, _session: Option<&Session>) -> PluginResult<CacheInfo> {
        drop(self.0.lock().ok());
        Err(Status::NoSupport)
    }
}

#[test]
fn a_plugin_whose_callbacks_do_not_return_is_a_finding_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let locator = Locator::Unix(directory.path().join("socket"));
    let lock = Arc::new(Mutex::new(()));
    let held = lock.lock().unwrap();
    let socket = AdminSocket::at(AdminSocket::path_of(&locator, directory.path()));
    let builder = Server::builder(Stuck(lock.clone())).workers(1).admin(socket);
    let server = builder.listen(&locator).unwrap().spawn().unwrap();
    let (names, status) = Site::around(&locator).findings();
    assert!(names.iter().any(|name| name == "plugin-failing"), "{names:?}");
    assert_eq!(status, 1);
    drop(held);
    server.handle().terminate();
    server.wait().unwrap();
}

#[test]
fn an_administration_socket_that_does_not_answer_is_a_finding() {
    let command = PluginCommand::new(ram()).option("CVMFS_CACHE_PLUGIN_ADMIN", "no");
    let plugin = command.option("CVMFS_CACHE_PLUGIN_SIZE", "100").start().unwrap();
    let Locator::Unix(socket) = plugin.locator() else { unreachable!() };
    let path = AdminSocket::path_of(plugin.locator(), socket.parent().unwrap());
    let listener = UnixListener::bind(path).unwrap();
    // It lives as long as the tests.
    thread::spawn(move || {
        for connection in listener.incoming() {
            let answer = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
            // A client that has gone takes none.
            let _ = connection.and_then(|mut connection| connection.write_all(answer));
        }
    });
    Site::around(plugin.locator()).assert_finds("administration-fails");
}

#[test]
fn a_listener_that_is_no_plugin_is_a_finding() {
    for (answer, name) in
        [(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "not-a-plugin"), (b"", "plugin-refuses")]
    {
        let site = Site::new();
        let listener = UnixListener::bind(site.path("socket")).unwrap();
        // It lives as long as the tests.
        thread::spawn(move || {
            let mut kept = Vec::new();
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                connection.write_all(answer).unwrap();
                // Closing would be a reply of its own.
                if !answer.is_empty() {
                    kept.push(connection);
                }
            }
        });
        site.assert_finds(name);
    }
}

#[test]
fn a_tcp_plugin_that_other_hosts_reach_is_a_finding() {
    let mut site = Site::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let socket = format!("unix={}", site.path("socket").display());
    site.replace_in_client(&socket, &format!("tcp=127.0.0.1:{port}"));
    site.replace_in_plugin(&socket, &format!("tcp=:{port}"));
    site.assert_finds("allow-missing");
    let mut closed = Site { directory: tempfile::tempdir().unwrap(), ..site };
    closed.plugin += "CVMFS_CACHE_PLUGIN_ALLOW=10.0.0.0/8\n";
    closed.client = closed.client.replace("CVMFS_CACHE_ram_CMDLINE", "#");
    closed.arguments =
        vec!["--config".to_owned(), closed.path("plugin.conf").display().to_string()];
    let (names, status) = closed.findings();
    assert_eq!(
        (names, status),
        (
            ["plugin-not-asked", "allow-excludes-client", "plugin-not-running"]
                .map(str::to_owned)
                .to_vec(),
            1
        )
    );
}
