//! Refusals over a connection that is well: another connection may lead to a server that does not refuse.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use futures_util::future::join;
use redis::cmd;

use super::*;
use redis_test_servers::eventually;

/// A server that answers PING. It refuses whatever else it is asked, but not over connections from number
/// `well_from` on.
struct Refusing {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    well_from: Arc<AtomicUsize>,
}

impl Refusing {
    fn start(refusal: &'static str, well_from: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            well_from: Arc::new(well_from.into()),
        };
        let (connections, well_from) =
            (Arc::clone(&refusing.connections), Arc::clone(&refusing.well_from));
        // It ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let n = connections.fetch_add(1, Ordering::Relaxed);
                let is_well = n >= well_from.load(Ordering::Relaxed);
                let reply = if is_well { "+OK\r\n".to_owned() } else { format!("-{refusal}\r\n") };
                thread::spawn(move || answer(stream.unwrap(), &reply));
            }
        });
        refusing
    }

    fn client(&self, timeout: Duration) -> Connected {
        connected(&config(&format!("redis://{}", self.address), timeout))
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

fn answer(mut stream: TcpStream, reply: &str) {
    let mut buffer = [0; 1000];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let is_greeting = String::from_utf8_lossy(&buffer[..length]).contains("PING");
        // The client may have disconnected.
        let _ = stream.write_all(if is_greeting { b"+PONG\r\n" } else { reply.as_bytes() });
    }
}

/// A server whose connections each answer PING, then wait for two requests, and give these replies to them together.
/// The last connection answers `+OK` to all that follows.
fn replying_to_two_at_once(replies: [&'static str; 2]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for replies in replies {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut buffer, mut asked) = ([0; 1000], String::new());
            while asked.matches("SET").count() < 2 {
                let length = stream.read(&mut buffer).unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]);
                if text.contains("PING") {
                    stream.write_all(b"+PONG\r\n").unwrap();
                }
                asked += &text;
            }
            stream.write_all(replies.as_bytes()).unwrap();
            // Of the first connection, the client is done with it.
            answer(stream, "+OK\r\n");
        }
    });
    address
}

#[test]
fn a_refused_request_is_sent_again_when_another_was_accepted_over_the_same_connection() {
    let address =
        replying_to_two_at_once(["-LOADING it\r\n-LOADING it\r\n", "-LOADING it\r\n+OK\r\n"]);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // One thread: the second reply is seen before the connection is replaced for the first one.
    let runtime = builder.enable_all().build().unwrap();
    let config = config(&format!("redis://{address}"), LONG);
    let shared = SharedState {
        connector: Connector::new(&config).unwrap(),
        deadline: config.timeout,
        runtime: runtime.handle().clone(),
        metrics: ClientMetrics::new(),
        connected: Arc::default(),
    };
    let node = Node::new(&shared, config.server.addresses()[0].clone(), Role::only());
    let set = async |key| node.command(cmd("SET").arg(key).arg("v"), Traits::REPEATABLE).await;
    let (replies, at_once) = timed(|| runtime.block_on(join(set("a"), set("b"))));
    assert!(at_once);
    assert_eq!(replies, (Ok(Value::Okay), Ok(Value::Okay)));
}

const OF_THE_CONNECTION: [&str; 6] = [
    "READONLY You can't write against a read only replica.",
    "NOREPLICAS Not enough good replicas to write.",
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOAUTH Authentication required.",
];

#[test]
fn a_refused_request_is_sent_again_over_the_next_connection_that_is_well() {
    for refusal in OF_THE_CONNECTION {
        for traits in [Traits::REPEATABLE, Traits::ONCE] {
            let server = Refusing::start(refusal, 3);
            let client = server.client(LONG);
            let mut set = cmd("SET");
            let set = client.client.command::<()>(traits, set.arg("k").arg("v"));
            let (reply, at_once) = timed(|| client.client.wait(set));
            assert_eq!((reply, at_once), (Ok(()), true), "{refusal}");
            assert_eq!(server.connections(), 4, "{refusal}");
        }
    }
}

#[test]
fn a_server_that_refuses_for_ever_is_connected_to_with_back_off_and_requests_fail_at_once() {
    for refusal in OF_THE_CONNECTION {
        let server = Refusing::start(refusal, usize::MAX);
        let client = server.client(Duration::from_secs(1));
        let code = refusal.split(' ').next().unwrap();
        let refused = |failure: &Failure| failure.to_string().contains(code);
        let first = client.set("k").unwrap_err();
        assert!(refused(&first), "{refusal}: {first}");
        let begin = Instant::now();
        for _ in 0..1000 {
            let failure = client.set("k").unwrap_err();
            assert!(refused(&failure), "{refusal}: {failure}");
        }
        assert!(begin.elapsed() < AT_ONCE, "{refusal}");
        assert!(server.connections() < 30, "{refusal}: {}", server.connections());
        server.well_from.store(0, Ordering::Relaxed);
        eventually("the server is well", || client.set("k").is_ok());
    }
}

#[test]
fn a_refusal_that_another_connection_would_not_change_fails_at_once() {
    for (refusal, expected) in [
        ("OOM command not allowed", Failure::OutOfMemory),
        ("MISCONF Errors writing to the AOF file", Failure::ReadOnly("MISCONF".to_owned())),
        ("NOPERM no permissions", Failure::AccessDenied("NOPERM no permissions".to_owned())),
    ] {
        let server = Refusing::start(refusal, usize::MAX);
        let client = server.client(LONG);
        for _ in 0..10 {
            assert_eq!(timed(|| client.set("k")), (Err(expected.clone()), true), "{refusal}");
        }
        assert_eq!(server.connections(), 1, "{refusal}");
    }
}
