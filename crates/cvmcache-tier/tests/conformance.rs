//! The conformance suite, the hostile cases included, against the real program.

use std::path::Path;

use cvmcache_testkit::{PluginCommand, Suite};

#[track_caller]
fn conforms(hot: &str) {
    // In memory: a disk that others use may take longer than the suite waits.
    let memory = Path::new("/dev/shm");
    let directory =
        if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let directory = directory.expect("a directory");
    let path = |name| directory.path().join(name).display().to_string();
    std::fs::create_dir(path("store")).expect("a directory");
    let command = PluginCommand::new(env!("CARGO_BIN_EXE_cvmcache-tiered"))
        .option("CVMFS_CACHE_DIR", path("cache"))
        .option("CVMFS_CACHE_QUOTA_LIMIT", "100")
        .option("CVMFS_CACHE_PLUGIN_STORE", format!("file://{}", path("store")))
        .option("CVMFS_CACHE_PLUGIN_HOT", hot)
        .option("CVMFS_CACHE_PLUGIN_SIZE", "200")
        .option("CVMFS_CACHE_WORKSPACE", directory.path().display().to_string());
    Suite::new().hostile(true).run(command).expect("it starts").assert_good();
}

#[test]
fn the_suite_passes_on_a_tier_above_a_disk_cache() {
    conforms("disk");
}

#[test]
fn the_suite_passes_on_a_tier_above_a_cache_in_memory() {
    conforms("ram");
}
