//! The verdict of `cvmcache doctor` beside what the plugin does when a client starts it so.

mod support;

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use support::site::Site;
use support::{program, ram};

/// What the client sets, for the plugin to tell when it listens; see `SpawnPlugin` of cache_extern.cc.
const PIPE: &str = "__CVMFS_CACHE_EXTERNAL_PIPE_READY__";

type Change = fn(&mut Site);

/// A site with the program of the RAM cache.
fn site() -> Site {
    site_of(ram())
}

fn site_of(plugin: PathBuf) -> Site {
    let mut site = Site::new();
    let usual = site.path("program").display().to_string();
    site.replace_in_client(&usual, &plugin.display().to_string());
    site
}

/// Starts the plugin as the client does; true if it says that it listens.
fn starts(site: &Site) -> bool {
    let line = site.client.lines().find_map(|line| line.strip_prefix("CVMFS_CACHE_ram_CMDLINE="));
    let words = line.expect("a plugin to test").split(',').map(OsString::from);
    let (mut reader, writer) = std::io::pipe().expect("a plugin to test");
    // A shell makes standard output the descriptor that the client makes for this, and executes the
    // plugin as execvp(3) does.
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3>&1 1>/dev/null; exec \"$@\"", "sh"]).args(words).env(PIPE, "3");
    command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    // The end of the pipe that belongs to this process.
    drop(command);
    let mut answer = [0];
    let starts = matches!(reader.read(&mut answer), Ok(1)) && answer == *b"C";
    // A plugin that has ended has not been waited for, so its pid is not reused.
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("a plugin to test");
    child.wait().expect("a plugin to test");
    starts
}

fn assert_agree(name: &str, site: &Site) {
    site.write();
    let (names, status) = site.findings();
    assert_eq!(starts(site), status == 0, "{name}: doctor finds {names:?}");
}

fn socket(site: &Site) -> String {
    format!("unix={}", site.path("socket").display())
}

/// Has client and plugin at another locator.
fn relocate(site: &mut Site, locator: &str) {
    let usual = socket(site);
    site.replace_in_client(&usual, locator);
    site.replace_in_plugin(&usual, locator);
}

fn script(site: &mut Site, text: &str) {
    let ram = ram().display().to_string();
    let script = site.path("script");
    fs::write(&script, text.replace("RAM", &ram)).expect("a plugin to test");
    site.mode("script", 0o755);
    site.replace_in_client(&ram, &script.display().to_string());
}

fn conf(site: &Site) -> String {
    site.path("plugin.conf").display().to_string()
}

fn replace_conf(site: &mut Site, by: &str) {
    let conf = conf(site);
    site.replace_in_client(&conf, &by.replace("CONF", &conf));
}

#[test]
fn the_verdict_of_doctor_is_what_a_start_does() {
    let lines = [
        "",
        "CVMFS_CACHE_PLUGIN_SIZE=lots",
        "CVMFS_CACHE_PLUGIN_SIZE=1%",
        "CVMFS_CACHE_PLUGIN_SIZE=101%",
        "CVMFS_CACHE_PLUGIN_SIZE=0",
        "CVMFS_CACHE_PLUGIN_SIZE=",
        "CVMFS_CACHE_PLUGIN_SIZE=\"100\"",
        "CVMFS_CACHE_PLUGIN_SIZE=18446744073709551616",
        "CVMFS_CACHE_PLUGIN_POLL=much",
        "CVMFS_CACHE_PLUGIN_POLL=",
        "CVMFS_CACHE_PLUGIN_WORKERS=1025",
        "CVMFS_CACHE_PLUGIN_WORKERS=2",
        "CVMFS_CACHE_PLUGIN_ALLOW=home",
        "CVMFS_CACHE_PLUGIN_ALLOW=::ffff:127.0.0.1",
        "CVMFS_CACHE_PLUGIN_ALLOW_USERS=no-such-user",
        "CVMFS_CACHE_PLUGIN_ALLOW_USERS=54321",
        "CVMFS_CACHE_PLUGIN_ALLOW_USERS=*",
        "CVMFS_CACHE_PLUGIN_DEBUGLOG=/nowhere/at/all",
        "CVMFS_CACHE_PLUGIN_DEBUGLOG=/",
        "CVMFS_CACHE_PLUGIN_CRASH_DUMP=/nowhere/at/all",
        "CVMFS_CACHE_PLUGIN_METRICS=somewhere",
        "CVMFS_CACHE_PLUGIN_METRICS=192.0.2.1:9469",
        "CVMFS_CACHE_PLUGIN_SZIE=200",
        "cvmfs_cache_plugin_size=x",
        "CVMFS_CACHE_ram_SIZE=x",
        "some words",
    ];
    for line in lines {
        let mut site = site();
        site.plugin += &format!("{line}\n");
        assert_agree(line, &site);
    }
}

