//! Tables of configuration keys in Markdown files, held to the keys of a program.

use std::env;
use std::fs;
use std::path::Path;

use cvmcache::ConfigKey;

const HEAD: &str = "| key | value | meaning | default |\n|---|---|---|---|\n";

/// Checks that the table behind `marker` in a Markdown file is that of the keys of a program. With
/// `BOOK=overwrite` in the environment, writes the table instead.
///
/// The marker is a line, such as a comment, with its line feed; an empty one is the beginning of the file.
///
/// ```
/// use cvmcache::ConfigKey;
///
/// const SIZE: ConfigKey = ConfigKey::new("CVMFS_CACHE_PLUGIN_SIZE", "MB", "the size of the cache");
///
/// # let directory = tempfile::tempdir()?;
/// # let file = directory.path().join("README.md");
/// # let row = SIZE.markdown_row();
/// # let table = format!("<!-- keys -->\n| key | value | meaning | default |\n|---|---|---|---|\n{row}\n");
/// # std::fs::write(&file, table)?;
/// cvmcache_testkit::check_key_table(&file, "<!-- keys -->\n", &[SIZE]);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Panics
///
/// If the table differs, or if the file cannot be read or lacks the marker.
pub fn check_key_table(file: &Path, marker: &str, keys: &[ConfigKey]) {
    let text = fs::read_to_string(file);
    let text = text.unwrap_or_else(|error| panic!("cannot read {}: {error}", file.display()));
    let fresh = with_table(&text, marker, keys);
    let Some(fresh) = fresh else { panic!("{} lacks {marker:?}", file.display()) };
    if env::var("BOOK").is_ok_and(|value| value == "overwrite") {
        let written = fs::write(file, fresh);
        written.unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
        return;
    }
    assert!(text == fresh, "{}: run this test with BOOK=overwrite", file.display());
}

/// The text with a table of these keys behind the marker, in place of the one that is there.
fn with_table(text: &str, marker: &str, keys: &[ConfigKey]) -> Option<String> {
    let (before, after) = text.split_once(marker)?;
    let old_rows = after.lines().take_while(|line| line.starts_with('|')).count();
    let after: String = after.lines().skip(old_rows).map(|line| format!("{line}\n")).collect();
    let rows: String = keys.iter().map(|key| key.markdown_row() + "\n").collect();
    Some(format!("{before}{marker}{HEAD}{rows}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: ConfigKey = ConfigKey::new("CVMFS_CACHE_PLUGIN_X", "N", "a key");

    #[test]
    fn only_the_table_behind_the_marker_is_replaced() {
        let text = "| a |\n<!-- keys -->\n| old |\n| rows |\n\nafter\n| b |\n";
        let row = KEY.markdown_row();
        let expected = format!("| a |\n<!-- keys -->\n{HEAD}{row}\n\nafter\n| b |\n");
        let fresh = with_table(text, "<!-- keys -->\n", &[KEY]);
        assert_eq!(fresh.as_ref(), Some(&expected));
        assert_eq!(with_table(&expected, "<!-- keys -->\n", &[KEY]), fresh);
        assert_eq!(with_table(text, "<!-- other -->\n", &[KEY]), None);
    }
}
