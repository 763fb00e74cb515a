//! What a plugin can do, as it tells the client in the handshake.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

/// A set of capability flags.
///
/// Combine them with `|`. A client asks for nothing that the plugin has not declared, except that
/// it opens and closes objects (see [`Capabilities::REFCOUNT`]) and reads them in any case.
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
pub struct Capabilities(u64);

impl Capabilities {
    /// Nothing but reading: the cache is filled by other means and never evicts.
    pub const NONE: Self = Self(0);
    /// Objects can be stored.
    pub const WRITE: Self = Self(1);
    /// References are counted, so an open object is never evicted. Without it, opening an object
    /// only checks that it exists.
    pub const REFCOUNT: Self = Self(2);
    /// The cache can be shrunk on request.
    pub const SHRINK: Self = Self(4);
    /// The cache knows its size and fill level.
    pub const INFO: Self = Self(8);
    /// The cache counts how often it was cleaned up
    /// ([`CacheInfo::shrink_count`](crate::CacheInfo::shrink_count)). Goes with
    /// [`Capabilities::INFO`].
    pub const SHRINK_RATE: Self = Self(16);
    /// Objects can be listed.
    pub const LIST: Self = Self(32);
    /// Breadcrumbs (the last known root catalog of a repository) can be stored and loaded.
    pub const BREADCRUMB: Self = Self(64);
    /// Everything that version 2 of the plugin interface knows.
    pub const ALL: Self = Self(127);

    const NAMES: [(Self, &'static str); 7] = [
        (Self::WRITE, "write"),
        (Self::REFCOUNT, "refcount"),
        (Self::SHRINK, "shrink"),
        (Self::INFO, "info"),
        (Self::SHRINK_RATE, "shrink-rate"),
        (Self::LIST, "list"),
        (Self::BREADCRUMB, "breadcrumb"),
    ];

    /// The flags as they stand on the wire, those that are not known here included.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Takes the flags from the wire. Flags that are not known here are kept.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// True if every flag of `other` is set. [`Capabilities::NONE`] is contained in every set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These flags without those of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Capabilities {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Capabilities {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (flag, name) in Self::NAMES {
            if self.contains(flag) {
                write!(f, "{separator}{name}")?;
                separator = ", ";
            }
        }
        let unknown = self.without(Self::ALL);
        if unknown != Self::NONE {
            return write!(f, "{separator}{:#x}", unknown.0);
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
    fn all_is_the_union_of_the_named_flags() {
        let union = Capabilities::NAMES.iter().fold(Capabilities::NONE, |all, (c, _)| all | *c);
        assert_eq!(union, Capabilities::ALL);
    }

    #[test]
    fn a_set_prints_its_names_and_what_it_does_not_know() {
        assert_eq!(Capabilities::NONE.to_string(), "none");
        assert_eq!(Capabilities::from_bits(1 | 256).to_string(), "write, 0x100");
        assert_eq!(format!("{:?}", Capabilities::LIST), "Capabilities(list)");
    }
}
