//! The program of a plugin: whether the client can run its file, and whether it supports `--check`.
//!
//! Nothing is run to find out.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use memchr::memmem;

/// The most of a program that is searched for the marker, in bytes.
const MAX_PROGRAM: u64 = 200 * 1024 * 1024;

/// The most of a script that is read, in bytes.
const MAX_SCRIPT: u64 = 64 * 1024;

const ELF: &[u8] = b"\x7fELF";

/// What is in a program's file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Program {
    /// A plugin of the SDK, which understands `--check`.
    Sdk,
    /// Machine code that does not, as far as its file tells.
    Other,
    Script(Script),
    /// Neither machine code nor text.
    Unknown,
}

/// A text that an interpreter runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script {
    /// What its first line names after `#!`.
    pub(super) interpreter: Option<PathBuf>,
    text: Vec<u8>,
}

impl Program {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        Self::recognise(File::open(path)?)
    }

    fn recognise(mut file: impl Read) -> io::Result<Self> {
        let mut begin = Vec::new();
        file.by_ref().take(ELF.len() as u64).read_to_end(&mut begin)?;
        if begin == ELF {
            let is_sdk = has_marker(file.take(MAX_PROGRAM))?;
            return Ok(if is_sdk { Self::Sdk } else { Self::Other });
        }
        let mut text = begin;
        file.take(MAX_SCRIPT).read_to_end(&mut text)?;
        if text.trim_ascii().is_empty() || text.contains(&0) {
            return Ok(Self::Unknown);
        }
        Ok(Self::Script(Script { interpreter: interpreter(&text), text }))
    }
}

impl Script {
    /// The plugin of the SDK that the script names by its whole path, if it is one only.
    pub(super) fn plugin(&self) -> Option<PathBuf> {
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"'\";&|()<>=".contains(byte);
        let words = self.text.split(is_end).filter(|word| word.starts_with(b"/"));
        let paths: BTreeSet<_> = words.map(|word| Path::new(OsStr::from_bytes(word))).collect();
        let is_plugin = |path: &&Path| {
            path.is_file() && Program::read(path).is_ok_and(|program| program == Program::Sdk)
        };
        let mut plugins = paths.into_iter().filter(is_plugin);
        plugins.next().filter(|_| plugins.next().is_none()).map(Path::to_owned)
    }
}

/// The interpreter of a script, as the kernel reads it: execve(2).
fn interpreter(text: &[u8]) -> Option<PathBuf> {
    let line = text.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let words = line.trim_ascii_start().split(|byte| b" \t".contains(byte));
    { words }.next().filter(|path| !path.is_empty()).map(|path| OsStr::from_bytes(path).into())
}

fn has_marker(mut program: impl Read) -> io::Result<bool> {
    let marker = memmem::Finder::new(cvmcache::CHECK_MARKER.trim_end());
    let mut chunk = Vec::new();
    loop {
        // The marker may lie across two chunks.
        let kept = chunk.len().saturating_sub(marker.needle().len());
        chunk.drain(..kept);
        if program.by_ref().take(1 << 20).read_to_end(&mut chunk)? == 0 {
            return Ok(false);
        }
        if marker.find(&chunk).is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn recognise(bytes: &[&[u8]]) -> Program {
        Program::recognise(&bytes.concat()[..]).unwrap()
    }

    #[test]
    fn the_marker_is_found_in_programs_only_and_across_chunks() {
        let marker = cvmcache::CHECK_MARKER.as_bytes();
        let blank = vec![0; (1 << 20) - 10];
        assert_eq!(recognise(&[ELF, &blank, marker]), Program::Sdk);
        assert_eq!(recognise(&[ELF, marker]), Program::Sdk);
        assert_eq!(recognise(&[ELF, &blank]), Program::Other);
        assert!(matches!(recognise(&[b"#!/bin/sh\n", marker]), Program::Script(_)));
        for nothing in [&b""[..], b"\n", b"\0\x01\x02"] {
            assert_eq!(recognise(&[nothing]), Program::Unknown);
        }
    }

    #[test]
    fn the_interpreter_is_what_the_kernel_takes_for_it() {
        for (text, path) in [
            (&b"#!/bin/sh\necho"[..], Some("/bin/sh")),
            (b"#! \t/usr/bin/env bash", Some("/usr/bin/env")),
            (b"#!/bin/sh\r\n", Some("/bin/sh\r")),
            (b"#!\n/bin/sh", None),
            (b"exec /bin/plugin", None),
            (b" #!/bin/sh", None),
        ] {
            assert_eq!(interpreter(text), path.map(PathBuf::from), "{text:?}");
        }
    }

    #[test]
    fn the_plugin_behind_a_script_is_found_if_there_is_one() {
        let directory = tempfile::tempdir().unwrap();
        let [one, two, other] = ["one", "two", "other"].map(|name| directory.path().join(name));
        let plugin = [ELF, cvmcache::CHECK_MARKER.as_bytes()].concat();
        fs::write(&one, &plugin).unwrap();
        fs::write(&two, &plugin).unwrap();
        fs::write(&other, ELF).unwrap();
        let plugin_of = |text: String| match recognise(&[text.as_bytes()]) {
            Program::Script(script) => script.plugin(),
            program => panic!("{program:?}"),
        };
        let [first, second, third] = [&one, &two, &other].map(|path| path.display());
        let text = format!("#!/bin/sh\nX={third} exec '{first}' \"$@\" # {first}");
        assert_eq!(plugin_of(text), Some(one.clone()));
        assert_eq!(plugin_of(format!("{first} {second}")), None);
        assert_eq!(plugin_of(format!("exec {third} plugin")), None);
    }
}
