//! The size of the cache: the value of `CVMFS_CACHE_PLUGIN_SIZE`.

use std::error::Error;
use std::io;
use std::str::FromStr;

use cvmcache::{ConfigKey, Options, percent_of};
use nix::sys::sysinfo::sysinfo;
use thiserror::Error;

/// A size as a configuration states it: `1000` megabytes, or `25%` of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheSize {
    /// So many bytes.
    Bytes(u64),
    /// So many percent of the physical memory, 1 to 100.
    PercentOfMemory(u64),
}

/// Why a text is not a cache size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} {problem}: write megabytes, as in 1000, or 1% to 100% of the memory, as in 25%")]
pub struct ParseCacheSizeError {
    text: String,
    problem: &'static str,
}

impl CacheSize {
    /// The key in the configuration.
    pub const KEY: ConfigKey = ConfigKey::new(
        "CVMFS_CACHE_PLUGIN_SIZE",
        "MB|N%",
        "how much memory the cache may take, in megabytes of 1024 KiB or as a share of the \
         machine's; at least 100 MB",
    )
    .default_value("1000");

    /// With less than this, the catalogs of a few repositories fill the cache and pin it.
    pub const MINIMUM: u64 = 100 * MEGABYTE;

    /// The size in bytes that the options state, or the default.
    ///
    /// # Errors
    ///
    /// If it is invalid, or the memory of the system is not known.
    pub fn from_options(options: &Options) -> Result<u64, Box<dyn Error + Send + Sync>> {
        Ok(options.value::<Self>(&Self::KEY)?.unwrap_or_default().to_bytes()?)
    }

    /// The size in bytes, but at least [`CacheSize::MINIMUM`], which is logged as a warning.
    ///
    /// # Errors
    ///
    /// If the memory of the system is not known.
    pub fn to_bytes(self) -> io::Result<u64> {
        let memory = sysinfo()?.ram_total();
        let bytes = match self {
            CacheSize::Bytes(bytes) => bytes,
            CacheSize::PercentOfMemory(percent) => percent_of(memory, percent),
        };
        if bytes > memory {
            tracing::warn!(
                "{}: {bytes} bytes are more than the {memory} that this machine has; \
                 write a share of it, as in 25%",
                Self::KEY.name()
            );
        }
        if bytes < Self::MINIMUM {
            tracing::warn!(
                "{}: {bytes} bytes are too few for a cache, using {minimum} MB; \
                 write {minimum} or more",
                Self::KEY.name(),
                minimum = Self::MINIMUM / MEGABYTE
            );
        }
        Ok(bytes.max(Self::MINIMUM))
    }
}

impl Default for CacheSize {
    fn default() -> Self {
        CacheSize::Bytes(1000 * MEGABYTE)
    }
}

impl FromStr for CacheSize {
    type Err = ParseCacheSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |problem| ParseCacheSizeError { text: text.to_owned(), problem };
        let (digits, is_percentage) = match text.strip_suffix('%') {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        // The standard parser would take a plus sign.
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error("is not a cache size"));
        }
        // All that can fail now is that the number is too large, for either unit.
        let number = digits.parse::<u64>().ok();
        if is_percentage {
            let percent = number.filter(|percent| (1..=100).contains(percent));
            return percent
                .map(CacheSize::PercentOfMemory)
                .ok_or_else(|| error("is not a share of the memory"));
        }
        number
            .and_then(|megabytes| megabytes.checked_mul(MEGABYTE))
            .map(CacheSize::Bytes)
            .ok_or_else(|| error("is more than any machine has"))
    }
}

const MEGABYTE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_megabytes_or_a_percentage_of_memory() {
        for (text, size) in [
            ("1000", CacheSize::Bytes(1000 * MEGABYTE)),
            ("0", CacheSize::Bytes(0)),
            ("17592186044415", CacheSize::Bytes(u64::MAX - MEGABYTE + 1)),
            ("1%", CacheSize::PercentOfMemory(1)),
            ("100%", CacheSize::PercentOfMemory(100)),
        ] {
            assert_eq!(text.parse(), Ok(size), "{text}");
        }
    }

    #[test]
    fn an_invalid_size_is_an_error_with_a_remedy() {
        for text in [
            "",
            "%",
            "0%",
            "101%",
            "-1",
            "-1%",
            "+5",
            "1.5",
            "1 000",
            "1000MB",
            "10%%",
            "10 %",
            "ten",
            "17592186044416",
            "18446744073709551616",
            "18446744073709551617%",
        ] {
            let error = text.parse::<CacheSize>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is ")), "{error}");
            assert!(error.contains("as in 1000") && error.contains("as in 25%"), "{error}");
        }
    }

    #[test]
    fn an_error_in_a_configuration_names_the_key() {
        let options = Options::parse(b"CVMFS_CACHE_PLUGIN_SIZE=lots");
        let error = options.value::<CacheSize>(&CacheSize::KEY).unwrap_err().to_string();
        assert!(error.starts_with("CVMFS_CACHE_PLUGIN_SIZE=\"lots\": \"lots\" is not"), "{error}");
    }

    #[test]
    fn a_size_below_the_minimum_is_raised() {
        assert_eq!(CacheSize::Bytes(0).to_bytes().unwrap(), 100 * MEGABYTE);
        assert_eq!(CacheSize::Bytes(101 * MEGABYTE).to_bytes().unwrap(), 101 * MEGABYTE);
        assert_eq!(CacheSize::default().to_bytes().unwrap(), 1000 * MEGABYTE);
    }

    #[test]
    fn a_percentage_is_of_the_physical_memory() {
        let memory = sysinfo().unwrap().ram_total();
        assert_eq!(CacheSize::PercentOfMemory(100).to_bytes().unwrap(), memory);
    }
}
