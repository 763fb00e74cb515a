//! `cvmcache doctor`, as its users see it: a client and a plugin that go together, and all that can
//! come between them, one by one.

mod support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use snapbox::str;
use support::site::{Site, USUAL};
use support::{cvmcache, start_ram};

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
  ok       it is well, says [..]/socket.admin
  ok       it runs with [..]/plugin.conf as it is now

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
