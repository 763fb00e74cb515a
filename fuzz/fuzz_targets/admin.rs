//! Hands what libFuzzer makes up to [`cvmcache_fuzz::admin`].

#![no_main]

use std::sync::LazyLock;

use cvmcache_fuzz::admin::Administered;

/// It runs as long as the process.
static TARGET: LazyLock<Administered> = LazyLock::new(Administered::start);

libfuzzer_sys::fuzz_target!(|input: &[u8]| TARGET.run(input));
