//! The commands of a tier on the administration socket: their names.

/// Objects and bytes in each state, and the job that runs.
pub const STATUS: &str = "tier-status";
/// Archives objects.
pub const ARCHIVE: &str = "archive";
/// Brings objects back.
pub const RECALL: &str = "recall";
/// Compares objects with their digests.
pub const SCRUB: &str = "scrub-tier";
/// Finds, or deletes, objects of the store that no cache needs.
pub const GC: &str = "gc";
/// Makes lost markers again.
pub const REBUILD: &str = "rebuild";
/// How far the job is, or what came of the last one; or ends it.
pub const JOB: &str = "job";
