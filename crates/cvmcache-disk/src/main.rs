//! The disk cache as a program: what a site runs in production.

use std::process::ExitCode;

use cvmcache_disk::{Config, DiskCache};

fn main() -> ExitCode {
    cvmcache::Program::new("disk")
        .keys(Config::KEYS)
        .check(DiskCache::check)
        .run(DiskCache::from_context)
}
