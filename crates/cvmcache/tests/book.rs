//! Holds the book to the code: links, anchors, quoted code, samples of
//! configuration, and the files that ARCHITECTURE.md names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cvmcache::{Locator, Options};
use pulldown_cmark::{Event, Options as Markdown, Parser, Tag, TagEnd};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("it is there")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages of the book, and the documents beside it.
fn documents() -> Vec<PathBuf> {
    let beside = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"];
    let mut found: Vec<_> = beside.map(|name| root().join(name)).into();
    found.push(root().join("fuzz/README.md"));
    let pages = fs::read_dir(root().join("docs")).expect("a directory");
    found.extend(pages.map(|page| page.expect("an entry").path()));
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.sort();
    found
}

/// Where a document links to, and the anchors of its headings.
fn links_and_anchors(text: &str) -> (Vec<String>, BTreeSet<String>) {
    let (mut links, mut anchors) = (Vec::new(), BTreeSet::new());
    let mut heading = None;
    for event in Parser::new_ext(text, Markdown::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                links.push(dest_url.into_string());
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => anchors.extend(heading.take().map(|h| anchor(&h))),
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    (links, anchors)
}

/// What mdBook and other renderers of Markdown make of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn every_link_has_a_target() {
    let mut dead = Vec::new();
    for document in documents() {
        let (links, _) = links_and_anchors(&read(&document));
        for link in links.iter().filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let directory = document.parent().expect("it is a file");
            let target = if path.is_empty() { document.clone() } else { directory.join(path) };
            let has_anchor =
                || anchor.is_empty() || links_and_anchors(&read(&target)).1.contains(anchor);
            // A book that is read elsewhere has nothing around it.
            let leaves_book = directory.ends_with("docs") && path.starts_with("..");
            if leaves_book || !target.exists() || !has_anchor() {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

#[test]
fn every_page_is_in_the_table_of_contents_once() {
    let summary = root().join("docs/SUMMARY.md");
    let (mut listed, _) = links_and_anchors(&read(&summary));
    listed.sort();
    let pages = documents()
        .into_iter()
        .filter(|path| path.parent() == summary.parent() && *path != summary);
    let names: Vec<_> = pages
        .map(|page| page.file_name().expect("a name").to_string_lossy().into_owned())
        .collect();
    assert_eq!(listed, names);
}

/// What a comment before a block names: a file, or what is between two anchors in one, without
/// anchors of its own.
fn quoted(document: &Path, what: &str) -> String {
    let (path, anchor) = what.split_once(':').unwrap_or((what, ""));
    let text = read(&document.parent().expect("it is a file").join(path));
    let (begin, end) = (format!("// ANCHOR: {anchor}"), format!("// ANCHOR_END: {anchor}"));
    let mut lines = text.lines();
    let kept: Vec<_> = if anchor.is_empty() {
        lines.collect()
    } else {
        assert!(lines.any(|line| line.trim() == begin), "{}: {what}", document.display());
        assert!(text.lines().any(|line| line.trim() == end), "{what} does not end");
        lines.take_while(|line| line.trim() != end).collect()
    };
    let is_anchor = |line: &str| line.trim().starts_with("// ANCHOR");
    kept.into_iter().filter(|line| !is_anchor(line)).map(|line| format!("{line}\n")).collect()
}

/// A document with its quotations as the files have them, and how many there are.
fn with_fresh_quotations(document: &Path) -> (String, usize) {
    let (mut fresh, mut seen) = (String::new(), 0);
    let text = read(document);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        fresh.push_str(line);
        fresh.push('\n');
        let what = line.strip_prefix("<!-- ../").and_then(|rest| rest.strip_suffix(" -->"));
        if let Some(what) = what {
            seen += 1;
            let fence = lines.next().expect("a block");
            assert!(fence.starts_with("```"), "{}: {what}: no block", document.display());
            fresh.push_str(fence);
            fresh.push('\n');
            fresh.push_str(&quoted(document, &format!("../{what}")));
            fresh.push_str("```\n");
            lines.find(|line| *line == "```").expect("the end of the block");
        }
    }
    (fresh, seen)
}

#[test]
fn quotations_in_the_book_equal_their_files() {
    let overwrite = std::env::var("BOOK").is_ok_and(|value| value == "overwrite");
    let mut quotations = 0;
    for document in documents() {
        let (fresh, seen) = with_fresh_quotations(&document);
        quotations += seen;
        if overwrite {
            fs::write(&document, &fresh).expect("it can be written");
        }
        let is_fresh = read(&document) == fresh;
        assert!(is_fresh, "{}: run this test with BOOK=overwrite", document.display());
        // Without mdBook, a reader of the page would see the name of a file.
        assert!(!fresh.contains("{{#include "), "{}", document.display());
    }
    assert!(quotations > 10, "the tutorial is made of them");
}

#[test]
fn the_tutorial_shows_every_line_of_its_program() {
    let page = read(&root().join("docs/tutorial.md"));
    let (first_two, _) = page.split_once("\n## Step 3").expect("the last step");
    let steps = [
        ("directory/reading.rs", first_two.split("\n## Step 2").next().expect("the first step")),
        ("directory/storing.rs", first_two),
        ("directory.rs", &page),
    ];
    for (file, page) in steps {
        let shown: BTreeSet<_> = page.lines().map(str::trim).collect();
        let program = read(&root().join("examples").join(file));
        let lines = program.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        let missing: Vec<_> = lines.filter(|line| !shown.contains(line)).collect();
        assert!(missing.is_empty(), "{file}: {missing:#?}");
    }
}

#[test]
fn all_rust_in_the_book_is_compiled() {
    let crates = ["cvmcache", "cvmcache-testkit"].map(|name| root().join("crates").join(name));
    let doctests: String = crates.iter().map(|package| read(&package.join("src/lib.rs"))).collect();
    for document in documents() {
        let text = read(&document);
        let blocks: Vec<_> = text.split("\n```rust").collect();
        let name = document.file_name().expect("a name").to_string_lossy();
        let is_doctest = doctests.contains(&format!("/{name}\")]"));
        for (before, block) in blocks.iter().zip(blocks.iter().skip(1)) {
            if block.starts_with(",ignore") {
                // What is quoted is compiled where it comes from.
                let is_quoted = before.lines().last().is_some_and(|line| line.ends_with(" -->"));
                assert!(is_quoted, "{name}: code that is ignored");
            } else {
                assert!(is_doctest, "{name}: nobody compiles its code");
            }
        }
    }
}

/// The text of all Rust files below a directory.
fn rust_below(directory: &Path) -> String {
    let entries = fs::read_dir(directory).expect("a directory");
    let text = |path: PathBuf| match path.extension() {
        _ if path.is_dir() => rust_below(&path),
        Some(extension) if extension == "rs" => read(&path),
        _ => String::new(),
    };
    entries.map(|entry| text(entry.expect("an entry").path())).collect()
}

#[test]
fn every_test_that_the_table_of_promises_names_exists() {
    let page = read(&root().join("docs/reliability.md"));
    let code = rust_below(&root().join("crates"));
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = page.split(|c| !is_in_name(c)).filter(|name| {
        name.matches('_').count() > 2 && !name.contains(|c: char| c.is_ascii_uppercase())
    });
    let missing: Vec<_> = names.filter(|name| !code.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_crate_and_the_book_have_the_same_picture_of_callbacks() {
    let crates = read(&root().join("crates/cvmcache/src/life-cycle.svg"));
    assert!(crates == read(&root().join("docs/diagrams/life-cycle.svg")), "copy one to the other");
    assert!(!crates.trim().contains("\n\n"), "a blank line ends HTML in Markdown");
}

#[test]
fn the_porting_page_has_every_name_of_the_c_library() {
    let header = read(&root().join("crates/cvmcache-capi/include/libcvmfs_cache.h"));
    let page = read(&root().join("docs/porting.md"));
    let of = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names = words.filter(|word| word.starts_with("cvmcache_") && !word.ends_with('_'));
        names.map(str::to_owned).collect()
    };
    let (names, told) = (of(&header), of(&page));
    let missing: Vec<_> = names.difference(&told).collect();
    assert!(names.len() > 40 && missing.is_empty(), "{missing:?}");
}

/// The messages in the source, with their fields and what numbers these have.
fn messages() -> Vec<(String, Vec<(String, String)>)> {
    let directory = root().join("crates/cvmcache-proto/src");
    let files = ["wire.rs", "wire/from_client.rs", "wire/from_plugin.rs"];
    let text: String = files.iter().map(|file| read(&directory.join(file))).collect();
    let structs = text.split("pub(crate) struct ").skip(1).filter(|rest| rest.starts_with("Msg"));
    let message = |rest: &str| {
        let (name, rest) = rest.split_once(' ').expect("a name");
        let body = rest.split('}').next().unwrap_or_default();
        let fields = body.split("tag = \"").skip(1).map(|field| {
            let (tag, rest) = field.split_once('"').expect("a number");
            let (_, rest) = rest.split_once("pub(crate) ").expect("a field");
            (rest.split(':').next().unwrap_or_default().to_owned(), tag.to_owned())
        });
        (name.to_owned(), fields.collect())
    };
    structs.map(message).filter(|(name, _)| name != "MsgRpc").collect()
}

#[test]
fn the_protocol_reference_has_every_field_with_its_number() {
    let page = read(&root().join("docs/protocol.md"));
    let wire = read(&root().join("crates/cvmcache-proto/src/wire.rs"));
    let messages = messages();
    let mut missing = Vec::new();
    for (message, fields) in &messages {
        let name = format!("`{message}`");
        let is_row = |row: &&str| row.split('|').skip(1).take(2).any(|cell| cell.contains(&name));
        let row = page.lines().find(is_row).unwrap_or_else(|| panic!("no row for {message}"));
        let variant = format!("({message})");
        if let Some((before, _)) = wire.split_once(&variant) {
            let (_, tag) = before.rsplit_once("tag = \"").expect("its number");
            let number = tag.split('"').next().expect("it ends");
            assert!(row.starts_with(&format!("| {number} |")), "{message} is {number}: {row}");
        }
        // The page says once what they all begin with.
        let common = |name: &str| ["session_id", "req_id", "status"].contains(&name);
        let fields = fields.iter().filter(|(field, _)| !common(field));
        let told = |(field, tag): &&(String, String)| row.contains(&format!(" {tag} `{field}`"));
        missing.extend(fields.filter(|field| !told(field)).map(|field| (message, field)));
    }
    assert!(messages.len() > 20 && missing.is_empty(), "{missing:?}");
}

#[test]
fn the_sample_configurations_parse_and_agree() {
    let sample = |name: &str| {
        let path = root().join("packaging/conf").join(name);
        let text = read(&path);
        let options = Options::from_file(&path).expect("it can be read");
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
        assert_eq!(options.iter().count(), lines, "{name} has a line that is skipped");
        options
    };
    for kind in ["ram", "redis"] {
        let plugin = sample(&format!("cache-{kind}.conf"));
        let client = sample(&format!("client-{kind}.conf"));
        let of_plugin: Option<Locator> =
            plugin.parse_value("CVMFS_CACHE_PLUGIN_LOCATOR").expect("a locator");
        let of_client = client.parse_value(format!("CVMFS_CACHE_{kind}_LOCATOR"));
        assert!(of_plugin.is_some());
        assert_eq!(of_plugin, of_client.expect("a locator"));
        let size = plugin.parse_value::<u32>("CVMFS_CACHE_PLUGIN_SIZE").expect("a number");
        assert!(size.is_some_and(|megabytes| megabytes >= 100));
    }
}
