//! The functions, from C, without a client.

use std::process::Command;

use crate::install::{Library, program};

#[test]
fn functions_do_what_the_header_says_and_take_null_pointers() {
    for library in [Library::Shared, Library::Static] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(program("api.c", library));
        let output = command.arg(directory.path()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{}\n{said}", output.status);
        for complaint in [
            "libcvmfs_cache: cvmcache_init: the callback cvmcache_pread is NULL, but every plugin \
             needs it",
            "libcvmfs_cache: cvmcache_init: the callback cvmcache_shrink is NULL, but the plugin \
             declares shrink: implement it, or do not declare that",
            "libcvmfs_cache: cvmcache_init: CVMCACHE_CAP_SHRINK_RATE goes with CVMCACHE_CAP_INFO",
            "libcvmfs_cache: cvmcache_listen: a string is NULL",
            "libcvmfs_cache: cvmcache_admin: the context listens already, or has ended",
            "libcvmfs_cache: cvmcache_admin: there is no such context",
            "libcvmfs_cache: cvmcache_terminate: there is no such context",
        ] {
            assert!(said.contains(complaint), "{said} lacks {complaint}");
        }
    }
}
