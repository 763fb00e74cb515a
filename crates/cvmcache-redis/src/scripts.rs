//! The Lua scripts, which the server runs one at a time, each on the keys of one shard: their arguments and
//! what they return.

use redis::Script;

use crate::client::{Repeat, ScriptCall, Traits};
use crate::keys::{Keys, Shard};

/// A script with the prelude. Scripts that free memory, or pin what is there, have to run on a server that
/// is full (`allow-oom`); those that only read, on one that is read-only as well (`no-writes`).
macro_rules! script {
    ($name:literal, $repeat:expr) => {
        script!($name, $repeat, "#!lua flags=allow-oom\n")
    };
    ($name:literal, $repeat:expr, refused when out of memory) => {
        script!($name, $repeat, "#!lua\n")
    };
    ($name:literal, only reads) => {
        script!($name, Repeat::Safe, "#!lua flags=no-writes\n")
    };
    ($name:literal, $repeat:expr, $first_line:literal) => {
        Definition {
            script: Script::new(concat!(
                $first_line,
                include_str!("scripts/prelude.lua"),
                include_str!(concat!("scripts/", $name, ".lua"))
            )),
            repeat: $repeat,
        }
    };
}

/// A script, and whether it may be sent again when its reply was lost.
struct Definition {
    script: Script,
    repeat: Repeat,
}

/// All scripts.
pub(crate) struct Scripts {
    keys: Keys,
    candidates: Definition,
    commit: Definition,
    drop: Definition,
    evict: Definition,
    list_pins: Definition,
    pin: Definition,
    end_lease: Definition,
    fetch_metadata: Definition,
    list_objects: Definition,
    reap: Definition,
    release: Definition,
    renew: Definition,
    store_breadcrumb: Definition,
    load_breadcrumb: Definition,
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

/// About the length of a candidate in a reply: four values, of which id and time have 64 bytes together.
const CANDIDATE_LEN: u64 = 96;

/// About the length of a page of a listing: a hundred objects with short descriptions.
const PAGE_LEN: u64 = 16 * 1024;

impl Scripts {
    pub(crate) fn new(keys: Keys) -> Self {
        Self {
            keys,
            // Reaping goes on where it was.
            candidates: script!("candidates", Repeat::Safe),
            // The second finds the object of the first, which this instance has pinned. What the first has
            // added to the counters, it does not add again.
            commit: script!("commit", Repeat::Safe, refused when out of memory),
            // Between the two, another instance may have stored the object anew, with the same metadata:
            // the second would drop that one. A token would have to be kept on the server for each; and the next
            // read of the object drops it.
            drop: script!("drop", Repeat::Never),
            // The time of use, which no other entry of an object has, is the token: the second skips what the
            // first has evicted. It only reports less.
            evict: script!("evict", Repeat::Safe),
            list_pins: script!("list_pins", only reads),
            // An instance pins an object once, however often it asks, and asks for nothing else about the
            // object meanwhile (`Claim`).
            pin: script!("pin", Repeat::Safe),
            end_lease: script!("end_lease", Repeat::Safe),
            fetch_metadata: script!("fetch_metadata", only reads),
            list_objects: script!("list_objects", only reads),
            reap: script!("reap", Repeat::Safe),
            // The second finds nothing pinned. The objects are not opened meanwhile (`Releasing`).
            release: script!("release", Repeat::Safe),
            renew: script!("renew", Repeat::Safe),
            // Of two that are stored at once, either may be the last.
            store_breadcrumb: script!("store_breadcrumb", Repeat::Safe),
            load_breadcrumb: script!("load_breadcrumb", only reads),
        }
    }

