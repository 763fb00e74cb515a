//! The Redis cache: objects in a Redis server or cluster that several nodes share. All of it is in
//! the library `cvmcache-redis`, where it can be tested; docs/redis.md says how to set it up.

use std::process::ExitCode;

use cvmcache_redis::{Config, RedisCache};

fn main() -> ExitCode {
    let mut program = cvmcache::Program::new("redis");
    for (key, value, meaning) in Config::KEYS {
        program = program.key(key, value, meaning);
    }
    program.run(RedisCache::from_options)
}
