//! What an administrator sees of a tier, and can have it do. `cvmcache tier` uses these commands, with a plugin that
//! runs and with one that does not.

use std::time::Duration;

use cvmcache::admin::{Administration, Arguments, Command, CommandError, Gauge, Value};
use cvmcache::plugin::ObjectId;
use serde_json::json;
use url::Url;

use crate::command::{ARCHIVE, GC, JOB, REBUILD, RECALL, SCRUB, STATUS};
use crate::hot::HotTier;
use crate::maintenance::Selection;
use crate::tiered::Tiered;

impl<H: HotTier> Administration for Tiered<H> {
    fn gauges(&self) -> Vec<Gauge> {
        let mut gauges = Vec::new();
        for (state, count) in self.tier.markers.counts() {
            let name = state.name();
            let objects = format!("Objects with a marker in state {}", name.to_uppercase());
            gauges.push(Gauge::new(format!("{name}_objects"), count.objects, objects));
            gauges.push(Gauge::new(format!("{name}_bytes"), count.bytes, "Their lengths together"));
        }
        let (queued, refused) = self.write_back.len_and_refused();
        let running = self.tier.recalls.running();
        let statistics = &self.tier.statistics;
        gauges.extend([
            Gauge::new("recalling_objects", running, "Objects on their way back"),
            Gauge::new(
                "ranged_objects",
                self.tier.ranges.len(),
                "Open objects that are read from the store in blocks",
            ),
            Gauge::new("queued_objects", queued, "Objects that wait to be written back"),
            Gauge::new("unqueued_objects", refused, "Objects that found the queue full"),
            Gauge::new("recalls", statistics.recalls.succeeded(), "Objects that came back"),
            Gauge::new("failed_recalls", statistics.recalls.failed(), "Objects that did not"),
            Gauge::new("recalled_bytes", statistics.recalls.bytes(), "Their lengths together"),
            Gauge::new("uploads", statistics.uploads.succeeded(), "Objects written to the store"),
            Gauge::new("failed_uploads", statistics.uploads.failed(), "Objects that were not"),
            Gauge::new("uploaded_bytes", statistics.uploads.bytes(), "Their lengths together"),
        ]);
        if let Some(hot) = self.tier.hot.administration() {
            gauges.extend(hot.gauges());
        }
        gauges
    }

    fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<_> =
            COMMANDS.iter().map(|(name, description)| Command::new(*name, *description)).collect();
        if let Some(hot) = self.tier.hot.administration() {
            commands.extend(hot.commands());
        }
        commands
    }

    fn execute(&self, command: &str, arguments: &Arguments) -> Result<Value, CommandError> {
        let maintenance = &self.maintenance;
        match command {
            STATUS => Ok(self.status()),
            ARCHIVE => {
                let dry_run = flag(arguments, "dry_run")?;
                let age = seconds(arguments, "older_than")?;
                match (ids(arguments)?, age) {
                    (Some(ids), None) if !dry_run => maintenance.archive(Selection::Ids(ids)),
                    (None, Some(age)) if dry_run => maintenance.archive_dry_run(age),
                    (None, Some(age)) => maintenance.archive(Selection::Idle(age)),
                    _ => Err(CommandError::Arguments(
                        "write either {\"older_than\": SECONDS}, with or without \"dry_run\": true, or {\"ids\": [ID]}"
                            .to_owned(),
                    )),
                }
            }
            RECALL => match (ids(arguments)?, flag(arguments, "all")?) {
                (Some(ids), false) => maintenance.recall(Some(ids)),
                (None, true) => maintenance.recall(None),
                _ => Err(CommandError::Arguments(
                    "write either {\"ids\": [ID]} or {\"all\": true}".to_owned(),
                )),
            },
            SCRUB => maintenance.scrub(flag(arguments, "remote")?),
            GC => match arguments.get("forget") {
                Some(cache) => {
                    let cache =
                        cache.as_str().ok_or_else(|| argument("forget", "the id of a cache"))?;
                    let forgotten = self.tier.runtime.block_on(self.tier.forget_cache(cache));
                    forgotten.map_err(|error| CommandError::Failed(error.to_string()))?;
                    Ok(json!({"forgotten": cache}))
                }
                None => {
                    let grace = seconds(arguments, "grace")?.unwrap_or(GRACE);
                    maintenance.gc(grace, flag(arguments, "delete")?)
                }
            },
            REBUILD => maintenance.rebuild(),
            JOB => {
                if flag(arguments, "stop")? {
                    maintenance.jobs.stop();
                }
                Ok(maintenance.jobs.to_json())
            }
            other => match self.tier.hot.administration() {
                Some(hot) => hot.execute(other, arguments),
                None => Err(CommandError::Failed(format!("there is no command {other}"))),
            },
        }
    }
}

