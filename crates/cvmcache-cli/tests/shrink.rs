//! `cvmcache shrink`, as its users see it.

mod support;

use std::fs;

use cvmcache::client::Client;
use cvmcache::plugin::Capabilities;
use snapbox::str;
use support::shelf::{Served, Shelf};
use support::{cvmcache, start_ram};

#[test]
fn shrink_evicts_objects_that_are_not_pinned() {
    let plugin = start_ram();
    let locator = plugin.locator().to_string();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, vec![0; 20 << 20]).unwrap();
    let put = cvmcache(&["put", &locator, path.to_str().unwrap()]).assert().success();
    let id = String::from_utf8(put.get_output().stdout.clone()).unwrap();

    let shrink = |amount| cvmcache(&["shrink", &locator, amount]).assert().stderr_eq("");
    shrink("50%").success().stdout_eq(str![[r#"
used          20.[..] MiB → 20.[..] MiB

"#]]);
    let mut client = Client::connect(plugin.locator(), "test:1").unwrap();
    let id = id.trim().parse().unwrap();
    client.open(&id).unwrap();
    shrink("10MiB").code(1).stdout_eq(str![[r#"
used          20.[..] MiB → 20.[..] MiB
not done      more than 10.0 MiB is in use: 20.[..] MiB are pinned

"#]]);
    client.close(&id).unwrap();
    shrink("10M").success().stdout_eq(str![[r#"
used          20.[..] MiB → 0 B

"#]]);
}

#[test]
fn an_invalid_amount_is_an_error() {
    for amount in ["lots", "101%", "5 feet", ""] {
        let shrink = cvmcache(&["shrink", "unix=/nowhere", amount]).assert().code(2);
        shrink.stdout_eq("").stderr_eq(format!(
            "cvmcache: {amount:?} is not an amount: write bytes, a size as in 500MiB or 2G, or a \
             percentage as in 50%\n"
        ));
    }
}

#[test]
fn a_percentage_of_a_cache_without_a_limit_is_an_error() {
    let mut shelf = Shelf::new(vec![]);
    shelf.info.size_bytes = u64::MAX;
    let plugin = Served::new(shelf);
    let shrink = cvmcache(&["shrink", &plugin.locator(), "50%"]).assert().code(1);
    shrink.stdout_eq("").stderr_eq(str![[r#"
cvmcache: the cache has no size limit, so a percentage means nothing: write how many bytes, as in 500MiB

"#]]);
}

#[test]
fn shrink_names_the_missing_capability() {
    let lacking = |capability| {
        let capabilities = Capabilities::ALL.difference(capability);
        Served::new(Shelf { capabilities, ..Shelf::new(vec![]) })
    };
    let plugin = lacking(Capabilities::SHRINK);
    let shrink = cvmcache(&["shrink", &plugin.locator(), "0"]).assert().code(1);
    shrink.stdout_eq("").stderr_eq(str![[r#"
cvmcache: unix=[..]/socket: the plugin lacks the capability "shrink": it does not evict objects on request

"#]]);
    let plugin = lacking(Capabilities::INFO);
    let shrink = cvmcache(&["shrink", &plugin.locator(), "50%"]).assert().code(1);
    shrink.stdout_eq("").stderr_eq(str![[r#"
cvmcache: unix=[..]/socket: the plugin lacks the capability "info": it does not report its size and fill

"#]]);
    let shrink = cvmcache(&["shrink", &plugin.locator(), "1G"]).assert().success();
    shrink
        .stdout_eq(str![[r#"
used          128.0 MiB

"#]])
        .stderr_eq("");
}
