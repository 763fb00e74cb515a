//! The RAM cache's part of the administration socket: what it holds, and giving memory back on request.

use cvmcache::admin::{Administration, Arguments, Command, CommandError, Gauge, Value};

use crate::plugin::RamCache;

const TRIM: &str = "trim";
const FORGET_BREADCRUMBS: &str = "forget-breadcrumbs";

impl Administration for RamCache {
    fn gauges(&self) -> Vec<Gauge> {
        let (counts, info) = self.shared.locked(|store| (store.counts(), store.info()));
        let pages = self.shared.pages();
        let (breadcrumbs, breadcrumb_bytes) = self.breadcrumbs.len_and_bytes();
        let gauge =
            |name: &str, value: u64, description: &str| Gauge::new(name, value, description);
        vec![
            gauge("objects", counts.objects as u64, "Objects in the cache"),
            gauge("pinned_objects", counts.pinned_objects as u64, "Objects that clients have open"),
            gauge(
                "volatile_objects",
                counts.volatile_objects as u64,
                "Volatile objects, which are evicted first",
            ),
            gauge("upload_bytes", counts.uploading, "Memory that uploads have reserved"),
            gauge(
                "resident_bytes",
                pages.resident,
                "Memory that the system has given for objects, and for what is free between them",
            ),
            gauge("free_dirty_bytes", pages.free_dirty, "The part of it that is free"),
            gauge(
                "free_clean_bytes",
                pages.free_clean,
                "Address space for objects that takes no memory now",
            ),
            gauge("breadcrumbs", breadcrumbs as u64, "Repositories with a breadcrumb"),
            gauge("breadcrumb_bytes", breadcrumb_bytes as u64, "Memory that breadcrumbs take"),
            gauge("evicted_objects", counts.evicted.objects, "Objects evicted since the start"),
            gauge("evicted_bytes", counts.evicted.bytes, "What they took"),
            gauge("clean_ups", info.shrink_count.unwrap_or(0), "Clean-ups since the start"),
            gauge(
                "refused_uploads",
                self.shared.refused(),
                "Uploads refused for lack of space since the start: too much was pinned",
            ),
        ]
    }

    fn commands(&self) -> Vec<Command> {
        vec![
            Command::new(TRIM, "Gives memory back to the system that no object is in"),
            Command::new(FORGET_BREADCRUMBS, "Forgets all breadcrumbs, as SIGUSR2 does"),
        ]
    }

    fn execute(&self, command: &str, arguments: &Arguments) -> Result<Value, CommandError> {
        if !arguments.is_empty() {
            return Err(CommandError::Arguments(format!("{command} takes no arguments")));
        }
        match command {
            TRIM => {
                let before = self.shared.pages().resident;
                self.shared.trim();
                let after = self.shared.pages().resident;
                tracing::info!(
                    "trimmed on request, objects have {after} of {before} bytes resident"
                );
                Ok(answer([
                    ("given_back_bytes", before.saturating_sub(after)),
                    ("resident_bytes", after),
                ]))
            }
            FORGET_BREADCRUMBS => {
                let forgotten = self.breadcrumbs.forget() as u64;
                tracing::info!("forgot all {forgotten} breadcrumbs on request");
                Ok(answer([("forgotten", forgotten)]))
            }
            other => Err(CommandError::Failed(format!("{other} is no command"))),
        }
    }
}

fn answer<const N: usize>(numbers: [(&str, u64); N]) -> Value {
    numbers.into_iter().map(|(name, number)| (name.to_owned(), number)).collect()
}
