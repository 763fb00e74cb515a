//! The Redis cache in a program of your own. What sites run is `cvmcache-redis`, which has its options
//! in `--help` as well; all of it is in the library of that name.

use std::process::ExitCode;

use cvmcache_redis::RedisCache;

fn main() -> ExitCode {
    cvmcache::run("redis", RedisCache::from_context)
}
