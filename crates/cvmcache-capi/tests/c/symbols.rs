//! The names in the library: those of the header, and no others.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::install::{PREFIX, run};

fn nm(library: &str, arguments: &[&str]) -> BTreeSet<String> {
    let path = PREFIX.join("lib").join(library);
    let listed = run(Command::new("nm").args(arguments).arg(path), "binutils");
    listed.lines().filter_map(|line| line.split(' ').next_back()).map(str::to_owned).collect()
}

/// The names of functions of the library in a text, each followed by a character that `is_next` accepts.
fn functions(text: &str, is_next: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = text.match_indices("cvmcache_").map(|(at, _)| at);
    let starts = starts.filter(|&at| !text[..at].ends_with(is_part));
    let words = starts.map(|at| {
        let rest = &text[at..];
        rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()))
    });
    words.filter(|(_, rest)| is_next(rest)).map(|(word, _)| word.to_owned()).collect()
}

fn in_header() -> BTreeSet<String> {
    let header =
        fs::read_to_string(PREFIX.join("include/libcvmfs_cache.h")).expect("it is installed");
    functions(&header, |rest| rest.starts_with('('))
}

#[test]
fn the_shared_library_has_the_functions_of_the_header_and_no_others() {
    let header = in_header();
    assert_eq!(header.len(), 26);
    assert_eq!(nm("libcvmfs_cache.so", &["-D", "--defined-only"]), header);
}

#[test]
fn the_static_library_has_all_functions() {
    let symbols = nm("libcvmfs_cache.a", &["-g", "--defined-only"]);
    for function in in_header() {
        assert!(symbols.contains(&function), "{function} is missing");
    }
}

#[test]
fn the_documentation_lists_the_functions() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/c-plugins.md");
    let page = fs::read_to_string(path).unwrap();
    let (_, list) = page.split_once("\n## Functions\n").expect("a list of functions");
    let list = list.split("\n## ").next().unwrap();
    assert_eq!(functions(list, |_| true), in_header());
}

#[test]
fn the_shared_library_has_the_soname_of_the_reference_library() {
    let path = PREFIX.join("lib/libcvmfs_cache.so");
    let dynamic = run(Command::new("readelf").arg("-d").arg(path), "binutils");
    assert!(dynamic.contains("soname: [libcvmfs_cache.so.2.12.0]"), "{dynamic}");
    // cargo-c makes the same of what is in the manifest.
    let manifest = include_str!("../../Cargo.toml");
    for line in ["name = \"cvmfs_cache\"", "version = \"2.12.0\"", "version_suffix_components = 3"]
    {
        assert!(manifest.lines().any(|l| l == line), "{line}");
    }
}
