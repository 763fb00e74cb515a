//! A case of the suite: one requirement on a plugin.

use cvmcache::plugin::Capabilities;

use super::probe::Probe;
use super::step::Checked;

/// One thing that a plugin has to do.
#[derive(Debug)]
pub struct Case {
    pub(super) name: &'static str,
    pub(super) meaning: &'static str,
    pub(super) kind: Kind,
    pub(super) needs: Capabilities,
    pub(super) alone: bool,
    pub(super) run: fn(&Probe<'_>) -> Checked<()>,
}

/// What a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// What CernVM-FS clients rely on.
    Conformance,
    /// What no client should do, and a plugin has to live with.
    Hostile,
}

impl Case {
    /// Its name, which stays the same from version to version.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it means to pass it, in a sentence.
    pub fn meaning(&self) -> &'static str {
        self.meaning
    }

    /// What it is about.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What a plugin has to declare for the case to apply.
    pub fn needs(&self) -> Capabilities {
        self.needs
    }

    /// True if it needs the cache for itself: because it evicts objects of other clients, or because
    /// other clients would change the figures that it compares.
    pub fn needs_cache_alone(&self) -> bool {
        self.alone
    }

    /// A case about what clients rely on.
    pub(super) const fn new(
        name: &'static str,
        meaning: &'static str,
        run: fn(&Probe<'_>) -> Checked<()>,
    ) -> Self {
        let needs = Capabilities::NONE;
        Self { name, meaning, kind: Kind::Conformance, needs, alone: false, run }
    }

    /// A case about what no client should do.
    pub(super) const fn hostile(
        name: &'static str,
        meaning: &'static str,
        run: fn(&Probe<'_>) -> Checked<()>,
    ) -> Self {
        Self { kind: Kind::Hostile, ..Self::new(name, meaning, run) }
    }

    pub(super) const fn needs_all(self, needs: &[Capabilities]) -> Self {
        let (mut bits, mut at) = (self.needs.bits(), 0);
        while at < needs.len() {
            bits |= needs[at].bits();
            at += 1;
        }
        Self { needs: Capabilities::from_bits_retain(bits), ..self }
    }

    pub(super) const fn alone(self) -> Self {
        Self { alone: true, ..self }
    }
}
