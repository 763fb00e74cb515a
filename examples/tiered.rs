//! The tiered cache in a program of your own. What sites run is `cvmcache-tiered`, which has its options in
//! `--help` as well; all of it is in the library `cvmcache-tier`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cvmcache::run("tiered", cvmcache_tier::from_context)
}
