//! What a plugin costs the machine it runs on: memory and CPU time, as the system counts them.

use std::fs;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
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

/// The memory of a process; `None` if it is not on this machine.
pub(crate) fn memory(pid: u32) -> Option<Memory> {
    parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// The program that a process runs.
pub(crate) fn program(pid: u32) -> Option<String> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(path.file_name()?.to_string_lossy().into_owned())
}

fn parse(status: &str) -> Option<Memory> {
    let kilobytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let resident_bytes = kilobytes("VmRSS:")? * 1024;
    Some(Memory { resident_bytes, peak_bytes: kilobytes("VmHWM:")? * 1024 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_what_a_process_uses() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.resident_bytes > 0 && memory.resident_bytes <= memory.peak_bytes);
        assert!(cpu(std::process::id()).unwrap() > Duration::ZERO);
    }

    #[test]
    fn a_process_without_memory_tells_nothing() {
        let status = "Name:\tram\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let memory = Memory { resident_bytes: 1 << 20, peak_bytes: 2 << 20 };
        assert_eq!(parse(status), Some(memory));
        assert_eq!(parse("Name:\tkthreadd\n"), None);
    }
}
