//! `cvmcache ls`, as its users see it.

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use cvmcache::plugin::{Capabilities, ObjectType, Status};
use cvmcache_testkit::{Callback, Fault, Faulty};
use snapbox::{IntoData, str};
use support::cvmcache;
use support::shelf::{Item, Served, Shelf};
use support::terminal::Terminal;

/// Objects of every kind.
fn items() -> Vec<Item> {
    let library = Item { pinned: true, ..Item::new(1, "/sw/lib/libc.so", "library") };
    let latin1 = Item::new(2, &b"/sw/caf\xe9"[..], "");
    let hostile = Item::new(3, "\x1b[2J\u{9b}31m\r\n\u{202e}\\", "x");
    let unicode = Item::new(4, "/日本/file with blanks", "x");
    let nameless = Item { description: None, ..Item::new(5, "", "x") };
    let object_type = ObjectType::Catalog;
    let catalog = Item { object_type, pinned: true, size: 5 << 20, ..Item::new(6, "/sw", "") };
    let object_type = ObjectType::Volatile;
    let volatile = Item { object_type, ..Item::new(7, "/sw/.index", "y") };
    let volatile_id = "000000000000000000000000000000000000000f-shake128";
    let volatile = Item { id: volatile_id.parse().expect("an id"), ..volatile };
    vec![library, latin1, hostile, unicode, nameless, catalog, volatile]
}

