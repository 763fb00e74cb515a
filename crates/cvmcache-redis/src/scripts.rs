//! The Lua scripts, which the server runs one at a time, each on the keys of one shard: their arguments and
//! what they return.

use redis::{Script, ScriptInvocation};

use crate::keys::{Keys, Shard};

/// A script with the prelude. Scripts that free memory, or pin what is there, have to run on a server that
/// is full (`allow-oom`); those that only read, on one that is read-only as well (`no-writes`).
macro_rules! script {
    ($name:literal) => {
        script!($name, "#!lua flags=allow-oom\n")
    };
    ($name:literal, refused when out of memory) => {
        script!($name, "#!lua\n")
    };
    ($name:literal, only reads) => {
        script!($name, "#!lua flags=no-writes\n")
    };
    ($name:literal, $first_line:literal) => {
        Script::new(concat!(
            $first_line,
            include_str!("scripts/prelude.lua"),
            include_str!(concat!("scripts/", $name, ".lua"))
        ))
    };
}

/// All scripts.
pub(crate) struct Scripts {
    keys: Keys,
    candidates: Script,
    commit: Script,
    drop: Script,
    evict: Script,
    list_pins: Script,
    pin: Script,
    end_lease: Script,
    fetch_metadata: Script,
    list_objects: Script,
    reap: Script,
    release: Script,
    renew: Script,
}

/// An object that may be evicted. Its name and its time of use are bytes of the server, which go back to it
/// unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) shard: Shard,
    pub(crate) volatile: bool,
    pub(crate) id: Vec<u8>,
    pub(crate) used: Vec<u8>,
    pub(crate) cost: u64,
}

/// What the commit of an upload takes, besides the object's name.
pub(crate) struct CommitCall<'a> {
    pub(crate) metadata: &'a [u8],
    pub(crate) cost: u64,
    pub(crate) object_type: i32,
    pub(crate) token: &'a str,
    /// How many segments were sent before the commit.
    pub(crate) sent: u64,
    /// The last one, if there is one.
    pub(crate) last: Option<&'a [u8]>,
}

/// This instance: its random id, and the length of its lease in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) id: String,
    pub(crate) lease: u64,
}

impl Scripts {
    pub(crate) fn new(keys: Keys) -> Self {
        Self {
            keys,
            candidates: script!("candidates"),
            commit: script!("commit", refused when out of memory),
            drop: script!("drop"),
            evict: script!("evict"),
            list_pins: script!("list_pins", only reads),
            pin: script!("pin"),
            end_lease: script!("end_lease"),
            fetch_metadata: script!("fetch_metadata", only reads),
            list_objects: script!("list_objects", only reads),
            reap: script!("reap"),
            release: script!("release"),
            renew: script!("renew"),
        }
    }

