//! `cvmcache shrink`: have a plugin evict objects.

use std::ffi::OsString;
use std::io::Write;
use std::str::FromStr;

use bytesize::ByteSize;
use clap::Args;
use cvmcache::client::{Client, Shrunk};
use cvmcache::plugin::{CacheInfo, Capabilities, Status};
use thiserror::Error;

use crate::Verdict;
use crate::error::{Error, Result};
use crate::output::{self, WARN};
use crate::remote::Remote;

const EXAMPLES: &str = "\
Examples:
  cvmcache shrink unix=/var/lib/cvmfs/cvmcache-ram.socket 500MiB
  cvmcache shrink 50%    # CVMCACHE_LOCATOR is set
  cvmcache shrink 0

BYTES is how many may stay in use: bytes, or with a unit of 1000 (K, M, G, T) or 1024 (KiB, MiB,
GiB, TiB), or a part of the cache's size, as in 50%.

Objects that somebody holds open stay. If more is left than asked for, the exit status is 1.";

/// Have objects evicted until at most BYTES are in use
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
#[error("{text:?} is not an amount: write bytes, a size as in 500MiB or 2G, or a part as in 50%")]
pub(crate) struct ParseAmountError {
    text: String,
}

impl Shrink {
    pub(crate) fn run(mut self, out: &mut dyn Write) -> Result<Verdict> {
        let amount = self.remote.take_word(self.bytes.take(), "BYTES")?;
        let amount: Amount = amount.to_string_lossy().parse()?;
        let mut client = self.remote.connect_for("shrink", Capabilities::SHRINK)?;
        let before = self.info(&mut client)?;
        let target = match (amount, before) {
            (Amount::Bytes(bytes), _) => bytes,
            (Amount::OfSize(_), Some(CacheInfo { size_bytes: u64::MAX, .. })) => {
                return Err(Error::NoLimit);
            }
            (Amount::OfSize(part), Some(info)) => (info.size_bytes as f64 * part) as u64,
            (Amount::OfSize(_), None) => {
                let locator = self.remote.locator()?;
                return Err(Error::Lacks { locator, needed: Capabilities::INFO });
            }
        };
        let shrunk = client.shrink(target).map_err(|error| self.remote.error(error))?;
        let after = self.info(&mut client)?;
        client.quit().map_err(|error| self.remote.error(error))?;
        report(out, before, shrunk, target, after)
    }

    /// How full it is, if the plugin tells.
    fn info(&self, client: &mut Client) -> Result<Option<CacheInfo>> {
        match client.info() {
            Err(error) if error.status() == Some(Status::NoSupport) => Ok(None),
            info => info.map(Some).map_err(|error| self.remote.error(error)),
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
        None => "what is pinned stays".to_owned(),
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
    fn an_amount_is_bytes_or_a_part_of_the_cache() {
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
    fn what_is_no_amount_is_named() {
        for text in ["", "%", "x", "-1", "101%", "NaN%", "5 foo", "1e3"] {
            let error = text.parse::<Amount>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is not an amount")), "{error}");
        }
    }
}
