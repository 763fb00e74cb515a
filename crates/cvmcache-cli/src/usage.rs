//! The memory and CPU time of a process.

use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use procfs::process::Process;
use serde::Serialize;

/// The memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Memory {
    /// What is resident now (VmRSS).
    pub(crate) resident_bytes: u64,
    /// The most that has ever been (VmHWM).
    pub(crate) peak_bytes: u64,
}

/// The CPU time of a process, user and system; `None` if it is not on this machine.
pub(crate) fn cpu(pid: u32) -> Option<Duration> {
    // The same as utime and stime in /proc/PID/stat, in nanoseconds instead of ticks.
    let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into().ok()?)).ok()?;
    clock_gettime(clock).ok().map(Duration::from)
}

/// The memory of a process; `None` if it is not on this machine, or has none.
pub(crate) fn memory(pid: u32) -> Option<Memory> {
    let memory = cvmcache_testkit::Memory::of(pid)?;
    Some(Memory { resident_bytes: memory.resident_bytes, peak_bytes: memory.peak_bytes })
}

/// The program that a process runs.
pub(crate) fn program(pid: u32) -> Option<String> {
    let path = Process::new(pid.try_into().ok()?).ok()?.exe().ok()?;
    Some(path.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_cpu_time_of_a_process_are_read() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.resident_bytes > 0 && memory.resident_bytes <= memory.peak_bytes);
        assert!(cpu(std::process::id()).unwrap() > Duration::ZERO);
    }
}
