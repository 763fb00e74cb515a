//! The configuration: where the cache is, how much it may take, and how careful it is.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use cvmcache::{ConfigKey, Options, OptionsError};
use thiserror::Error;

/// Where the objects are, and which rules hold there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A cache of this plugin alone: it is locked, kept below its quota, and checked.
    Managed {
        /// The cache directory.
        directory: PathBuf,
        /// Where the lock and the database are; the cache directory unless it is configured.
        workspace: PathBuf,
        /// How much the objects may take.
        quota: Quota,
    },
    /// A cache that several nodes may write to, such as a preloaded one: nothing is evicted, and files may
    /// come and go at any time.
    Alien {
        /// The cache directory.
        directory: PathBuf,
        /// Where the database is: a directory of this node.
        workspace: PathBuf,
    },
}

/// The configuration of a disk cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the objects are.
    pub location: Location,
    /// When files are synchronised with the disk.
    pub fsync: Fsync,
    /// How many bytes a second are read to verify objects; 0 for none.
    pub scrub_rate: u64,
}

/// How much objects may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quota {
    /// As much as the disk has.
    Unlimited,
    /// So many bytes.
    Bytes(u64),
}

/// Why a text is no quota.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("write megabytes, at least {}, or -1 for all that the disk has", Quota::MINIMUM / MEGABYTE)]
pub struct ParseQuotaError;

/// When the file of an object is synchronised with the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// Never: after a power cut, objects may be damaged. Their lengths are verified then.
    Never,
    /// Before the commit is answered.
    Commit,
    /// Soon after the commit, many at once. An object gets its name only then: a power cut loses it whole.
    #[default]
    Batched,
}

/// Why a text is no policy of synchronisation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("write never, commit or batched")]
pub struct ParseFsyncError;

const DIRECTORY: ConfigKey =
    ConfigKey::new("CVMFS_CACHE_DIR", "DIRECTORY", "the cache directory, as it is");
const BASE: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_BASE",
    "DIRECTORY",
    "instead of CVMFS_CACHE_DIR: the cache directory is `shared` below this one",
);
const ALIEN: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_ALIEN",
    "DIRECTORY",
    "instead of CVMFS_CACHE_DIR: a directory that several nodes may share; without quota and lock",
);
const WORKSPACE: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_WORKSPACE",
    "DIRECTORY",
    "where lock and database are, on a disk of this node; CVMFS_CACHE_ALIEN needs it",
)
.default_in_words("the cache directory");
const QUOTA_LIMIT: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_QUOTA_LIMIT",
    "MB|-1",
    "how much objects may take, in megabytes of 1024 KiB, at least 100; -1 for all that the disk has",
)
.default_value("4000");
const FSYNC: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_FSYNC",
    "never|commit|batched",
    "when objects are synchronised with the disk: never, before the commit is answered, or within a second",
)
.default_value("batched");
const SCRUB: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_SCRUB",
    "MB/s",
    "how fast objects are read in the background to verify them; 0 turns it off",
)
.bounds(0, 100_000)
.default_in_words("1, and 0 with CVMFS_CACHE_ALIEN");

impl Config {
    /// The table of the plugin's own keys.
    pub const KEYS: &'static [ConfigKey] =
        &[DIRECTORY, BASE, ALIEN, WORKSPACE, QUOTA_LIMIT, FSYNC, SCRUB];

    /// Reads the configuration.
    ///
    /// # Errors
    ///
    /// If not exactly one directory is configured, or a value makes no sense.
    pub fn from_options(options: &Options) -> Result<Self, OptionsError> {
        let location = Location::from_options(options)?;
        let fsync = options.value::<Fsync>(&FSYNC)?.unwrap_or_default();
        // All nodes would read an alien cache.
        let scrub_rate = options.value::<u64>(&SCRUB)?.unwrap_or(u64::from(!location.is_alien()));
        Ok(Self { location, fsync, scrub_rate: scrub_rate * MEGABYTE })
    }

    /// A managed cache in this directory, with defaults for the rest and without scrubbing.
    pub fn managed(directory: impl Into<PathBuf>, quota: Quota) -> Self {
        let directory = directory.into();
        let location = Location::Managed { workspace: directory.clone(), directory, quota };
        Self { location, fsync: Fsync::default(), scrub_rate: 0 }
    }
}

impl Location {
    fn from_options(options: &Options) -> Result<Self, OptionsError> {
        let configured: Vec<_> =
            [DIRECTORY, BASE, ALIEN].into_iter().filter(|key| options.get(key).is_some()).collect();
        let key = match configured[..] {
            [key] => key,
            [] => {
                return Err(
                    options.missing(DIRECTORY, "add a line like CVMFS_CACHE_DIR=/var/cache/x")
                );
            }
            [_, second, ..] => {
                let reason =
                    "write only one of CVMFS_CACHE_DIR, CVMFS_CACHE_BASE and CVMFS_CACHE_ALIEN";
                return Err(options.bad_value(second, reason));
            }
        };
        let path = absolute(options, key)?;
        let workspace = match options.get(WORKSPACE) {
            Some(_) => Some(absolute(options, WORKSPACE)?),
            None => None,
        };
        if key == ALIEN {
            if options.get(QUOTA_LIMIT).is_some_and(|value| value != OsStr::new("-1")) {
                let reason = "remove it: with CVMFS_CACHE_ALIEN nothing is evicted";
                return Err(options.bad_value(QUOTA_LIMIT, reason));
            }
            let hint = "CVMFS_CACHE_ALIEN needs it: name a directory of this node alone";
            let workspace = workspace.ok_or_else(|| options.missing(WORKSPACE, hint))?;
            return Ok(Self::Alien { directory: path, workspace });
        }
        let directory = if key == BASE { path.join("shared") } else { path };
        let workspace = workspace.unwrap_or_else(|| directory.clone());
        let quota = options.value::<Quota>(&QUOTA_LIMIT)?.unwrap_or_default();
        Ok(Self::Managed { directory, workspace, quota })
    }