    /// Returns the least recently used objects: `Vec<(bool, Vec<u8>, Vec<u8>, u64)>`.
    pub(crate) fn candidates(&self, shard: Shard, limit: usize) -> ScriptCall<'_> {
        let mut call = self.call(&self.candidates, shard);
        call.traits = call.traits.with_reply(2 * limit as u64 * CANDIDATE_LEN);
        call.invocation.arg(limit);
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
    ) -> ScriptCall<'_> {
        let mut call = self.call(&self.commit, shard);
        let segments = commit.sent + u64::from(commit.last.is_some());
        call.invocation
            .arg(&instance.id)
            .arg(instance.lease)
            .arg(id)
            .arg(commit.metadata)
            .arg(commit.cost);
        call.invocation.arg(commit.object_type).arg(segments).arg(commit.token).arg(commit.sent);
        if let Some(last) = commit.last {
            call.invocation.arg(last);
        }
        call
    }

    /// Returns whether the object was removed: `bool`.
    pub(crate) fn drop(&self, shard: Shard, id: &str, seen: &[u8]) -> ScriptCall<'_> {
        let mut call = self.call(&self.drop, shard);
        call.invocation.arg(id).arg(seen);
        call
    }

    /// Takes objects as `candidates` has returned them, and returns how many were evicted and what they
    /// cost: `(u64, u64)`.
    pub(crate) fn evict<'a>(
        &self,
        shard: Shard,
        objects: impl Iterator<Item = (bool, &'a [u8], &'a [u8])>,
    ) -> ScriptCall<'_> {
        let mut call = self.call(&self.evict, shard);
        for (volatile, id, used) in objects {
            call.invocation.arg(u8::from(volatile)).arg(id).arg(used);
        }
        call
    }

    /// Returns the next cursor and names: `(u64, Vec<Vec<u8>>)`.
    pub(crate) fn list_pins(
        &self,
        instance: &Instance,
        shard: Shard,
        cursor: u64,
    ) -> ScriptCall<'_> {
        let mut call = self.call(&self.list_pins, shard);
        call.traits = call.traits.with_reply(PAGE_LEN);
        call.invocation.arg(&instance.id).arg(cursor);
        call
    }

    /// Returns the metadata of an object that is there: `Option<Vec<u8>>`.
    pub(crate) fn pin(&self, instance: &Instance, shard: Shard, id: &str) -> ScriptCall<'_> {
        let mut call = self.call(&self.pin, shard);
        call.invocation.arg(&instance.id).arg(instance.lease).arg(id);
        call
    }

    /// Returns whether there is more to release: `bool`.
    pub(crate) fn end_lease(&self, instance: &Instance, shard: Shard) -> ScriptCall<'_> {
        let mut call = self.call(&self.end_lease, shard);
        call.invocation.arg(&instance.id);
        call
    }

    /// Returns the metadata of an object that is there: `Option<Vec<u8>>`.
    pub(crate) fn fetch_metadata(&self, shard: Shard, id: &str) -> ScriptCall<'_> {
        let mut call = self.call(&self.fetch_metadata, shard);
        call.invocation.arg(id);
        call
    }

    /// Returns the next cursor and objects: `(u64, Vec<(Vec<u8>, Vec<u8>, bool)>)`.
    pub(crate) fn list_objects(
        &self,
        shard: Shard,
        object_type: i32,
        cursor: u64,
    ) -> ScriptCall<'_> {
        let mut call = self.call(&self.list_objects, shard);
        call.traits = call.traits.with_reply(PAGE_LEN);
        call.invocation.arg(object_type).arg(cursor);
        call
    }

    /// Returns whether there may be more to release: `bool`.
    pub(crate) fn reap(&self, shard: Shard) -> ScriptCall<'_> {
        self.call(&self.reap, shard)
    }

    /// Returns nothing: `()`.
    pub(crate) fn release(
        &self,
        instance: &Instance,
        shard: Shard,
        objects: impl Iterator<Item = (String, u64)>,
    ) -> ScriptCall<'_> {
        let mut call = self.call(&self.release, shard);
        call.invocation.arg(&instance.id);
        for (id, used) in objects {
            call.invocation.arg(id).arg(used);
        }
        call
    }

    /// Returns how many objects are pinned, or -1 if the lease has expired: `i64`.
    pub(crate) fn renew(&self, instance: &Instance, shard: Shard) -> ScriptCall<'_> {
        let mut call = self.call(&self.renew, shard);
        call.invocation.arg(&instance.id).arg(instance.lease);
        call
    }

    /// Returns nothing: `()`.
    pub(crate) fn store_breadcrumb(
        &self,
        shard: Shard,
        name: &str,
        breadcrumb: &[u8],
        limit: usize,
    ) -> ScriptCall<'_> {
        let mut call = self.call(&self.store_breadcrumb, shard);
        call.invocation.arg(name).arg(breadcrumb).arg(limit);
        call
    }

    /// Returns the breadcrumb: `Vec<u8>`.
    pub(crate) fn load_breadcrumb(&self, shard: Shard, name: &str, len: usize) -> ScriptCall<'_> {
        let mut call = self.call(&self.load_breadcrumb, shard);
        call.invocation.arg(name).arg(len);
        call
    }

    fn call<'a>(&self, definition: &'a Definition, shard: Shard) -> ScriptCall<'a> {
        let traits = match definition.repeat {
            Repeat::Safe => Traits::REPEATABLE,
            Repeat::Never => Traits::ONCE,
        };
        ScriptCall { invocation: definition.script.key(self.keys.used(shard)), traits }
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
