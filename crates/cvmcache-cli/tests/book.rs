//! Runs the commands of the book and compares their output: those in sessions that it shows, and those in blocks of
//! shell, are run.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cvmcache::client::Client;
use cvmcache::plugin::ObjectId;
use support::shell::{Shell, blocks, page, root};
use support::{cvmcache, example, program, ram, start_ram};

/// The commands behind a prompt.
fn commands(page: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let text = fs::read_to_string(path).expect("the page");
    let lines = text.lines().filter_map(|line| line.strip_prefix("$ cvmcache "));
    lines.map(|line| shlex::split(line).expect("words")).collect()
}

#[test]
fn the_commands_for_a_running_plugin_work_as_documented() {
    let commands = commands("looking-into-a-plugin.md");
    assert!(commands.len() >= 8, "{commands:?}");
    let plugin = start_ram();
    let mut client = Client::connect(plugin.locator(), "test.cern.ch:1").expect("it connects");
    // What is stored is open until the client closes it.
    let ids = commands.iter().flatten().filter_map(|word| word.parse::<ObjectId>().ok());
    for id in ids.collect::<BTreeSet<_>>() {
        client.store(id, vec![7; 1000]).expect("it is stored");
    }
    let directory = tempfile::tempdir().expect("a directory");
    for words in commands {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let command = cvmcache(&words).current_dir(directory.path());
        let output = command.env("CVMCACHE_LOCATOR", plugin.locator().to_string()).output();
        let output = output.expect("it runs");
        // What is open stays, and that is what the page shows.
        let expected = if words == ["shrink", "0"] { 1 } else { 0 };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{words:?}: {said}");
    }
}

/// The blocks of shell that no test here runs, by how they begin, and why.
const NOT_RUN: &[(&str, &str, &str)] = &[
    ("README.md", "cargo run --release -p cvmcache-ram", "a build; other tests start the plugin"),
    ("README.md", "sudo apt-get update", "runs all tests; .ci/run begins with it"),
    ("administration.md", "curl", "needs a plugin in /run; see admin.rs"),
    ("benchmarking.md", "cvmcache bench --spawn", "half a minute; see bench.rs"),
    ("benchmarking.md", "cvmcache bench unix=", "half a minute; see bench.rs"),
    ("c-plugins.md", "cargo cinstall", "needs cargo-c, which takes minutes to build"),
    ("c-plugins.md", "g++", "the tests of cvmcache-capi compile what they run"),
    ("doctor.md", "cvmcache doctor", "asks whoever the client runs as, or needs jq; see doctor.rs"),
    (
        "packaging.md",
        "sudo apt-get install help2man",
        "needs cargo-deb, which takes minutes to build",
    ),
    ("packaging.md", "dpkg-deb -x", "needs the package"),
    ("performance.md", "cargo build", "needs the reference plugin"),
    ("redis.md", "head -c 32 /dev/urandom", "needs root, and the user cvmfs"),
    ("redis.md", "redis-cli UNLINK", "needs a server at the usual port"),
    ("reliability.md", "cargo build", "a minute; see soak.rs"),
    ("running-a-plugin.md", "cvmcache-ram --check", "a file in /etc; see process.rs of cvmcache"),
    ("systemd.md", "cp /usr/share", "needs systemd"),
    ("systemd.md", "adduser", "changes the machine"),
    ("systemd.md", "cvmfs_config", "needs systemd"),
    ("tiering.md", "cvmcache tier", "needs a tiered cache; see tier.rs"),
    ("tutorial.md", "rm -r /tmp/objects", "a minute; the testkit's suite.rs checks these plugins"),
    ("tutorial.md", "CVMCACHE=", "compiles and installs everything"),
    ("tutorial.md", "cargo build --release", "half a minute; see bench.rs"),
];

/// The pages whose other blocks a test here runs.
const RUN: &[&str] =
    &["README.md", "c-plugins.md", "checking-a-plugin.md", "redis.md", "tutorial.md"];

/// Lines of a configuration, which are in blocks of shell for their colours.
fn is_sample(block: &str) -> bool {
    let is_key = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let is_setting = |line: &str| {
        let line = line.trim_start_matches("export ");
        let key = line.split_once('=').map(|(key, _)| key);
        line.is_empty() || line.starts_with('#') || key.is_some_and(|key| key.chars().all(is_key))
    };
    block.lines().all(is_setting)
}

/// The entry of a block that is not run.
fn not_run(name: &str, block: &str) -> Option<&'static (&'static str, &'static str, &'static str)> {
    NOT_RUN.iter().find(|(page, begin, _)| *page == name && block.starts_with(begin))
}

/// The blocks of a text on a page that can be run.
fn run_of(name: &str, text: &str) -> Vec<String> {
    let is_run = |block: &String| !is_sample(block) && not_run(name, block).is_none();
    assert!(RUN.contains(&name), "{name}");
    blocks(text).into_iter().filter(is_run).collect()
}

#[test]
fn each_shell_block_of_the_book_is_run_or_has_a_reason_not_to_be() {
    let pages = fs::read_dir(root().join("docs"))
        .expect("the book")
        .map(|page| page.expect("an entry").file_name().into_string().expect("text"));
    let pages = pages.filter(|name| name.ends_with(".md")).chain(["README.md".to_owned()]);
    let mut unknown = Vec::new();
    let mut used = BTreeSet::<&(&str, &str, &str)>::new();
    for name in pages {
        for block in blocks(&page(&name)).into_iter().filter(|block| !is_sample(block)) {
            let known = not_run(&name, &block);
            used.extend(known);
            if known.is_none() && !RUN.contains(&name.as_str()) {
                unknown.push(format!("{name}: {block}"));
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
    let gone: Vec<_> = NOT_RUN.iter().filter(|this| !used.contains(this)).collect();
    assert!(gone.is_empty(), "{gone:?}");
}

#[test]
fn the_first_step_of_the_tutorial_serves_an_object() {
    let shell = Shell::new();
    shell.link(&example("directory-reading"), "target/debug/directory");
    let printed = shell.run(&run_of("tutorial.md", &page("tutorial.md")));
    assert!(printed.contains("\nfoo"), "{printed}");
}

#[test]
fn the_redis_tutorial_works_as_documented() {
    let shell = Shell::new();
    shell.link(&program("cvmcache-redis"), "target/release/cvmcache-redis");
    let printed = shell.run(&run_of("redis.md", &page("redis.md")));
    assert!(printed.contains("cvmcache redis at unix="), "{printed}");
    assert!(printed.contains("db0:keys="), "{printed}");
}

#[test]
fn a_plugin_is_checked_as_documented() {
    let plugin = start_ram();
    let shell = Shell::new()
        .replace("unix=/var/lib/cvmfs/cvmcache-ram.socket", &plugin.locator().to_string());
    let pages = [
        ("README.md", "target/release/cvmcache-ram"),
        ("checking-a-plugin.md", "my-plugin"),
        ("c-plugins.md", "my_plugin"),
    ];
    for (name, program) in pages {
        shell.link(&ram(), program);
        let commands = run_of(name, &page(name));
        assert!(!commands.is_empty(), "{name}");
        shell.run(&commands);
    }
}
