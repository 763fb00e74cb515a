//! Plugins that a service manager starts: the inherited socket, and notifications.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use cvmcache::client::{Client, NewUpload};
use cvmcache::{Locator, Server};
use nix::sys::signal::Signal;
use support::crashes::Crashing;
use support::plugin::{LIMIT, Plugin, Supervised, eventually, program};
use support::{crash_command, id};

/// The socket that a service manager listens on.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        Self::with(UnixDatagram::bind(path).expect("a socket"))
    }

    fn with(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(LIMIT)).expect("a socket");
        Self(socket)
    }

    /// The next message, or the error of the system if there is none.
    fn try_hear(&self) -> std::io::Result<String> {
        let mut message = [0; 4096];
        let length = self.0.recv(&mut message)?;
        Ok(String::from_utf8(message[..length].to_vec()).expect("UTF-8"))
    }

    fn hear(&self) -> String {
        self.try_hear().expect("a message")
    }

    fn hear_until(&self, expected: &str) -> String {
        loop {
            let message = self.hear();
            if message.lines().any(|line| line == expected) {
                return message;
            }
        }
    }
}

/// A command that hands over sockets as its descriptors from 3 on, all of them the same. The
/// configuration may be empty.
fn activated(plugin: &Plugin, socket: impl Into<OwnedFd>, count: usize, config: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"LISTEN_PID=$$ exec "$0" $1 3<&0 4<&0 </dev/null"#])
        .args([program(plugin.name), config])
        .env("LISTEN_FDS", count.to_string())
        .stdin(Stdio::from(socket.into()))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn complaint_of(command: &mut Command) -> String {
    let output = command.output().expect("a process");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

#[test]
fn ready_status_and_stopping_are_sent_to_the_service_manager() {
    let mut plugin = Plugin::new("null");
    let config = plugin.configure("");
    let name = format!("cvmcache-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let by_path = plugin.path("notify");
    for (manager, address) in [
        (Manager::at(&by_path), by_path.display().to_string()),
        (Manager::with(UnixDatagram::bind_addr(&address).unwrap()), format!("@{name}")),
    ] {
        let mut command = plugin.command(&[config.as_ref()]);
        command.env("NOTIFY_SOCKET", address).env("WATCHDOG_USEC", "20000");
        plugin.spawn(&mut command);
        let ready = manager.hear_until("READY=1");
        assert!(ready.contains(&format!("\nSTATUS=serving on {}\n", plugin.locator())), "{ready}");
        // Once it reports that it is ready, clients can connect.
        let client = plugin.client();
        let status = format!("STATUS=serving 1 clients on {}", plugin.locator());
        let alive = manager.hear_until(&status);
        assert!(alive.starts_with("WATCHDOG=1\n"), "{alive}");
        client.quit().unwrap();
        plugin.signal(Signal::SIGTERM);
        manager.hear_until("STOPPING=1");
        assert_eq!(plugin.wait(), 0);
    }
}

#[test]
fn without_watchdog_usec_for_this_process_no_heartbeat_is_sent() {
    let mut plugin = Plugin::new("null");
    let manager = Manager::at(&plugin.path("notify"));
    let config = plugin.configure("");
    // Without a time, and with one for another process.
    for variables in [&[][..], &[("WATCHDOG_PID", "1"), ("WATCHDOG_USEC", "1000")]] {
        let mut command = plugin.command(&[config.as_ref()]);
        command.env("NOTIFY_SOCKET", plugin.path("notify")).envs(variables.iter().copied());
        plugin.spawn(&mut command);
        assert!(manager.hear().starts_with("READY=1\n"));
        plugin.client().quit().unwrap();
        plugin.signal(Signal::SIGTERM);
        assert_eq!(plugin.wait(), 0);
        assert_eq!(manager.hear(), "STOPPING=1\n");
    }
}

#[test]
fn a_stuck_io_thread_sends_no_heartbeat_and_is_named_in_the_crash_report() {
    let mut crashing = Crashing::new();
    let manager = Manager::at(&crashing.plugin.path("notify"));
    let mut command = crashing.command("");
    command.env("NOTIFY_SOCKET", crashing.plugin.path("notify")).env("WATCHDOG_USEC", "100000");
    crashing.spawn(&mut command);
    manager.hear_until("WATCHDOG=1");
    let mut client = crashing.plugin.client();
    let object = id(crash_command::STICK);
    let stuck = thread::spawn(move || client.read(&object, 0, 3));
    // Forty times what it may take.
    manager.0.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    while manager.try_hear().is_ok() {}
    // As a service manager does then.
    crashing.plugin.signal(Signal::SIGABRT);
    assert_eq!(crashing.plugin.wait_for_signal(), Signal::SIGABRT);
    assert!(stuck.join().unwrap().is_err());
    let report = crashing.dump();
    assert!(report.contains("crashing::stick"), "{report}");
}

#[test]
fn a_stuck_worker_does_not_stop_the_heartbeat() {
    let mut crashing = Crashing::new();
    let manager = Manager::at(&crashing.plugin.path("notify"));
    let mut command = crashing.command("CVMFS_CACHE_PLUGIN_WORKERS=1\n");
    command.env("NOTIFY_SOCKET", crashing.plugin.path("notify")).env("WATCHDOG_USEC", "100000");
    crashing.spawn(&mut command);
    let mut client = crashing.plugin.client();
    let object = id(crash_command::STICK);
    let stuck = thread::spawn(move || client.read(&object, 0, 3));
    for _ in 0..20 {
        manager.hear_until("WATCHDOG=1");
    }
    crashing.plugin.signal(Signal::SIGKILL);
    assert_eq!(crashing.plugin.wait_for_signal(), Signal::SIGKILL);
    assert!(stuck.join().unwrap().is_err());
}

#[test]
fn a_service_manager_that_does_not_read_delays_no_request() {
    let mut plugin = Plugin::new("null");
    let manager = Manager::at(&plugin.path("notify"));
    let config = plugin.configure("");
    let mut command = plugin.command(&[config.as_ref()]);
    // Its queue is full soon.
    command.env("NOTIFY_SOCKET", plugin.path("notify")).env("WATCHDOG_USEC", "200");
    plugin.spawn(&mut command);
    manager.hear_until("READY=1");
    let mut client = plugin.client();
    for n in 0..100 {
        client.store(NewUpload::new(id(n)), "abc").unwrap();
    }
    fs::remove_file(plugin.path("notify")).unwrap();
    client.info().unwrap();
    plugin.signal(Signal::SIGTERM);
    assert_eq!(plugin.wait(), 0);
}

#[test]
fn a_supervised_plugin_does_not_notify_the_service_manager_of_the_client() {
    let plugin = Plugin::new("null");
    let manager = Manager::at(&plugin.path("notify"));
    let config = plugin.configure("");
    let notify = plugin.path("notify");
    let mut supervised = Supervised::start_with(plugin, &config, |command| {
        command.env("NOTIFY_SOCKET", &notify).env("WATCHDOG_USEC", "1000");
        // Not for this process.
        command.env("LISTEN_FDS", "many").env("LISTEN_PID", "1");
    });
    assert_eq!(supervised.answer(), Some(b'C'));
    supervised.plugin.client().quit().unwrap();
    assert_eq!(supervised.plugin.wait(), 0);
    manager.0.set_nonblocking(true).unwrap();
    assert!(manager.try_hear().is_err());
}

#[test]
fn an_inherited_unix_socket_is_served_and_not_removed() {
    let mut plugin = Plugin::new("ram");
    let config = plugin.configure("");
    let socket = UnixListener::bind(plugin.path("socket")).unwrap();
    let path = plugin.path("socket");
    let inode = || fs::metadata(&path).unwrap().ino();
    let before = inode();
    for _ in 0..2 {
        // Before there is a client: it may have to be built.
        let mut command = activated(&plugin, socket.try_clone().unwrap(), 1, &config);
        // A client that connects before it has started waits, and is served.
        let locator = plugin.locator();
        let early = thread::spawn(move || {
            let mut client = Client::builder().name("repo:1").timeout(LIMIT).connect(&locator)?;
            client.info()
        });
        plugin.spawn(&mut command);
        early.join().unwrap().unwrap();
        // It does not end with its last client, and keeps others away.
        plugin.client().quit().unwrap();
        let complaint = complaint_of(&mut plugin.command(&[config.as_ref()]));
        assert!(complaint.contains("another process already serves"), "{complaint}");
        plugin.client().quit().unwrap();
        plugin.signal(Signal::SIGTERM);
        assert_eq!(plugin.wait(), 0);
        assert_eq!(inode(), before);
    }
}

#[test]
fn the_path_of_an_inherited_socket_is_the_service_managers_whatever_becomes_of_it() {
    let removals: [fn(&Path); 4] = [
        |path| fs::remove_file(path).expect("a file"),
        |path| fs::rename(path, path.with_extension("away")).expect("a file"),
        |path| {
            fs::remove_file(path).expect("a file");
            fs::remove_file(path.with_extension("lock")).expect("a file");
        },
        |path| {
            // A process that was killed has left it there: no process has it open.
            let short = path.with_extension("stale");
            drop(UnixListener::bind(&short).expect("a socket"));
            fs::rename(short, path).expect("a file");
        },
    ];
    for remove in removals {
        let mut plugin = Plugin::new("null");
        let config = plugin.configure("");
        let path = plugin.path("socket");
        let socket = UnixListener::bind(&path).unwrap();
        let mut command = activated(&plugin, socket.try_clone().unwrap(), 1, &config);
        let stderr = plugin.spawn_until_it_serves(&mut command).stderr.take().unwrap();
        let mut held = plugin.client();
        remove(&path);
        let inode = || fs::symlink_metadata(&path).ok().map(|metadata| metadata.ino());
        let after = inode();
        let mut lines = BufReader::new(stderr).lines();
        let is_lost = |line: &String| line.contains("it is not bound again");
        lines.by_ref().map(Result::unwrap).find(is_lost).unwrap();
        // Several looks later.
        held.info().unwrap();
        assert_eq!(inode(), after);
        plugin.signal(Signal::SIGTERM);
        assert_eq!(plugin.wait(), 0);
        assert_eq!(inode(), after, "nothing is removed that the plugin has not bound");
        assert_eq!(lines.map(Result::unwrap).filter(is_lost).count(), 0, "it was said once");
    }
}

#[test]
fn an_inherited_socket_that_comes_back_is_noticed() {
    let mut plugin = Plugin::new("null");
    let config = plugin.configure("");
    let path = plugin.path("socket");
    let socket = UnixListener::bind(&path).unwrap();
    let mut command = activated(&plugin, socket, 1, &config);
    let debug_log = plugin.path("debug.log");
    plugin.configure(&format!("CVMFS_CACHE_PLUGIN_DEBUGLOG={}\n", debug_log.display()));
    plugin.spawn_until_it_serves(&mut command);
    let is_said = |text: &str| fs::read_to_string(&debug_log).is_ok_and(|log| log.contains(text));
    let away = path.with_extension("away");
    for _ in 0..2 {
        fs::rename(&path, &away).unwrap();
        eventually("it is missed", || is_said("it is not bound again"));
        fs::rename(&away, &path).unwrap();
        eventually("it is there", || is_said("are in place again"));
        plugin.client().info().unwrap();
        fs::write(&debug_log, "").unwrap();
    }
}

#[test]
fn an_inherited_tcp_socket_is_served() {
    let mut plugin = Plugin::new("null");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let locator: Locator = format!("tcp={address}").parse().unwrap();
    let config = plugin.configure(&format!("CVMFS_CACHE_PLUGIN_LOCATOR={locator}\n"));
    let mut command = activated(&plugin, socket, 1, &config);
    plugin.spawn(&mut command);
    let mut client = Client::builder().timeout(LIMIT).name("r:1").connect(&locator).unwrap();
    client.store(NewUpload::new(id(1)), "abc").unwrap();
    client.quit().unwrap();
    plugin.signal(Signal::SIGTERM);
    assert_eq!(plugin.wait(), 0);
}

#[test]
fn without_a_configuration_the_inherited_socket_is_the_locator() {
    let mut plugin = Plugin::new("null");
    let socket = UnixListener::bind(plugin.path("socket")).unwrap();
    let mut command = activated(&plugin, socket, 1, Path::new(""));
    let stdout = plugin.spawn(&mut command).stdout.take().unwrap();
    let mut greeting = String::new();
    BufReader::new(stdout).read_line(&mut greeting).unwrap();
    assert!(greeting.ends_with(&format!(" on {}\n", plugin.locator())), "{greeting}");
    plugin.client().info().unwrap();
}

#[test]
fn an_unsuitable_inherited_socket_is_an_error() {
    let plugin = Plugin::new("null");
    let config = plugin.configure("");
    let socket = || UnixListener::bind(plugin.path("socket").with_extension("other")).unwrap();
    let datagrams = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let other = activated(&plugin, socket(), 1, &config);
    fs::remove_file(plugin.path("socket.other")).unwrap();
    let two = activated(&plugin, socket(), 2, &config);
    let no_socket = fs::File::open("/dev/null").unwrap();
    for (mut command, expected) in [
        (other, "socket.other, and not on unix="),
        (two, "LISTEN_FDS=\"2\": a plugin serves one socket"),
        (activated(&plugin, datagrams(), 1, &config), "it is no stream socket"),
        (activated(&plugin, no_socket, 1, &config), "it is no socket"),
    ] {
        let complaint = complaint_of(&mut command);
        assert!(complaint.contains(expected), "{complaint}");
    }
}

#[test]
fn invalid_variables_of_socket_activation_are_named() {
    let plugin = Plugin::new("null");
    let config = plugin.configure("");
    for (variable, value) in [
        ("NOTIFY_SOCKET", "notify"),
        ("WATCHDOG_USEC", "0"),
        ("WATCHDOG_USEC", "soon"),
        ("LISTEN_FDS", "many"),
        // None of them is open.
        ("LISTEN_FDS", "4000000000"),
    ] {
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"LISTEN_PID=$$ exec "$0" "$1""#])
            .args([program("null"), &config])
            .env(variable, value)
            .stdin(Stdio::null());
        let complaint = complaint_of(&mut command);
        assert!(complaint.contains(&format!("{variable}={value:?}: ")), "{complaint}");
        assert!(complaint.contains("unset it"), "{complaint}");
    }
}

#[test]
fn descriptors_meant_for_another_process_are_not_inherited() {
    let mut plugin = Plugin::new("null");
    let config = plugin.configure("");
    let mut command = plugin.command(&[config.as_ref()]);
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "many");
    let mut stdout = plugin.spawn(&mut command).stdout.take().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    plugin.client().info().unwrap();
}

#[test]
fn a_supervised_server_on_an_inherited_socket_refuses_no_client_at_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let socket = UnixListener::bind(&path).unwrap();
    let locator = Locator::Unix(path);
    let serve = || {
        let builder =
            Server::builder(support::TestCache::with(cvmcache::plugin::Capabilities::ALL))
                .supervised(true);
        let socket = socket.try_clone().unwrap().into();
        builder.listen_on(socket, &locator).unwrap().spawn().unwrap()
    };
    let running = serve();
    Client::connect(&locator, "repo:1").unwrap().quit().unwrap();
    running.wait().unwrap();
    let there = locator.clone();
    let late = thread::spawn(move || Client::connect(&there, "repo:1")?.quit());
    serve().wait().unwrap();
    late.join().unwrap().unwrap();
}
