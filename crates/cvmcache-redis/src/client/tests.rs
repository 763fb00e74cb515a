//! The client against real servers, and against fakes where a real one would not do.

mod cluster;
mod login;
mod outages;
mod refusals;
mod repeating;
mod replies;

use redis::{Script, cmd, pipe};
use tokio::runtime::Runtime;

use super::*;
use redis_test_servers::RedisServer;

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
fn futures_of_requests_implement_send() {
    fn may_be_spawned(_: impl Future<Output = Result<(), Failure>> + Send) {}
    let server = RedisServer::start();
    let Connected { client, .. } = connected(&config(&server.url(), LONG));
    let script = Script::new("return 1");
    let call = ScriptCall { invocation: script.prepare_invoke(), traits: Traits::REPEATABLE };
    may_be_spawned(client.command(Traits::REPEATABLE, &Cmd::new()));
    may_be_spawned(client.pipeline(Traits::REPEATABLE, &pipe()));
    may_be_spawned(client.script(&call));
}
