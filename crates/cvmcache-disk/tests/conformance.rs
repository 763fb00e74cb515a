//! The conformance suite, the hostile cases included, against the real program, by each policy of
//! synchronisation, and on an alien cache.

use std::path::Path;

use cvmcache_testkit::{PluginCommand, Suite};

fn command() -> PluginCommand {
    PluginCommand::new(env!("CARGO_BIN_EXE_cvmcache-disk"))
}

#[track_caller]
fn conforms(fsync: &str, hostile: bool) {
    // In memory, if it synchronises often: a disk that others use may take longer than the suite waits.
    let memory = Path::new("/dev/shm");
    let directory = match fsync {
        "batched" | "commit" if memory.is_dir() => tempfile::tempdir_in(memory),
        _ => tempfile::tempdir(),
    };
    let directory = directory.expect("a directory");
    let command = command()
        .option("CVMFS_CACHE_DIR", directory.path().display().to_string())
        .option("CVMFS_CACHE_QUOTA_LIMIT", "100")
        .option("CVMFS_CACHE_PLUGIN_FSYNC", fsync);
    Suite::new().hostile(hostile).run(command).expect("it starts").assert_good();
}

#[test]
fn the_suite_passes_with_batched_synchronisation() {
    conforms("batched", true);
}

#[test]
fn the_suite_passes_with_synchronisation_before_each_reply() {
    conforms("commit", false);
}

#[test]
fn the_suite_passes_without_synchronisation() {
    conforms("never", true);
}

#[test]
fn the_suite_passes_on_an_alien_cache() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name| directory.path().join(name).display().to_string();
    let command = command()
        .option("CVMFS_CACHE_ALIEN", path("alien"))
        .option("CVMFS_CACHE_WORKSPACE", path("workspace"));
    Suite::new().hostile(true).run(command).expect("it starts").assert_good();
}