#[test]
fn ls_prints_type_pin_id_and_description_without_control_characters() {
    let plugin = Served::new(Shelf::new(items()));
    let list = cvmcache(&["ls", &plugin.locator()]);
    list.assert().success().stderr_eq("").stdout_eq(
        str![[r#"
regular   pinned  0000000000000000000000000000000000000001  /sw/lib/libc.so
regular   -       0000000000000000000000000000000000000002  /sw/caf\xe9
regular   -       0000000000000000000000000000000000000003  \u{1b}[2J\u{9b}31m\r\n\u{202e}\\
regular   -       0000000000000000000000000000000000000004  /日本/file with blanks
regular   -       0000000000000000000000000000000000000005
catalog   pinned  0000000000000000000000000000000000000006  /sw
volatile  -       000000000000000000000000000000000000000f-shake128  /sw/.index

"#]]
        .raw(),
    );
}

#[test]
fn filters_of_ls_select_by_type_and_pin() {
    let plugin = Served::new(Shelf::new(items()));
    let list = |arguments: &[&str]| {
        let command = cvmcache(&["ls"]).env("CVMCACHE_LOCATOR", plugin.locator());
        command.args(arguments).assert().success().stderr_eq("")
    };
    list(&["--pinned"]).stdout_eq(str![[r#"
regular   pinned  0000000000000000000000000000000000000001  /sw/lib/libc.so
catalog   pinned  0000000000000000000000000000000000000006  /sw

"#]]);
    list(&["--type", "volatile"]).stdout_eq(str![[r#"
volatile  -       000000000000000000000000000000000000000f-shake128  /sw/.index

"#]]);
    list(&["--type", "volatile", "--pinned"]).stdout_eq("");
}

#[test]
fn ls_prints_sizes_but_none_of_an_object_evicted_meanwhile() {
    let plugin = Faulty::new(Shelf::new(items()));
    plugin.faults().plan(Callback::ObjectInfo, Fault::Fail(Status::NoEntry));
    let plugin = Served::new(plugin);
    let list = cvmcache(&["ls", "--size", "--pinned", &plugin.locator()]);
    list.assert().success().stderr_eq("").stdout_eq(str![[r#"
regular   pinned           -  0000000000000000000000000000000000000001  /sw/lib/libc.so
catalog   pinned     5.0 MiB  0000000000000000000000000000000000000006  /sw

"#]]);
}

#[test]
fn json_has_a_line_for_each_object_with_its_exact_bytes() {
    let plugin = Faulty::new(Shelf::new(items()));
    plugin.faults().plan(Callback::ObjectInfo, Fault::Fail(Status::NoEntry));
    let plugin = Served::new(plugin);
    let list = cvmcache(&["ls", "--json", &plugin.locator()]);
    list.assert().success().stderr_eq("").stdout_eq(str![[r#"
{"type":"regular","pinned":true,"id":"0000000000000000000000000000000000000001","description":"/sw/lib/libc.so"}
{"type":"regular","pinned":false,"id":"0000000000000000000000000000000000000002","description":"/sw/caf�","description_hex":"2f73772f636166e9"}
{"type":"regular","pinned":false,"id":"0000000000000000000000000000000000000003","description":"\u001b[2J\u009b31m\r\n\u202e\\"}
{"type":"regular","pinned":false,"id":"0000000000000000000000000000000000000004","description":"/日本/file with blanks"}
{"type":"regular","pinned":false,"id":"0000000000000000000000000000000000000005","description":null}
{"type":"catalog","pinned":true,"id":"0000000000000000000000000000000000000006","description":"/sw"}
{"type":"volatile","pinned":false,"id":"000000000000000000000000000000000000000f-shake128","description":"/sw/.index"}

"#]].raw());
    let list = cvmcache(&["ls", "--json", "--size", "--pinned", &plugin.locator()]);
    list.assert().success().stderr_eq("").stdout_eq(str![[r#"
{"type":"regular","pinned":true,"size":null,"id":"0000000000000000000000000000000000000001","description":"/sw/lib/libc.so"}
{"type":"catalog","pinned":true,"size":5242880,"id":"0000000000000000000000000000000000000006","description":"/sw"}

"#]]);
}

#[test]
fn objects_before_an_error_are_printed() {
    let plugin = Faulty::new(Shelf::new(items()));
    let faults = plugin.faults();
    faults.plan(Callback::List, Fault::Delay(Duration::ZERO));
    faults.plan(Callback::List, Fault::Fail(Status::IoErr));
    let plugin = Served::new(plugin);
    let list = cvmcache(&["ls", &plugin.locator()]).assert().code(1);
    list.stdout_eq(str![[r#"
regular   pinned  0000000000000000000000000000000000000001  /sw/lib/libc.so
regular   -       0000000000000000000000000000000000000002  /sw/caf/xe9
regular   -       0000000000000000000000000000000000000003  /u{1b}[2J/u{9b}31m/r/n/u{202e}//
regular   -       0000000000000000000000000000000000000004  /日本/file with blanks
regular   -       0000000000000000000000000000000000000005

"#]]).stderr_eq(str![[r#"
cvmcache: unix=[..]/socket: listing catalog objects, after 5 in all: the plugin answered: input/output error

"#]]);
}

#[test]
fn objects_are_printed_before_the_listing_ends() {
    let plugin = Faulty::new(Shelf::new(items()));
    let faults = plugin.faults();
    faults.plan(Callback::List, Fault::Delay(Duration::ZERO));
    faults.plan(Callback::List, Fault::Hang);
    let plugin = Served::new(plugin);
    let mut list = std::process::Command::new(snapbox::cmd::cargo_bin!("cvmcache"))
        .args(["ls", &plugin.locator()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(list.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("/sw/lib/libc.so"));
    assert!(faults.wait_for_hanging(1, Duration::from_secs(20)));
    faults.release();
    assert_eq!(lines.count(), 6);
    assert!(list.wait().unwrap().success());
}

#[test]
fn ls_ends_quietly_when_its_output_is_closed() {
    let items = (0..50_000).map(|number| Item::new(number, "/some/path", "")).collect();
    let plugin = Served::new(Shelf::new(items));
    let mut list = std::process::Command::new(snapbox::cmd::cargo_bin!("cvmcache"))
        .args(["ls", &plugin.locator()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(list.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.ends_with("/some/path\n"), "{first}");
    let ended = list.wait_with_output().unwrap();
    assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn on_a_terminal_ls_prints_a_summary() {
    let plugin = Served::new(Shelf::new(items()));
    let mut terminal = Terminal::start(&["ls", "--size", &plugin.locator()], (100, 10));
    terminal.wait_for("7 objects, 2 pinned, 5.0 MiB");
    assert_eq!(terminal.wait_for_end(), 0);
}

#[test]
fn ls_names_the_missing_capability() {
    let capabilities = Capabilities::ALL.difference(Capabilities::LIST);
    let plugin = Served::new(Shelf { capabilities, ..Shelf::new(items()) });
    let list = cvmcache(&["ls", &plugin.locator()]).assert().code(1);
    list.stdout_eq("").stderr_eq(str![[r#"
cvmcache: unix=[..]/socket: the plugin lacks the capability "list": it does not list its objects

"#]]);
}

#[test]
fn an_unknown_object_type_is_an_error_that_names_it() {
    let list = cvmcache(&["ls", "--type", "file", "unix=/nowhere"]).assert().code(2);
    list.stdout_eq("").stderr_eq(str![[r#"
error: invalid value 'file' for '--type <TYPE>'
  [possible values: regular, catalog, volatile]

For more information, try '--help'.

"#]]);
}
