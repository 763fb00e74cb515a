//! Listings: shard by shard, in pages, because a script that returned all objects would block the server.

use std::collections::HashSet;
use std::sync::Arc;
use std::vec;

use cvmcache::plugin::{ListEntry, ObjectId, ObjectType, PluginResult};

use crate::backend::{Backend, ListedObject};
use crate::keys::Shard;

/// A listing of the objects of a type. An object that is there from beginning to end is in it exactly
/// once: it never leaves its index, over which a cursor scans.
pub(crate) struct Pages {
    backend: Arc<Backend>,
    object_type: ObjectType,
    shards: vec::IntoIter<Shard>,
    /// The shard that is being scanned, and the cursor there.
    current: Option<(Shard, u64)>,
    /// What is listed of that shard: a scan may return an object twice.
    listed: HashSet<ObjectId>,
    page: vec::IntoIter<ListEntry>,
}

impl Pages {
    pub(crate) fn new(backend: Arc<Backend>, object_type: ObjectType) -> Self {
        Self {
            backend,
            object_type,
            shards: Shard::all().collect::<Vec<_>>().into_iter(),
            current: None,
            listed: HashSet::new(),
            page: Vec::new().into_iter(),
        }
    }

    /// Fetches the next page; false if there is none.
    fn fetch(&mut self) -> PluginResult<bool> {
        let next = self.current.take().or_else(|| {
            self.listed.clear();
            self.shards.next().map(|shard| (shard, 0))
        });
        let Some((shard, cursor)) = next else { return Ok(false) };
        let fetched = self.backend.list_objects(shard, self.object_type, cursor);
        let (next, objects) = self.backend.wait(fetched)?;
        let mut page = Vec::with_capacity(objects.len());
        for ListedObject { id, metadata, pinned } in objects {
            if metadata.object_type == self.object_type && self.listed.insert(id) {
                page.push(ListEntry::new(id, pinned, metadata.description));
            }
        }
        self.page = page.into_iter();
        self.current = (next != 0).then_some((shard, next));
        Ok(true)
    }
}

impl Iterator for Pages {
    type Item = PluginResult<ListEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            match self.fetch() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(status) => return Some(Err(status)),
            }
        }
    }
}
