//! What the workers have to do, for readers on other threads: the I/O thread publishes it.

use super::Gauges;
use super::statistics::Count;

/// The gauges of workers.
#[derive(Debug, Default)]
pub(crate) struct WorkerLoad {
    jobs: Count,
    waiting: Count,
    overdue: Count,
}

impl WorkerLoad {
    /// Publishes them.
    pub(crate) fn set(&self, jobs: usize, waiting: usize, overdue: usize) {
        self.jobs.set(jobs as u64);
        self.waiting.set(waiting as u64);
        self.overdue.set(overdue as u64);
    }

    /// Fills them in.
    pub(crate) fn fill(&self, gauges: &mut Gauges) {
        gauges.jobs = self.jobs.get() as usize;
        gauges.waiting = self.waiting.get() as usize;
        gauges.overdue = self.overdue.get() as usize;
    }
}
