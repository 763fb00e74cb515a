//! Replies: errors, scripts that are not there, and bytes that are no reply.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use redis::{Script, cmd};

use super::*;
use redis_test_servers::{RedisServer, Setup, eventually};

#[test]
fn a_flushed_script_is_loaded_again() {
    let server = RedisServer::start();
    let client = connected(&config(&server.url(), LONG));
    let script = Script::new("return 7");
    for _ in 0..3 {
        assert_eq!(client.script(script.prepare_invoke()), Ok(7));
        server.say("SCRIPT FLUSH");
    }
}

#[test]
fn refusals_are_mapped_by_their_reason() {
    let master = Setup::new().tcp().memory(5).start();
    let client = connected(&config(&master.url(), LONG));
    let big = "x".repeat(1 << 20);
    let fill = |n: usize| client.ask::<()>(cmd("SET").arg(n).arg(&big));
    let full = (0..100).map(fill).find_map(Result::err);
    assert_eq!(full, Some(Failure::OutOfMemory));
    client.ping().unwrap();

    master.say("FLUSHALL");
    let replica = Setup::new().tcp().start();
    replica.say(&format!("REPLICAOF 127.0.0.1 {}", master.port()));
    let client = connected(&config(&replica.url(), Duration::from_secs(1)));
    assert!(matches!(client.set("k"), Err(Failure::ReadOnly(_))));
    replica.say("REPLICAOF NO ONE");
    client.set("k").unwrap();

    let server = RedisServer::start();
    let client = connected(&config(&server.url(), LONG));
    server.say("ACL SETUSER default -set");
    assert!(matches!(client.set("k"), Err(Failure::AccessDenied(what)) if what.contains("NOPERM")));
    assert!(matches!(client.ask::<()>(&cmd("NOCOMMAND")), Err(Failure::Refused(_))));
    assert!(matches!(client.ask::<Vec<u64>>(&cmd("PING")), Err(Failure::InvalidResponse(_))));
}

/// A server that answers the first command of a connection validly, and the second with
/// these bytes.
fn fake(second: &'static [u8]) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let serving = thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 1000];
            for reply in [b"+PONG\r\n", second] {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(length) if buffer[..length].ends_with(b"END\r\n") => return,
                    // The client may have disconnected.
                    Ok(_) => drop(stream.write_all(reply)),
                }
            }
        }
    });
    (url, serving)
}

#[test]
fn a_server_with_invalid_or_unbounded_replies_is_disconnected() {
    for says in [&b"hello\r\n"[..], b"$99999999999\r\n", b"*2147483647\r\n", b"\r\n", b"$x\r\n"] {
        let text = String::from_utf8_lossy(says);
        let (url, serving) = fake(says);
        let client = connected(&config(&url, SHORT));
        let (answer, at_once) = timed(|| client.ask::<Vec<String>>(&cmd("PING")));
        assert!(at_once && answer.is_err(), "{text:?}: {answer:?}");
        eventually("the server is called anew", || {
            let _ = client.ask::<()>(&cmd("END"));
            serving.is_finished()
        });
        serving.join().unwrap();
    }
}
