//! Servers that are away or hang: requests fail in time.

use std::net::TcpListener;
use std::thread;

use super::*;
use redis_test_servers::{RedisServer, Setup, eventually};

#[test]
fn requests_fail_at_once_while_the_server_is_away() {
    for setup in [Setup::new(), Setup::new().tcp()] {
        let mut server = setup.start();
        server.kill();
        let (client, at_once) = timed(|| connected(&config(&server.url(), LONG)));
        assert!(at_once);
        for _ in 0..100 {
            assert_eq!(timed(|| client.ping()), (Err(Failure::Unreachable), true));
        }
        server.restart();
        eventually("the server is found", || client.ping().is_ok());
        let client = connected(&config(&server.url(), SHORT));
        eventually("it serves", || client.ping().is_ok());
        server.kill();
        eventually("it is gone", || client.ping() == Err(Failure::Unreachable));
        let begin = Instant::now();
        (0..100).for_each(|_| assert_eq!(client.ping(), Err(Failure::Unreachable)));
        assert!(begin.elapsed() < 50 * SHORT, "they do not wait");
        server.restart();
        eventually("the server is found again", || client.ping().is_ok());
    }
}

#[test]
fn requests_wait_for_a_server_that_restarts_within_their_timeout() {
    for setup in [Setup::new().persistent(), Setup::new().tcp().persistent()] {
        let mut server = setup.start();
        let client = connected(&config(&server.url(), LONG));
        client.set("k").unwrap();
        for _ in 0..3 {
            server.kill();
            thread::scope(|scope| {
                let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| client.get("k"))).collect();
                server.restart();
                for asking in asking {
                    assert_eq!(asking.join().unwrap(), Ok(Some("k".to_owned())));
                }
            });
        }
    }
}

#[test]
fn after_one_timeout_requests_to_a_server_that_hangs_fail_at_once() {
    let server = Setup::new().tcp().start();
    let client = connected(&config(&server.url(), Duration::from_secs(1)));
    client.set("a").unwrap();
    server.pause();
    assert_eq!(timed(|| client.get("a")), (Err(Failure::Timeout), true));
    eventually("requests fail at once", || {
        let begin = Instant::now();
        client.get("a").is_err() && begin.elapsed() < Duration::from_millis(100)
    });
    server.resume();
    eventually("the server answers again", || client.get("a") == Ok(Some("a".to_owned())));
    client.serves();
}

#[test]
fn a_late_reply_is_not_taken_for_that_of_another_request() {
    let server = RedisServer::start();
    let client = connected(&config(&server.url(), SHORT));
    let keys: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    for key in &keys {
        eventually("it is set", || client.set(key).is_ok());
    }
    let mut late = 0;
    for _ in 0..5 {
        thread::scope(|scope| {
            server.pause();
            let asking: Vec<_> = keys.iter().map(|key| scope.spawn(|| client.get(key))).collect();
            // Some wait for their deadline, and some are answered after it.
            let answers: Vec<_> = asking.into_iter().map(|asking| asking.join().unwrap()).collect();
            late += answers.iter().filter(|answer| **answer == Err(Failure::Timeout)).count();
            server.resume();
            for key in &keys {
                eventually("it is answered", || match client.get(key) {
                    Ok(value) => {
                        assert_eq!(value.as_deref(), Some(key.as_str()));
                        true
                    }
                    Err(_) => false,
                });
            }
        });
    }
    assert!(late > 0);
}

#[test]
fn a_server_that_accepts_and_never_replies_delays_no_request_beyond_its_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (client, at_once) = timed(|| connected(&config(&url, LONG)));
    assert!(at_once, "a plugin starts soon");
    for _ in 0..20 {
        let (answer, at_once) = timed(|| client.ping());
        assert!(at_once && answer.is_err());
    }
}
