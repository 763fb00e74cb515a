//! `cvmcache info`, as its users see it.

mod support;

use cvmcache::plugin::Capabilities;
use snapbox::str;
use support::shelf::{Served, Shelf};
use support::{cvmcache, start_ram};

#[test]
fn info_prints_capabilities_size_and_fill() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    cvmcache(&["info", &locator]).assert().success().stderr_eq("").stdout_eq(str![[r#"
cvmcache ram at unix=[..]/socket, process [..]
can           write, refcount, shrink, info, shrink-rate, list, breadcrumb
part size     256.0 KiB
size          100.0 MiB
used          0 B         ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   0 %
pinned        0 B         ░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░   0 %
clean-ups     0
hits          0
misses        0

"#]]);
}

#[test]
fn a_locator_without_a_listener_is_an_error_with_a_remedy() {
    cvmcache(&["info", "unix=/nowhere"]).assert().code(1).stdout_eq("").stderr_eq(str![[r#"
cvmcache: cannot connect to unix=/nowhere: /nowhere does not exist, so no plugin runs there: start the plugin, or compare the locator with CVMFS_CACHE_PLUGIN_LOCATOR in its configuration

"#]]);
}

#[test]
fn the_locator_may_come_from_the_environment() {
    cvmcache(&["info"]).assert().code(2).stderr_eq(str![[r#"
cvmcache: which plugin? Name its locator, as in unix=/path/to/socket or tcp=host:port, or set CVMCACHE_LOCATOR

"#]]);
    let plugin = start_ram();
    let command = cvmcache(&["info", "--json"]);
    command.env("CVMCACHE_LOCATOR", plugin.locator().to_string()).assert().success();
}

#[test]
fn info_prints_a_cache_without_a_limit_and_a_name_that_is_not_utf8() {
    let mut shelf = Shelf::new(vec![]);
    shelf.info.size_bytes = u64::MAX;
    shelf.info.shrink_count = None;
    let plugin = Served::named(b"caf\xe9\x1b[2J", shelf);
    cvmcache(&["info", &plugin.locator()]).assert().success().stderr_eq("").stdout_eq(str![[r#"
caf/xe9/u{1b}[2J at unix=[..]/socket, process [..]
can           write, refcount, shrink, info, shrink-rate, list, breadcrumb
part size     256.0 KiB
size          no limit
used          512.0 MiB
pinned        128.0 MiB

"#]]);
}

#[test]
fn info_prints_that_the_fill_is_not_reported() {
    let capabilities = Capabilities::NONE;
    let plugin = Served::new(Shelf { capabilities, ..Shelf::new(vec![]) });
    cvmcache(&["info", &plugin.locator()]).assert().success().stderr_eq("").stdout_eq(str![[r#"
shelf at unix=[..]/socket, process [..]
can           none
part size     256.0 KiB
fill          not reported

"#]]);
}
