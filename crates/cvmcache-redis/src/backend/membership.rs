//! Membership: a set for each repository, of the objects that its own clients have stored and may
//! read.
//!
//! The sets and the objects are independent. Either may be missing, because objects are evicted and sets
//! are revoked at any time; an object in a set may have been stored by another repository after it was
//! evicted.
//!
//! The names of repositories come from clients, so that the sets are bounded in number and in size, all
//! together. Each plugin sees to it once a minute, by an index of the sets.

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cvmcache::plugin::ObjectId;
use futures_util::future::try_join_all;
use tokio::time::sleep;

use super::Backend;
use crate::client::{Failure, Traits};

/// How long the set of a repository lasts that stores nothing.
const MEMBERS_EXPIRY: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many members are removed at once, for a store and in the background.
const SPOP_LIMIT: u64 = 100;
const SPOP_LIMIT_IN_BACKGROUND: u64 = 10_000;

/// How many repositories have a set. That of the one that has stored nothing for longest is deleted first.
const MAX_SETS: usize = 1024;

/// How many sets are looked at together.
const SETS_AT_ONCE: usize = 4 * MAX_SETS;

/// How often that is seen to.
const INTERVAL: Duration = Duration::from_secs(60);

/// Bytes of the cache for each member of a set: most objects are larger. A member takes about 100 bytes.
pub(super) const BYTES_PER_MEMBER: u64 = 4096;

impl Backend {
    pub(crate) async fn is_member(
        &self,
        repository: &[u8],
        id: &ObjectId,
    ) -> Result<bool, Failure> {
        let mut command = redis::cmd("SISMEMBER");
        command.arg(self.keys.repository(repository)).arg(id.to_string());
        self.client.command(Traits::REPEATABLE, &command).await
    }

    /// Lets a repository see an object. A set has an end: objects that are evicted stay in it until a client of
    /// the repository asks for them, so that members are removed at random when there are more than a cache of
    /// this size has objects. One that is there still is fetched anew by the next client. A repository
    /// that stores nothing for [`MEMBERS_EXPIRY`] has no set any more.
    pub(crate) async fn add_member(&self, repository: &[u8], id: &ObjectId) -> Result<(), Failure> {
        let key = self.keys.repository(repository);
        let mut pipeline = redis::pipe();
        pipeline.cmd("SADD").arg(&key).arg(id.to_string()).ignore();
        pipeline.cmd("PEXPIRE").arg(&key).arg(MEMBERS_EXPIRY.as_millis() as u64).ignore();
        pipeline.cmd("ZADD").arg(self.keys.repositories()).arg(now()).arg(&key).ignore();
        pipeline.cmd("SCARD").arg(&key);
        let (members,): (u64,) = self.client.pipeline(Traits::REPEATABLE, &pipeline).await?;
        let excess = members.saturating_sub(self.max_members).min(SPOP_LIMIT);
        if excess > 0 {
            let mut command = redis::cmd("SPOP");
            self.client.command::<()>(Traits::ONCE, command.arg(&key).arg(excess)).await?;
        }
        Ok(())
    }

    /// Removes an object that is gone from the set of a repository, in the background. If that fails, the
    /// next request for the object does it.
    pub(crate) fn remove_member(self: &Arc<Self>, repository: &[u8], id: &ObjectId) {
        let mut command = redis::cmd("SREM");
        command.arg(self.keys.repository(repository)).arg(id.to_string());
        let backend = Arc::clone(self);
        self.spawn(async move {
            let _ = backend.client.command::<()>(Traits::ONCE, &command).await;
        });
    }

    /// Lets a repository see no object any more.
    pub(crate) async fn revoke(&self, repository: &[u8]) -> Result<(), Failure> {
        let mut command = redis::cmd("UNLINK");
        command.arg(self.keys.repository(repository));
        self.client.command(Traits::REPEATABLE, &command).await
    }

