//! The RAM cache as a program: what a site runs in production.

use std::process::ExitCode;

use cvmcache_ram::{CacheSize, RamCache};

fn main() -> ExitCode {
    #[cfg(target_env = "gnu")]
    share_one_heap();
    cvmcache::Program::new("ram")
        .version(env!("CARGO_PKG_VERSION"))
        .keys(&[CacheSize::KEY])
        .check(RamCache::check)
        .run(RamCache::from_context)
}

/// glibc gives each thread 64 MiB of address space for a heap of its own. Where that is limited, threads
/// share one.
#[cfg(target_env = "gnu")]
fn share_one_heap() {
    if cvmcache::MemoryLimit::allocatable().is_some() {
        // SAFETY: no other thread allocates, since there is none yet.
        #[allow(unsafe_code)]
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
        }
    }
}
