//! The RAM cache in a program of your own. What sites run is `cvmcache-ram`, which has its options in
//! `--help` as well; all of it is in the library of that name.

use std::process::ExitCode;

use cvmcache_ram::RamCache;

fn main() -> ExitCode {
    cvmcache::run("ram", RamCache::from_context)
}
