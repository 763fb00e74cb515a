//! The tables of the SDK's configuration keys, in its reference and in the book. They are held to the keys
//! here because the SDK cannot depend on the testkit.

use std::path::Path;

use cvmcache::config_keys::KEYS;
use cvmcache_testkit::check_key_table;

#[test]
fn the_tables_of_configuration_keys_are_those_of_the_sdk() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    check_key_table(&root.join("crates/cvmcache/src/config_keys.md"), "", KEYS);
    let marker = "<!-- configuration keys -->\n";
    check_key_table(&root.join("docs/running-a-plugin.md"), marker, KEYS);
}
