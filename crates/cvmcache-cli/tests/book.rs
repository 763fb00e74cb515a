//! That the commands in the book do what it says: those in sessions that it shows are run.

mod support;

use std::fs;
use std::path::Path;

use cvmcache::client::Client;
use cvmcache::plugin::ObjectId;
use support::{cvmcache, start_ram};

/// The commands behind a prompt.
fn commands(page: &str) -> Vec<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let text = fs::read_to_string(path).expect("the page");
    let lines = text.lines().filter_map(|line| line.strip_prefix("$ cvmcache "));
    lines.map(|line| shlex::split(line).expect("words")).collect()
}

#[test]
fn the_commands_that_look_into_a_plugin_work_as_shown() {
    let commands = commands("looking-into-a-plugin.md");
    assert!(commands.len() >= 8, "{commands:?}");
    let plugin = start_ram();
    let mut client = Client::connect(plugin.locator(), "test.cern.ch:1").expect("it connects");
    // What is stored is open until the client closes it.
    let ids = commands.iter().flatten().filter_map(|word| word.parse::<ObjectId>().ok());
    for id in ids.collect::<std::collections::BTreeSet<_>>() {
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
