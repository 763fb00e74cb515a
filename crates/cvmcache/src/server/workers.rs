//! The threads that run callbacks, and the accounting of what they run. Knows no socket.

pub(super) mod completions;
pub(super) mod in_flight;
pub(super) mod ordering;
pub(super) mod pool;