#[test]
fn the_verdict_of_doctor_on_arguments_is_what_a_start_does() {
    for (name, arguments) in [
        ("a comma at the end", "CONF,"),
        ("a comma too many", ",CONF"),
        ("an argument too many", "CONF,more"),
        ("an option before", "--check,CONF"),
        ("an option behind", "CONF,-V"),
        ("an unknown option", "-x,CONF"),
        ("help", "--help,CONF"),
        ("twice the same", "CONF,CONF"),
        ("no file", "CONF.no"),
        ("a directory", "/etc"),
        ("a device", "/dev/null"),
    ] {
        let mut site = site();
        replace_conf(&mut site, arguments);
        assert_agree(name, &site);
    }
}

#[test]
fn the_verdict_of_doctor_on_scripts_is_what_a_start_does() {
    for text in [
        "#!/bin/sh\nexec RAM \"$@\"\n",
        "#!/bin/sh\nexec 'RAM' \"$1\"\n",
        "exec RAM \"$@\"\n",
        "#!/nowhere/sh\nexec RAM \"$@\"\n",
        "#!/bin/sh\r\nexec RAM \"$@\"\r\n",
        "#!/dev/null\nexec RAM \"$@\"\n",
        "",
        "\n",
    ] {
        let mut site = site();
        script(&mut site, text);
        assert_agree(text, &site);
    }
}

#[test]
fn the_verdict_of_doctor_on_files_and_sockets_is_what_a_start_does() {
    let changes: &[(&str, Change)] = &[
        ("a log", |site| {
            let log = site.path("log").display().to_string();
            site.plugin += &format!("CVMFS_CACHE_PLUGIN_DEBUGLOG={log}\n");
        }),
        ("no locator", |site| site.replace_in_plugin("CVMFS_CACHE_PLUGIN_LOCATOR", "#")),
        ("a bad locator", |site| site.replace_in_plugin("=unix=", "=")),
        ("a byte order mark", |site| {
            site.plugin = format!("\u{feff}{}", site.plugin);
        }),
        ("line ends of Windows", |site| site.plugin = site.plugin.replace('\n', "\r\n")),
        ("no line end", |site| site.plugin = site.plugin.trim_end().to_owned()),
        ("no directory", |site| {
            let locator = format!("unix={}", site.path("no/socket").display());
            relocate(site, &locator);
        }),
        ("a long name", |site| {
            let locator = format!("unix={}", site.path(&"s".repeat(251)).display());
            relocate(site, &locator);
        }),
        ("a long path", |site| {
            let locator = format!("unix={}", site.path(&"s".repeat(200)).display());
            relocate(site, &locator);
        }),
        ("a file", |site| fs::write(site.path("socket"), "").unwrap()),
        ("a directory", |site| fs::create_dir(site.path("socket")).unwrap()),
        ("a stale socket", |site| drop(UnixListener::bind(site.path("socket")).unwrap())),
        ("a FIFO as a lock", |site| {
            mkfifo(&site.path("socket.lock"), Mode::S_IRWXU).unwrap();
        }),
        ("a directory as a lock", |site| fs::create_dir(site.path("socket.lock")).unwrap()),
        ("an address of another machine", |site| relocate(site, "tcp=192.0.2.1:4224")),
    ];
    for (name, change) in changes {
        let mut site = site();
        change(&mut site);
        assert_agree(name, &site);
    }
}

#[test]
fn the_verdict_of_doctor_on_a_port_for_metrics_is_what_a_start_does() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut site = site();
    site.plugin += &format!("CVMFS_CACHE_PLUGIN_METRICS={port}\n");
    assert_agree("in use", &site);
    drop(listener);
    assert_agree("free", &site);
}

#[test]
fn the_verdict_of_doctor_on_the_redis_cache_is_what_a_start_does() {
    const URL: &str = "CVMFS_CACHE_PLUGIN_REDIS_URL=redis://127.0.0.1:1\n";
    for lines in [
        String::new(),
        "CVMFS_CACHE_PLUGIN_REDIS_URL=somewhere\n".to_owned(),
        format!("{URL}CVMFS_CACHE_PLUGIN_SIZE=x\n"),
        format!("{URL}CVMFS_CACHE_PLUGIN_REDIS_TIMEOUT=x\n"),
        format!("{URL}CVMFS_CACHE_PLUGIN_REDIS_KEYFILE=/nowhere/key\n"),
        format!("{URL}CVMFS_CACHE_PLUGIN_REDIS_PASSWORD_FILE=/nowhere/password\n"),
        format!("{URL}CVMFS_CACHE_PLUGIN_REDIS_CA=/nowhere/ca.pem\n"),
    ] {
        let mut site = site_of(program("cvmcache-redis"));
        site.replace_in_plugin("CVMFS_CACHE_PLUGIN_SIZE=100\n", &lines);
        assert_agree(&lines, &site);
    }
}
