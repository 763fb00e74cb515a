//! Holds the map of the code in ARCHITECTURE.md to the code: one line a file, which is the first sentence
//! of the file. `MAP=overwrite cargo test -p cvmcache --test map` writes it anew.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

const BEGIN: &str = "<!-- map: written by crates/cvmcache/tests/map.rs -->\n";
const END: &str = "<!-- end of the map -->";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What is in a directory, in the order of the names.
fn sorted(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("a directory");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    // `a.rs` stands before what is in `a/`.
    paths.sort_by_key(|path| path.with_extension(""));
    paths
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let is_test = |path: &Path| path.file_stem().is_some_and(|name| name == "tests");
    let paths = sorted(directory).into_iter().filter(|path| !is_test(path));
    paths
        .flat_map(|path| {
            if path.is_dir() {
                return sources(&path);
            }
            let is_source = path.extension().is_some_and(|extension| extension == "rs");
            if is_source { vec![path] } else { Vec::new() }
        })
        .collect()
}

/// The first sentence of the comment that a file opens with.
fn purpose(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("it can be read");
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    let paragraph: Vec<_> = lines.map(str::trim).take_while(|line| !line.is_empty()).collect();
    let paragraph = paragraph.join(" ");
    let sentence = paragraph.split_inclusive(". ").next().unwrap_or_default().trim_end();
    assert!(sentence.len() > 1, "{} does not say what it is for", file.display());
    sentence.to_owned()
}

fn map() -> String {
    let mut map = String::new();
    for package in sorted(&root().join("crates")) {
        let source = package.join("src");
        let name = package.file_name().expect("a name").to_string_lossy();
        map +=
            &format!("\n### `crates/{name}`\n\n| file in `src/` | what it is for |\n|---|---|\n");
        for file in sources(&source) {
            let path = file.strip_prefix(&source).expect("it is below").display();
            map += &format!("| `{path}` | {} |\n", purpose(&file));
        }
    }
    map + "\n"
}

#[test]
fn the_map_of_the_code_has_a_line_for_each_file() {
    let path = root().join("ARCHITECTURE.md");
    let text = fs::read_to_string(&path).expect("it can be read");
    let (before, rest) = text.split_once(BEGIN).expect("the map begins");
    let (there, after) = rest.split_once(END).expect("the map ends");
    let map = map();
    if env::var_os("MAP").is_some_and(|value| value == "overwrite") {
        fs::write(&path, format!("{before}{BEGIN}{map}{END}{after}")).expect("it can be written");
        return;
    }
    let hint = "run MAP=overwrite cargo test -p cvmcache --test map";
    for line in map.lines() {
        assert!(there.contains(line), "ARCHITECTURE.md lacks, or has otherwise:\n{line}\n{hint}");
    }
    assert_eq!(there, map, "ARCHITECTURE.md has lines of files that are not there: {hint}");
}
