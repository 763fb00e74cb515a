//! The `KEY=VALUE` configuration files that CernVM-FS sites already have.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use crate::config_keys::{self, ConfigKey};
use crate::files;

/// The configuration of a plugin: keys and values, read from a file.
///
/// The rules are those of the CernVM-FS client's simple parser:
///
/// - A line is `KEY=VALUE`. A `#` starts a comment, wherever it stands.
/// - Blanks around key and value do not count; `readonly `, `export ` or `eval ` before the key is
///   dropped.
/// - Matching single or double quotes around a value of more than two characters are dropped.
/// - A line without `=`, and one with a blank in its key, is skipped. Of two lines with the same
///   key the later one wins.
///
/// Plugins look up keys that begin with `CVMFS_CACHE_PLUGIN_`. Once the options know the
/// [name of the plugin](Self::for_plugin), a key `CVMFS_CACHE_<name>_X` is understood as
/// `CVMFS_CACHE_PLUGIN_X`, which wins if both are there.
///
/// ```
/// use cvmcache::Options;
///
/// let options = Options::parse(b"export CVMFS_CACHE_PLUGIN_SIZE = '1000' # in MB");
/// assert_eq!(options.get("CVMFS_CACHE_PLUGIN_SIZE"), Some("1000".as_ref()));
/// assert_eq!(options.parse_value::<u32>("CVMFS_CACHE_PLUGIN_SIZE")?, Some(1000));
/// assert_eq!(options.parse_value::<u32>("CVMFS_CACHE_PLUGIN_WORKERS")?, None);
/// # Ok::<(), cvmcache::OptionsError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    values: BTreeMap<OsString, OsString>,
    source: Option<PathBuf>,
    plugin: Option<String>,
}

/// Why a configuration cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The file cannot be read.
    #[error(
        "cannot read the configuration file {path:?}: {source}; name a regular file that the plugin's \
         user can read", path = path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A key that must be there is not.
    #[error("{key} is missing{}: {hint}", in_file(file))]
    Missing {
        /// The key.
        key: String,
        /// Where it should be.
        file: Option<PathBuf>,
        /// What to write.
        hint: String,
    },
    /// A value makes no sense.
    #[error("{key}={value:?}{}: {source}", in_file(file))]
    Value {
        /// The key.
        key: String,
        /// Its value.
        value: OsString,
        /// Where it stands.
        file: Option<PathBuf>,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
}

fn in_file(file: &Option<PathBuf>) -> String {
    file.as_ref().map(|file| format!(" in {}", file.display())).unwrap_or_default()
}

impl Options {
    /// No options at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`OptionsError::Read`] if the file cannot be read, is no regular file, or has more than 1 MiB. No
    /// other content is an error: lines that make no sense are skipped.
    pub fn from_file(path: &Path) -> Result<Self, OptionsError> {
        let text = files::read_config(path)
            .map_err(|source| OptionsError::Read { path: path.to_owned(), source })?;
        Ok(Self::parse_file(path, &text))
    }

    /// Reads the text of this file.
    pub(crate) fn parse_file(path: &Path, text: &[u8]) -> Self {
        Self { source: Some(path.to_owned()), ..Self::parse(text) }
    }

    /// The numbers of the lines that are skipped although they are neither empty nor comments.
    #[cfg(feature = "program")]
    pub(crate) fn skipped_lines(text: &[u8]) -> impl Iterator<Item = usize> {
        let says_something = |line: &[u8]| !content(line).trim_ascii().is_empty();
        lines(text)
            .filter(move |(_, line)| says_something(line) && parse_line(line).is_none())
            .map(|(number, _)| number)
    }

    /// The keys that were there in a line before, with the numbers of the lines that win.
    #[cfg(feature = "program")]
    pub(crate) fn repeated_keys(text: &[u8]) -> impl Iterator<Item = (usize, OsString)> {
        let mut seen = std::collections::BTreeSet::new();
        let keys = lines(text).filter_map(|(number, line)| Some((number, parse_line(line)?.0)));
        keys.filter(move |(_, key)| !seen.insert(key.clone()))
    }

