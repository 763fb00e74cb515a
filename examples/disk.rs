//! The disk cache in a program of your own. What sites run is `cvmcache-disk`, which has its options in
//! `--help` as well; all of it is in the library of that name.

use std::process::ExitCode;

use cvmcache_disk::DiskCache;

fn main() -> ExitCode {
    cvmcache::run("disk", DiskCache::from_context)
}
