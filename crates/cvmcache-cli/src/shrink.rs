//! `cvmcache shrink`: requests a plugin to evict objects.

use std::ffi::OsString;
use std::io::Write;
use std::str::FromStr;

use bytesize::ByteSize;
use clap::Args;
use cvmcache::client::{Client, Shrunk};
use cvmcache::plugin::{CacheInfo, Capabilities, Status};
use thiserror::Error;

use crate::Verdict;
use crate::error::{self, Result};
use crate::output::{self, WARN};
use crate::remote::{self, Remote};

const EXAMPLES: &str = "\
Examples:
  cvmcache shrink unix=/var/lib/cvmfs/cvmcache-ram.socket 500MiB
  cvmcache shrink 50%    # CVMCACHE_LOCATOR is set
  cvmcache shrink 0

BYTES is how many may stay in use: bytes, or with a unit of 1000 (K, M, G, T) or 1024 (KiB, MiB,
GiB, TiB), or a percentage of the cache's size, as in 50%.

Pinned objects stay: a client holds them open. The exit status is 1 if more than BYTES are in use
afterwards.";

/// Evict objects until at most BYTES are in use
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, override_usage = "cvmcache shrink [OPTIONS] [LOCATOR] <BYTES>")]
pub(crate) struct Shrink {
    #[command(flatten)]
    remote: Remote,
    /// How much may stay in use, as in 500MiB, 2G, 50% or 0
    bytes: Option<OsString>,
}

/// How much may stay in use.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Amount {
    Bytes(u64),
    /// From 0 to 1.
    OfSize(f64),
}

#[derive(Debug, Error)]
#[error(
    "{text:?} is not an amount: write bytes, a size as in 500MiB or 2G, or a percentage as in 50%"
)]
pub(crate) struct ParseAmountError {
    text: String,
}

/// Why no shrink is requested of a plugin.
#[derive(Debug, Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Amount(#[from] ParseAmountError),
    #[error(
        "the cache has no size limit, so a percentage means nothing: write how many bytes, as in \
         500MiB"
    )]
    NoSizeLimit,
}

impl From<Error> for error::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Amount(_) => Self::usage(error),
            Error::NoSizeLimit => Self::failed(error),
        }
    }
}

impl Shrink {
    pub(crate) fn run(mut self, out: &mut dyn Write) -> Result<Verdict> {
        let amount = self.remote.take_argument(self.bytes.take(), "BYTES")?;
        let amount: Amount = amount.to_string_lossy().parse().map_err(Error::Amount)?;
        let mut client = self.remote.connect_for("shrink", Capabilities::SHRINK)?;
        let before = self.info(&mut client)?;
        let target = match (amount, before) {
            (Amount::Bytes(bytes), _) => bytes,
            (Amount::OfSize(_), Some(CacheInfo { size_bytes: u64::MAX, .. })) => {
                return Err(Error::NoSizeLimit.into());
            }
            (Amount::OfSize(part), Some(info)) => (info.size_bytes as f64 * part) as u64,
            (Amount::OfSize(_), None) => {
                let locator = self.remote.locator()?;
                return Err(remote::Error::Lacks { locator, needed: Capabilities::INFO }.into());
            }
        };
        let shrunk = client.shrink(target).map_err(|error| self.remote.error(error))?;
        let after = self.info(&mut client)?;
        client.quit().map_err(|error| self.remote.error(error))?;
        report(out, before, shrunk, target, after)
    }

    /// The fill, if the plugin reports it.
    fn info(&self, client: &mut Client) -> Result<Option<CacheInfo>> {
        match client.info() {
            Err(error) if error.status() == Some(Status::NoSupport) => Ok(None),
            info => Ok(info.map(Some).map_err(|error| self.remote.error(error))?),
        }
    }
}

fn report(
    out: &mut dyn Write,
    before: Option<CacheInfo>,
    shrunk: Shrunk,
    target: u64,
    after: Option<CacheInfo>,
) -> Result<Verdict> {
    let used = output::bytes(shrunk.used_bytes);
    match before {
        Some(before) => {
            writeln!(out, "used          {} → {used}", output::bytes(before.used_bytes))?;
        }
        None => writeln!(out, "used          {used}")?,
    }
    if !shrunk.partial && shrunk.used_bytes <= target {
        return Ok(Verdict::Good);
    }
    let pinned = match after {
        Some(after) => format!("{} are pinned", output::bytes(after.pinned_bytes)),
        None => "pinned objects stay".to_owned(),
    };
    let target = output::bytes(target);
    writeln!(out, "{WARN}not done{WARN:#}      more than {target} is in use: {pinned}")?;
    Ok(Verdict::Bad)
}

impl FromStr for Amount {
    type Err = ParseAmountError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let error = || ParseAmountError { text: text.to_owned() };
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse::<f64>() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => {
                    Ok(Self::OfSize(percent / 100.0))
                }
                _ => Err(error()),
            },
            None => match text.parse::<ByteSize>() {
                Ok(ByteSize(bytes)) => Ok(Self::Bytes(bytes)),
                Err(_) => Err(error()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_bytes_or_a_percentage_of_the_size() {
        for (text, amount) in [
            ("0", Amount::Bytes(0)),
            ("4096", Amount::Bytes(4096)),
            ("2G", Amount::Bytes(2_000_000_000)),
            ("500MiB", Amount::Bytes(500 << 20)),
            ("1.5 GiB", Amount::Bytes(3 << 29)),
            ("50%", Amount::OfSize(0.5)),
            ("12.5%", Amount::OfSize(0.125)),
        ] {
            assert_eq!(text.parse::<Amount>().unwrap(), amount);
        }
    }

    #[test]
    fn an_invalid_amount_is_named_in_the_error() {
        for text in ["", "%", "x", "-1", "101%", "NaN%", "5 foo", "1e3"] {
            let error = text.parse::<Amount>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is not an amount")), "{error}");
        }
    }
}
