//! The size of the cache: the value of `CVMFS_CACHE_PLUGIN_SIZE`.

use std::io;
use std::str::FromStr;

use cvmcache::{ConfigKey, MemoryLimit, Options, OptionsError, percent_of};
use thiserror::Error;

/// A size as a configuration states it: `1000` megabytes, or `25%` of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheSize {
    /// So many bytes.
    Bytes(u64),
    /// So many percent of the memory that the machine has, or that the cgroups of the process allow, 1 to
    /// 100.
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
         machine's or the memory cgroup's; at least 100 MB",
    )
    .default_value("1000");

    /// With less than this, the catalogs of a few repositories fill the cache and pin it.
    pub const MINIMUM: u64 = 100 * MEGABYTE;

    /// Beside the cache there are the buffers of connections, and the rest of the machine.
    const MUCH_PERCENT: u64 = 80;

    /// The size in bytes that the options state, or the default, and what is wrong with it although it
    /// can be used.
    ///
    /// # Errors
    ///
    /// If it makes no sense.
    pub(crate) fn from_options(options: &Options) -> Result<(u64, Vec<String>), OptionsError> {
        let size = options.value::<Self>(&Self::KEY)?.unwrap_or_default();
        Ok(size.judged(&MemoryLimit::physical(), MemoryLimit::allocatable().as_ref()))
    }

    /// The size in bytes, but at least [`CacheSize::MINIMUM`]. A share is one of the memory that the
    /// process may take: that of the machine, or the least that a memory cgroup of the process allows.
    pub fn to_bytes(self) -> u64 {
        self.bytes_of(&MemoryLimit::physical()).max(Self::MINIMUM)
    }

    fn bytes_of(self, physical: &MemoryLimit) -> u64 {
        match self {
            CacheSize::Bytes(bytes) => bytes,
            CacheSize::PercentOfMemory(percent) => percent_of(physical.bytes, percent),
        }
    }

    fn judged(
        self,
        physical: &MemoryLimit,
        allocatable: Option<&MemoryLimit>,
    ) -> (u64, Vec<String>) {
        let key = Self::KEY.name();
        let mut warnings = Vec::new();
        let stated = self.bytes_of(physical);
        if stated < Self::MINIMUM {
            let minimum = Self::MINIMUM / MEGABYTE;
            warnings
                .push(format!("{key}: {stated} bytes are too few for a cache, using {minimum} MB"));
        }
        let bytes = stated.max(Self::MINIMUM);
        if bytes > percent_of(physical.bytes, Self::MUCH_PERCENT) {
            warnings.push(format!(
                "{key}: {bytes} bytes are more than {} % of {physical}: when that is exceeded, the \
                 kernel kills the plugin, and with it all mounts; use a smaller size or a share, as \
                 in 50%",
                Self::MUCH_PERCENT
            ));
        }
        if let Some(limit) = allocatable
            && bytes > beside_others(limit.bytes)
        {
            warnings.push(format!(
                "{key}: {bytes} bytes and the rest of the plugin need more than {limit}: the cache \
                 will be smaller; raise the limit or use a smaller size"
            ));
        }
        (bytes, warnings)
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

/// The size of a cache that fits beside all else that the process needs: the buffers of connections, the
/// stacks and heaps of threads, and what finds the objects.
///
/// # Errors
///
/// If that would be too small to be of use.
pub(crate) fn fitting(size: u64) -> io::Result<u64> {
    let Some(limit) = MemoryLimit::allocatable() else { return Ok(size) };
    match beside_others(limit.bytes) {
        room if room >= size => Ok(size),
        room if room >= SMALLEST => Ok(room),
        _ => Err(io::Error::new(
            io::ErrorKind::OutOfMemory,
            format!("{limit}, are too few for a cache; raise the limit"),
        )),
    }
}

/// What a limit leaves for the cache: half, since heaps of threads take address space that is not used.
const fn beside_others(bytes: u64) -> u64 {
    (bytes / 2).saturating_sub(16 * MEGABYTE)
}

/// A plugin with less than this is worse than none.
const SMALLEST: u64 = 16 * MEGABYTE;

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
        assert_eq!(CacheSize::Bytes(0).to_bytes(), 100 * MEGABYTE);
        assert_eq!(CacheSize::Bytes(101 * MEGABYTE).to_bytes(), 101 * MEGABYTE);
        assert_eq!(CacheSize::default().to_bytes(), 1000 * MEGABYTE);
        let (size, warnings) = CacheSize::Bytes(0).judged(&limit(1 << 40), None);
        assert_eq!((size, warnings.len()), (CacheSize::MINIMUM, 1), "{warnings:?}");
    }

    #[test]
    fn a_share_is_one_of_the_least_that_machine_and_cgroups_allow() {
        let memory = MemoryLimit::physical().bytes;
        assert_eq!(CacheSize::PercentOfMemory(100).to_bytes(), memory);
        let half = CacheSize::PercentOfMemory(50).judged(&limit(400 * MEGABYTE), None);
        assert_eq!(half, (200 * MEGABYTE, Vec::new()));
    }

    #[test]
    fn a_limit_leaves_half_of_it_to_the_cache() {
        assert_eq!(beside_others(700 * MEGABYTE), 334 * MEGABYTE);
        assert_eq!(beside_others(1), 0);
    }

    #[test]
    fn a_size_that_leaves_little_of_a_limit_is_a_warning_that_names_the_limit() {
        let size = CacheSize::Bytes(1000 * MEGABYTE);
        let much = limit(1 << 40);
        let warnings = |physical: &MemoryLimit, allocatable: Option<&MemoryLimit>| {
            size.judged(physical, allocatable).1
        };
        assert!(warnings(&limit(1250 * MEGABYTE), None).is_empty());
        assert!(warnings(&much, Some(&limit(2032 * MEGABYTE))).is_empty());
        for judged in
            [warnings(&limit(1249 * MEGABYTE), None), warnings(&much, Some(&limit(700_000 * 1024)))]
        {
            let [warning] = &judged[..] else { panic!("{judged:?}") };
            assert!(warning.starts_with("CVMFS_CACHE_PLUGIN_SIZE: 1048576000 bytes "), "{warning}");
            assert!(warning.contains("more than"), "{warning}");
        }
    }

    fn limit(bytes: u64) -> MemoryLimit {
        let mut limit = MemoryLimit::physical();
        limit.bytes = bytes;
        limit
    }
}
