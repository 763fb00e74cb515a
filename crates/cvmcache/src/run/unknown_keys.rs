//! Warnings for unknown configuration keys, most of which are misspelled.

use crate::Options;
use crate::config_keys::{self, ConfigKey, KEYS, PREFIX};

/// The client's own keys of a cache instance, which may stand in the same file.
const CLIENT_KEYS: [&str; 2] = ["TYPE", "CMDLINE"];

/// How many keys are reported.
const MAX_WARNINGS: usize = 20;

/// Warnings for the keys that are neither the SDK's nor in the table of the plugin of this name. A
/// plugin without a table may have any key, so only those near to one of the SDK's are reported. The
/// same holds for keys that do not begin as a plugin's do: a file may have keys for others.
pub(super) fn warnings(options: &Options, name: &str, own: &[ConfigKey]) -> Vec<String> {
    let known = || KEYS.iter().chain(own).map(ConfigKey::name);
    let with_name = format!("CVMFS_CACHE_{name}_");
    let warning = |written: &str| {
        if known().any(|known| known == written) {
            return None;
        }
        let rest = match (written.strip_prefix(PREFIX), written.strip_prefix(&with_name)) {
            (Some(rest), _) => rest,
            (None, Some(rest)) if CLIENT_KEYS.contains(&rest) => return None,
            (None, Some(rest)) => rest,
            (None, None) => {
                let meant = meant(written, &with_name, known())?;
                return Some(format!("there is no key {written}: is {meant} meant?"));
            }
        };
        let key = format!("{PREFIX}{rest}");
        if known().any(|known| known == key) {
            return None;
        }
        match config_keys::nearest(&key, known()) {
            Some(nearest) => Some(format!("there is no key {written}: is {nearest} meant?")),
            None if own.is_empty() => None,
            None => Some(format!("there is no key {written}: remove it, or see --help")),
        }
    };
    let in_file = |warning: String| match options.source() {
        Some(file) => format!("{}: {warning}", file.display()),
        None => warning,
    };
    let encoding = options.encoding_warning().map(str::to_owned);
    let mut unknown = options.keys().filter_map(warning);
    let mut warnings: Vec<_> =
        encoding.into_iter().chain(unknown.by_ref().take(MAX_WARNINGS)).collect();
    if unknown.next().is_some() {
        warnings.push("there are more such keys: is it the right file?".to_owned());
    }
    warnings.into_iter().map(in_file).collect()
}

/// The key that one of another prefix was meant to be: letters in the wrong case, the prefix left out or
/// misspelled.
fn meant<'a>(
    written: &str,
    with_name: &str,
    mut known: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let is_written = |key: &str| {
        let rest = key.strip_prefix(PREFIX).unwrap_or(key);
        [key, rest, &format!("{with_name}{rest}")].iter().any(|it| it.eq_ignore_ascii_case(written))
    };
    known.clone().find(|key| is_written(key)).or_else(|| config_keys::nearest(written, &mut known))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: ConfigKey = ConfigKey::new("CVMFS_CACHE_PLUGIN_SIZE", "MB", "how large");

    fn warn(line: &str, own: &[ConfigKey]) -> String {
        let options = Options::parse(line.as_bytes()).for_plugin("ram");
        warnings(&options, "ram", own).join(" ")
    }

    #[test]
    fn a_misspelled_key_is_reported_with_the_nearest_known_one() {
        for line in ["CVMFS_CACHE_PLUGIN_SZIE=1", "CVMFS_CACHE_ram_SZIE=1"] {
            assert!(warn(line, &[SIZE]).ends_with("is CVMFS_CACHE_PLUGIN_SIZE meant?"), "{line}");
        }
        let worker = warn("CVMFS_CACHE_PLUGIN_WORKER=1", &[]);
        assert!(worker.ends_with("is CVMFS_CACHE_PLUGIN_WORKERS meant?"), "{worker}");
    }

    #[test]
    fn a_key_of_the_table_may_have_another_prefix() {
        const BASE: ConfigKey = ConfigKey::new("CVMFS_CACHE_BASE", "DIRECTORY", "where");
        assert_eq!(warn("CVMFS_CACHE_BASE=/x", &[BASE]), "");
        assert!(warn("CVMFS_CACHE_BSAE=/x", &[BASE]).ends_with("is CVMFS_CACHE_BASE meant?"));
    }

    #[test]
    fn a_key_that_is_near_to_none_is_reported_without_a_suggestion() {
        let warning = warn("CVMFS_CACHE_PLUGIN_TYPE=1", &[SIZE]);
        assert_eq!(warning, "there is no key CVMFS_CACHE_PLUGIN_TYPE: remove it, or see --help");
        assert_eq!(warn("CVMFS_CACHE_PLUGIN_DIRECTORY=/", &[]), "", "it may be the plugin's own");
    }

    #[test]
    fn a_prefix_that_is_misspelled_left_out_or_in_the_wrong_case_is_reported() {
        for line in [
            "CVMFS_CACHE_PLUGN_SIZE=1",
            "CVMFS_CACHE_PLUGINS_SIZE=1",
            "CVMFS_CACHE_RAM_SIZE=1",
            "CVMFS_CACHE_Ram_size=1",
            "cvmfs_cache_plugin_size=1",
            "SIZE=1",
        ] {
            let warning = warn(line, &[SIZE]);
            assert!(warning.ends_with("is CVMFS_CACHE_PLUGIN_SIZE meant?"), "{line}: {warning}");
        }
    }

    #[test]
    fn a_file_of_other_keys_is_no_flood_of_warnings_and_delays_no_start() {
        let text: String = (0..20_000).map(|n| format!("CVMFS_CACHE_PLUGIN_K{n}=1\n")).collect();
        let long = format!("{text}CVMFS_CACHE_PLUGIN_{}=1\n", "A".repeat(500_000));
        let options = Options::parse(long.as_bytes()).for_plugin("ram");
        let warnings = warnings(&options, "ram", &[SIZE]);
        assert_eq!(warnings.len(), MAX_WARNINGS + 1);
        assert!(warnings[MAX_WARNINGS].ends_with("is it the right file?"), "{warnings:?}");
    }

    #[test]
    fn a_byte_order_mark_before_the_first_key_is_reported() {
        let warning = warn("\u{feff}CVMFS_CACHE_PLUGIN_POLL=1", &[]);
        assert!(warning.contains("byte-order mark"), "{warning}");
    }

    #[test]
    fn known_keys_and_those_of_clients_and_others_are_not_reported() {
        for line in [
            "CVMFS_CACHE_PLUGIN_POLL=1",
            "CVMFS_CACHE_ram_SIZE=1",
            "CVMFS_CACHE_ram_TYPE=external",
            "CVMFS_CACHE_ram_CMDLINE=/usr/libexec/ram",
            "CVMFS_CACHE_other_SZIE=1",
            "CVMFS_CACHE_PRIMARY=ram",
            "SZIE=1",
        ] {
            assert_eq!(warn(line, &[SIZE]), "", "{line}");
        }
    }
}
