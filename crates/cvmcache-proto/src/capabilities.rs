//! Capabilities: what a plugin declares in the handshake that it can do.

use std::fmt;

use bitflags::bitflags;

bitflags! {
    /// A set of capability flags.
    ///
    /// Combine them with `|`. A client sends no request that the plugin has not declared, except that
    /// it opens and closes objects (see [`Capabilities::REFCOUNT`]) and reads them in any case. Flags
    /// that are not known here are kept ([`from_bits_retain`](Self::from_bits_retain)).
    ///
    /// ```
    /// use cvmcache_proto::Capabilities;
    ///
    /// let read_only = Capabilities::INFO | Capabilities::LIST;
    /// assert!(read_only.contains(Capabilities::LIST));
    /// assert!(!read_only.contains(Capabilities::WRITE));
    /// assert_eq!(read_only.to_string(), "info, list");
    /// ```
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Capabilities: u64 {
        /// Objects can be stored.
        const WRITE = 1;
        /// References are counted, so an open object is never evicted. Without it, opening an object
        /// only checks that it exists.
        const REFCOUNT = 2;
        /// The cache can be shrunk on request.
        const SHRINK = 4;
        /// The cache knows its size and fill level.
        const INFO = 8;
        /// The cache counts how often it was cleaned up
        /// ([`CacheInfo::shrink_count`](crate::CacheInfo::shrink_count)). Goes with
        /// [`Capabilities::INFO`].
        const SHRINK_RATE = 16;
        /// Objects can be listed.
        const LIST = 32;
        /// Breadcrumbs (the last known root catalog of a repository) can be stored and loaded.
        const BREADCRUMB = 64;
    }
}

impl Capabilities {
    /// Nothing but reading: the cache is filled by other means and never evicts.
    pub const NONE: Self = Self::empty();
    /// Everything that version 2 of the plugin interface knows.
    pub const ALL: Self = Self::all();

    /// The names of the flags that are known here, as messages and configurations have them:
    /// `shrink-rate`.
    pub fn names(&self) -> impl Iterator<Item = String> + use<> {
        self.iter_names().map(|(name, _)| name.to_ascii_lowercase().replace('_', "-"))
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for name in self.names() {
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        let unknown = self.difference(Self::ALL);
        if !unknown.is_empty() {
            return write!(f, "{separator}{:#x}", unknown.bits());
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Capabilities({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_defined_flags_have_names() {
        assert_eq!(Capabilities::ALL.bits(), 127);
        assert_eq!(Capabilities::SHRINK_RATE.names().collect::<Vec<_>>(), ["shrink-rate"]);
    }

    #[test]
    fn a_set_prints_its_names_and_undefined_bits() {
        assert_eq!(Capabilities::NONE.to_string(), "none");
        assert_eq!(Capabilities::from_bits_retain(1 | 256).to_string(), "write, 0x100");
        assert_eq!(format!("{:?}", Capabilities::LIST), "Capabilities(list)");
    }
}
