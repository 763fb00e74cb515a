//! Stopping the threads of a process, and reading their registers.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::super::message::Registers;

/// How long threads may take to stop. One that waits for a disk does not.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often to look for threads that were started meanwhile, by threads that were not stopped yet.
const ROUNDS: usize = 3;

/// Threads that stand still as long as this value is there. It must stay on its thread: the system
/// knows which tracer has stopped them.
#[derive(Debug, Default)]
pub(super) struct StoppedThreads(Vec<Stopped>);

#[derive(Debug)]
struct Stopped {
    thread: Pid,
    /// A signal that was on its way to it.
    signal: Option<Signal>,
    is_stopped: bool,
}

impl StoppedThreads {
    pub(super) fn stop(process: Pid) -> nix::Result<Self> {
        let mut stopped = Self::default();
        for _ in 0..ROUNDS {
            let new = stopped.new_threads(process);
            if new.is_empty() {
                break;
            }
            stopped.seize(process, &new)?;
        }
        Ok(stopped)
    }

    /// All that stand still.
    pub(super) fn iter(&self) -> impl Iterator<Item = Pid> {
        self.0.iter().filter(|thread| thread.is_stopped).map(|thread| thread.thread)
    }

    fn new_threads(&self, process: Pid) -> Vec<Pid> {
        let entries = fs::read_dir(format!("/proc/{process}/task"));
        let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name());
        let numbers = names.filter_map(|name| name.to_str()?.parse().ok()).map(Pid::from_raw);
        numbers.filter(|&thread| self.0.iter().all(|known| known.thread != thread)).collect()
    }

    fn seize(&mut self, process: Pid, threads: &[Pid]) -> nix::Result<()> {
        let first = self.0.len();
        for &thread in threads {
            let seized = ptrace::seize(thread, Options::empty());
            match seized.and_then(|()| ptrace::interrupt(thread)) {
                Ok(()) => self.0.push(Stopped { thread, signal: None, is_stopped: false }),
                // It has ended.
                Err(Errno::ESRCH) if thread != process => {}
                Err(error) => return Err(error),
            }
        }
        let deadline = Instant::now() + PATIENCE;
        for stopped in &mut self.0[first..] {
            stopped.wait(deadline);
        }
        Ok(())
    }
}

impl Stopped {
    fn wait(&mut self, deadline: Instant) {
        loop {
            match waitpid(self.thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::PtraceEvent(..)) => self.is_stopped = true,
                Ok(WaitStatus::Stopped(_, signal)) => {
                    self.signal = Some(signal);
                    self.is_stopped = true;
                }
                // The system has no way to wait for this one with a bound.
                Ok(WaitStatus::StillAlive) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                _ => {}
            }
            return;
        }
    }
}

impl Drop for StoppedThreads {
    fn drop(&mut self) {
        for stopped in &self.0 {
            // Fails for one that does not stand still; the end of the watchdog lets that go.
            let _ = ptrace::detach(stopped.thread, stopped.signal);
        }
    }
}

/// Where a thread that stands still is.
#[cfg(target_arch = "x86_64")]
pub(super) fn registers(thread: Pid) -> nix::Result<Registers> {
    let registers = ptrace::getregs(thread)?;
    Ok(Registers {
        instruction: registers.rip,
        stack: registers.rsp,
        frame: registers.rbp,
        link: 0,
    })
}

/// Where a thread that stands still is.
#[cfg(target_arch = "aarch64")]
pub(super) fn registers(thread: Pid) -> nix::Result<Registers> {
    let registers = ptrace::getregset::<ptrace::regset::NT_PRSTATUS>(thread)?;
    Ok(Registers {
        instruction: registers.pc,
        stack: registers.sp,
        frame: registers.regs[29],
        link: registers.regs[30],
    })
}
