//! A configuration file, with what a plugin or client drops: skipped lines, and repeated keys.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cvmcache::Options;
use nix::fcntl::OFlag;

use super::kind::Kind;
use super::report::Section;

/// No configuration is larger; whatever is, is something else.
const MAX_SIZE: u64 = 1024 * 1024;

/// How many line numbers a finding names.
const MAX_NUMBERS: usize = 5;

#[derive(Debug, Clone)]
pub(crate) struct ConfFile {
    path: PathBuf,
    options: Options,
    /// The plugin whose own keys are understood, too.
    plugin: Option<String>,
    lines: Vec<Line>,
    skipped: Vec<usize>,
}

/// A line that a plugin or client understands.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// The first is 1.
    pub(crate) number: usize,
    pub(crate) key: String,
    /// As the simple rules have it, which are those of plugins.
    pub(crate) value: OsString,
    /// The whole line, for other rules.
    pub(crate) text: Vec<u8>,
}

impl ConfFile {
    /// Reads a file, or adds a finding why that cannot be done.
    pub(crate) fn read(path: &Path, section: &mut Section) -> Option<Self> {
        match read_text(path) {
            Ok(text) => Some(Self::parse(path, &text)),
            Err(error) => {
                let remedy = match error.kind() {
                    io::ErrorKind::PermissionDenied => "run cvmcache doctor as root",
                    _ => "name the right file",
                };
                let found = format!("cannot read {}: {error}", path.display());
                section.found(Kind::FileUnreadable, found, remedy);
                None
            }
        }
    }

    pub(crate) fn parse(path: &Path, text: &[u8]) -> Self {
        let (mut lines, mut skipped) = (Vec::new(), Vec::new());
        for (number, text) in (1..).zip(text.split(|&byte| byte == b'\n')) {
            // One line by itself, by the rules that hold for all of them.
            let options = Options::parse(text);
            let assignment = options.keys().find_map(|key| Some((key, options.get(key)?)));
            match assignment {
                Some((key, value)) => {
                    let (key, value) = (key.to_owned(), value.to_owned());
                    lines.push(Line { number, key, value, text: text.to_owned() });
                }
                None if matches!(text.trim_ascii(), [] | [b'#', ..]) => {}
                None => skipped.push(number),
            }
        }
        let (path, options) = (path.to_owned(), Options::parse(text));
        Self { path, options, plugin: None, lines, skipped }
    }

    /// The same, with the keys of a plugin of this name.
    pub(crate) fn for_plugin(self, name: String) -> Self {
        let options = self.options.for_plugin(name.clone());
        Self { options, plugin: Some(name), ..self }
    }

    /// The keys: as they stand there, and as plugins look them up.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&str, String)> {
        let own = self.plugin.as_ref().map(|name| format!("CVMFS_CACHE_{name}_"));
        self.options.keys().map(move |key| {
            let rest = own.as_ref().and_then(|own| key.strip_prefix(own.as_str()));
            (key, rest.map_or(key.to_owned(), |rest| format!("CVMFS_CACHE_PLUGIN_{rest}")))
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The value of a key, by the simple rules.
    pub(crate) fn get(&self, key: &str) -> Option<&OsStr> {
        self.options.get(key)
    }

    /// The text of which lines hold neither a key nor a comment.
    pub(crate) fn skipped(&self) -> Option<String> {
        numbers(&self.skipped)
    }

    /// Finds keys with several values, among those that start so.
    pub(crate) fn check_twice(&self, prefix: &str, section: &mut Section) {
        let mut by_key = BTreeMap::<_, Vec<&Line>>::new();
        for line in self.lines.iter().filter(|line| line.key.starts_with(prefix)) {
            by_key.entry(&line.key).or_default().push(line);
        }
        for (key, lines) in by_key {
            if lines.iter().all(|line| line.value == lines[0].value) {
                continue;
            }
            let numbers = numbers(&Vec::from_iter(lines.iter().map(|line| line.number)));
            let found = format!("{key} has several values, in {}", numbers.unwrap_or_default());
            let remedy = format!("keep one of them in {}", self.path.display());
            section.found(Kind::KeyTwice, found, remedy);
        }
    }
}

fn numbers(lines: &[usize]) -> Option<String> {
    let some = lines.iter().take(MAX_NUMBERS).map(usize::to_string).collect::<Vec<_>>();
    let rest = match lines.len().saturating_sub(MAX_NUMBERS) {
        0 => String::new(),
        rest => format!(" and {rest} more"),
    };
    match some.as_slice() {
        [] => None,
        [one] => Some(format!("line {one}")),
        several => Some(format!("lines {}{rest}", several.join(", "))),
    }
}

fn read_text(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its other end.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut text = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(io::Error::other("it is too large for a configuration"));
    }
    if text.contains(&0) {
        return Err(io::Error::other("it is not a text file"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreadable(path: &Path) -> bool {
        let mut section = Section::new("file");
        let file = ConfFile::read(path, &mut section);
        assert_eq!(file.is_none(), section.kinds() == [Kind::FileUnreadable]);
        file.is_none()
    }

    #[test]
    fn a_file_that_is_no_configuration_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"\x7fELF\0\0").unwrap();
        assert!(unreadable(&path));
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(unreadable(&path));
        assert!(unreadable(directory.path()));
        assert!(unreadable(Path::new("/dev/zero")));
        assert!(unreadable(Path::new("/nowhere")));
        std::fs::write(&path, b"").unwrap();
        assert!(!unreadable(&path));
    }

    #[test]
    fn skipped_lines_are_counted() {
        let file = ConfFile::parse(Path::new("f"), b"K=1\n\nif true\n  # no\nL = 2 # yes\nK M=1");
        assert_eq!(file.skipped().as_deref(), Some("lines 3, 6"));
        let keys = file.lines().iter().map(|line| (line.number, line.key.as_str()));
        assert_eq!(Vec::from_iter(keys), [(1, "K"), (5, "L")]);
    }

    #[test]
    fn a_key_with_two_values_is_found() {
        let file = ConfFile::parse(Path::new("f"), b"K=1\nL=1\nK=2\nL=1\nK=1");
        let mut section = Section::new("file");
        file.check_twice("", &mut section);
        assert_eq!(section.kinds(), [Kind::KeyTwice]);
    }
}
