//! Requests whose connection is lost: which are sent again, and what they return.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use redis::cmd;

use super::*;
use redis_test_servers::{Proxy, Setup};

#[test]
fn a_request_whose_connection_is_killed_is_sent_again() {
    let server = Setup::new().tcp().start();
    let client = connected(&config(&server.url(), LONG));
    let keys: Vec<_> = (0..8).map(|n| n.to_string()).collect();
    thread::scope(|scope| {
        let asking: Vec<_> = keys
            .iter()
            .map(|key| {
                let client = &client;
                scope.spawn(move || {
                    let end = Instant::now() + Duration::from_secs(3);
                    while Instant::now() < end {
                        client.set(key).unwrap();
                        assert_eq!(client.get(key), Ok(Some(key.clone())));
                    }
                })
            })
            .collect();
        while !asking.iter().all(thread::ScopedJoinHandle::is_finished) {
            server.say("CLIENT KILL TYPE normal SKIPME yes");
            thread::sleep(Duration::from_millis(100));
        }
    });
}

#[test]
fn a_connection_that_is_cut_in_a_reply_gives_no_bytes_to_another_request() {
    let server = Setup::new().tcp().start();
    let proxy = Proxy::cutting(server.port(), 10..=30_000);
    let client = connected(&config(&proxy.url(), LONG));
    let value = |n: usize| format!("{n:04}").repeat(100 * (n % 7 + 1));
    for n in 0..20 {
        server.ask::<()>(cmd("SET").arg(n).arg(value(n)));
    }
    thread::scope(|scope| {
        for thread in 0..8 {
            let client = &client;
            scope.spawn(move || {
                for n in (0..20).cycle().skip(thread).take(200) {
                    assert!(client.get(&n.to_string()) == Ok(Some(value(n))), "{n}");
                }
            });
        }
    });
    assert!(proxy.cuts() > 10, "{}", proxy.cuts());
}

#[test]
fn a_server_that_cuts_connections_with_many_bytes_in_flight_answers_all_in_the_end() {
    let server = Setup::new().tcp().line("client-output-buffer-limit normal 2mb 1mb 1").start();
    let client = connected(&config(&server.url(), LONG));
    let value = "x".repeat(512 * 1024);
    client.ask::<()>(cmd("SET").arg("k").arg(&value)).unwrap();
    let traits = Traits::REPEATABLE.with_reply(value.len() as u64);
    thread::scope(|scope| {
        for _ in 0..48 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let mut get = cmd("GET");
                    let read = client.client.command::<String>(traits, get.arg("k"));
                    assert!(client.client.wait(read).as_ref() == Ok(&value));
                }
            });
        }
    });
}

/// A server that greets, and closes its first connection when it is asked more; and what it was asked.
fn closing() -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let serving = thread::spawn(move || {
        let mut asked = Vec::new();
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut buffer = [0; 1000];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let is_greeting = text.contains("PING");
                if text.contains("END") {
                    return asked;
                }
                if !is_greeting {
                    asked.push(text);
                }
                if n == 0 && !is_greeting {
                    break;
                }
                let reply: &[u8] = if is_greeting { b"+PONG\r\n" } else { b"+OK\r\n" };
                let _ = stream.write_all(reply);
            }
        }
        asked
    });
    (url, serving)
}

#[test]
fn only_a_request_that_may_be_repeated_is_sent_again() {
    for (traits, sent, reply) in
        [(Traits::REPEATABLE, 2, Ok(())), (Traits::ONCE, 1, Err(Failure::Unreachable))]
    {
        let (url, serving) = closing();
        let client = connected(&config(&url, Duration::from_secs(5)));
        let set = || {
            client.client.wait(client.client.command::<()>(traits, cmd("SET").arg("k").arg("v")))
        };
        assert_eq!(set(), reply, "{traits:?}");
        let _ = client.ask::<()>(cmd("END").arg(""));
        assert_eq!(serving.join().unwrap().len(), sent, "{traits:?}");
    }
}
