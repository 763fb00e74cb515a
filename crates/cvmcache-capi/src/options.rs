//! The map of options: keys, values and their sources.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use cvmcache::{Options, OptionsError};

use crate::ffi::report_error;

/// Where options come from that are in no file.
const INTERNAL: &str = "@INTERNAL@";

/// Options that a plugin has set, or read from files.
#[derive(Debug, Clone)]
pub struct OptionMap(BTreeMap<OsString, Entry>);

#[derive(Debug, Clone)]
struct Entry {
    value: OsString,
    source: OsString,
}

impl OptionMap {
    /// What every map begins with: the directory of mounts.
    pub(crate) fn new() -> Self {
        let mut map = Self(BTreeMap::new());
        map.set("CVMFS_MOUNT_DIR".as_ref(), "/cvmfs".as_ref());
        map
    }

    pub(crate) fn set(&mut self, key: &OsStr, value: &OsStr) {
        self.insert(key, value, INTERNAL.as_ref());
    }

    pub(crate) fn unset(&mut self, key: &OsStr) {
        self.0.remove(key);
    }

    pub(crate) fn parse(&mut self, path: &Path) -> Result<(), OptionsError> {
        let options = Options::from_file(path)?;
        if let Some(warning) = options.encoding_warning() {
            report_error(format_args!("{}: {warning}", path.display()));
        }
        for (key, value) in options.iter() {
            self.insert(key, value, path.as_os_str());
        }
        Ok(())
    }

    pub(crate) fn get(&self, key: &OsStr) -> Option<&OsStr> {
        self.0.get(key).map(|entry| entry.value.as_os_str())
    }

    /// A line for each option, with its value as a shell takes it.
    pub(crate) fn dump(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for (key, entry) in &self.0 {
            text.extend(key.as_bytes());
            text.push(b'=');
            quote(&mut text, entry.value.as_bytes());
            text.extend(b"    # from ");
            text.extend(entry.source.as_bytes());
            text.push(b'\n');
        }
        text
    }

    fn insert(&mut self, key: &OsStr, value: &OsStr, source: &OsStr) {
        let entry = Entry { value: value.to_owned(), source: source.to_owned() };
        self.0.insert(key.to_owned(), entry);
    }
}

/// Appends a value, in single quotes if a shell would make something else of it.
fn quote(text: &mut Vec<u8>, value: &[u8]) {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/:._-,".contains(byte);
    if value.iter().all(is_plain) {
        text.extend(value);
        return;
    }
    text.push(b'\'');
    for &byte in value {
        if byte == b'\'' {
            text.push(b'\\');
        }
        text.push(byte);
    }
    text.push(b'\'');
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_later_value_wins_and_an_unset_key_is_absent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("conf");
        fs::write(&path, b"A=file\nB=file\n\xff\n").unwrap();
        let mut map = OptionMap::new();
        map.set("A".as_ref(), "set".as_ref());
        map.parse(&path).unwrap();
        assert_eq!(map.get("A".as_ref()), Some("file".as_ref()));
        map.set("B".as_ref(), "set".as_ref());
        let copy = map.clone();
        map.unset("A".as_ref());
        map.unset("nothing".as_ref());
        assert_eq!(map.get("A".as_ref()), None);
        assert_eq!(map.get("B".as_ref()), Some("set".as_ref()));
        assert_eq!(copy.get("A".as_ref()), Some("file".as_ref()));
        assert!(map.parse(Path::new("/nowhere/conf")).is_err());
    }

    #[test]
    fn a_dump_has_shell_quoted_values_and_their_source() {
        let mut map = OptionMap::new();
        map.set("A".as_ref(), "it's $HOME".as_ref());
        assert_eq!(
            String::from_utf8(map.dump()).unwrap(),
            "A='it\\'s $HOME'    # from @INTERNAL@\nCVMFS_MOUNT_DIR=/cvmfs    # from @INTERNAL@\n"
        );
    }
}
