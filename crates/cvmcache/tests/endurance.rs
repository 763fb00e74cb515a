//! Plugins as processes that have much to bear: and go on.

mod support;

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use cvmcache::client::{ClientMessage, Connection, NewUpload, ServerMessage};
use cvmcache::plugin::*;
use nix::sys::signal::Signal;
use support::id;
use support::plugin::{LIMIT, Plugin, eventually, program};
use support::served::serve;

#[test]
fn the_ram_cache_asks_clients_to_detach_when_too_much_is_pinned() {
    let mut plugin = Plugin::new("ram");
    plugin.start("CVMFS_CACHE_PLUGIN_SIZE=100\n");
    let mut client = plugin.client();
    let data = Bytes::from(vec![7; 8 << 20]);
    for byte in 1..=9 {
        client.store(NewUpload::new(id(byte)), data.clone()).unwrap();
    }
    client.wait_for_detach().unwrap();
    let error =
        (10..=20).find_map(|byte| client.store(NewUpload::new(id(byte)), data.clone()).err());
    assert_eq!(error.unwrap().status(), Some(Status::NoSpace));
    client.close(&id(1)).unwrap();
    client.store(NewUpload::new(id(30)), data).unwrap();
}

#[test]
fn a_log_that_is_not_read_delays_no_reply() {
    let mut plugin = Plugin::new("null");
    let config = plugin.configure("");
    let mut command = plugin.command(&[config.as_ref()]);
    let stdout = plugin.spawn(&mut command).stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut String::new()).unwrap();
    // Each of these is worth a line; the pipe takes 64 KiB of them.
    for _ in 0..1500 {
        let mut connection = Connection::connect(&plugin.locator()).unwrap();
        connection.send_raw(b"GET / HTTP/1.1").unwrap();
        assert!(matches!(connection.receive(), Ok(None) | Err(_)));
    }
    plugin.client().info().unwrap();
    plugin.signal(Signal::SIGTERM);
    assert_eq!(plugin.wait(), 0);
}

/// A number of a process in `/proc`, from a file of lines `KEY: NUMBER …`.
fn number_in_proc(pid: u32, file: &str, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("it lives");
    let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("it is told");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

/// How much time a process or a thread has had, in hundredths of a second.
fn processor_ticks(proc: &Path) -> u64 {
    let stat = fs::read_to_string(proc.join("stat")).expect("it lives");
    let behind_name = stat.rsplit(')').next().expect("a name");
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    // The fourteenth and fifteenth of all: in user mode, and in the system.
    fields[11..13].iter().map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// That there is nothing to do for it, and it does nothing.
fn assert_idle(proc: &Path) {
    let before = processor_ticks(proc);
    std::thread::sleep(Duration::from_millis(500));
    let ticks = processor_ticks(proc) - before;
    assert!(ticks < 15, "{ticks} of 50 ticks for nothing");
}

#[test]
fn at_the_limit_of_descriptors_clients_are_served_and_others_wait() {
    let mut plugin = Plugin::new("null");
    let config = plugin.configure("");
    let mut command = Command::new("sh");
    command.args(["-c", r#"ulimit -n 40; exec "$0" "$1""#]).args([program("null"), &config]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = plugin.spawn(&mut command);
    let pid = child.id();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();

    let mut clients: Vec<_> = (0..10).map(|_| plugin.client()).collect();
    let mut at_the_door: VecDeque<_> = (0..60)
        .map(|_| {
            let mut connection = Connection::connect(&plugin.locator()).unwrap();
            let handshake = ClientMessage::Handshake { protocol_version: 1, name: None };
            connection.send(handshake).unwrap();
            connection
        })
        .collect();
    for client in &mut clients {
        client.info().unwrap();
    }
    // No connection can be accepted, and no request comes: a time to be measured in.
    assert_idle(Path::new(&format!("/proc/{pid}")));
    drop(clients);
    while let Some(mut connection) = at_the_door.pop_front() {
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        let message = connection.receive().unwrap();
        assert!(matches!(message, Some(ServerMessage::HandshakeAck(_))));
    }
}

#[test]
fn clients_that_do_not_read_cost_no_processor_time() {
    let mut plugin = Plugin::new("ram");
    let pid = plugin.start("").id();
    let mut clients: Vec<_> = (0..5).map(|_| plugin.client()).collect();
    clients[0].store(NewUpload::new(id(1)), vec![7; 128 * 1024]).unwrap();
    for client in &mut clients {
        for _ in 0..500 {
            let _ticket = client.queue_read(&id(1), 0, 128 * 1024).unwrap();
        }
        client.flush().unwrap();
    }
    // By the time that another client is answered, the plugin has done what it can for them.
    let mut bystander = plugin.client();
    for _ in 0..100 {
        bystander.info().unwrap();
    }
    assert_idle(Path::new(&format!("/proc/{pid}")));
}

#[test]
fn requests_that_wait_for_a_worker_wait_in_the_socket_and_cost_no_processor_time() {
    let f = serve(1);
    f.cache.insert(id(1), "abc");
    f.cache.state().hold_reads = true;
    let mut client = f.client("a");
    // Busy polling for this client pays by now.
    for _ in 0..200 {
        client.info().unwrap();
    }
    let flood = std::thread::spawn(move || {
        for _ in 0..50_000 {
            let _ticket = client.queue_read(&id(1), 0, 3).unwrap();
        }
        client.flush().unwrap();
    });
    f.cache.wait_until(|state| state.held_reads > 0);
    let is_io = |task: &PathBuf| fs::read(task.join("comm")).is_ok_and(|name| name == b"io\n");
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let io: Vec<_> = tasks.filter(is_io).collect();
    assert_eq!(io.len(), 1, "nobody else serves in this process");
    assert_idle(&io[0]);
    assert!(!flood.is_finished(), "the server has taken in all of it");
    // A client without a request in flight need not wait for a worker.
    drop(f.client("b"));
    f.cache.change(|state| state.hold_reads = false);
    flood.join().unwrap();
}

#[test]
fn many_short_sessions_leave_no_memory_descriptors_or_threads() {
    let mut plugin = Plugin::new("ram");
    let pid = plugin.start("").id();
    let descriptors = || fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let memory = || number_in_proc(pid, "status", "VmRSS:");
    let session = |number: u32| {
        let mut client = plugin.client();
        let mut digest = [0; 20];
        digest[..4].copy_from_slice(&(number % 10).to_le_bytes());
        let object = ObjectId::new(HashAlgorithm::Sha1, digest);
        client.store(NewUpload::new(object), "abc").unwrap();
        // Every other one just hangs up.
        if number.is_multiple_of(2) {
            client.quit().unwrap();
        }
    };
    (0..500).for_each(session);
    let before = (descriptors(), memory());
    (0..20_000).for_each(session);
    eventually("connections are closed", || descriptors() <= before.0);
    let grown = memory().saturating_sub(before.1);
    assert!(grown < 2048, "{grown} kB more than before");
    eventually("references are given back", || plugin.client().info().unwrap().pinned_bytes == 0);
}
