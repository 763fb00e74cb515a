//! The workloads: their names, what they do, and what they need of a plugin.

use clap::ValueEnum;
use cvmcache::plugin::Capabilities;
use serde::Serialize;

/// A workload of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Workload {
    /// Ask whether an object is there that is not: the smallest request
    Ping,
    /// Ask for the size of one of a few open objects
    Stat,
    /// Read 128 KiB of one of a few open objects
    Read,
    /// Store an object of 4 MiB and close it; what does not fit is evicted
    Store,
    /// Open, stat, read and close files as large as those of a software repository
    Mixed,
    /// Play a mount whose files are read one after the other, with the client's work in between
    Mount,
    /// The same with four threads that share the connection of the mount
    #[value(name = "mount-4")]
    #[serde(rename = "mount-4")]
    Mount4,
    /// Use a working set larger than the cache: what is missing is stored
    Churn,
}

impl Workload {
    /// The name, as on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Workload::Ping => "ping",
            Workload::Stat => "stat",
            Workload::Read => "read",
            Workload::Store => "store",
            Workload::Mixed => "mixed",
            Workload::Mount => "mount",
            Workload::Mount4 => "mount-4",
            Workload::Churn => "churn",
        }
    }

    /// Its meaning, in a line.
    pub(super) fn meaning(self) -> String {
        let help = self.to_possible_value().and_then(|value| value.get_help().cloned());
        help.map(|help| help.to_string()).unwrap_or_default()
    }

    /// The workloads that are measured if none is named.
    pub(super) fn usual(may_evict: bool) -> Vec<Self> {
        let harmless = |w: &Self| may_evict || !w.evicts();
        [Self::Ping, Self::Stat, Self::Read, Self::Store, Self::Mixed]
            .into_iter()
            .filter(harmless)
            .collect()
    }

    /// Whether it fills the cache, and so evicts objects of other clients.
    pub(super) fn evicts(self) -> bool {
        matches!(self, Workload::Store | Workload::Churn)
    }

    /// How many threads of a client share a connection, if it plays a mount.
    pub(super) fn mount_threads(self) -> Option<u64> {
        match self {
            Workload::Mount => Some(1),
            Workload::Mount4 => Some(4),
            _ => None,
        }
    }

    /// The capabilities that it needs.
    pub(super) fn needs(self) -> Capabilities {
        match self {
            Workload::Ping => Capabilities::NONE,
            Workload::Churn => Capabilities::WRITE | Capabilities::INFO,
            Workload::Mount | Workload::Mount4 => Capabilities::WRITE | Capabilities::REFCOUNT,
            _ => Capabilities::WRITE,
        }
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line_and_each_has_a_meaning() {
        for workload in Workload::value_variants() {
            assert_eq!(workload.to_possible_value().unwrap().get_name(), workload.name());
            assert!(!workload.meaning().is_empty(), "{workload}");
        }
    }

    #[test]
    fn default_workloads_evict_only_if_that_is_allowed() {
        assert!(!Workload::usual(false).iter().any(|workload| workload.evicts()));
        assert!(Workload::usual(true).contains(&Workload::Store));
    }
}
