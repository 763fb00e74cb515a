//! The leases of all instances that share the server, for an administrator.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Backend, USAGE_TRAITS};
use crate::client::Failure;
use crate::keys::Shard;

/// The lease of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstanceLease {
    pub(crate) instance: String,
    pub(crate) is_own: bool,
    /// When it ends, as a time of the server's clock. It is one for each shard; this is the last of them.
    pub(crate) expires: Duration,
    pub(crate) pinned_objects: u64,
}

/// How many instances of a shard are looked at, and how many leases of all of them: a few hundred nodes.
const MAX_IN_SHARD: usize = 64;
const MAX_LEASES: usize = 16 * 1024;

/// The digits of an id and of a time, for each instance.
const REPLY_LEN: u64 = 64;

impl Backend {
    /// The name of this instance on the server.
    pub(crate) fn instance(&self) -> &str {
        &self.instance.id
    }

    /// The leases of all instances that have objects pinned, those that end last first.
    pub(crate) async fn instances(&self) -> Result<Vec<InstanceLease>, Failure> {
        let mut pipeline = redis::pipe();
        for shard in Shard::all() {
            let newest = MAX_IN_SHARD as isize;
            pipeline
                .cmd("ZRANGE")
                .arg(self.keys.alive(shard))
                .arg(-newest)
                .arg(-1)
                .arg("WITHSCORES");
        }
        let traits = USAGE_TRAITS.with_reply(256 * 4 * REPLY_LEN);
        let replies: Vec<Vec<(Vec<u8>, f64)>> = self.client.pipeline(traits, &pipeline).await?;
        let leases = Shard::all().zip(replies).flat_map(|(shard, leases)| {
            let named =
                leases.into_iter().filter_map(|(name, expires)| Some((name_of(&name)?, expires)));
            named.map(move |(name, expires)| (shard, name, expires))
        });
        let leases: Vec<_> = leases.take(MAX_LEASES).collect();
        let mut pipeline = redis::pipe();
        for (shard, instance, _) in &leases {
            pipeline.cmd("SCARD").arg(self.keys.held(*shard, instance));
        }
        let pinned: Vec<u64> = match leases.is_empty() {
            true => Vec::new(),
            false => self.client.pipeline(traits, &pipeline).await?,
        };
        let mut by_instance = BTreeMap::<String, InstanceLease>::new();
        for ((_, instance, expires), pinned) in leases.into_iter().zip(pinned) {
            let lease = by_instance.entry(instance.clone()).or_insert_with(|| InstanceLease {
                is_own: instance == self.instance.id,
                instance,
                expires: Duration::ZERO,
                pinned_objects: 0,
            });
            // What is no time, or a negative one, is none.
            let expires = Duration::try_from_secs_f64(expires / 1000.0).unwrap_or_default();
            lease.expires = lease.expires.max(expires);
            lease.pinned_objects = lease.pinned_objects.saturating_add(pinned);
        }
        let mut leases: Vec<_> = by_instance.into_values().collect();
        leases.sort_by_key(|lease| std::cmp::Reverse(lease.expires));
        Ok(leases)
    }
}

/// The name of an instance, if it is one: what is on the server may have been put there by another client.
fn name_of(name: &[u8]) -> Option<String> {
    let is_name = name.len() == 32 && name.iter().all(u8::is_ascii_hexdigit);
    is_name.then(|| String::from_utf8_lossy(name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_the_name_of_an_instance_is_told() {
        let name = "0123456789abcdef0123456789abcdef";
        assert_eq!(name_of(name.as_bytes()).as_deref(), Some(name));
        for other in [&b""[..], b"xyz", &[0xff; 32], b"0123456789abcdef0123456789abcde\n"] {
            assert_eq!(name_of(other), None);
        }
    }
}