const COMMANDS: [(&str, &str); 7] = [
    (STATUS, "Objects and bytes in each state, and the job that runs"),
    (ARCHIVE, "Archive objects: {\"older_than\": SECONDS, \"dry_run\": BOOL} or {\"ids\": [ID]}"),
    (RECALL, "Bring objects back: {\"ids\": [ID]} or {\"all\": true}"),
    (
        SCRUB,
        "Compare objects here with their digests, and with {\"remote\": true} those in the store",
    ),
    (
        GC,
        "Find objects in the store that no cache needs: {\"grace\": SECONDS, \"delete\": BOOL}; or forget a cache: \
         {\"forget\": ID}",
    ),
    (REBUILD, "Make markers again for objects in the store that have none"),
    (JOB, "How far the job is, or what came of the last one; {\"stop\": true} ends it"),
];

/// What was uploaded since is not in the list of its cache yet.
const GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

impl<H: HotTier> Tiered<H> {
    fn status(&self) -> Value {
        let states = self.tier.markers.counts().map(|(state, count)| {
            let value = json!({"objects": count.objects, "bytes": count.bytes});
            (state.name().to_owned(), value)
        });
        let (queued, _) = self.write_back.len_and_refused();
        json!({
            "cache": self.tier.markers.cache_id(),
            "store": without_secrets(&self.tier.config.store.url),
            "states": Value::Object(states.into_iter().collect()),
            "hot": self.hot(),
            "recalling": self.tier.recalls.running(),
            "queued": queued,
            "job": self.maintenance.jobs.to_json(),
        })
    }

    /// What the hot cache holds, as far as it tells.
    fn hot(&self) -> Value {
        let gauges = self.tier.hot.administration().map(Administration::gauges);
        let objects = gauges.iter().flatten().find(|gauge| gauge.name() == "objects");
        let objects = objects.map_or(Value::Null, |gauge| gauge.value().clone());
        match self.tier.hot.info(None) {
            Ok(info) => json!({
                "objects": objects,
                "size_bytes": info.size_bytes,
                "used_bytes": info.used_bytes,
                "pinned_bytes": info.pinned_bytes,
            }),
            Err(_) => Value::Null,
        }
    }
}

/// Users and queries of some stores are secrets.
fn without_secrets(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    // There are none in the URLs that refuse this.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
    url.into()
}

fn argument(name: &str, what: &str) -> CommandError {
    CommandError::Arguments(format!("{name} is not {what}"))
}

fn flag(arguments: &Arguments, name: &str) -> Result<bool, CommandError> {
    let value = arguments.get(name).unwrap_or(&Value::Bool(false));
    value.as_bool().ok_or_else(|| argument(name, "true or false"))
}

fn seconds(arguments: &Arguments, name: &str) -> Result<Option<Duration>, CommandError> {
    let Some(value) = arguments.get(name) else { return Ok(None) };
    let seconds = value.as_u64().ok_or_else(|| argument(name, "a number of seconds"))?;
    Ok(Some(Duration::from_secs(seconds)))
}

fn ids(arguments: &Arguments) -> Result<Option<Vec<ObjectId>>, CommandError> {
    let Some(value) = arguments.get("ids") else { return Ok(None) };
    let values = value.as_array().ok_or_else(|| argument("ids", "a list of object ids"))?;
    let ids = values.iter().map(|id| {
        let id = id.as_str().ok_or_else(|| argument("ids", "a list of object ids"))?;
        id.parse().map_err(|error: cvmcache::plugin::ParseObjectIdError| {
            CommandError::Arguments(error.to_string())
        })
    });
    ids.collect::<Result<_, _>>().map(Some)
}
