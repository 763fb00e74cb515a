//! The Redis cache as a program: objects in a Redis server or Cluster that several nodes share.
//! docs/redis.md says how to set it up.

use std::process::ExitCode;

use cvmcache_redis::{Config, RedisCache};

fn main() -> ExitCode {
    cvmcache::Program::new("redis")
        .version(env!("CARGO_PKG_VERSION"))
        .keys(Config::KEYS)
        .check(RedisCache::check)
        .run(RedisCache::from_context)
}
