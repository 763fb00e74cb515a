//! `cvmcache doctor`, as its users see it: a client and a plugin that go together, and all that can
//! come between them, one by one.

mod support;

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use cvmcache::Locator;
use cvmcache::client::Client;
use nix::fcntl::{Flock, FlockArg};
use snapbox::str;
use support::site::{Site, USUAL};
use support::{cvmcache, program, ram, start_ram};

#[test]
fn a_client_and_its_plugin_without_mistakes_have_no_findings() {
    let plugin = start_ram();
    let site = Site::around(plugin.locator());
    site.doctor(&[]).assert().success().stderr_eq("").stdout_eq(str![[r#"
Client configuration [..]/default.local
  ok       the client is taken to run as user [..]
  ok       the cache ram is a plugin
  ok       user [..] can run [..]/program
  ok       user [..] can read [..]/plugin.conf

Plugin configuration [..]/plugin.conf
  note     plugin-without-check: [..]/program is a script
           why: it cannot be asked, so the keys of its own are not judged
           fix: see the plugin's documentation for them
  ok       the client looks there: unix=[..]/socket

Socket and plugin at unix=[..]/socket
  ok       user [..] can make files in [..]
...
  ok       it runs: cvmcache ram, process [..]

0 errors, 0 warnings, [..]

"#]]);
    // The plugin still serves.
    cvmcache(&["info", &plugin.locator().to_string()]).assert().success();
}

#[test]
fn findings_have_a_reason_and_a_remedy() {
    let mut site = Site::new();
    site.replace_in_client("_LOCATOR=unix=", "_LOCATOR=unix=/elsewhere");
    let assert = site.doctor(&[]).assert().code(1);
    assert.stdout_eq(str![[r#"
...
  error    locators-differ: CVMFS_CACHE_PLUGIN_LOCATOR=unix=[..]/socket, but CVMFS_CACHE_ram_LOCATOR=unix=/elsewhere[..]/socket
           why: the client looks for its plugin where it does not listen
           fix: write CVMFS_CACHE_PLUGIN_LOCATOR=unix=/elsewhere[..]/socket in [..]/plugin.conf
...
1 error, 0 warnings, [..]

"#]]);
}

#[test]
fn json_has_a_list_of_findings() {
    let mut site = Site::new();
    site.plugin += "CVMFS_CACHE_PLUGIN_POLL=much\n";
    site.doctor(&["--json"]).assert().code(1).stdout_eq(str![[r#"
[
  {
    "name": "plugin-without-check",
    "severity": "note",
    "subject": "Plugin configuration [..]/plugin.conf",
    "found": "[..]/program is a script",
    "why": "it cannot be asked, so the keys of its own are not judged",
    "remedy": "see the plugin's documentation for them"
  },
  {
    "name": "poll-bad",
    "severity": "error",
    "subject": "Plugin configuration [..]/plugin.conf",
    "found": "[..]CVMFS_CACHE_PLUGIN_POLL[..]much[..]",
    "why": "the plugin does not start",
    "remedy": "remove the line of CVMFS_CACHE_PLUGIN_POLL"
  },
...
]

"#]]);
}

#[test]
fn a_missing_argument_or_an_unknown_user_is_an_error_with_a_remedy() {
    cvmcache(&["doctor"]).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
error: the following required arguments were not provided:
  <CLIENT_CONF|--config <PLUGIN_CONF>>
...
"#]]);
    let command = cvmcache(&["doctor", "--user", "no-such-user", "default.local"]);
    command.assert().code(2).stdout_eq("").stderr_eq(str![[r#"
cvmcache: there is no user "no-such-user": name the one that the client runs as, as in --user cvmfs

"#]]);
}

#[test]
fn colours_are_used_on_a_terminal_or_on_request() {
    let site = Site::new();
    let has_colours = |more: &[&str]| {
        let output = site.doctor(more).output().unwrap();
        output.stdout.contains(&b'\x1b')
    };
    assert!(!has_colours(&[]));
    assert!(has_colours(&["--color", "always"]));
    assert!(!has_colours(&["--color", "always", "--json"]));
}

#[test]
fn a_plugin_can_be_checked_without_its_client() {
    let site = Site::new();
    site.write();
    let conf = site.path("plugin.conf");
    let arguments = ["doctor", "--config", conf.to_str().unwrap(), "--user", &site.user];
    cvmcache(&arguments).assert().success().stdout_eq(str![[r#"
Plugin configuration [..]/plugin.conf
  note     plugin-not-asked: which program is started with it is not known here
           why: the plugin could not be asked, so the keys of its own are not judged
           fix: name it with --program, or the client's configuration
...
"#]]);
}

#[test]
fn a_program_that_is_named_judges_its_configuration() {
    let mut site = Site::new();
    site.plugin += "CVMFS_CACHE_PLUGIN_SIZE=lots\n";
    site.write();
    let (conf, program) = (site.path("plugin.conf"), ram());
    let arguments = ["doctor", "--config", conf.to_str().unwrap(), "--user", &site.user];
    let command = cvmcache(&arguments).arg("--program").arg(&program);
    command.assert().code(1).stdout_eq("...\n  error    plugin-error: [..]lots[..]\n...\n");
    // One that runs need not be named.
    let plugin = start_ram();
    let mut site = Site::around(plugin.locator());
    site.plugin += "CVMFS_CACHE_PLUGIN_SIZE=lots\n";
    site.write();
    let conf = site.path("plugin.conf");
    let arguments = ["doctor", "--config", conf.to_str().unwrap(), "--user", &site.user];
    let expected = "...\n  error    plugin-error: [..]lots[..]\n...\n";
    cvmcache(&arguments).assert().code(1).stdout_eq(expected);
}

#[test]
fn doctor_changes_no_file() {
    let site = Site::new();
    File::create(site.path("socket.lock")).unwrap();
    drop(UnixListener::bind(site.path("socket")).unwrap());
    site.write();
    let look = || {
        let entries = fs::read_dir(site.directory.path()).unwrap().map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name(), entry.metadata().unwrap().modified().unwrap())
        });
        let mut entries = Vec::from_iter(entries);
        entries.sort();
        entries
    };
    let before = look();
    site.doctor(&[]).assert().success();
    assert_eq!(look(), before);
}

#[test]
fn each_mistake_has_one_finding() {
    type Mistake = fn(&mut Site);
    let mistakes: &[(&str, Mistake)] = &[
        ("file-unreadable", |site| fs::create_dir(site.path("default.local")).unwrap()),
        ("file-unreadable", |site| fs::write(site.path("plugin.conf"), b"\0").unwrap()),
        ("key-twice", |site| site.plugin += "CVMFS_CACHE_PLUGIN_SIZE=200\n"),
        ("carriage-return", |site| site.replace_in_client("=external", "=external\r")),
        ("not-an-assignment", |site| site.client += "CVMFS_CACHE_ram_X = 1\n"),
        ("not-expanded", |site| site.client += ". /etc/cvmfs/more.conf\n"),
        ("user-unknown", |site| site.client += "CVMFS_USER=no-such-user\n"),
        ("primary-missing", |site| site.replace_in_client("CVMFS_CACHE_PRIMARY=", "#")),
        ("instance-name-bad", |site| site.replace_in_client("PRIMARY=ram", "PRIMARY=r.m")),
        ("type-missing", |site| site.replace_in_client("CVMFS_CACHE_ram_TYPE", "#")),
        ("type-unknown", |site| site.replace_in_client("=external", "=extern")),
        ("not-external", |site| site.replace_in_client("=external", "=posix")),
        ("tier-missing", |site| {
            site.replace_in_client("PRIMARY=ram", "PRIMARY=both");
            site.client += "CVMFS_CACHE_both_TYPE=tiered\nCVMFS_CACHE_both_UPPER=ram\n";
        }),
        ("tiers-circular", |site| {
            site.replace_in_client("PRIMARY=ram", "PRIMARY=both");
            site.client += "CVMFS_CACHE_both_TYPE=tiered\nCVMFS_CACHE_both_UPPER=ram\n\
                            CVMFS_CACHE_both_LOWER=both\n";
        }),
        ("client-locator-missing", |site| site.replace_in_client("CVMFS_CACHE_ram_LOCATOR", "#")),
        ("client-locator-bad", |site| site.replace_in_client("LOCATOR=unix=", "LOCATOR=")),
        ("client-key-misspelled", |site| site.client += "CVMFS_CACHE_ram_TPYE=external\n"),
        ("cmdline-empty-argument", |site| site.replace_in_client("plugin.conf", "plugin.conf,")),
        ("cmdline-blanks", |site| site.replace_in_client("program,", "program ")),
        ("program-missing", |site| site.replace_in_client("/program", "/nothing")),
        ("program-not-executable", |site| site.mode("program", 0o644)),
        ("program-not-executable", |site| fs::write(site.path("program"), "").unwrap()),
        ("program-not-executable", |site| {
            fs::write(site.path("program"), "#!/nowhere/sh\nexec true\n").unwrap();
        }),
        ("interpreter-not-named", |site| {
            fs::write(site.path("program"), "exec true\n").unwrap();
        }),
        ("locator-shared", |site| {
            site.replace_in_client("PRIMARY=ram", "PRIMARY=both");
            let second = site.client.replace("_ram_", "_second_");
            let second = second.lines().skip(1).collect::<Vec<_>>().join("\n");
            site.client += &format!(
                "CVMFS_CACHE_both_TYPE=tiered\nCVMFS_CACHE_both_UPPER=ram\n\
                 CVMFS_CACHE_both_LOWER=second\n{second}\n"
            );
        }),
        ("configuration-not-named", |site| {
            let conf = site.path("plugin.conf").display().to_string();
            site.replace_in_client(&format!(",{conf}"), "");
            site.arguments = vec!["--config".to_owned(), conf];
        }),
        ("configuration-missing", |site| site.replace_in_client("plugin.conf", "nothing")),
        ("other-configuration", |site| {
            let other = site.path("other.conf");
            fs::write(&other, &site.plugin).unwrap();
            site.arguments = vec!["--config".to_owned(), other.display().to_string()];
        }),
        ("line-skipped", |site| site.plugin += "some words\n"),
        ("key-misspelled", |site| site.plugin += "CVMFS_CACHE_PLUGIN_WORKER=1\n"),
        ("key-unknown", |site| site.plugin += "CVMFS_QUOTA_LIMIT=1\n"),
        ("plugin-locator-missing", |site| {
            site.replace_in_plugin("CVMFS_CACHE_PLUGIN_LOCATOR", "#");
        }),
        ("plugin-locator-bad", |site| site.replace_in_plugin("=unix=", "=")),
        ("locators-spelled-differently", |site| site.replace_in_plugin("/socket", "//socket")),
        ("allow-bad", |site| site.plugin += "CVMFS_CACHE_PLUGIN_ALLOW=10.0.0.0/99\n"),
        ("allow-users-bad", |site| site.plugin += "CVMFS_CACHE_PLUGIN_ALLOW_USERS=no-one-x\n"),
        ("poll-bad", |site| site.plugin += "CVMFS_CACHE_PLUGIN_POLL=much\n"),
        ("workers-bad", |site| site.plugin += "CVMFS_CACHE_PLUGIN_WORKERS=-1\n"),
        ("debug-log-not-writable", |site| {
            site.plugin += "CVMFS_CACHE_PLUGIN_DEBUGLOG=/nowhere/log\n";
        }),
        ("socket-directory-missing", |site| {
            site.replace_in_client("/socket", "/sub/socket");
            site.replace_in_plugin("/socket", "/sub/socket");
        }),
        ("socket-directory-exposed", |site| {
            fs::set_permissions(site.directory.path(), Permissions::from_mode(0o777)).unwrap();
        }),
        ("not-a-socket", |site| fs::write(site.path("socket"), "").unwrap()),
        ("stale-socket", |site| drop(UnixListener::bind(site.path("socket")).unwrap())),
        ("plugin-not-running", |site| {
            site.replace_in_client("CVMFS_CACHE_ram_CMDLINE", "#");
            let conf = site.path("plugin.conf").display().to_string();
            site.arguments = vec!["--config".to_owned(), conf];
        }),
    ];
    for (name, make) in mistakes {
        let mut site = Site::new();
        make(&mut site);
        site.assert_finds(name);
    }
}

#[test]
fn permissions_that_the_user_of_the_client_lacks_are_findings() {
    type Mistake = fn(&mut Site);
    let mistakes: &[(&str, Mistake)] = &[
        ("program-not-executable", |site| site.mode("program", 0o700)),
        ("configuration-unreadable", |site| {
            fs::write(site.path("plugin.conf"), &site.plugin).unwrap();
            site.mode("plugin.conf", 0o600);
        }),
        ("socket-directory-not-writable", |site| {
            fs::set_permissions(site.directory.path(), Permissions::from_mode(0o755)).unwrap();
        }),
        ("lock-not-writable", |site| {
            File::create(site.path("socket.lock")).unwrap();
            site.mode("socket.lock", 0o600);
        }),
        ("socket-not-removable", |site| drop(UnixListener::bind(site.path("socket")).unwrap())),
        ("debug-log-not-writable", |site| {
            File::create(site.path("log")).unwrap();
            site.mode("log", 0o600);
            let log = site.path("log");
            site.plugin += &format!("CVMFS_CACHE_PLUGIN_DEBUGLOG={}\n", log.display());
        }),
    ];
    for (name, make) in mistakes {
        let mut site = Site::new();
        site.user = "nobody".to_owned();
        make(&mut site);
        site.assert_finds(name);
    }
}

#[test]
fn another_user_with_all_permissions_has_no_findings() {
    let site = Site { user: "nobody".to_owned(), ..Site::new() };
    let (names, status) = site.findings();
    assert!(names.iter().all(|name| USUAL.contains(&name.as_str())), "{names:?}");
    assert_eq!(status, 0);
}

#[test]
fn a_plugin_that_runs_as_another_user_is_a_finding() {
    let plugin = start_ram();
    let site = Site { user: "nobody".to_owned(), ..Site::around(plugin.locator()) };
    site.assert_finds("plugin-foreign");
}

#[test]
fn a_plugin_that_runs_with_another_configuration_is_a_finding() {
    let plugin = start_ram();
    let mut site = Site::around(plugin.locator());
    site.replace_in_plugin("SIZE=100", "SIZE=200");
    site.assert_finds("size-not-in-use");
}

#[test]
fn a_lock_file_held_without_a_listener_is_a_finding_with_the_holder() {
    let site = Site::new();
    let lock = File::create(site.path("socket.lock")).unwrap();
    let _lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
    site.assert_finds("lock-held");
    let output = site.doctor(&[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("process {} holds", std::process::id())), "{text}");
    assert!(!text.contains("kill"), "{text}");
}

#[test]
fn advice_about_a_plugin_whose_socket_has_lost_its_name_does_not_end_it() {
    let plugin = start_ram();
    let mut client = Client::connect(plugin.locator(), "test.cern.ch:1").unwrap();
    let site = Site::around(plugin.locator());
    let Locator::Unix(socket) = plugin.locator() else { unreachable!() };
    // Taken over by another name, so that the plugin need not notice.
    let lock = socket.with_extension("lock");
    assert!(lock.exists());
    fs::rename(socket, socket.with_extension("gone")).unwrap();
    let output = site.doctor(&[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("kill"), "{text}");
    client.info().unwrap();
}

#[test]
fn a_listener_that_is_no_plugin_is_a_finding() {
    for (answer, name) in
        [(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "not-a-plugin"), (b"", "plugin-refuses")]
    {
        let site = Site::new();
        let listener = UnixListener::bind(site.path("socket")).unwrap();
        // It lives as long as the tests.
        thread::spawn(move || {
            let mut kept = Vec::new();
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                connection.write_all(answer).unwrap();
                // Closing would be a reply of its own.
                if !answer.is_empty() {
                    kept.push(connection);
                }
            }
        });
        site.assert_finds(name);
    }
}

#[test]
fn a_tcp_plugin_that_other_hosts_reach_is_a_finding() {
    let mut site = Site::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let socket = format!("unix={}", site.path("socket").display());
    site.replace_in_client(&socket, &format!("tcp=127.0.0.1:{port}"));
    site.replace_in_plugin(&socket, &format!("tcp=:{port}"));
    site.assert_finds("allow-missing");
    let mut closed = Site { directory: tempfile::tempdir().unwrap(), ..site };
    closed.plugin += "CVMFS_CACHE_PLUGIN_ALLOW=10.0.0.0/8\n";
    closed.client = closed.client.replace("CVMFS_CACHE_ram_CMDLINE", "#");
    closed.arguments =
        vec!["--config".to_owned(), closed.path("plugin.conf").display().to_string()];
    let (names, status) = closed.findings();
    assert_eq!(
        (names, status),
        (
            ["plugin-not-asked", "allow-excludes-client", "plugin-not-running"]
                .map(str::to_owned)
                .to_vec(),
            1
        )
    );
}

/// A site with the program of a plugin of the SDK.
fn site_of(plugin: &Path) -> Site {
    let mut site = Site::new();
    let usual = site.path("program").display().to_string();
    site.replace_in_client(&usual, &plugin.display().to_string());
    site
}

#[test]
fn a_plugin_of_the_sdk_judges_its_own_configuration() {
    type Mistake = fn(&mut Site);
    let mistakes: &[(&str, &str, Mistake)] = &[
        ("plugin-error", "SIZE", |site| site.replace_in_plugin("SIZE=100", "SIZE=lots")),
        ("plugin-warning", "is CVMFS_CACHE_PLUGIN_SIZE meant", |site| {
            site.plugin += "CVMFS_CACHE_PLUGIN_SZIE=1\n";
        }),
        ("cmdline-arguments", "unexpected argument \"\"", |site| {
            site.replace_in_client("plugin.conf", "plugin.conf,");
        }),
        ("cmdline-arguments", "unexpected argument \"more\"", |site| {
            site.replace_in_client("plugin.conf", "plugin.conf,more");
        }),
        ("cmdline-arguments", "takes no option \"--check\"", |site| {
            let conf = site.path("plugin.conf").display().to_string();
            site.replace_in_client(&conf, &format!("--check,{conf}"));
        }),
        ("plugin-error", "cannot listen on tcp=192.0.2.1:4224", |site| {
            let socket = format!("unix={}", site.path("socket").display());
            site.replace_in_plugin(&socket, "tcp=192.0.2.1:4224");
        }),
    ];
    for (name, text, make) in mistakes {
        let mut site = site_of(&ram());
        make(&mut site);
        assert_judged(&site, name, text);
    }
}

#[test]
fn a_mistake_in_the_arguments_hides_none_in_the_configuration() {
    let mut site = site_of(&ram());
    site.replace_in_client("plugin.conf", "plugin.conf,");
    site.replace_in_client("=external", "=externl");
    site.replace_in_plugin("SIZE=100", "SIZE=lots");
    for (name, text) in
        [("type-unknown", "externl"), ("cmdline-arguments", "unexpected"), ("plugin-error", "lots")]
    {
        assert_judged(&site, name, text);
    }
}

#[test]
fn the_redis_cache_judges_its_own_keys() {
    for (line, text) in [
        ("", "CVMFS_CACHE_PLUGIN_REDIS_URL"),
        ("CVMFS_CACHE_PLUGIN_REDIS_URL=redis://127.0.0.1:1\nCVMFS_CACHE_PLUGIN_SIZE=x\n", "SIZE"),
        (
            "CVMFS_CACHE_PLUGIN_REDIS_URL=redis://127.0.0.1:1\n\
             CVMFS_CACHE_PLUGIN_REDIS_TIMEOUT=x\n",
            "TIMEOUT",
        ),
    ] {
        let mut site = site_of(&program("cvmcache-redis"));
        site.replace_in_plugin("CVMFS_CACHE_PLUGIN_SIZE=100\n", line);
        assert_judged(&site, "plugin-error", text);
    }
}

#[test]
fn a_metrics_port_that_another_process_has_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut site = site_of(&ram());
    let port = listener.local_addr().unwrap().port();
    site.plugin += &format!("CVMFS_CACHE_PLUGIN_METRICS={port}\n");
    assert_judged(&site, "plugin-error", "METRICS");
}

#[test]
fn the_plugin_behind_a_script_is_asked() {
    let mut site = Site::new();
    let script = format!("#!/bin/sh\nexec {} \"$@\"\n", ram().display());
    fs::write(site.path("program"), script).unwrap();
    site.replace_in_plugin("SIZE=100", "SIZE=lots");
    assert_judged(&site, "plugin-asked-behind-script", "is a script");
    assert_judged(&site, "plugin-error", "lots");
}

fn assert_judged(site: &Site, name: &str, text: &str) {
    let (names, _) = site.findings();
    assert!(names.iter().any(|found| found == name), "{names:?}");
    let output = site.doctor(&[]).output().expect("doctor starts");
    let output = String::from_utf8_lossy(&output.stdout);
    let lines = output.lines().filter(|line| line.contains(&format!(" {name}: ")));
    let about: Vec<_> = lines.filter(|line| line.contains(text)).collect();
    assert!(!about.is_empty(), "{output}");
}

#[test]
fn a_program_that_is_not_of_the_sdk_is_not_run() {
    let site = Site::new();
    let trace = site.path("trace");
    let script = format!("#!/bin/sh\necho $* > {}\n# {}", trace.display(), cvmcache::CHECK_MARKER);
    fs::write(site.path("program"), script).unwrap();
    let output = site.doctor(&[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("plugin-without-check: "), "{text}");
    assert!(!trace.exists());
}
