//! The Redis cache: objects in a Redis server or cluster that several nodes share. All of it is in
//! the library `cvmcache-redis`, where it can be tested; docs/redis.md says how to set it up.

use std::process::ExitCode;

use cvmcache_redis::{Config, RedisCache};

fn main() -> ExitCode {
    cvmcache::Program::new("redis")
        .keys(Config::KEYS)
        .check(RedisCache::check)
        .run(RedisCache::from_options)
}
