//! What the plugin makes of a server: 128 KiB reads, 32 at a time, of the redis crate alone on one
//! connection, of the plugin in this process with and without a key file, and of a client of the
//! plugin.
//!
//! `cargo bench -p cvmcache-redis`; one run compares all of them, since absolute times differ between
//! machines and hours. docs/redis.md has what came of it, and what else was tried.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use cvmcache::client::{Client, NewUpload, Ticket};
use cvmcache::plugin::{Data, HashAlgorithm, NewObject, ObjectId};
use cvmcache::{CachePlugin, Server, ServerHandle, Session};
use cvmcache_redis::{Config, RedisCache, Secret};
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis_test_servers::RedisServer;
use tokio::runtime::{Builder, Runtime};

const OBJECT: u64 = 8 * 1024 * 1024;
const READ: u32 = 128 * 1024;
const IN_FLIGHT: u64 = 32;
const FIELD: u64 = 32 * 1024;
const ID: ObjectId = ObjectId::new(HashAlgorithm::Sha1, [1; 20]);

/// What a cache with a key file has on the same server.
const KEYED: &str = "keyed";

/// Where the read with this number begins: all over the object.
fn offset(number: u64) -> u64 {
    number * 7 % (OBJECT / u64::from(READ)) * u64::from(READ)
}

fn config(server: &RedisServer) -> Config {
    Config::new(&server.url()).expect("a URL")
}

fn cache(config: Config) -> RedisCache {
    RedisCache::new(config, ServerHandle::new()).expect("a cache")
}

/// A cache with a key file, beside the one without.
fn keyed(server: &RedisServer) -> RedisCache {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), [7; 32]).expect("a key");
    let mut config = config(server);
    config.prefix = KEYED.parse().expect("a prefix");
    config.secret = Some(Secret::from_file(file.path()).expect("a key file"));
    cache(config)
}

fn store(plugin: &RedisCache, session: &Session) {
    let mut upload = plugin.begin(session, NewObject::new(ID)).expect("an upload");
    for _ in 0..OBJECT / (256 * 1024) {
        upload.write(vec![7; 256 * 1024].into()).expect("a part");
    }
    upload.commit().expect("an object");
}

fn reading(c: &mut Criterion) {
    let server = RedisServer::start();
    let session = Session::new(1, "bench.cern.ch:1");
    let (plugin, keyed) = (cache(config(&server)), keyed(&server));
    store(&plugin, &session);
    store(&keyed, &session);

    let mut group = c.benchmark_group("read_128k_32_in_flight");
    group.throughput(Throughput::Bytes(READ.into()));
    // Rounds of one length, in which beginning and end hardly count.
    group.sample_size(20).sampling_mode(SamplingMode::Flat);
    let raw = Raw::new(&server);
    group.bench_function("redis_crate_hmget", |b| b.iter_custom(|count| raw.fields(count)));
    group.bench_function("redis_crate_getrange", |b| b.iter_custom(|count| raw.range(count)));
    group.bench_function("plugin", |b| b.iter_custom(|count| in_process(&plugin, &session, count)));
    group.bench_function("plugin_with_key", |b| {
        b.iter_custom(|count| in_process(&keyed, &session, count));
    });
    let directory = tempfile::tempdir().expect("a directory");
    let locator = format!("unix={}/socket", directory.path().display()).parse().expect("a locator");
    let running =
        Server::builder(cache(config(&server))).listen(&locator).expect("a socket").spawn();
    let running = running.expect("a server");
    let mut client = Client::connect(&locator, "bench.cern.ch:1").expect("a session");
    client.store(NewUpload::new(ID), Vec::new()).expect("it is there");
    group.bench_function("client", |b| b.iter_custom(|count| by_socket(&mut client, count)));
    group.finish();
    running.handle().terminate();
    running.wait().expect("a clean end");
}

/// The redis crate with nothing around it, on one connection.
struct Raw {
    runtime: Runtime,
    connection: MultiplexedConnection,
}

impl Raw {
    /// Puts the same bytes there without checks: fields of 32 KiB, and one string.
    fn new(server: &RedisServer) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let connection = runtime.block_on(async {
            let client = redis::Client::open(server.url()).expect("a URL");
            let mut connection =
                client.get_multiplexed_async_connection().await.expect("a connection");
            let mut hash = redis::cmd("HSET");
            hash.arg("raw-hash");
            for field in 0..OBJECT / FIELD {
                hash.arg(field).arg(vec![7_u8; FIELD as usize]);
            }
            hash.exec_async(&mut connection).await.expect("a hash");
            let mut string = redis::cmd("SET");
            string.arg("raw-string").arg(vec![7_u8; OBJECT as usize]);
            string.exec_async(&mut connection).await.expect("a string");
            connection
        });
        Self { runtime, connection }
    }

    fn fields(&self, count: u64) -> Duration {
        self.read(count, async |connection, first| {
            let field = first / FIELD;
            let mut command = redis::cmd("HMGET");
            command.arg("raw-hash").arg(&[field, field + 1, field + 2, field + 3]);
            let bytes: Vec<Vec<u8>> = command.query_async(connection).await.expect("an answer");
            bytes.iter().map(Vec::len).sum()
        })
    }

    fn range(&self, count: u64) -> Duration {
        self.read(count, async |connection, first| {
            let mut command = redis::cmd("GETRANGE");
            command.arg("raw-string").arg(first).arg(first + u64::from(READ) - 1);
            let bytes: Vec<u8> = command.query_async(connection).await.expect("an answer");
            bytes.len()
        })
    }

    fn read(
        &self,
        count: u64,
        read: impl AsyncFn(&mut MultiplexedConnection, u64) -> usize,
    ) -> Duration {
        let next = AtomicU64::new(0);
        let begin = Instant::now();
        let readers = (0..IN_FLIGHT).map(async |_| {
            let mut connection = self.connection.clone();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                assert_eq!(read(&mut connection, offset(number)).await, READ as usize);
            }
        });
        self.runtime.block_on(join_all(readers));
        begin.elapsed()
    }
}

fn in_process(plugin: &RedisCache, session: &Session, count: u64) -> Duration {
    let next = AtomicU64::new(0);
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..IN_FLIGHT {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let data = plugin.read(session, &ID, offset(number), READ).expect("bytes");
                    assert_eq!(data.len(), READ as usize);
                }
            });
        }
    });
    begin.elapsed()
}

fn by_socket(client: &mut Client, count: u64) -> Duration {
    let begin = Instant::now();
    let mut under_way: VecDeque<Ticket<Data>> = VecDeque::new();
    for number in 0..count {
        if under_way.len() as u64 == IN_FLIGHT {
            let ticket = under_way.pop_front().expect("there are some");
            let data = client.wait(ticket).expect("bytes");
            assert_eq!(data.len(), READ as usize);
        }
        under_way.push_back(client.queue_read(&ID, offset(number), READ).expect("it is sent"));
        client.flush().expect("it is sent");
    }
    for ticket in under_way {
        client.wait(ticket).expect("bytes");
    }
    begin.elapsed()
}

criterion_group!(benches, reading);
criterion_main!(benches);
