//! What a plugin spends: its processor time and context switches.

use std::time::Duration;

use procfs::process::Process;

use crate::usage;

/// What a process has spent since it was started, or since another time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    pub(super) cpu: Duration,
    /// Of all its threads, voluntary and not; those of threads that have ended are not known.
    pub(super) context_switches: u64,
}

impl Cost {
    /// `None` if the process is not on this machine.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let process = Process::new(pid.try_into().ok()?).ok()?;
        // A thread that ends meanwhile has no status.
        let statuses = process.tasks().ok()?.filter_map(|task| task.ok()?.status().ok());
        let switches = statuses
            .map(|status| {
                let [voluntary, others] =
                    [status.voluntary_ctxt_switches, status.nonvoluntary_ctxt_switches];
                voluntary.unwrap_or_default() + others.unwrap_or_default()
            })
            .sum();
        Some(Self { cpu: usage::cpu(pid)?, context_switches: switches })
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            context_switches: self.context_switches.saturating_sub(before.context_switches),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_that_has_waited_has_cost_a_context_switch() {
        let now = || Cost::of(std::process::id()).unwrap();
        let before = now();
        let (sender, receiver) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || receiver.recv());
        while now().since(before).context_switches == 0 {}
        assert!(now().since(before).cpu > Duration::ZERO);
        drop(sender);
        thread.join().unwrap().unwrap_err();
    }
}
