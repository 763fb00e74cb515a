//! The command line of a plugin: a configuration file, or nothing.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use thiserror::Error;

use crate::config_keys::{ConfigKey, KEYS};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arguments {
    /// Serve, with this configuration file.
    Serve(Option<PathBuf>),
    /// Judge this configuration file.
    Check(PathBuf),
    Help,
    Version,
}

#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum BadArguments {
    #[error("unknown option {0:?}: give a configuration file, or --help")]
    Option(OsString),
    #[error("unexpected argument {0:?}: a plugin takes one configuration file; see --help")]
    TooMany(OsString),
    #[error("--check needs the configuration file to judge; see --help")]
    NothingToCheck,
}

impl Arguments {
    pub(super) fn from_env() -> Result<Self, BadArguments> {
        Self::parse(env::args_os().skip(1))
    }

    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, BadArguments> {
        let mut config = None;
        let mut check = false;
        for argument in arguments {
            match argument.to_str() {
                Some("-h" | "--help") => return Ok(Arguments::Help),
                Some("-V" | "--version") => return Ok(Arguments::Version),
                Some("--check") => check = true,
                Some(option) if option.starts_with('-') => {
                    return Err(BadArguments::Option(argument));
                }
                _ if config.is_some() => return Err(BadArguments::TooMany(argument)),
                _ => config = Some(argument.into()),
            }
        }
        match config {
            Some(config) if check => Ok(Arguments::Check(config)),
            None if check => Err(BadArguments::NothingToCheck),
            config => Ok(Arguments::Serve(config)),
        }
    }
}

pub(super) fn version(name: &str, version: &str) -> String {
    format!("cvmcache {name} {version}\n")
}

/// The text of `--help`; `keys` are the plugin's own. help2man makes the manual page from it.
pub(super) fn help(name: &str, keys: &[ConfigKey]) -> String {
    let keys: String = KEYS.iter().chain(keys).map(|key| format!("  {key}\n")).collect();
    format!(
        "\
A cache plugin for CernVM-FS: {name}

Usage: {program} [CONFIG]
       {program} --check CONFIG

CONFIG is a file of KEY=VALUE lines. Without it, the plugin serves a unix socket of its own and
says which one.

Keys:
{keys}
Options:
      --check    say what is wrong with CONFIG, without serving
  -h, --help     print this
  -V, --version  print the version
",
        program = program(),
    )
}

fn program() -> String {
    env::args_os().next().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, BadArguments> {
        Arguments::parse(arguments.iter().map(OsString::from))
    }

    #[test]
    fn one_configuration_file_or_none_is_taken() {
        assert_eq!(parse(&[]), Ok(Arguments::Serve(None)));
        assert_eq!(parse(&["a.conf"]), Ok(Arguments::Serve(Some("a.conf".into()))));
        assert_eq!(parse(&["--check", "a"]), Ok(Arguments::Check("a".into())));
        assert_eq!(parse(&["--check"]), Err(BadArguments::NothingToCheck));
        assert_eq!(parse(&["a", "b"]), Err(BadArguments::TooMany("b".into())));
    }

    #[test]
    fn options_are_told_from_files() {
        assert_eq!(parse(&["--help"]), Ok(Arguments::Help));
        assert_eq!(parse(&["a.conf", "-V"]), Ok(Arguments::Version));
        assert_eq!(parse(&["--size"]), Err(BadArguments::Option("--size".into())));
    }
}
