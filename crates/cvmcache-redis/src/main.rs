//! The Redis cache as a program: objects in a Redis server or Cluster that several nodes share.
//! docs/redis.md says how to set it up.

use std::process::ExitCode;

use cvmcache_redis::{Config, RedisCache};

fn main() -> ExitCode {
    let mut program = cvmcache::Program::new("redis");
    for (key, value, meaning) in Config::KEYS {
        program = program.key(key, value, meaning);
    }
    program.run(RedisCache::from_context)
}
