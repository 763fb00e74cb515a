use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use redis::{Script, cmd, pipe};
use tokio::runtime::Runtime;

use super::*;
use crate::config::Tls;
use redis_test_servers::{Certificates, Proxy, RedisCluster, RedisServer, Setup, eventually};

/// A timeout that only a hanging server reaches.
const LONG: Duration = Duration::from_secs(60);

const SHORT: Duration = Duration::from_millis(300);

/// Much less than `LONG`, and much more than a request takes that does not wait for it.
const AT_ONCE: Duration = Duration::from_secs(20);

struct Connected {
    client: RedisClient,
    _runtime: Runtime,
}

fn config(url: &str, timeout: Duration) -> Config {
    Config { timeout, ..Config::new(url).unwrap() }
}

fn try_connect(config: &Config) -> Result<Connected, ConfigError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    Ok(Connected { client: RedisClient::new(config, runtime.handle().clone())?, _runtime: runtime })
}

fn connected(config: &Config) -> Connected {
    try_connect(config).unwrap()
}

impl Connected {
    fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Failure> {
        self.client.wait(self.client.command(Traits::REPEATABLE, command))
    }

    fn script<T: FromRedisValue>(&self, invocation: ScriptInvocation<'_>) -> Result<T, Failure> {
        let call = ScriptCall { invocation, traits: Traits::REPEATABLE };
        self.client.wait(self.client.script(&call))
    }

    fn ping(&self) -> Result<(), Failure> {
        self.ask::<String>(&cmd("PING")).map(|_| ())
    }

    fn set(&self, key: &str) -> Result<(), Failure> {
        self.ask(cmd("SET").arg(key).arg(key))
    }

    fn get(&self, key: &str) -> Result<Option<String>, Failure> {
        self.ask(cmd("GET").arg(key))
    }

    /// Commands, pipelines and scripts over many slots.
    fn serves(&self) {
        let script = Script::new("return {KEYS[1], ARGV[1], redis.call('GET', KEYS[1])}");
        let mut sets = pipe();
        let mut gets = pipe();
        let keys: Vec<_> = (0..50).map(|n| format!("key {n}")).collect();
        for key in &keys {
            self.set(key).unwrap();
            sets.cmd("SET").arg(key).arg(format!("{key}!")).ignore();
            gets.cmd("GET").arg(key).cmd("DEL").arg(key).ignore();
            let mut call = script.key(key);
            call.arg("x");
            let last_logged: Vec<String> = self.script(call).unwrap();
            assert_eq!(last_logged, [key, "x", key]);
        }
        self.client.wait(self.client.pipeline::<()>(Traits::REPEATABLE, &sets)).unwrap();
        let got: Vec<String> =
            self.client.wait(self.client.pipeline(Traits::REPEATABLE, &gets)).unwrap();
        assert_eq!(got, Vec::from_iter(keys.iter().map(|key| format!("{key}!"))));
        assert_eq!(self.get("key 0"), Ok(None));
        let mut atomic = pipe();
        atomic.atomic().cmd("INCR").arg("{n}a").cmd("INCR").arg("{n}b").ignore();
        assert_eq!(
            self.client.wait(self.client.pipeline::<Vec<u64>>(Traits::ONCE, &atomic)),
            Ok(vec![1])
        );
    }
}

/// The result, and whether it took less than `AT_ONCE`.
fn timed<T>(what: impl FnOnce() -> T) -> (T, bool) {
    let begin = Instant::now();
    let outcome = what();
    (outcome, begin.elapsed() < AT_ONCE)
}

#[test]
fn a_server_on_tcp_or_a_unix_socket_serves_with_and_without_a_password() {
    for setup in [
        Setup::new(),
        Setup::new().tcp(),
        Setup::new().password("s3cret"),
        Setup::new().tcp().password("s3cret"),
    ] {
        let server = setup.start();
        connected(&config(&server.url(), LONG)).serves();
    }
}

#[test]
fn a_user_with_a_password_and_a_database_of_its_own_is_served() {
    let server = Setup::new().tcp().line("user me on >p%ss@/ ~* &* +@all").start();
    let url = format!("redis://me:p%25ss%40%2F@127.0.0.1:{}/3", server.port());
    connected(&config(&url, LONG)).set("k").unwrap();
    let mut connection = server.connect();
    cmd("SELECT").arg(3).exec(&mut connection).unwrap();
    assert_eq!(cmd("GET").arg("k").query(&mut connection), Ok("k".to_owned()));
}

#[test]
fn a_server_with_tls_serves_if_its_authority_is_trusted() {
    let certificates = Certificates::new();
    let server = Setup::new().tls(&certificates).start();
    let trusting = |authority: &Certificates| Config {
        tls: Some(Tls::new(Some(&authority.path("ca")), None).unwrap()),
        ..config(&server.url(), LONG)
    };
    connected(&trusting(&certificates)).serves();
    let (failure, at_once) = timed(|| connected(&trusting(&Certificates::new())).ping());
    assert_eq!((failure, at_once), (Err(Failure::Unreachable), true));
}

#[test]
fn the_certificate_is_shown_to_a_server_that_requires_one() {
    let certificates = Certificates::new().mutual();
    let server = Setup::new().tls(&certificates).start();
    let (ca, own, key) =
        (certificates.path("ca"), certificates.path("client"), certificates.key_path("client"));
    let with = |identity| Config {
        tls: Some(Tls::new(Some(&ca), identity).unwrap()),
        ..config(&server.url(), LONG)
    };
    connected(&with(Some((&own, &key)))).serves();
    assert_eq!(connected(&with(None)).ping(), Err(Failure::Unreachable));
}

