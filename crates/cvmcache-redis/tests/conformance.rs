//! The conformance suite, the hostile cases included, against the real plugin and every kind of
//! server.

mod plugin;

use cvmcache_testkit::{PluginCommand, Suite};

use plugin::command;
use redis_test_servers::{Certificates, RedisCluster, RedisServer, Setup};

#[track_caller]
fn conforms(command: PluginCommand) {
    let command = command.option("CVMFS_CACHE_PLUGIN_SIZE", "100");
    Suite::new().hostile(true).run(command).expect("it starts").assert_good();
}

#[test]
fn the_suite_passes_on_a_unix_socket() {
    conforms(command(&RedisServer::start().url()));
}

#[test]
fn the_suite_passes_with_a_password_and_a_key() {
    let server = Setup::new().tcp().password("s3cret").start();
    let directory = tempfile::tempdir().unwrap();
    let (key, password) = (directory.path().join("key"), directory.path().join("password"));
    std::fs::write(&key, fastrand::u128(..).to_be_bytes().repeat(2)).unwrap();
    std::fs::write(&password, "s3cret\n").unwrap();
    conforms(
        command(&format!("redis://127.0.0.1:{}", server.port()))
            .option("CVMFS_CACHE_PLUGIN_REDIS_PASSWORD_FILE", password.display().to_string())
            .option("CVMFS_CACHE_PLUGIN_REDIS_KEYFILE", key.display().to_string()),
    );
}

#[test]
fn the_suite_passes_with_sets_per_repository() {
    let server = RedisServer::start();
    conforms(command(&server.url()).option("CVMFS_CACHE_PLUGIN_REDIS_PER_REPOSITORY", "on"));
}

#[test]
fn the_suite_passes_with_tls() {
    let certificates = Certificates::new().mutual();
    let server = Setup::new().tls(&certificates).start();
    let path = |path: std::path::PathBuf| path.display().to_string();
    conforms(
        command(&server.url())
            .option("CVMFS_CACHE_PLUGIN_REDIS_CA", path(certificates.path("ca")))
            .option("CVMFS_CACHE_PLUGIN_REDIS_CERT", path(certificates.path("client")))
            .option("CVMFS_CACHE_PLUGIN_REDIS_CERT_KEY", path(certificates.key_path("client"))),
    );
}

#[test]
fn the_suite_passes_in_a_cluster() {
    conforms(command(&RedisCluster::start().url()));
}