    /// Deletes sets that are too many, and removes members that are. Whether there may be more of them.
    async fn bound_sets(&self) -> Result<bool, Failure> {
        let index = self.keys.repositories();
        let mut command = redis::cmd("ZRANGE");
        command.arg(&index).arg(0).arg(SETS_AT_ONCE - 1);
        let traits = Traits::REPEATABLE.with_reply(SETS_AT_ONCE as u64 * 64);
        let keys: Vec<Vec<u8>> = self.client.command(traits, &command).await?;
        let is_all = keys.len() < SETS_AT_ONCE;
        let own = self.keys.repository_prefix();
        let sets = try_join_all(keys.into_iter().map(async |key| {
            // Any other key is not for this plugin to delete.
            if !key.starts_with(own.as_bytes()) {
                return Ok(Set { key, len: 0 });
            }
            let mut command = redis::cmd("SCARD");
            let len = match self.client.command(Traits::REPEATABLE, command.arg(&key)).await {
                Ok(len) => len,
                // It is no set.
                Err(Failure::Refused(_)) => u64::MAX,
                Err(failure) => return Err(failure),
            };
            Ok(Set { key, len })
        }));
        let plan = plan(sets.await?, MAX_SETS, self.max_members);
        for key in &plan.delete {
            let mut command = redis::cmd("UNLINK");
            self.client.command::<()>(Traits::REPEATABLE, command.arg(key)).await?;
        }
        for (key, count) in plan.pop {
            let mut command = redis::cmd("SPOP");
            command.arg(key).arg(count);
            let traits = Traits::ONCE.with_reply(count * 64);
            // The members go to nowhere.
            let _: Vec<Vec<u8>> = self.client.command(traits, &command).await?;
        }
        let gone = [plan.forget, plan.delete].concat();
        if !gone.is_empty() {
            let mut command = redis::cmd("ZREM");
            self.client.command::<()>(Traits::REPEATABLE, command.arg(&index).arg(gone)).await?;
        }
        Ok(!is_all)
    }
}

/// Keeps the sets within their bounds.
pub(crate) async fn bound_sets(backend: Arc<Backend>) {
    // Plugins that start together do not do it at once.
    sleep(INTERVAL.mul_f64(fastrand::f64())).await;
    loop {
        match backend.bound_sets().await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "cannot bound the sets of repositories"),
        }
        sleep(INTERVAL).await;
    }
}

/// Milliseconds since 1970, by this machine's clock: it only decides which set goes first.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A set of a repository. Ordered by its length.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Set {
    len: u64,
    key: Vec<u8>,
}

/// What is to be done.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// Sets that are not there.
    forget: Vec<Vec<u8>>,
    delete: Vec<Vec<u8>>,
    /// Sets, and how many members they lose.
    pop: Vec<(Vec<u8>, u64)>,
}

/// What is to be done about sets, the one that was stored to least recently first.
fn plan(sets: Vec<Set>, max_sets: usize, max_members: u64) -> Plan {
    let mut plan = Plan::default();
    let (gone, sets): (Vec<_>, Vec<_>) = sets.into_iter().partition(|set| set.len == 0);
    plan.forget = gone.into_iter().map(|set| set.key).collect();
    let (strange, mut sets): (Vec<_>, Vec<_>) =
        sets.into_iter().partition(|set| set.len == u64::MAX);
    plan.delete = strange.into_iter().map(|set| set.key).collect();
    let kept = sets.split_off(sets.len().saturating_sub(max_sets));
    plan.delete.extend(sets.into_iter().map(|set| set.key));
    let members = kept.iter().fold(0u64, |sum, set| sum.saturating_add(set.len));
    let mut excess = members.saturating_sub(max_members).min(SPOP_LIMIT_IN_BACKGROUND);
    let mut by_len = BinaryHeap::from(kept);
    while excess > 0
        && let Some(largest) = by_len.pop()
    {
        // Down to the next one, so that small sets stay whole.
        let next = by_len.peek().map_or(0, |next| next.len);
        let count = excess.min(largest.len - next).max(excess.min(SPOP_LIMIT)).min(largest.len);
        excess -= count;
        match plan.pop.iter_mut().find(|(key, _)| *key == largest.key) {
            Some((_, popped)) => *popped += count,
            None => plan.pop.push((largest.key.clone(), count)),
        }
        by_len.push(Set { len: largest.len - count, ..largest });
    }
    plan
}

#[cfg(test)]
mod tests {
    use redis::cmd;
    use redis_test_servers::RedisServer;