#[test]
fn a_wrong_password_is_an_error_that_does_not_contain_it() {
    let server = Setup::new().tcp().password("right").start();
    for login in ["", ":wr0ng@", "me:wr0ng@"] {
        let url = format!("redis://{login}127.0.0.1:{}", server.port());
        let error = try_connect(&config(&url, LONG)).err().unwrap();
        assert!(matches!(error, ConfigError::AccessDenied { .. }), "{error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains("127.0.0.1") && !text.contains("wr0ng"), "{text}");
    }
}

#[test]
fn the_password_file_is_read_for_each_connection() {
    let mut server = Setup::new().tcp().password("old").start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "old\n").unwrap();
    let url = format!("redis://127.0.0.1:{}", server.port());
    let client = connected(&Config { password_file: Some(file.clone()), ..config(&url, LONG) });
    client.ping().unwrap();
    server.kill();
    std::fs::write(&file, "new\n").unwrap();
    server.restart();
    eventually("the old password is in the configuration, and refused is the new one", || {
        matches!(client.ping(), Err(Failure::AccessDenied(_)))
    });
    server.say("CONFIG SET requirepass new");
    eventually("the new password is good", || client.ping().is_ok());
}

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
    let client = connected(&config(&replica.url(), LONG));
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

#[test]
fn a_cluster_serves() {
    let cluster = RedisCluster::start();
    connected(&config(&cluster.url(), LONG)).serves();
}

#[test]
fn a_cluster_serves_while_its_slots_migrate() {
    let cluster = RedisCluster::start();
    serves_while_slots_move(&cluster, &connected(&config(&cluster.url(), LONG)));
}

#[test]
fn a_cluster_with_tls_serves_while_its_slots_migrate() {
    let certificates = Certificates::new().mutual();
    let cluster = RedisCluster::with(&Setup::new().tls(&certificates));
    let (own, key) = (certificates.path("client"), certificates.key_path("client"));
    let tls = Tls::new(Some(&certificates.path("ca")), Some((&own, &key))).unwrap();
    let client = connected(&Config { tls: Some(tls), ..config(&cluster.url(), LONG) });
    client.serves();
    serves_while_slots_move(&cluster, &client);
}

fn serves_while_slots_move(cluster: &RedisCluster, client: &Connected) {
    let keys: Vec<_> = (0..6).map(|n| format!("{{{n}}}key")).collect();
    let mut gets = pipe();
    for key in &keys {
        client.set(key).unwrap();
        gets.cmd("GET").arg(key);
    }
    let script = Script::new("return redis.call('GET', KEYS[1])");
    for turn in 1..3 {
        for key in &keys {
            cluster.move_slot(key, (cluster.owner(key) + turn) % 3);
        }
        for server in &cluster.servers {
            server.say("SCRIPT FLUSH");
        }
        assert_eq!(
            client.client.wait(client.client.pipeline::<Vec<String>>(Traits::REPEATABLE, &gets)),
            Ok(keys.clone())
        );
        for key in &keys {
            assert_eq!(client.get(key), Ok(Some(key.clone())));
            assert_eq!(client.script(script.key(key)), Ok(key.clone()));
        }
    }
}

#[test]
fn a_server_of_a_cluster_that_hangs_delays_no_other() {
    let cluster = RedisCluster::with(&Setup::new().line("cluster-require-full-coverage no"));
    let client = connected(&config(&cluster.url(), LONG));
    let key_of = |n| (0..).map(|k| format!("{k}")).find(|key| cluster.owner(key) == n).unwrap();
    let keys = [key_of(0), key_of(1), key_of(2)];
    for key in &keys {
        client.set(key).unwrap();
    }
    let client = connected(&config(&cluster.url(), Duration::from_secs(5)));
    for paused in 0..3 {
        cluster.servers[paused].pause();
        thread::scope(|scope| {
            let hanging = scope.spawn(|| client.get(&keys[paused]));
            for (n, key) in keys.iter().enumerate().filter(|(n, _)| *n != paused) {
                assert_eq!(client.get(key), Ok(Some(key.clone())), "{n} while {paused} hangs");
            }
            assert!(hanging.join().unwrap().is_err());
        });
        for key in keys.iter().filter(|key| **key != keys[paused]) {
            assert_eq!(client.get(key), Ok(Some(key.clone())));
        }
        cluster.servers[paused].resume();
        eventually("it serves again", || client.get(&keys[paused]).is_ok());
        cluster.wait();
    }
}

#[test]
fn a_cluster_serves_again_after_each_server_was_killed() {
    let mut cluster = RedisCluster::with(&Setup::new().persistent());
    let client = connected(&config(&cluster.url(), Duration::from_secs(2)));
    let keys: Vec<_> = (0..20).map(|n| n.to_string()).collect();
    for key in &keys {
        client.set(key).unwrap();
    }
    // Also the one that the plugin is configured with.
    for n in 0..3 {
        cluster.servers[n].kill();
        for key in &keys {
            assert!(timed(|| client.get(key)).1);
        }
        cluster.servers[n].restart();
        cluster.wait();
        for key in &keys {
            eventually("it is there again", || client.get(key) == Ok(Some(key.clone())));
        }
    }
}

#[test]
fn requests_are_send_so_that_tasks_may_use_the_client() {
    fn may_be_spawned(_: impl Future<Output = Result<(), Failure>> + Send) {}
    let server = RedisServer::start();
    let Connected { client, .. } = connected(&config(&server.url(), LONG));
    let script = Script::new("return 1");
    let call = ScriptCall { invocation: script.prepare_invoke(), traits: Traits::REPEATABLE };
    may_be_spawned(client.command(Traits::REPEATABLE, &Cmd::new()));
    may_be_spawned(client.pipeline(Traits::REPEATABLE, &pipe()));
    may_be_spawned(client.script(&call));
}
