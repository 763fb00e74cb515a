//! `cvmcache top`, in a terminal.

mod support;

use cvmcache::Locator;
use cvmcache::client::{Client, NewUpload};
use cvmcache::plugin::{Capabilities, ObjectId, ObjectType, Status};
use cvmcache_testkit::{Callback, Fault, Faulty, PluginCommand};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use snapbox::str;
use support::shelf::{Item, Served, Shelf};
use support::terminal::Terminal;
use support::{cvmcache, ram, start_ram};

fn shelf() -> Shelf {
    let pinned = Item { pinned: true, ..Item::new(1, "", "") };
    let catalog = Item { object_type: ObjectType::Catalog, ..Item::new(2, "", "") };
    Shelf::new(vec![pinned, catalog, Item::new(3, "", "")])
}

/// Whether it shows that there are so many objects in all.
fn counts(shown: &str, objects: u32) -> bool {
    let count = format!(" {objects} ");
    shown.lines().any(|line| line.starts_with("│all ") && line.contains(&count))
}

#[test]
fn top_draws_the_state_of_the_plugin_and_restores_the_terminal() {
    let plugin = Served::new(shelf());
    let mut terminal = Terminal::start(&["top", "--interval", "60", &plugin.locator()], (80, 24));
    terminal.wait_until(|shown| shown.contains("listed") && shown.contains("1.0 GiB"));
    assert!(terminal.screen().alternate_screen() && terminal.screen().hide_cursor());
    snapbox::assert_data_eq!(
        terminal.text() + "\n",
        str![[r#"
cvmcache top  shelf, process [..], connected for [..]s
unix=[..]/socket, asked every 1m
┌ fill ────────────────────────────────────────────────────────────────────────┐
│used   ████████████████████░░░░░░░░░░░░░░░░░░░░░   512.0 MiB of 1.0 GiB   50 %│
│pinned █████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   128.0 MiB of 1.0 GiB   12 %│
└──────────────────────────────────────────────────────────────────────────────┘
┌ objects ─────────────────────────────────────┐┌ clean-ups ───────────────────┐
│type                 objects            pinned││3 in all                      │
│regular                    2                 1││no rate yet                   │
│catalog                    1                 0││                              │
│volatile                   0                 0││                              │
│all                        3                 1││                              │
│                                              ││                              │
└ listed [..]s ago in [..]s [..]┘└──────────────────────────────┘
┌ used in the last [..]s, up to 512.0 MiB [..]┐
│█                                                                             │
│█                                                                             │
│█                                                                             │
│█                                                                             │
│█                                                                             │
│█                                                                             │
│█                                                                             │
└──────────────────────────────────────────────────────────────────────────────┘
 q quit   + - slower, faster   r ask now

"#]]
    );
    terminal.press("q");
    assert_eq!(terminal.wait_for_end(), 0);
    assert!(!terminal.screen().alternate_screen() && !terminal.screen().hide_cursor());
    assert_eq!(terminal.text(), "");
}

#[test]
fn escape_control_c_and_sigterm_end_top() {
    let plugin = Served::new(shelf());
    for key in ["\x1b", "\x03", "signal"] {
        let mut terminal = Terminal::start(&["top", &plugin.locator()], (80, 24));
        terminal.wait_for("listed");
        match key {
            "signal" => kill(Pid::from_raw(terminal.process() as i32), Signal::SIGTERM).unwrap(),
            key => terminal.press(key),
        }
        assert_eq!(terminal.wait_for_end(), 0, "{key:?}");
        assert!(!terminal.screen().alternate_screen(), "{key:?}");
    }
}

#[test]
fn top_reconnects_to_a_plugin_that_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let locator = Locator::Unix(directory.path().join("socket"));
    let plugin = Served::at(&locator, shelf());
    let mut terminal = Terminal::start(&["top", &plugin.locator(), "--interval", "0.1"], (100, 24));
    terminal.wait_until(|shown| counts(shown, 3));
    drop(plugin);
    terminal.wait_for("ago, trying again: ");
    terminal.wait_for("512.0 MiB of 1.0 GiB");
    let mut other = shelf();
    other.items.push(Item::new(4, "", ""));
    other.info.used_bytes = 256 << 20;
    let _plugin = Served::at(&locator, other);
    terminal.wait_for("256.0 MiB of 1.0 GiB");
    terminal.wait_until(|shown| counts(shown, 4));
    assert!(!terminal.text().contains("trying again"));
    terminal.press("q");
    assert_eq!(terminal.wait_for_end(), 0);
}

#[test]
fn keys_change_the_polling_interval() {
    let plugin = Served::new(shelf());
    let mut terminal = Terminal::start(&["top", &plugin.locator(), "--interval", "60"], (80, 24));
    terminal.wait_for("asked every 1m");
    terminal.press("-");
    terminal.wait_for("asked every 30s");
    terminal.press("++");
    terminal.wait_for("asked every 2m");
}

#[test]
fn top_redraws_when_the_terminal_is_resized() {
    let plugin = Served::new(shelf());
    let mut terminal = Terminal::start(&["top", &plugin.locator()], (80, 24));
    terminal.wait_for("listed");
    terminal.resize((20, 5));
    terminal.wait_for(" q + - r");
    terminal.resize((1, 1));
    terminal.resize((120, 40));
    terminal.wait_until(|shown| shown.contains("r ask now") && shown.lines().count() == 40);
}

#[test]
fn missing_capabilities_are_named() {
    let capabilities = Capabilities::REFCOUNT;
    let plugin = Served::new(Shelf { capabilities, ..shelf() });
    let mut terminal = Terminal::start(&["top", &plugin.locator()], (80, 24));
    terminal.wait_for("the plugin does not report it");
    terminal.wait_for("cannot be listed: ");
}

#[test]
fn a_reply_that_times_out_is_requested_again() {
    let plugin = Faulty::new(shelf());
    let faults = plugin.faults();
    faults.plan(Callback::Info, Fault::Fail(Status::IoErr));
    faults.plan(Callback::List, Fault::Fail(Status::IoErr));
    let plugin = Served::new(plugin);
    let mut terminal = Terminal::start(&["top", "--interval", "3600", &plugin.locator()], (80, 24));
    terminal.wait_for("trying again: the plugin answered: input/output error");
    terminal.wait_for("not known");
    terminal.press("r");
    terminal.wait_for("512.0 MiB of 1.0 GiB");
    terminal.wait_for("cannot be listed: the plugin answered:");
}

#[test]
fn objects_are_not_listed_with_no_list() {
    let plugin = Served::new(shelf());
    let mut terminal = Terminal::start(&["top", "--no-list", &plugin.locator()], (80, 24));
    terminal.wait_for("512.0 MiB of 1.0 GiB");
    terminal.wait_for("not listed (--no-list)");
}

#[test]
fn without_a_terminal_or_a_plugin_top_is_an_error_with_a_remedy() {
    cvmcache(&["top", "unix=/nowhere"]).assert().code(2).stdout_eq("").stderr_eq(str![[r#"
cvmcache: top needs a terminal; for scripts, there is cvmcache info

"#]]);
    let mut terminal = Terminal::start(&["top", "unix=/nowhere"], (200, 5));
    terminal.wait_for("does not exist, so no plugin runs there: start the plugin");
    assert_eq!(terminal.wait_for_end(), 1);
    cvmcache(&["top", "--interval", "0", "unix=/x"]).assert().code(2).stderr_eq(str![[r#"
error: invalid value '0' for '--interval <SECONDS>': write a number of seconds from 0.1 to 3600

For more information, try '--help'.

"#]]);
}

#[test]
fn metrics_from_the_configuration_are_drawn_as_rates() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let command = PluginCommand::new(ram())
        .option("CVMFS_CACHE_PLUGIN_SIZE", "100")
        .option("CVMFS_CACHE_PLUGIN_ADMIN", "no")
        .option("CVMFS_CACHE_PLUGIN_METRICS", free.to_string());
    let plugin = command.start().unwrap();
    let locator = plugin.locator().to_string();
    let mut terminal = Terminal::start(&["top", "--interval", "0.2", &locator], (100, 30));
    let mut client = Client::connect(plugin.locator(), "test.cern.ch:1").unwrap();
    let object = "df773e9a5cb233e9b40854d423944d70a042bc5d".parse::<ObjectId>().unwrap();
    client.store(NewUpload::new(object), vec![7; 100_000]).unwrap();
    terminal.wait_until(|shown| {
        client.open(&object).unwrap();
        client.read(&object, 0, 100_000).unwrap();
        client.close(&object).unwrap();
        let row = |name: &str| shown.lines().any(|line| line.starts_with(&format!("│{name} ")));
        row("open") && row("read") && row("close") && shown.contains("hits 100 %, read ")
    });
    assert!(terminal.text().contains(" us"), "{}", terminal.text());
    terminal.press("q");
    assert_eq!(terminal.wait_for_end(), 0);
}

#[test]
fn sessions_and_requests_come_from_the_administration_socket() {
    for size in [(80, 24), (200, 50)] {
        let plugin = start_ram();
        let locator = plugin.locator().to_string();
        let mut terminal = Terminal::start(&["top", "--interval", "0.2", &locator], size);
        let mut client = Client::connect(plugin.locator(), "a-long-name.cern.ch:1").unwrap();
        let object = "df773e9a5cb233e9b40854d423944d70a042bc5d".parse::<ObjectId>().unwrap();
        client.store(NewUpload::new(object), vec![7; 100_000]).unwrap();
        terminal.wait_until(|shown| {
            client.open(&object).unwrap();
            let session = |line: &str| line.contains("││a-long") && line.contains(" 100 %│");
            let parts = ["┌ fill, 0 clean-ups", "┌ requests, up to ", "┐┌ requests in the last "];
            let found = parts.map(|part| shown.contains(part));
            let row = shown.lines().any(|line| line.starts_with("│open "));
            shown.lines().any(session) && row && found[0] && (found[1] || found[2])
        });
        terminal.press("q");
        assert_eq!(terminal.wait_for_end(), 0);
    }
}

#[test]
fn top_asks_the_administration_socket_that_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("elsewhere");
    let path = path.to_str().unwrap();
    let command = PluginCommand::new(ram()).option("CVMFS_CACHE_PLUGIN_ADMIN", path).tcp();
    let plugin = command.option("CVMFS_CACHE_PLUGIN_SIZE", "100").start().unwrap();
    let locator = plugin.locator().to_string();
    let _client = Client::connect(plugin.locator(), "atlas.cern.ch:1").unwrap();
    let mut terminal = Terminal::start(&["top", "--admin", path, &locator], (80, 24));
    terminal.wait_until(|shown| shown.contains("││atlas.cern.ch"));
    terminal.press("q");
    assert_eq!(terminal.wait_for_end(), 0);
    let mut terminal = Terminal::start(&["top", "--admin", "/nowhere", &locator], (80, 24));
    assert_eq!(terminal.wait_for_end(), 1);
    terminal.wait_for("/nowhere");
}

#[test]
fn without_metrics_top_draws_the_rest_and_the_reason() {
    let plugin = Served::new(shelf());
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let metrics = free.port().to_string();
    let arguments = ["top", "--metrics", &metrics, &plugin.locator()];
    let mut terminal = Terminal::start(&arguments, (100, 30));
    terminal.wait_for(&format!("http://{free}/metrics: "));
    terminal.wait_for("Connection refused");
    terminal.wait_for("512.0 MiB of 1.0 GiB");
    terminal.wait_for("listed");
}
