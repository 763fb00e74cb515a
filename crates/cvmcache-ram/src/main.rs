//! The RAM cache as a program: what a site runs in production.

use std::process::ExitCode;

use cvmcache_ram::{CacheSize, RamCache};

fn main() -> ExitCode {
    cvmcache::Program::new("ram")
        .keys(&[CacheSize::KEY])
        .check(RamCache::check)
        .run(RamCache::from_context)
}
