//! The RAM cache as a program: what a site runs in production.

use std::process::ExitCode;

use cvmcache_ram::{CacheSize, RamCache};

fn main() -> ExitCode {
    cvmcache::Program::new("ram")
        .key(CacheSize::KEY, "MB|N%", "how much memory the cache may take; 1000 MB by default")
        .run(RamCache::from_context)
}
