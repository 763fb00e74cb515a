//! The disk cache's part of the administration socket: what it holds and has found, and scrubbing on request.

use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use cvmcache::admin::{Administration, Arguments, Command, CommandError, Gauge, Value};

use crate::plugin::DiskCache;

const SCRUB: &str = "scrub";

impl Administration for DiskCache {
    fn gauges(&self) -> Vec<Gauge> {
        let status = self.status();
        let scrubbing = self.store.scrubbing.state();
        let pass = scrubbing.current.unwrap_or_default();
        let seconds =
            |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let gauge =
            |name: &str, value: u64, description: &str| Gauge::new(name, value, description);
        vec![
            gauge("objects", status.objects as u64, "Objects in the cache"),
            gauge(
                "unsynced_objects",
                status.unsynced_objects as u64,
                "Objects that a power cut now would take",
            ),
            gauge(
                "checked",
                status.is_checked.into(),
                "1 once the tree has been compared with the index since the start",
            ),
            gauge("open_files", self.store.descriptors.len() as u64, "Files of objects kept open"),
            gauge(
                "damaged_objects",
                status.damaged_objects,
                "Damaged objects found since the start, and moved aside",
            ),
            gauge(
                "scrubbed_bytes",
                self.store.scrubbed.load(Ordering::Relaxed),
                "Read to verify objects in the background since the start",
            ),
            gauge(
                "scrub_objects",
                pass.objects as u64,
                "Objects to be scrubbed by the pass that goes on; 0 if none does",
            ),
            gauge("scrub_objects_done", pass.done() as u64, "Those of them that have been"),
            gauge(
                "scrub_ended",
                scrubbing.ended.map_or(0, seconds),
                "When the last pass over all objects ended, in seconds since 1970; 0 if none has since the start",
            ),
        ]
    }

    fn commands(&self) -> Vec<Command> {
        let description = "Begins to read all objects at full speed, to verify them";
        vec![Command::new(SCRUB, description)]
    }

    fn execute(&self, command: &str, arguments: &Arguments) -> Result<Value, CommandError> {
        if !arguments.is_empty() {
            return Err(CommandError::Arguments(format!("{command} takes no arguments")));
        }
        if command != SCRUB {
            return Err(CommandError::Failed(format!("{command} is no command")));
        }
        self.store.scrubbing.request();
        tracing::info!("scrubbing on request");
        Ok([("objects".to_owned(), Value::from(self.status().objects as u64))]
            .into_iter()
            .collect())
    }
}
