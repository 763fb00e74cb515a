//! The Redis cache's part of the administration socket: its servers, leases and capacity, and connecting or
//! renewing on request. No answer waits for a server for longer than a request does, and none has a password:
//! neither addresses nor failures ever hold one.

use std::time::Duration;

use cvmcache::admin::{Administration, Arguments, Command, CommandError, Gauge, Value};
use tokio::time::timeout;

use crate::backend::InstanceLease;
use crate::backend::breadcrumbs::BYTES_EACH;
use crate::client::{Failure, Link, RecentFailure, ServerInfo, ServerState};
use crate::plugin::RedisCache;

const RECONNECT: &str = "reconnect";
const RENEW: &str = "renew";

impl Administration for RedisCache {
    fn gauges(&self) -> Vec<Gauge> {
        let (backend, deadline) = (&self.store.backend, self.client.deadline());
        let within = async |work| timeout(deadline, work).await.ok().and_then(Result::ok);
        let (servers, usage, breadcrumbs, recorded, instances) = self.client.block_on(async {
            tokio::join!(
                self.client.inspect(),
                async { backend.usage().await.ok() },
                async { backend.breadcrumbs().await.ok() },
                async { self.size.recorded().await.ok().flatten() },
                within(backend.instances()),
            )
        });
        let (evictor, lease) = (self.store.evictor.state(), self.store.leases.state());
        let failures = self.client.recent_failures();
        let own_size = self.size.own();
        let smallest = recorded.map_or(own_size, |recorded| recorded.min(own_size));
        let used = usage.map(|usage| usage.used);
        let pinned = usage.map(|usage| usage.pinned);
        vec![
            Gauge::new("servers", array(servers.iter().map(server)), SERVERS),
            Gauge::new("failures", array(failures.iter().map(failure)), FAILURES),
            Gauge::new("instance", backend.instance(), "The name of this plugin on the server"),
            Gauge::new("lease_seconds", lease.lease.as_secs_f64(), "For how long pins outlive it"),
            Gauge::new(
                "renewed_seconds",
                lease.renewed.map(|renewed| renewed.as_secs_f64()),
                "How long ago the lease was renewed; null if it never was",
            ),
            Gauge::new(
                "pinned_objects",
                lease.pinned_objects,
                "Objects that clients here have open",
            ),
            Gauge::new("leases", instances.map(|all| array(all.iter().map(instance))), LEASES),
            Gauge::new("size_bytes", own_size, "The configured size"),
            Gauge::new(
                "limit_bytes",
                evictor.limit,
                "The size in force: less if maxmemory is too small",
            ),
            Gauge::new("recorded_size_bytes", recorded, "The size of the plugin that started last"),
            Gauge::new(
                "smallest_size_bytes",
                smallest,
                "The smaller one of these two, which rules",
            ),
            Gauge::new(
                "used_bytes",
                used,
                "What objects take on the server; null if it does not say",
            ),
            Gauge::new("pinned_bytes", pinned, "The part of that in open objects, of all plugins"),
            Gauge::new("upload_bytes", evictor.uploading, "What uploads here have reserved"),
            Gauge::new(
                "evicted_objects",
                evictor.evicted.objects,
                "Objects evicted here since the start",
            ),
            Gauge::new("evicted_bytes", evictor.evicted.bytes, "What they took"),
            Gauge::new("clean_ups", evictor.clean_ups, "Clean-ups since the start"),
            Gauge::new("breadcrumbs", breadcrumbs, "Repositories with a breadcrumb on the server"),
            Gauge::new(
                "breadcrumb_bytes",
                breadcrumbs.map(|number| number.saturating_mul(BYTES_EACH)),
                "What they take there, about; it does not count as used",
            ),
        ]
    }

    fn commands(&self) -> Vec<Command> {
        vec![
            Command::new(
                RECONNECT,
                "Connects to the servers again, as after their names lead to other ones; requests in flight \
                 are sent again",
            ),
            Command::new(RENEW, "Renews the lease now, and pins again what the server has lost"),
        ]
    }

    fn execute(&self, command: &str, arguments: &Arguments) -> Result<Value, CommandError> {
        if !arguments.is_empty() {
            return Err(CommandError::Arguments(format!("{command} takes no arguments")));
        }
        match command {
            RECONNECT => {
                tracing::info!("connecting to the servers again, on request");
                self.client.reconnect();
                Ok(object([("servers", self.client.block_on(self.client.inspect()).len().into())]))
            }
            RENEW => {
                let renewed = async {
                    self.store.leases.renew_soon().await;
                    Ok(())
                };
                let renewed = self.store.backend.wait(renewed);
                renewed.map_err(|reason| CommandError::Failed(not_renewed(&reason)))?;
                Ok(object([("pinned_objects", self.store.leases.state().pinned_objects.into())]))
            }
            other => Err(CommandError::Failed(format!("{other} is no command"))),
        }
    }
}

const SERVERS: &str = "Each server: its address; its state (connected, connecting, refusing or away), with the \
                       reason and since when; what it says of itself (null if it does not): role, memory, its \
                       limit and policy; requests and bytes in flight; and how often it was connected to again";

const FAILURES: &str = "Requests that failed in the last minute: the server's reason, how many, since when, and \
                        how long ago the last one was";

const LEASES: &str = "The leases of all plugins that have objects pinned on the server: when they end, by its \
                      clock, and how many objects; null if it does not say";

fn not_renewed(reason: &Failure) -> String {
    format!(
        "the lease is not renewed yet, it is tried again and again: {reason}; see the gauge servers"
    )
}

fn server((state, info): &(ServerState, Option<ServerInfo>)) -> Value {
    let (name, reason, since) = match &state.link {
        Link::Connected => ("connected", None, None),
        Link::Connecting => ("connecting", None, None),
        Link::Refusing { reason, since } => ("refusing", Some(reason), Some(since)),
        Link::Away { reason, since } => ("away", Some(reason), Some(since)),
    };
    let info = info.as_ref();
    object([
        ("address", state.address.as_str().into()),
        ("state", name.into()),
        ("reason", reason.cloned().into()),
        ("since_seconds", since.map(Duration::as_secs_f64).into()),
        ("role", info.map(|info| if info.is_replica { "replica" } else { "primary" }).into()),
        ("used_memory_bytes", info.map(|info| info.used_memory).into()),
        // 0 is no limit.
        ("maxmemory_bytes", info.map(|info| info.maxmemory).into()),
        ("maxmemory_policy", info.map(|info| info.maxmemory_policy.as_str()).into()),
        ("requests_in_flight", state.requests_in_flight.into()),
        ("bytes_in_flight", state.bytes_in_flight.into()),
        ("reconnects", state.reconnects.into()),
    ])
}

fn failure(failure: &RecentFailure) -> Value {
    object([
        ("reason", failure.reason.as_str().into()),
        ("requests", failure.requests.into()),
        ("since_seconds", failure.since.as_secs_f64().into()),
        ("last_seconds", failure.last.as_secs_f64().into()),
    ])
}

fn instance(lease: &InstanceLease) -> Value {
    object([
        ("instance", lease.instance.as_str().into()),
        ("is_own", lease.is_own.into()),
        ("expires", lease.expires.as_secs_f64().into()),
        ("pinned_objects", lease.pinned_objects.into()),
    ])
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn array(values: impl Iterator<Item = Value>) -> Value {
    values.collect()
}
