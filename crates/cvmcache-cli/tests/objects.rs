//! `cvmcache put`, `stat` and `get`, as their users see them.

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use cvmcache::plugin::{Capabilities, Status};
use cvmcache_testkit::{Callback, Fault, Faulty, PluginProcess};
use snapbox::cmd::{Command, cargo_bin};
use snapbox::str;
use support::shelf::{self, Item, Served, Shelf};
use support::terminal::Terminal;
use support::{cvmcache, start_ram};
use tempfile::TempDir;

const HELLO: &str = "22596363b3de40b06f981fb85d82312e8c0ed511";

/// What should happen happens by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// A RAM cache, and a directory for commands to work in.
struct Place {
    plugin: PluginProcess,
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a place to write to");
        fs::write(directory.path().join("hello"), "hello world\n").expect("a place to write to");
        Self { plugin: start_ram(), directory }
    }

    fn run(&self, arguments: &[&str]) -> Command {
        let command = cvmcache(arguments).current_dir(self.directory.path());
        command.env("CVMCACHE_LOCATOR", self.plugin.locator().to_string())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

#[test]
fn an_object_that_was_put_exists_until_it_is_evicted() {
    let place = Place::new();
    let put = place.run(&["put", "--type", "catalog", "hello"]).assert().success();
    put.stderr_eq("").stdout_eq(format!("{HELLO}\n"));
    place.run(&["ls"]).assert().success().stdout_eq(str![[r#"
catalog   -       22596363b3de40b06f981fb85d82312e8c0ed511  hello

"#]]);
    place.run(&["stat", HELLO]).assert().success().stderr_eq("").stdout_eq(str![[r#"
id            22596363b3de40b06f981fb85d82312e8c0ed511
type          catalog
size          12 B

"#]]);
    place.run(&["stat", "--json", HELLO]).assert().success().stdout_eq(str![[r#"
{
  "id": "22596363b3de40b06f981fb85d82312e8c0ed511",
  "type": "catalog",
  "size": 12
}

"#]]);
    place.run(&["get", HELLO]).assert().success().stderr_eq("").stdout_eq("hello world\n");
    place.run(&["shrink", "0"]).assert().success();
    place.run(&["stat", HELLO]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
cvmcache: unix=[..]/socket: 22596363b3de40b06f981fb85d82312e8c0ed511 is not in the cache

"#]]);
    place.run(&["get", HELLO, "-o", "x"]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
cvmcache: unix=[..]/socket: 22596363b3de40b06f981fb85d82312e8c0ed511 is not in the cache

"#]]);
    assert!(!place.path("x").exists());
}

#[test]
fn an_object_is_named_by_one_of_three_hashes_or_by_an_explicit_id() {
    let place = Place::new();
    let put = |arguments: &[&str]| {
        let put = place.run(&["put", "hello"]).args(arguments).assert().success();
        String::from_utf8(put.get_output().stdout.clone()).unwrap()
    };
    assert_eq!(put(&[]), format!("{HELLO}\n"));
    let rmd160 = put(&["--algorithm", "rmd160"]);
    assert_eq!(rmd160, "a915519a9fb5cee65a56ad04123ccaa34485067c-rmd160\n");
    let shake128 = put(&["--algorithm", "shake128"]);
    assert_eq!(shake128, "37d6c4dad1d36a34dfefaab9407acadffdba3568-shake128\n");
    let other = shelf::id(7).to_string();
    assert_eq!(put(&["--id", &other]), format!("{other}\n"));
    for id in [&rmd160, &shake128] {
        place.run(&["get", "--verify", id.trim()]).assert().success().stdout_eq("hello world\n");
    }
    let get = place.run(&["get", "--verify", "-o", "x", &other]).assert().code(1);
    get.stdout_eq("").stderr_eq(str![[r#"
cvmcache: 0000000000000000000000000000000000000007 is damaged, or not named by its content: it hashes to 22596363b3de40b06f981fb85d82312e8c0ed511. CernVM-FS names files by the hash of their compressed content, so this says nothing about most of its objects

"#]]);
    assert!(!place.path("x").exists());
}

#[test]
fn an_existing_object_is_not_stored_again() {
    let place = Place::new();
    place.run(&["put", "hello"]).assert().success();
    let put = place.run(&["put", "--description", "other", "hello"]).assert().success();
    put.stdout_eq(format!("{HELLO}\n")).stderr_eq(str![[r#"
it is in the cache already; nothing was stored

"#]]);
    place.run(&["ls"]).assert().success().stdout_eq(str![[r#"
regular   -       22596363b3de40b06f981fb85d82312e8c0ed511  hello

"#]]);
}

#[test]
fn an_object_of_many_parts_is_read_as_it_was_stored() {
    let place = Place::new();
    // Parts are of 256 KiB: an object ends within one, at the end of one, and is empty.
    for size in [5_000_000, 1 << 20, 0] {
        let content: Vec<u8> = (0..size).map(|i: u32| (i.wrapping_mul(i) >> 7) as u8).collect();
        fs::write(place.path("content"), &content).unwrap();
        let put = place.run(&["put", "content"]).assert().success();
        let id = String::from_utf8(put.get_output().stdout.clone()).unwrap();
        let id = id.trim();
        place.run(&["get", "--verify", id, "-o", "copy"]).assert().success().stdout_eq("");
        assert!(fs::read(place.path("copy")).unwrap() == content);
        let get = place.run(&["get", id, "-o", "-"]).assert().success();
        assert!(get.get_output().stdout == content);
    }
}

#[test]
fn standard_input_is_stored_without_a_description() {
    let place = Place::new();
    let put = place.run(&["put", "-"]).stdin("hello world\n").assert().success();
    put.stdout_eq(format!("{HELLO}\n"));
    place.run(&["ls"]).assert().success().stdout_eq(format!("regular   -       {HELLO}\n"));
}

#[test]
fn a_file_that_changes_while_it_is_put_is_not_stored() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for change in ["longer", "shorter", "other"] {
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        let plugin = Faulty::new(Shelf::new(vec![]));
        let faults = plugin.faults();
        // Then it has been read once, and not yet twice.
        faults.plan(Callback::Write, Fault::Hang);
        let plugin = Served::new(plugin);
        let put = start(&["put", &plugin.locator(), path.to_str().unwrap()]);
        assert!(faults.wait_for_hanging(1, PATIENCE));
        let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
        match change {
            "longer" => file.write_all(b"x").unwrap(),
            "shorter" => file.set_len(300_000).unwrap(),
            _ => fs::write(&path, vec![2; 1 << 20]).unwrap(),
        }
        faults.release();
        let ended = put.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{change}: {ended:?}");
        let message = "it changed while it was read; nothing was stored, try again\n";
        assert!(String::from_utf8_lossy(&ended.stderr).ends_with(message), "{change}: {ended:?}");
        assert!(faults.wait_for_nothing_open(PATIENCE));
        assert_eq!(faults.calls(Callback::Commit), 0, "{change}");
    }
}

#[test]
fn an_upload_that_fails_is_aborted() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), vec![1; 1 << 20]).unwrap();
    let plugin = Faulty::new(Shelf::new(vec![]));
    let faults = plugin.faults();
    faults.plan(Callback::Begin, Fault::Fail(Status::NoSpace));
    faults.plan(Callback::Write, Fault::Delay(Duration::ZERO));
    faults.plan(Callback::Write, Fault::Fail(Status::IoErr));
    let plugin = Served::new(plugin);
    let put = || {
        let put = cvmcache(&["put", &plugin.locator(), "file"]).current_dir(directory.path());
        put.assert().code(1).stdout_eq("")
    };
    put().stderr_eq(str![[r#"
cvmcache: unix=[..]/socket: storing part 1: the plugin answered: no space left in the cache

"#]]);
    put().stderr_eq(str![[r#"
cvmcache: unix=[..]/socket: storing part 2: the plugin answered: input/output error

"#]]);
    assert!(faults.wait_for_nothing_open(PATIENCE));
    assert_eq!(faults.calls(Callback::Commit), 0);
}

#[test]
fn an_input_that_cannot_be_stored_is_an_error_that_names_it() {
    let place = Place::new();
    place.run(&["put", "nothing"]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
cvmcache: cannot read nothing: No such file or directory (os error 2)

"#]]);
    place.run(&["put", "."]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
cvmcache: cannot read .: Is a directory (os error 21)

"#]]);
    for nothing in [&["put"][..], &["put", ""]] {
        place.run(nothing).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
cvmcache: FILE is missing; see --help for what to write

"#]]);
    }
    let capabilities = Capabilities::ALL.difference(Capabilities::WRITE);
    let reader = Served::new(Shelf { capabilities, ..Shelf::new(vec![]) });
    let put = place.run(&["put", &reader.locator(), "hello"]).assert().code(1);
    put.stdout_eq("").stderr_eq(str![[r#"
cvmcache: unix=[..]/socket: the plugin lacks the capability "write": it takes no objects from clients

"#]]);
}

#[test]
fn put_get_and_stat_leave_no_reference() {
    let place = Place::new();
    place.run(&["put", "hello"]).assert().success();
    place.run(&["get", HELLO]).assert().success();
    place.run(&["get", HELLO, "-o", "/nowhere/x"]).assert().code(1).stderr_eq(str![[r#"
cvmcache: cannot write "/nowhere/x": there is no directory "/nowhere": make it first

"#]]);
    place.run(&["get", HELLO, "-o", "/dev/full"]).assert().code(1).stderr_eq(str![[r#"
cvmcache: cannot write "/dev/full": No space left on device (os error 28)

"#]]);
    place.run(&["ls", "--pinned"]).assert().success().stdout_eq("");
}

#[test]
fn an_object_shorter_than_its_size_leaves_no_file() {
    let short = Item { size: 1000, ..Item::new(1, "", "only so much") };
    let endless = Item { size: u64::MAX, ..Item::new(2, "", "") };
    let plugin = Served::new(Shelf::new(vec![short, endless]));
    let directory = tempfile::tempdir().unwrap();
    for number in [1, 2] {
        let id = shelf::id(number).to_string();
        let get = cvmcache(&["get", &plugin.locator(), &id, "-o", "x"]);
        let get = get.current_dir(directory.path()).assert().code(1);
        get.stdout_eq("").stderr_eq(str![[r#"
cvmcache: unix=[..]/socket: reading the object at byte 0: the plugin's answer to a request of kind Read makes no sense: it has another length than the object has there

"#]]);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[test]
fn a_device_or_the_target_of_a_link_is_written_to_and_not_replaced() {
    let place = Place::new();
    place.run(&["put", "hello"]).assert().success();
    fs::write(place.path("old"), "old").unwrap();
    symlink("old", place.path("link")).unwrap();
    place.run(&["get", HELLO, "-o", "link"]).assert().success();
    assert!(place.path("link").is_symlink());
    assert_eq!(fs::read_to_string(place.path("old")).unwrap(), "hello world\n");
    place.run(&["get", HELLO, "-o", "/dev/null"]).assert().success();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[test]
fn content_goes_to_a_terminal_only_with_an_explicit_option() {
    let item = Item::new(1, "", "bytes in an object");
    let plugin = Served::new(Shelf::new(vec![item]));
    let get = ["get", &plugin.locator(), &shelf::id(1).to_string(), "-o", "-"];
    let mut terminal = Terminal::start(&get[..3], (80, 10));
    terminal.wait_for("or insist with -o -");
    assert_eq!(terminal.wait_for_end(), 2);
    let mut terminal = Terminal::start(&get, (80, 10));
    terminal.wait_for("bytes in an object");
    assert_eq!(terminal.wait_for_end(), 0);
}

#[test]
fn the_locator_may_be_left_out_wherever_options_stand() {
    let place = Place::new();
    place.run(&["put", "hello"]).assert().success();
    let locator = place.plugin.locator().to_string();
    for arguments in [
        &["stat", HELLO][..],
        &["stat", "--json", HELLO],
        &["stat", HELLO, "--json"],
        &["stat", &locator, HELLO],
        &["stat", &locator, "--json", HELLO],
        &["stat", "--timeout", "5", &locator, HELLO],
        &["get", &locator, "--verify", HELLO],
    ] {
        place.run(arguments).assert().success().stderr_eq("");
        // The variable does not count if there is a locator.
        let command = place.run(arguments).env_remove("CVMCACHE_LOCATOR");
        match arguments.contains(&locator.as_str()) {
            true => command.assert().success(),
            false => command.assert().code(2),
        };
    }
}

#[test]
fn invalid_arguments_are_named_in_the_error() {
    let error = |arguments: &[&str]| {
        let assert = cvmcache(arguments).assert().code(2).stdout_eq("");
        String::from_utf8(assert.get_output().stderr.clone()).unwrap()
    };
    let errors = [
        &["stat"][..],
        &["stat", "unix=/nowhere"],
        &["stat", HELLO],
        &["stat", "unix=/nowhere", "abc"],
        &["stat", "/nowhere", HELLO],
        &["put", "--id", "abc", "unix=/nowhere", "x"],
        &["put", "--id", HELLO, "--algorithm", "sha1", "unix=/nowhere", "x"],
    ];
    let errors = errors.map(error).concat();
    snapbox::assert_data_eq!(
        errors,
        str![[r#"
cvmcache: ID is missing; see --help for what to write
cvmcache: ID is missing; see --help for what to write
cvmcache: which plugin? Name its locator, as in unix=/path/to/socket or tcp=host:port, or set CVMCACHE_LOCATOR
cvmcache: "abc" is not an object id: expected 40 hexadecimal digits, then nothing, -rmd160 or -shake128
cvmcache: "/nowhere" is not a locator: use unix=/path/to/socket or tcp=host:port
error: invalid value 'abc' for '--id <ID>': "abc" is not an object id: expected 40 hexadecimal digits, then nothing, -rmd160 or -shake128

For more information, try '--help'.
error: the argument '--id <ID>' cannot be used with '--algorithm <ALGORITHM>'

Usage: cvmcache put [OPTIONS] [LOCATOR] <FILE>

For more information, try '--help'.

"#]]
    );
}

fn start(arguments: &[&str]) -> Child {
    let mut command = std::process::Command::new(cargo_bin!("cvmcache"));
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts")
}