    /// Reads the text of a file, which need not be UTF-8. It never fails: see
    /// [`from_file`](Self::from_file).
    pub fn parse(text: &[u8]) -> Self {
        let values = text.split(|&byte| byte == b'\n').filter_map(parse_line).collect();
        Self { values, source: None, plugin: None }
    }

    /// Says for which plugin the options are, such as `ram`: its own keys are understood, too.
    ///
    /// ```
    /// use cvmcache::Options;
    ///
    /// let options = Options::parse(b"CVMFS_CACHE_ram_SIZE=500").for_plugin("ram");
    /// assert_eq!(options.get("CVMFS_CACHE_PLUGIN_SIZE"), Some("500".as_ref()));
    /// assert_eq!(options.written("CVMFS_CACHE_PLUGIN_SIZE"), "CVMFS_CACHE_ram_SIZE");
    /// ```
    #[must_use]
    pub fn for_plugin(mut self, name: impl Into<String>) -> Self {
        self.plugin = Some(name.into());
        self
    }

    /// The file that the options come from, if they were not [parsed](Self::parse) or
    /// [set](Self::set) by the program.
    pub fn source(&self) -> Option<&Path> {
        self.source.as_deref()
    }

    /// The value of a key, which is a text or a [`ConfigKey`]. It need not be UTF-8.
    pub fn get(&self, key: impl AsRef<str>) -> Option<&OsStr> {
        self.find(key.as_ref()).map(|(_, value)| value.as_os_str())
    }

    /// The keys as they stand in the file, sorted. One that is not UTF-8 is none that
    /// [`get`](Self::get) could look up, and left out.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().filter_map(|key| key.to_str())
    }

    /// The keys and values as they stand in the file, sorted by key. They need not be UTF-8.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.values.iter().map(|(key, value)| (key.as_os_str(), value.as_os_str()))
    }

    /// Sets the value of a key, and forgets the one it had.
    pub fn set(&mut self, key: impl Into<OsString>, value: impl Into<OsString>) {
        self.values.insert(key.into(), value.into());
    }

    /// The value of a key as a `T`, or `None` if the key is not there.
    ///
    /// # Errors
    ///
    /// [`OptionsError::Value`] if it is no `T`, or not UTF-8.
    pub fn parse_value<T>(&self, key: impl AsRef<str>) -> Result<Option<T>, OptionsError>
    where
        T: FromStr<Err: Display>,
    {
        let Some(value) = self.get(&key) else { return Ok(None) };
        let parsed = match value.to_str() {
            Some(text) => text.parse().map_err(|error: T::Err| error.to_string()),
            None => Err("it is not UTF-8".to_owned()),
        };
        parsed.map(Some).map_err(|reason| self.bad_value(key, reason))
    }

    /// The value of a key of a table as a `T`, or `None` if the key is not there. If the key has
    /// [bounds](ConfigKey::bounds), the value has to be a whole number within them.
    ///
    /// # Errors
    ///
    /// [`OptionsError::Value`] if it is no `T`, out of its bounds, or not UTF-8.
    pub fn value<T>(&self, key: &ConfigKey) -> Result<Option<T>, OptionsError>
    where
        T: FromStr<Err: Display>,
    {
        if let (Some((min, max)), Some(value)) = (key.number_bounds(), self.get(key)) {
            let number = value.to_str().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
            let number = number.and_then(|text| text.parse::<u64>().ok());
            if !number.is_some_and(|number| (min..=max).contains(&number)) {
                let reason = format!("write a number from {min} to {max}");
                return Err(self.bad_value(key, reason));
            }
        }
        self.parse_value(key)
    }

    /// The error for an invalid value of a key, for a plugin that checks more than
    /// [`parse_value`](Self::parse_value) can.
    ///
    /// ```
    /// use cvmcache::Options;
    ///
    /// let options = Options::parse(b"CVMFS_CACHE_PLUGIN_SIZE=7");
    /// let error = options.bad_value("CVMFS_CACHE_PLUGIN_SIZE", "at least 100 MB are needed");
    /// assert_eq!(error.to_string(), "CVMFS_CACHE_PLUGIN_SIZE=\"7\": at least 100 MB are needed");
    /// ```
    pub fn bad_value(
        &self,
        key: impl AsRef<str>,
        reason: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> OptionsError {
        OptionsError::Value {
            key: self.written(&key),
            value: self.get(&key).unwrap_or_default().to_owned(),
            file: self.source.clone(),
            source: reason.into(),
        }
    }

    /// The error for a missing key, with what to write. If it is missing because of the
    /// encoding of the file, the error states that instead.
    pub fn missing(&self, key: impl AsRef<str>, hint: impl Into<String>) -> OptionsError {
        OptionsError::Missing {
            key: key.as_ref().to_owned(),
            file: self.source.clone(),
            hint: self.encoding_warning().map_or_else(|| hint.into(), Into::into),
        }
    }

    /// What is wrong with the encoding of the file, if that hides a key: some editors begin a file with
    /// a byte-order mark, which is a part of the first key then, as for the client.
    pub fn encoding_warning(&self) -> Option<&'static str> {
        let begins = |mark: &[u8]| self.values.keys().any(|key| key.as_bytes().starts_with(mark));
        if begins(b"\xef\xbb\xbf") {
            Some(
                "the file begins with a byte-order mark, and its first key is not read: save it without",
            )
        } else if begins(b"\xff\xfe") || begins(b"\xfe\xff") {
            Some("the file is UTF-16, and no key of it is read: save it as UTF-8")
        } else {
            None
        }
    }

    /// The key as it stands in the file: it may be one with the plugin's name. A key that is not
    /// there is returned as it is.
    pub fn written(&self, key: impl AsRef<str>) -> String {
        let key = key.as_ref();
        let found = self.find(key).and_then(|(found, _)| found.to_str());
        found.unwrap_or(key).to_owned()
    }

    fn find(&self, key: &str) -> Option<(&OsString, &OsString)> {
        let own = || {
            let name = self.plugin.as_ref()?;
            let rest = key.strip_prefix(config_keys::PREFIX)?;
            self.values.get_key_value(OsStr::new(&format!("CVMFS_CACHE_{name}_{rest}")))
        };
        self.values.get_key_value(OsStr::new(key)).or_else(own)
    }
}

