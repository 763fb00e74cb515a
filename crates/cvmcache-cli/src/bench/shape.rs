//! The load of a benchmark: how many connections, requests and objects.

use std::time::Duration;

use super::results::Settings;
use super::tasks;
use super::workload::Workload;

/// The load that every candidate gets.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) connections: usize,
    pub(super) in_flight: usize,
    pub(super) idle: u64,
    pub(super) objects: Option<u64>,
    pub(super) object_size: Option<u64>,
    pub(super) working_set: f64,
    pub(super) rounds: u32,
    pub(super) round: Duration,
}

impl Shape {
    /// The size of all objects of a workload in bytes; `None` for a distribution as in a repository.
    pub(super) fn object_size(&self, workload: Workload) -> Option<u64> {
        match workload {
            Workload::Mixed | Workload::Mount | Workload::Mount4 => None,
            Workload::Churn => self.object_size,
            Workload::Store => Some(self.object_size.unwrap_or(4 << 20)),
            _ => Some(self.object_size.unwrap_or(tasks::READ)),
        }
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            connections: self.connections,
            in_flight: self.in_flight,
            idle_connections: self.idle,
            rounds: self.rounds,
            seconds_per_round: self.round.as_secs_f64(),
        }
    }
}
