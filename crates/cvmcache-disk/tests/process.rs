//! The real program: killed, started twice, next to a client that has the cache, and checked.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

use cvmcache::client::{Client, ClientError, NewUpload};
use cvmcache::plugin::{HashAlgorithm, ObjectId, Status};
use cvmcache_testkit::{PluginCommand, PluginProcess};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};

/// The number of the first object that is stored before an orderly end.
const KEPT: u32 = 50_000;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cvmcache-disk");

fn command(directory: &Path) -> PluginCommand {
    PluginCommand::new(PROGRAM)
        .option("CVMFS_CACHE_DIR", directory.display().to_string())
        .option("CVMFS_CACHE_QUOTA_LIMIT", "100")
}

fn start(directory: &Path) -> PluginProcess {
    command(directory).start().unwrap_or_else(|error| panic!("{error}"))
}

fn client(plugin: &PluginProcess) -> Client {
    Client::connect(plugin.locator(), "test.cern.ch:1").expect("a client")
}

fn id(number: u32) -> ObjectId {
    let mut digest = [7; ObjectId::DIGEST_LEN];
    digest[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
    ObjectId::new(HashAlgorithm::Shake128, digest)
}

fn content(number: u32) -> Vec<u8> {
    number.to_le_bytes().repeat(1 + number as usize * 977 % 30_000)
}

fn write_config(directory: &Path, cache: &Path) -> std::path::PathBuf {
    let config = directory.join("disk.conf");
    let text = format!(
        "CVMFS_CACHE_PLUGIN_LOCATOR=unix={}\nCVMFS_CACHE_DIR={}\n",
        directory.join("socket").display(),
        cache.display()
    );
    fs::write(&config, text).expect("it can be written");
    config
}

#[test]
fn what_a_killed_plugin_leaves_is_served_whole_by_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let mut plugin = start(directory.path());
        let pid = Pid::from_raw(plugin.pid().cast_signed()).unwrap();
        let killed = round * 400 + 300;
        let mut client = client(&plugin);
        for number in round * 400.. {
            if number == killed {
                kill_process(pid, Signal::KILL).unwrap();
            }
            let stored = client.store(NewUpload::new(id(number)), content(number));
            if stored.and_then(|_| client.close(&id(number))).is_err() {
                break;
            }
        }
        plugin.wait_for(std::time::Duration::from_secs(10)).unwrap();
        let next = start(directory.path());
        let mut client = self::client(&next);
        for number in 0..=killed {
            match client.open(&id(number)) {
                Ok(()) => {
                    assert_eq!(client.read_all(&id(number)).unwrap(), content(number));
                    client.close(&id(number)).unwrap();
                }
                Err(ClientError::Status(Status::NoEntry)) => {}
                Err(error) => panic!("{error}"),
            }
        }
        // What a plugin has that ends by itself, all that follow have.
        for former in 0..round {
            assert_eq!(client.read_all(&id(KEPT + former)).unwrap(), content(KEPT + former));
        }
        client.store(NewUpload::new(id(KEPT + round)), content(KEPT + round)).unwrap();
        client.quit().unwrap();
        next.end().unwrap();
    }
}

#[test]
fn a_second_plugin_at_the_same_locator_leaves_the_client_to_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let config = write_config(directory.path(), &directory.path().join("cache"));
    let supervised = || {
        // As a client does: without close-on-exec.
        let (report, write) = rustix::pipe::pipe().unwrap();
        let plugin = Command::new(PROGRAM)
            .arg(&config)
            .env("__CVMFS_CACHE_EXTERNAL_PIPE_READY__", write.as_raw_fd().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        (plugin, File::from(report))
    };
    let mut plugins = [supervised(), supervised()];
    for (_, report) in &mut plugins {
        let mut byte = [0];
        report.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"C");
    }
    let locator = format!("unix={}", directory.path().join("socket").display());
    let client = Client::connect(&locator.parse().unwrap(), "test.cern.ch:1").unwrap();
    client.quit().unwrap();
    for (plugin, _) in &mut plugins {
        assert!(plugin.wait().unwrap().success());
    }
}

#[test]
fn a_cache_that_a_client_manages_is_refused_and_the_client_named() {
    let directory = tempfile::tempdir().unwrap();
    let lock = File::create(directory.path().join("lock_cachedb")).unwrap();
    flock(&lock, FlockOperation::LockExclusive).unwrap();
    let error = command(directory.path()).start().unwrap_err().to_string();
    let holder = format!("process {} (", std::process::id());
    assert!(error.contains(&holder) && error.contains("unmount its repositories"), "{error}");
}

#[test]
fn a_check_names_what_is_wrong_and_leaves_no_files() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let config = write_config(directory.path(), &cache);
    let check = || Command::new(PROGRAM).arg("--check").arg(&config).output().unwrap();
    let output = check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(!cache.exists());
    let mut text = fs::read_to_string(&config).unwrap();
    text += "CVMFS_CACHE_PLUGIN_FSYNC=often\n";
    fs::write(&config, text).unwrap();
    let output = check();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("never, commit or batched"), "{stdout}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_quota_of_1_gb_on_64_mb_of_tmpfs_is_used_by_evicting() {
    const MEGABYTE: u64 = 1024 * 1024;
    let directory = tempfile::tempdir().unwrap();
    let (cache, script) = (directory.path().join("cache"), directory.path().join("start"));
    fs::create_dir(&cache).unwrap();
    fs::write(&script, "mount -t tmpfs -o size=64m tmpfs \"$1\" && shift && exec \"$@\"").unwrap();
    let root = if rustix::process::geteuid().is_root() { "" } else { "--map-root-user" };
    let (script, cache) = (script.display(), cache.display());
    let command = format!("unshare --mount {root} sh {script} {cache} {PROGRAM} {{conf}}");
    let command = command.parse::<PluginCommand>().unwrap();
    let plugin = command
        .option("CVMFS_CACHE_DIR", cache.to_string())
        .option("CVMFS_CACHE_QUOTA_LIMIT", "1024")
        .start()
        .unwrap_or_else(|error| panic!("this needs root, or user namespaces: {error}"));
    let log = plugin.log();
    assert!(log.contains("CVMFS_CACHE_QUOTA_LIMIT: 1073741824 bytes are more than the"), "{log}");
    let mut client = client(&plugin);
    let content = |number: u32| number.to_le_bytes().repeat(300_000);
    // Three times as much as there is room for.
    for number in 0..160 {
        client.store(NewUpload::new(id(number)), content(number)).unwrap();
        assert_eq!(client.read_all(&id(number)).unwrap(), content(number));
        client.close(&id(number)).unwrap();
    }
    let used = client.info().unwrap().used_bytes;
    assert!((32 * MEGABYTE..=64 * MEGABYTE).contains(&used), "{used}");
    // What is pinned stays.
    let mut pinned = 0;
    let refused = loop {
        let number = 1000 + pinned;
        match client.store(NewUpload::new(id(number)), content(number)) {
            Ok(_) => pinned += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.status(), Some(Status::NoSpace));
    assert!((40..60).contains(&pinned), "{pinned}");
    for number in 1000..1000 + pinned {
        assert_eq!(client.read_all(&id(number)).unwrap(), content(number));
    }
}