#[cfg(feature = "program")]
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    (1..).zip(text.split(|&byte| byte == b'\n'))
}

/// A line without its comment.
fn content(line: &[u8]) -> &[u8] {
    line.split(|&byte| byte == b'#').next().unwrap_or_default()
}

fn parse_line(line: &[u8]) -> Option<(OsString, OsString)> {
    let content = content(line);
    let equals = content.iter().position(|&byte| byte == b'=')?;
    let (mut key, value) = (content[..equals].trim_ascii(), content[equals + 1..].trim_ascii());
    for prefix in [&b"readonly "[..], b"export ", b"eval "] {
        if let Some(rest) = key.strip_prefix(prefix) {
            key = rest.trim_ascii();
            break;
        }
    }
    if key.is_empty() || key.contains(&b' ') {
        return None;
    }
    let value = match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] if !inner.is_empty() => inner,
        _ => value,
    };
    Some((OsString::from_vec(key.to_vec()), OsStr::from_bytes(value).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_the_client_reads_them() {
        for (line, value) in [
            ("K=v", Some("v")),
            ("  K  =  v w  ", Some("v w")),
            ("K=a=b=c", Some("a=b=c")),
            ("K=v # comment", Some("v")),
            ("K=\"v#w\"", Some("\"v")),
            ("readonly K=v", Some("v")),
            ("export   K=v", Some("v")),
            ("eval K=v", Some("v")),
            ("export readonly K=v", None),
            ("K=\"v w\"", Some("v w")),
            ("K='v'", Some("v")),
            ("K='v\"", Some("'v\"")),
            ("K=''", Some("''")),
            ("K=", Some("")),
            ("K", None),
            ("# K=v", None),
            ("K L=v", None),
            ("=v", None),
            ("K=v\r", Some("v")),
        ] {
            assert_eq!(Options::parse(line.as_bytes()).get("K"), value.map(OsStr::new), "{line:?}");
        }
    }

    #[test]
    fn the_later_of_two_lines_wins() {
        assert_eq!(Options::parse(b"K=1\nK=2\n").get("K"), Some("2".as_ref()));
    }

    #[cfg(feature = "program")]
    #[test]
    fn lines_that_are_skipped_and_keys_that_are_repeated_are_known_by_their_numbers() {
        let text = b"K=1 # one\n\n# K\nK L=1\nwords # here\nL=1\nK=2\n";
        assert_eq!(Vec::from_iter(Options::skipped_lines(text)), [4, 5]);
        assert_eq!(Vec::from_iter(Options::repeated_keys(text)), [(7, "K".into())]);
    }

    #[test]
    fn keys_are_listed_once_and_sorted() {
        let options = Options::parse(b"L=1\nK=1\nL=2\nno line\n\xff=1\n");
        assert_eq!(Vec::from_iter(options.keys()), ["K", "L"]);
        let last = options.iter().last().unwrap();
        assert_eq!(last, (OsStr::from_bytes(b"\xff"), "1".as_ref()));
    }

    #[test]
    fn a_key_with_the_name_of_the_plugin_is_understood() {
        let options = Options::parse(b"CVMFS_CACHE_redis_SIZE=lots\nCVMFS_CACHE_ram_WORKERS=1");
        assert_eq!(options.get("CVMFS_CACHE_PLUGIN_SIZE"), None);
        let mut options = options.for_plugin("redis");
        assert_eq!(options.get("CVMFS_CACHE_PLUGIN_SIZE"), Some("lots".as_ref()));
        assert_eq!(options.get("CVMFS_CACHE_PLUGIN_WORKERS"), None);
        let error = options.parse_value::<u32>("CVMFS_CACHE_PLUGIN_SIZE").unwrap_err().to_string();
        assert!(error.starts_with("CVMFS_CACHE_redis_SIZE=\"lots\": "), "{error}");
        options.set("CVMFS_CACHE_PLUGIN_SIZE", "100");
        assert_eq!(options.get("CVMFS_CACHE_PLUGIN_SIZE"), Some("100".as_ref()));
        assert_eq!(options.written("CVMFS_CACHE_PLUGIN_SIZE"), "CVMFS_CACHE_PLUGIN_SIZE");
    }

    #[test]
    fn an_invalid_value_is_an_error_with_key_value_and_file() {
        let mut options = Options::parse(b"K=many");
        options.source = Some("/etc/ram.conf".into());
        let error = options.parse_value::<u32>("K").unwrap_err().to_string();
        assert_eq!(error, "K=\"many\" in /etc/ram.conf: invalid digit found in string");
        let error = options.missing("L", "write L=1").to_string();
        assert_eq!(error, "L is missing in /etc/ram.conf: write L=1");
    }

    #[test]
    fn a_key_that_is_missing_because_of_the_encoding_of_the_file_is_told_so() {
        let missing = |text: &[u8]| Options::parse(text).missing("K", "write K=1").to_string();
        assert_eq!(missing(b"L=1"), "K is missing: write K=1");
        assert_eq!(missing(b"\xef\xbb\xbf# a comment\nL=1"), "K is missing: write K=1");
        let marked = missing(b"\xef\xbb\xbfK=1\nL=1");
        assert!(
            marked.starts_with("K is missing: the file begins with a byte-order mark"),
            "{marked}"
        );
        let utf16: Vec<u8> = "\u{feff}K=1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(
            missing(&utf16)
                .ends_with("the file is UTF-16, and no key of it is read: save it as UTF-8")
        );
    }

    #[test]
    fn a_number_is_within_the_bounds_of_its_key() {
        let key = ConfigKey::new("K", "N", "a number").bounds(3, 10);
        let value = |text: &str| Options::parse(text.as_bytes()).value::<u8>(&key);
        assert_eq!(value("").unwrap(), None);
        assert_eq!(value("K=3").unwrap(), Some(3));
        assert_eq!(value("K=10").unwrap(), Some(10));
        for text in ["K=2", "K=11", "K=+5", "K=-5", "K=", "K=ten", "K=99999999999999999999"] {
            let error = value(text).unwrap_err().to_string();
            assert!(error.ends_with(": write a number from 3 to 10"), "{error}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
        let error = Options::from_file("/nowhere/ram.conf".as_ref()).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "cannot read the configuration file \"/nowhere/ram.conf\": No such file"
            )
        );
    }
}
