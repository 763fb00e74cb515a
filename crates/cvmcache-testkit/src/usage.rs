//! The memory and the descriptors of a process, in /proc.

use procfs::process::Process;

/// The memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Memory {
    /// What is resident now (VmRSS).
    pub resident_bytes: u64,
    /// The most that was ever resident (VmHWM).
    pub peak_bytes: u64,
}

impl Memory {
    /// The memory of the process with this pid; `None` if it is not on this machine, or has none.
    pub fn of(pid: u32) -> Option<Self> {
        let status = process(pid)?.status().ok()?;
        // In /proc/PID/status, in kB.
        let (resident, peak) = (status.vmrss?, status.vmhwm?);
        Some(Self { resident_bytes: resident * 1024, peak_bytes: peak * 1024 })
    }
}

/// How many descriptors a process has open; `None` if it is not on this machine.
pub(crate) fn descriptors(pid: u32) -> Option<usize> {
    process(pid)?.fd_count().ok()
}

/// Whether there is a process with this pid.
pub(crate) fn exists(pid: u32) -> bool {
    process(pid).is_some()
}

fn process(pid: u32) -> Option<Process> {
    Process::new(pid.try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_process_is_at_most_its_peak() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.resident_bytes > 0 && memory.resident_bytes <= memory.peak_bytes);
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_memory() {
        // The kernel's limit of pids (PID_MAX_LIMIT) is 2^22.
        assert_eq!((Memory::of(1 << 22), Memory::of(u32::MAX)), (None, None));
        assert!(exists(std::process::id()) && !exists(1 << 22));
    }
}
