//! The tier as a program: a cache on this node above a store, as the configuration states.

use std::error::Error;
use std::path::{Path, PathBuf};

use cvmcache::{ConfigKey, Findings, Options, OptionsError, PluginContext};
use cvmcache_disk::{Config, DiskCache};
use cvmcache_ram::{CacheSize, RamCache};

use crate::cold::Registry;
use crate::config::{ParsePolicyError, TierConfig};
use crate::hot::HotCache;
use crate::tiered::Tiered;

/// The program's keys: those of the tier, and those of the hot caches.
pub const KEYS: &[ConfigKey] = &keys();

const HOT: ConfigKey = ConfigKey::new(
    "CVMFS_CACHE_PLUGIN_HOT",
    "disk|ram",
    "where hot objects are; with ram, CVMFS_CACHE_WORKSPACE names the directory of the markers",
)
.default_value("disk");

const OWN: [ConfigKey; 2] = [HOT, CacheSize::KEY];
const COUNT: usize = TierConfig::KEYS.len() + OWN.len() + Config::KEYS.len();

const fn keys() -> [ConfigKey; COUNT] {
    let mut keys = [HOT; COUNT];
    let tables = [TierConfig::KEYS, &OWN, Config::KEYS];
    let (mut at, mut table) = (0, 0);
    while table < tables.len() {
        let mut row = 0;
        while row < tables[table].len() {
            keys[at] = tables[table][row];
            at += 1;
            row += 1;
        }
        table += 1;
    }
    keys
}

/// A tier of a cache on this node and one of the [built-in stores](Registry::builtin), as the configuration states.
///
/// # Errors
///
/// As [`from_context_with`].
pub fn from_context(
    context: &PluginContext,
) -> Result<Tiered<HotCache>, Box<dyn Error + Send + Sync>> {
    from_context_with(&Registry::builtin(), context)
}

/// The same with other kinds of stores.
///
/// # Errors
///
/// An [`OptionsError`] if the configuration makes no sense, a [`TierError`](crate::TierError), and those of
/// [`DiskCache::from_context`] and [`RamCache::from_context`].
pub fn from_context_with(
    registry: &Registry,
    context: &PluginContext,
) -> Result<Tiered<HotCache>, Box<dyn Error + Send + Sync>> {
    let config = TierConfig::from_options(context.options())?;
    let workspace = workspace(context.options())?;
    // Before the cache is locked: a configuration that cannot work changes nothing.
    let store = registry.open(&config.store)?;
    let hot = match Hot::from_options(context.options())? {
        Hot::Disk => HotCache::from(DiskCache::from_context(context)?),
        Hot::Ram => HotCache::from(RamCache::from_context(context)?),
    };
    Ok(Tiered::new(hot, store, &workspace, config)?)
}

/// Judges the configuration, for [`Program::check`](cvmcache::Program::check). The store is opened and not asked.
pub fn check(context: &PluginContext, findings: &mut Findings) {
    match TierConfig::from_options(context.options()) {
        Ok(config) => {
            if let Err(error) = Registry::builtin().open(&config.store) {
                findings.error(error);
            }
        }
        Err(error) => findings.error(error),
    }
    match Hot::from_options(context.options()) {
        Ok(Hot::Disk) => DiskCache::check(context, findings),
        Ok(Hot::Ram) => {
            RamCache::check(context, findings);
            if let Err(error) = workspace(context.options()) {
                findings.error(error);
            }
        }
        Err(error) => findings.error(error),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Hot {
    #[default]
    Disk,
    Ram,
}

impl Hot {
    fn from_options(options: &Options) -> Result<Self, OptionsError> {
        Ok(options.value(&HOT)?.unwrap_or_default())
    }
}

impl std::str::FromStr for Hot {
    type Err = ParsePolicyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "disk" => Ok(Self::Disk),
            "ram" => Ok(Self::Ram),
            _ => Err(ParsePolicyError("disk or ram")),
        }
    }
}

/// Where the markers are.
fn workspace(options: &Options) -> Result<PathBuf, OptionsError> {
    if Hot::from_options(options)? == Hot::Disk {
        return Ok(Config::from_options(options)?.location.workspace().to_owned());
    }
    const WORKSPACE: &str = "CVMFS_CACHE_WORKSPACE";
    let hint = "with CVMFS_CACHE_PLUGIN_HOT=ram it names a directory for the markers, on a disk of this node";
    let path = options.get(WORKSPACE).ok_or_else(|| options.missing(WORKSPACE, hint))?;
    let path = Path::new(path);
    if !path.is_dir() {
        return Err(options
            .bad_value(WORKSPACE, "there is no such directory: make it, for the plugin's user"));
    }
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use cvmcache::ServerHandle;

    use super::*;

    #[test]
    fn each_key_is_in_the_table_once() {
        let names: HashSet<_> = KEYS.iter().map(ConfigKey::name).collect();
        assert_eq!(names.len(), COUNT);
    }

    #[test]
    fn the_table_in_the_book_is_that_of_the_program() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tiering.md");
        let keys = [TierConfig::KEYS, &OWN].concat();
        cvmcache_testkit::check_key_table(&page, "<!-- configuration keys -->\n", &keys);
    }

    #[test]
    fn memory_needs_a_workspace_for_the_markers() {
        let start = |workspace: &str| {
            let text = format!(
                "CVMFS_CACHE_PLUGIN_STORE=memory:///\nCVMFS_CACHE_PLUGIN_HOT=ram\nCVMFS_CACHE_PLUGIN_SIZE=200\n{workspace}"
            );
            let context = PluginContext::new(Options::parse(text.as_bytes()), ServerHandle::new());
            from_context(&context).map(|_| ()).map_err(|error| error.to_string())
        };
        let error = start("").unwrap_err();
        assert!(error.contains("CVMFS_CACHE_WORKSPACE is missing"), "{error}");
        let error = start("CVMFS_CACHE_WORKSPACE=/nonexistent").unwrap_err();
        assert!(error.contains("make it"), "{error}");
        let directory = tempfile::tempdir().unwrap();
        start(&format!("CVMFS_CACHE_WORKSPACE={}", directory.path().display())).unwrap();
    }
}