    use super::*;
    use crate::client::RedisClient;
    use crate::config::Config;

    #[test]
    fn the_sets_of_all_repositories_are_bounded_in_number_and_in_size() {
        let server = RedisServer::start();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let config =
            Config { size: 1100 * BYTES_PER_MEMBER, ..Config::new(&server.url()).unwrap() };
        let client = RedisClient::new(&config, runtime.handle().clone()).unwrap();
        let backend = Backend::new(&config, client);
        let store = |repository: &str, digest: u8| {
            let id = ObjectId::new(cvmcache::plugin::HashAlgorithm::Sha1, [digest; 20]);
            backend.wait(backend.add_member(repository.as_bytes(), &id)).unwrap();
        };
        for n in 0..MAX_SETS + 100 {
            store(&n.to_string(), 1);
        }
        (0..200).for_each(|digest| store("large", digest));
        store("0", 2);
        server.ask::<()>(cmd("UNLINK").arg("cvmfs:1:{repo:500}"));
        server.ask::<()>(cmd("SET").arg("cvmfs:1:{repo:501}").arg("no set"));
        server.ask::<()>(cmd("SET").arg("foreign").arg(1));
        server.ask::<()>(cmd("ZADD").arg("cvmfs:1:repos").arg(0).arg("foreign"));
        while runtime.block_on(backend.bound_sets()).unwrap() {}
        let sets: Vec<String> = server.ask(cmd("KEYS").arg("cvmfs:1:{repo:*"));
        let members =
            || sets.iter().map(|set| server.ask::<u64>(cmd("SCARD").arg(set))).sum::<u64>();
        assert_eq!((sets.len(), members()), (MAX_SETS, 1100));
        let has = |name: &str| sets.contains(&format!("cvmfs:1:{{repo:{name}}}"));
        assert!(has("0") && has("large") && !has("1") && has("1123") && !has("501"));
        assert_eq!(server.ask::<u64>(cmd("ZCARD").arg("cvmfs:1:repos")), MAX_SETS as u64);
        assert_eq!(server.ask::<u64>(cmd("GET").arg("foreign")), 1);
    }

    fn set(key: &str, len: u64) -> Set {
        Set { key: key.into(), len }
    }

    fn popped(lens: &[u64], max_members: u64) -> Vec<u64> {
        let sets = lens.iter().enumerate().map(|(n, &len)| set(&n.to_string(), len));
        let plan = plan(sets.collect(), 100, max_members);
        assert_eq!((plan.forget.len(), plan.delete.len()), (0, 0));
        let mut popped = vec![0; lens.len()];
        for (key, count) in plan.pop {
            popped[String::from_utf8(key).unwrap().parse::<usize>().unwrap()] = count;
        }
        popped
    }

    #[test]
    fn sets_within_the_bounds_are_left_alone() {
        assert_eq!(plan(vec![], 10, 0), Plan::default());
        let sets = vec![set("a", 5), set("b", 95)];
        assert_eq!(plan(sets, 2, 100), Plan::default());
    }

    #[test]
    fn the_sets_that_were_stored_to_least_recently_are_deleted_and_those_that_are_gone_forgotten() {
        let sets = [("a", 1), ("b", 0), ("c", 1), ("d", u64::MAX), ("e", 1)];
        let sets = sets.map(|(key, len)| set(key, len)).to_vec();
        let plan = plan(sets, 2, 100);
        assert_eq!(plan.forget, [b"b"]);
        assert_eq!(plan.delete, [b"d", b"a"]);
        assert_eq!(plan.pop, []);
    }

    #[test]
    fn members_are_removed_from_the_largest_sets_first() {
        assert_eq!(popped(&[1000, 5000, 2000], 7000), [0, 1000, 0]);
        let both = popped(&[1000, 5000, 4000], 6000);
        assert_eq!((both[0], both.iter().sum::<u64>()), (0, 4000));
        assert!(both[1] > both[2]);
    }

    #[test]
    fn a_bounded_number_of_members_is_removed_at_once() {
        let most = popped(&[1 << 40, 1 << 40], 100).iter().sum::<u64>();
        assert_eq!(most, SPOP_LIMIT_IN_BACKGROUND);
        assert_eq!(popped(&[7], 0), [7]);
    }
}