    /// Returns the least recently used objects: `Vec<(bool, Vec<u8>, Vec<u8>, u64)>`.
    pub(crate) fn candidates(&self, shard: Shard, limit: usize) -> ScriptInvocation<'_> {
        let mut call = self.call(&self.candidates, shard);
        call.arg(limit);
        call
    }

    /// Returns 1 if the object is new, 0 if it existed, -1 if segments have expired, and its metadata:
    /// `(i64, Vec<u8>)`.
    pub(crate) fn commit(
        &self,
        instance: &Instance,
        shard: Shard,
        id: &str,
        commit: &CommitCall<'_>,
    ) -> ScriptInvocation<'_> {
        let mut call = self.call(&self.commit, shard);
        let segments = commit.sent + u64::from(commit.last.is_some());
        call.arg(&instance.id).arg(instance.lease).arg(id).arg(commit.metadata).arg(commit.cost);
        call.arg(commit.object_type).arg(segments).arg(commit.token).arg(commit.sent);
        if let Some(last) = commit.last {
            call.arg(last);
        }
        call
    }

    /// Returns whether the object was removed: `bool`.
    pub(crate) fn drop(&self, shard: Shard, id: &str, seen: &[u8]) -> ScriptInvocation<'_> {
        let mut call = self.call(&self.drop, shard);
        call.arg(id).arg(seen);
        call
    }

    /// Takes objects as `candidates` has returned them, and returns how many were evicted and what they
    /// cost: `(u64, u64)`.
    pub(crate) fn evict<'a>(
        &self,
        shard: Shard,
        objects: impl Iterator<Item = (bool, &'a [u8], &'a [u8])>,
    ) -> ScriptInvocation<'_> {
        let mut call = self.call(&self.evict, shard);
        for (volatile, id, used) in objects {
            call.arg(u8::from(volatile)).arg(id).arg(used);
        }
        call
    }

    /// Returns the next cursor and names: `(u64, Vec<Vec<u8>>)`.
    pub(crate) fn list_pins(
        &self,
        instance: &Instance,
        shard: Shard,
        cursor: u64,
    ) -> ScriptInvocation<'_> {
        let mut call = self.call(&self.list_pins, shard);
        call.arg(&instance.id).arg(cursor);
        call
    }

    /// Returns the metadata of an object that is there: `Option<Vec<u8>>`.
    pub(crate) fn pin(&self, instance: &Instance, shard: Shard, id: &str) -> ScriptInvocation<'_> {
        let mut call = self.call(&self.pin, shard);
        call.arg(&instance.id).arg(instance.lease).arg(id);
        call
    }

    /// Returns whether there is more to release: `bool`.
    pub(crate) fn end_lease(&self, instance: &Instance, shard: Shard) -> ScriptInvocation<'_> {
        let mut call = self.call(&self.end_lease, shard);
        call.arg(&instance.id);
        call
    }

    /// Returns the metadata of an object that is there: `Option<Vec<u8>>`.
    pub(crate) fn fetch_metadata(&self, shard: Shard, id: &str) -> ScriptInvocation<'_> {
        let mut call = self.call(&self.fetch_metadata, shard);
        call.arg(id);
        call
    }

    /// Returns the next cursor and objects: `(u64, Vec<(Vec<u8>, Vec<u8>, bool)>)`.
    pub(crate) fn list_objects(
        &self,
        shard: Shard,
        object_type: i32,
        cursor: u64,
    ) -> ScriptInvocation<'_> {
        let mut call = self.call(&self.list_objects, shard);
        call.arg(object_type).arg(cursor);
        call
    }

    /// Returns whether there may be more to release: `bool`.
    pub(crate) fn reap(&self, shard: Shard) -> ScriptInvocation<'_> {
        self.call(&self.reap, shard)
    }

    /// Returns nothing: `()`.
    pub(crate) fn release(
        &self,
        instance: &Instance,
        shard: Shard,
        objects: impl Iterator<Item = (String, u64)>,
    ) -> ScriptInvocation<'_> {
        let mut call = self.call(&self.release, shard);
        call.arg(&instance.id);
        for (id, used) in objects {
            call.arg(id).arg(used);
        }
        call
    }

    /// Returns how many objects are pinned, or -1 if the lease has expired: `i64`.
    pub(crate) fn renew(&self, instance: &Instance, shard: Shard) -> ScriptInvocation<'_> {
        let mut call = self.call(&self.renew, shard);
        call.arg(&instance.id).arg(instance.lease);
        call
    }

    fn call<'a>(&self, script: &'a Script, shard: Shard) -> ScriptInvocation<'a> {
        script.key(self.keys.used(shard))
    }
}

impl std::fmt::Debug for Scripts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scripts")
    }
}

#[cfg(test)]
mod tests {
    use cvmcache::plugin::ObjectId;

    #[test]
    fn scripts_take_ids_as_long_as_the_longest() {
        let prelude = include_str!("scripts/prelude.lua");
        let (_, rest) = prelude.split_once("local MAX_ID = ").expect("a bound");
        let bound: usize =
            rest.lines().next().and_then(|line| line.parse().ok()).expect("a number");
        assert!(bound >= ObjectId::MAX_TEXT_LEN, "scripts would drop longer ids: {bound}");
    }
}
