//! Listings: shard by shard, in pages, since a script that told all would stop the server.

use std::collections::HashSet;
use std::sync::Arc;
use std::vec;

use cvmcache::plugin::{ListEntry, ObjectId, ObjectType, PluginResult};

use crate::facts::Facts;
use crate::keys::Shard;
use crate::link::Failure;
use crate::store::Store;

/// A listing of the objects of a type. An object that is there from beginning to end is in it exactly
/// once: it never leaves its index, which is scanned.
pub(crate) struct Pages {
    store: Arc<Store>,
    object_type: ObjectType,
    shards: vec::IntoIter<Shard>,
    /// The shard that has more to tell, and where to go on.
    current: Option<(Shard, u64)>,
    /// What it has told already: a scan may tell an object twice.
    told: HashSet<ObjectId>,
    page: vec::IntoIter<ListEntry>,
}

impl Pages {
    pub(crate) fn new(store: Arc<Store>, object_type: ObjectType) -> Self {
        Self {
            store,
            object_type,
            shards: Shard::all().collect::<Vec<_>>().into_iter(),
            current: None,
            told: HashSet::new(),
            page: Vec::new().into_iter(),
        }
    }

    /// Fetches the next page; false if there is none.
    fn turn(&mut self) -> PluginResult<bool> {
        let next = self.current.take().or_else(|| {
            self.told.clear();
            self.shards.next().map(|shard| (shard, 0))
        });
        let Some((shard, cursor)) = next else { return Ok(false) };
        let (next, found) = self.store.link.wait(self.fetch(shard, cursor))?;
        let mut page = Vec::with_capacity(found.len());
        for (name, facts, pinned) in found {
            let id = std::str::from_utf8(&name).ok().and_then(|name| name.parse::<ObjectId>().ok());
            let Some(id) = id else { continue };
            let Some(facts) = Facts::decode(&id, &self.store.seal, &facts) else { continue };
            if facts.object_type == self.object_type && self.told.insert(id) {
                page.push(ListEntry::new(id, pinned, facts.description));
            }
        }
        self.page = page.into_iter();
        self.current = (next != 0).then_some((shard, next));
        Ok(true)
    }

    async fn fetch(&self, shard: Shard, cursor: u64) -> Result<Told, Failure> {
        let call = self.store.scripts.page(shard, self.object_type.to_wire(), cursor);
        self.store.link.script(&call).await
    }
}

/// Where to go on, and objects: their names, their facts, and whether they are pinned.
type Told = (u64, Vec<(Vec<u8>, Vec<u8>, bool)>);

impl Iterator for Pages {
    type Item = PluginResult<ListEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            match self.turn() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(status) => return Some(Err(status)),
            }
        }
    }
}
