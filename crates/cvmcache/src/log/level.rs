//! The least level that is logged, which can be changed while the program runs.

use std::fmt;

use parking_lot::Mutex;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::reload;

use crate::admin::LogLevel;

/// The level at the start.
const INITIAL: Level = Level::INFO;

/// Changes the level of a filter.
pub(crate) struct LevelHandle {
    level: Mutex<Level>,
    reload: Box<dyn Fn(LevelFilter) + Send + Sync>,
}

/// A filter for a layer of `S`, and the handle to change its level.
pub(super) fn filter<S: Subscriber>() -> (reload::Layer<LevelFilter, S>, LevelHandle) {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(INITIAL));
    // It fails once the subscriber is gone, and the log with it.
    let reload = move |level| drop(handle.reload(level));
    (filter, LevelHandle { level: Mutex::new(INITIAL), reload: Box::new(reload) })
}

impl LogLevel for LevelHandle {
    fn get(&self) -> Level {
        *self.level.lock()
    }

    fn set(&self, level: Level) {
        let mut current = self.level.lock();
        (self.reload)(LevelFilter::from_level(level));
        *current = level;
    }
}

impl fmt::Debug for LevelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LevelHandle").field(&self.get()).finish()
    }
}
