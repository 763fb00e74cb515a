//! Hands what libFuzzer makes up to [`cvmcache_fuzz::service`].

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| cvmcache_fuzz::service::run(input));
