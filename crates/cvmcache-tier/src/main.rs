//! The tiered cache as a program: what a site runs in production.

use std::process::ExitCode;

fn main() -> ExitCode {
    cvmcache::Program::new("tiered")
        .version(env!("CARGO_PKG_VERSION"))
        .keys(cvmcache_tier::KEYS)
        .check(cvmcache_tier::check)
        .run(cvmcache_tier::from_context)
}
