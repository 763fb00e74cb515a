//! How much memory the process may take: the machine's, or what cgroups and resource limits leave of it.

mod cgroup;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::sysinfo::sysinfo;
use procfs_core::{FromRead, Meminfo};

/// A bound on the memory of the process, and what sets it.
///
/// ```
/// use cvmcache::{MemoryLimit, percent_of};
///
/// let limit = MemoryLimit::usable();
/// let buffers = percent_of(limit.bytes, 10);
/// println!("{buffers} bytes for buffers, of {limit}");
/// # assert!(buffers > 0);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryLimit {
    /// The bound, in bytes.
    pub bytes: u64,
    /// What sets it.
    pub source: MemoryLimitSource,
}

/// What sets a bound on the memory of the process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum MemoryLimitSource {
    /// The memory that the machine has. Swap does not count.
    Machine,
    /// A memory cgroup of the process, its own or one above it: `memory.max` or `memory.high`, or
    /// `memory.limit_in_bytes` of version 1.
    Cgroup(PathBuf),
    /// What `RLIMIT_AS`, `ulimit -v`, leaves of the address space. All that is mapped counts, used or not.
    AddressSpace,
    /// What `RLIMIT_DATA`, `ulimit -d`, leaves of private memory that can be written to.
    Data,
    /// What is left of the commit limit of the machine, with `vm.overcommit_memory=2`.
    Commit,
}

impl MemoryLimit {
    /// The smallest bound of all.
    pub fn usable() -> Self {
        Self::allocatable().into_iter().fold(Self::physical(), Self::min)
    }

    /// How much memory pages can take: the machine's memory, or the smallest limit of the cgroups that
    /// the process is in. More than that, and the kernel ends the process.
    pub fn physical() -> Self {
        let machine = sysinfo().map_or(u64::MAX, |info| info.ram_total());
        Self::physical_of(machine, Path::new("/"))
    }

    /// How much more memory the process can allocate, if that is limited: beyond it, allocations fail.
    pub fn allocatable() -> Option<Self> {
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = |field| statm.split(' ').nth(field).and_then(|pages| pages.parse().ok());
        let taken = |field| pages(field).unwrap_or(0_u64) * rustix::param::page_size() as u64;
        let left = |resource, field| {
            let (soft, _) = getrlimit(resource).ok()?;
            (soft != RLIM_INFINITY).then(|| soft.saturating_sub(taken(field)))
        };
        let limits = [
            (left(Resource::RLIMIT_AS, VM_SIZE), MemoryLimitSource::AddressSpace),
            (left(Resource::RLIMIT_DATA, VM_DATA), MemoryLimitSource::Data),
            (uncommitted(Path::new("/")), MemoryLimitSource::Commit),
        ];
        let known =
            limits.into_iter().filter_map(|(bytes, source)| Some(Self::new(bytes?, source)));
        known.reduce(Self::min)
    }

    const fn new(bytes: u64, source: MemoryLimitSource) -> Self {
        Self { bytes, source }
    }

    /// As [`physical`](Self::physical), of a machine whose files are below `root`.
    fn physical_of(machine: u64, root: &Path) -> Self {
        let machine = Self::new(machine, MemoryLimitSource::Machine);
        cgroup::limits(root).into_iter().fold(machine, Self::min)
    }

    /// The smaller one; of equals, the first.
    fn min(self, other: Self) -> Self {
        if other.bytes < self.bytes { other } else { self }
    }
}

/// `12 bytes, the limit of …`
impl fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {}", self.bytes, self.source)
    }
}

impl fmt::Display for MemoryLimitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.write_str("the memory of the machine"),
            Self::Cgroup(path) => write!(f, "the limit of the memory cgroup {}", path.display()),
            Self::AddressSpace => {
                f.write_str("what the limit of the address space leaves (ulimit -v)")
            }
            Self::Data => f.write_str("what the limit of the data segment leaves (ulimit -d)"),
            Self::Commit => {
                f.write_str("what is left to commit on the machine (vm.overcommit_memory=2)")
            }
        }
    }
}

/// Fields of `/proc/self/statm`: the address space, and memory that is private and can be written to.
const VM_SIZE: usize = 0;
const VM_DATA: usize = 5;

/// What processes of the machine can still commit, if that is limited.
fn uncommitted(root: &Path) -> Option<u64> {
    let mode = fs::read_to_string(root.join("proc/sys/vm/overcommit_memory")).ok()?;
    if mode.trim() != "2" {
        return None;
    }
    let memory = Meminfo::from_file(root.join("proc/meminfo")).ok()?;
    Some(memory.commit_limit?.saturating_sub(memory.committed_as))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_bound_counts_and_says_what_sets_it() {
        let limit = |bytes| MemoryLimit::new(bytes, MemoryLimitSource::Data);
        let machine = MemoryLimit::new(5, MemoryLimitSource::Machine);
        assert_eq!(machine.clone().min(limit(4)), limit(4));
        assert_eq!(machine.clone().min(limit(5)), machine);
        assert_eq!(
            limit(4).to_string(),
            "4 bytes, what the limit of the data segment leaves (ulimit -d)"
        );
    }

    #[test]
    fn a_machine_without_cgroups_has_its_memory() {
        let root = tempfile::tempdir().unwrap();
        let machine = MemoryLimit::new(7, MemoryLimitSource::Machine);
        assert_eq!(MemoryLimit::physical_of(7, root.path()), machine);
    }

    #[test]
    fn what_is_left_to_commit_counts_only_without_overcommitment() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/sys/vm")).unwrap();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
        let others = meminfo.lines().filter(|line| !line.starts_with("Commit"));
        let meminfo: String = others.map(|line| format!("{line}\n")).collect();
        let meminfo = meminfo + "CommitLimit: 1000 kB\nCommitted_AS: 300 kB\n";
        fs::write(root.path().join("proc/meminfo"), meminfo).unwrap();
        for (mode, left) in [("0\n", None), ("1\n", None), ("2\n", Some(700 * 1024))] {
            fs::write(root.path().join("proc/sys/vm/overcommit_memory"), mode).unwrap();
            assert_eq!(uncommitted(root.path()), left, "{mode}");
        }
    }

    #[test]
    fn this_process_may_take_some_memory() {
        assert!(MemoryLimit::usable().bytes > 1 << 20);
        assert!(MemoryLimit::usable().bytes <= MemoryLimit::physical().bytes);
    }
}