    /// The cache directory.
    pub fn directory(&self) -> &Path {
        let (Self::Managed { directory, .. } | Self::Alien { directory, .. }) = self;
        directory
    }

    /// Where lock and database are.
    pub fn workspace(&self) -> &Path {
        let (Self::Managed { workspace, .. } | Self::Alien { workspace, .. }) = self;
        workspace
    }

    /// How much objects may take.
    pub fn quota(&self) -> Quota {
        match self {
            Self::Managed { quota, .. } => *quota,
            Self::Alien { .. } => Quota::Unlimited,
        }
    }

    /// True if other nodes may write to the cache.
    pub fn is_alien(&self) -> bool {
        matches!(self, Self::Alien { .. })
    }
}

fn absolute(options: &Options, key: ConfigKey) -> Result<PathBuf, OptionsError> {
    let path = PathBuf::from(options.get(key).unwrap_or_default());
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(options.bad_value(key, "write an absolute path"))
    }
}

impl Quota {
    /// With less than this, the catalogs of a few repositories fill the cache and pin it.
    pub const MINIMUM: u64 = 100 * MEGABYTE;

    /// The quota in bytes; `u64::MAX` if there is none.
    pub fn to_bytes(self) -> u64 {
        match self {
            Self::Unlimited => u64::MAX,
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// The default of the client.
impl Default for Quota {
    fn default() -> Self {
        Self::Bytes(4000 * MEGABYTE)
    }
}

impl FromStr for Quota {
    type Err = ParseQuotaError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "-1" {
            return Ok(Self::Unlimited);
        }
        // The standard parser would take a plus sign.
        let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
        let megabytes = if is_number { text.parse::<u64>().ok() } else { None };
        let bytes = megabytes.and_then(|megabytes| megabytes.checked_mul(MEGABYTE));
        bytes.filter(|&bytes| bytes >= Self::MINIMUM).map(Self::Bytes).ok_or(ParseQuotaError)
    }
}

impl FromStr for Fsync {
    type Err = ParseFsyncError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "never" => Ok(Self::Never),
            "commit" => Ok(Self::Commit),
            "batched" => Ok(Self::Batched),
            _ => Err(ParseFsyncError),
        }
    }
}

const MEGABYTE: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        let options = Options::parse(text.as_bytes()).for_plugin("disk");
        Config::from_options(&options).map_err(|error| error.to_string())
    }

    #[test]
    fn a_directory_is_taken_as_it_is_and_a_base_has_the_cache_in_shared() {
        let config_of = |text| config(text).unwrap().location;
        let location = config_of("CVMFS_CACHE_DIR=/c");
        assert_eq!(location, Config::managed("/c", Quota::default()).location);
        let location = config_of("CVMFS_CACHE_BASE=/c\nCVMFS_CACHE_QUOTA_LIMIT=-1");
        assert_eq!(location, Config::managed("/c/shared", Quota::Unlimited).location);
        let location = config_of("CVMFS_CACHE_DIR=/c\nCVMFS_CACHE_WORKSPACE=/w");
        assert_eq!(location.workspace(), Path::new("/w"));
    }

    #[test]
    fn an_alien_cache_needs_a_workspace_and_has_no_quota() {
        let error = config("CVMFS_CACHE_ALIEN=/a").unwrap_err();
        assert!(error.starts_with("CVMFS_CACHE_WORKSPACE is missing"), "{error}");
        let alien = "CVMFS_CACHE_ALIEN=/a\nCVMFS_CACHE_WORKSPACE=/w\n";
        assert!(config(alien).unwrap().location.is_alien());
        let error = config(&format!("{alien}CVMFS_CACHE_QUOTA_LIMIT=500")).unwrap_err();
        assert!(error.contains("nothing is evicted"), "{error}");
    }

    #[test]
    fn exactly_one_directory_is_configured() {
        assert!(config("").unwrap_err().starts_with("CVMFS_CACHE_DIR is missing"));
        let error = config("CVMFS_CACHE_DIR=/a\nCVMFS_CACHE_BASE=/b").unwrap_err();
        assert!(error.starts_with("CVMFS_CACHE_BASE=\"/b\": write only one"), "{error}");
        assert!(config("CVMFS_CACHE_DIR=a").unwrap_err().contains("absolute"));
    }

    #[test]
    fn keys_of_the_plugin_are_understood_with_its_name_too() {
        let config = config("CVMFS_CACHE_DIR=/c\nCVMFS_CACHE_disk_FSYNC=commit").unwrap();
        assert_eq!(config.fsync, Fsync::Commit);
    }

    #[test]
    fn an_invalid_value_is_an_error_with_a_remedy() {
        for (line, remedy) in [
            ("CVMFS_CACHE_QUOTA_LIMIT=99", "at least 100"),
            ("CVMFS_CACHE_QUOTA_LIMIT=-2", "at least 100"),
            ("CVMFS_CACHE_QUOTA_LIMIT=+200", "at least 100"),
            ("CVMFS_CACHE_QUOTA_LIMIT=17592186044416", "at least 100"),
            ("CVMFS_CACHE_PLUGIN_FSYNC=always", "never, commit or batched"),
            ("CVMFS_CACHE_PLUGIN_SCRUB=-1", "from 0 to 100000"),
        ] {
            let error = config(&format!("CVMFS_CACHE_DIR=/c\n{line}")).unwrap_err();
            assert!(error.contains(remedy), "{error}");
        }
    }
}
