//! The command line of a plugin: a configuration file, or nothing.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// A key of a plugin's own, as `--help` shows it.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) value: &'static str,
    pub(super) meaning: &'static str,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {}={}  {}", self.name, self.value, self.meaning)
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arguments {
    /// Serve, with this configuration file.
    Serve(Option<PathBuf>),
    Help,
    Version,
}

#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum BadArguments {
    #[error("unknown option {0:?}: give a configuration file, or --help")]
    Option(OsString),
    #[error("unexpected argument {0:?}: a plugin takes one configuration file; see --help")]
    TooMany(OsString),
}

impl Arguments {
    pub(super) fn from_env() -> Result<Self, BadArguments> {
        Self::parse(env::args_os().skip(1))
    }

    fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, BadArguments> {
        let mut config = None;
        for argument in arguments {
            match argument.to_str() {
                Some("-h" | "--help") => return Ok(Arguments::Help),
                Some("-V" | "--version") => return Ok(Arguments::Version),
                Some(option) if option.starts_with('-') => {
                    return Err(BadArguments::Option(argument));
                }
                _ if config.is_some() => return Err(BadArguments::TooMany(argument)),
                _ => config = Some(argument.into()),
            }
        }
        Ok(Arguments::Serve(config))
    }
}

pub(super) fn version(name: &str) -> String {
    format!("cvmcache {name} {}\n", env!("CARGO_PKG_VERSION"))
}

pub(super) fn help(name: &str, keys: &[Key]) -> String {
    let own: String = keys.iter().map(Key::to_string).collect();
    format!(
        "\
A cache plugin for CernVM-FS: {name}

Usage: {program} [CONFIG]

CONFIG is a file of KEY=VALUE lines. Without it, the plugin serves a unix socket of its own and
says which one.

Keys:
  CVMFS_CACHE_PLUGIN_LOCATOR=unix=/path/to/socket | tcp=host:port   where clients connect
  CVMFS_CACHE_PLUGIN_WORKERS=N      threads that serve requests; 0 for none besides I/O
  CVMFS_CACHE_PLUGIN_POLL=N         microseconds to look for requests before sleeping; 50 by default
  CVMFS_CACHE_PLUGIN_ALLOW=NETWORK,...     who may connect by TCP; all by default
  CVMFS_CACHE_PLUGIN_ALLOW_USERS=USER,...  who else may connect by a unix socket; * for all
  CVMFS_CACHE_PLUGIN_DEBUGLOG=FILE  log everything to FILE
  CVMFS_CACHE_PLUGIN_CRASH_DUMP=FILE  append what is known of crashes and panics to FILE
  CVMFS_CACHE_PLUGIN_METRICS=127.0.0.1:PORT  serve metrics to Prometheus
  CVMFS_CACHE_PLUGIN_TEST=yes       print the process id and go to the background
{own}
Options:
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
        assert_eq!(parse(&["a", "b"]), Err(BadArguments::TooMany("b".into())));
    }

    #[test]
    fn options_are_told_from_files() {
        assert_eq!(parse(&["--help"]), Ok(Arguments::Help));
        assert_eq!(parse(&["a.conf", "-V"]), Ok(Arguments::Version));
        assert_eq!(parse(&["--size"]), Err(BadArguments::Option("--size".into())));
    }
}
