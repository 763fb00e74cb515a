//! The tier as a program: a disk cache above a store, as the configuration states.

use std::error::Error;

use cvmcache::{ConfigKey, Findings, PluginContext};
use cvmcache_disk::{Config, DiskCache};

use crate::cold::Registry;
use crate::config::TierConfig;
use crate::tiered::Tiered;

/// The program's keys: those of the tier, and those of the disk cache below it.
pub const KEYS: &[ConfigKey] = &keys();

const COUNT: usize = TierConfig::KEYS.len() + Config::KEYS.len();

const fn keys() -> [ConfigKey; COUNT] {
    let mut keys = [TierConfig::KEYS[0]; COUNT];
    let mut at = 0;
    while at < COUNT {
        keys[at] = if at < TierConfig::KEYS.len() {
            TierConfig::KEYS[at]
        } else {
            Config::KEYS[at - TierConfig::KEYS.len()]
        };
        at += 1;
    }
    keys
}

/// A tier of a disk cache and one of the [built-in stores](Registry::builtin), as the configuration states.
///
/// # Errors
///
/// As [`from_context_with`].
pub fn from_context(
    context: &PluginContext,
) -> Result<Tiered<DiskCache>, Box<dyn Error + Send + Sync>> {
    from_context_with(&Registry::builtin(), context)
}

/// The same with other kinds of stores.
///
/// # Errors
///
/// An [`OptionsError`](cvmcache::OptionsError) if the configuration makes no sense, a
/// [`TierError`](crate::TierError), and those of [`DiskCache::from_context`].
pub fn from_context_with(
    registry: &Registry,
    context: &PluginContext,
) -> Result<Tiered<DiskCache>, Box<dyn Error + Send + Sync>> {
    let config = TierConfig::from_options(context.options())?;
    let disk = Config::from_options(context.options())?;
    // Before the cache is locked: a configuration that cannot work changes nothing.
    let store = registry.open(&config.store)?;
    let hot = DiskCache::from_context(context)?;
    Ok(Tiered::new(hot, store, disk.location.workspace(), config)?)
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
    DiskCache::check(context, findings);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_key_is_in_the_table_once() {
        let names: HashSet<_> = KEYS.iter().map(ConfigKey::name).collect();
        assert_eq!(names.len(), COUNT);
    }
}
