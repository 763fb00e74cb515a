//! A plugin inside the test, with objects such as no client would store.

use bytes::Bytes;
use cvmcache::plugin::*;
use cvmcache::{CachePlugin, Locator, RunningServer, Server, Session, Transaction};
use tempfile::TempDir;

/// A cache that holds what it was made with. It takes uploads, and forgets them.
#[derive(Debug, Clone)]
pub struct Shelf {
    pub capabilities: Capabilities,
    pub info: CacheInfo,
    pub items: Vec<Item>,
}

#[derive(Debug, Clone)]
pub struct Item {
    pub id: ObjectId,
    pub object_type: ObjectType,
    pub pinned: bool,
    pub description: Option<Bytes>,
    /// The size that it reports.
    pub size: u64,
    pub content: Bytes,
}

struct Nothing;

/// A plugin that listens, until it is dropped.
pub struct Served {
    running: Option<RunningServer>,
    locator: Locator,
    directory: Option<TempDir>,
}

impl Shelf {
    /// A cache of 1 GiB that is half full.
    pub fn new(items: Vec<Item>) -> Self {
        let info = CacheInfo::new(1 << 30, 512 << 20, 128 << 20).with_shrink_count(3);
        Self { capabilities: Capabilities::ALL, info, items }
    }

    fn find(&self, id: &ObjectId) -> PluginResult<&Item> {
        self.items.iter().find(|item| item.id == *id).ok_or(Status::NoEntry)
    }
}

impl Item {
    /// A regular object that is not pinned; set the fields to change that.
    pub fn new(number: u32, description: impl Into<Bytes>, content: &str) -> Self {
        Self {
            id: id(number),
            object_type: ObjectType::Regular,
            pinned: false,
            description: Some(description.into()),
            size: content.len() as u64,
            content: content.to_owned().into(),
        }
    }
}

/// An id with this number in its last digits.
pub fn id(number: u32) -> ObjectId {
    format!("{number:040x}").parse().unwrap()
}

impl CachePlugin for Shelf {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn change_refcount(&self, _: &Session, id: &ObjectId, _: i32) -> PluginResult<()> {
        self.find(id).map(|_| ())
    }

    fn object_info(&self, _: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        self.find(id).map(|item| ObjectInfo::new(item.size, item.object_type))
    }

    fn read(&self, _: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        let content = &self.find(id)?.content;
        let end = (offset + u64::from(len)).min(content.len() as u64);
        Ok(content.slice(offset.min(end) as usize..end as usize).into())
    }

    fn begin(&self, _: &Session, _: NewObject) -> PluginResult<Box<dyn Transaction>> {
        Ok(Box::new(Nothing))
    }

    fn info(&self, _: Option<&Session>) -> PluginResult<CacheInfo> {
        Ok(self.info)
    }

    fn shrink(&self, _: &Session, _: u64) -> PluginResult<u64> {
        Ok(self.info.pinned_bytes)
    }

    fn list(&self, _: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        let items = self.items.clone().into_iter();
        Ok(Box::new(items.filter(move |item| item.object_type == object_type).map(|item| {
            let Item { id, pinned, description, .. } = item;
            Ok(ListEntry::new(id, pinned, description))
        })))
    }
}

impl Transaction for Nothing {
    fn write(&mut self, _: Bytes) -> PluginResult<()> {
        Ok(())
    }

    fn commit(self: Box<Self>) -> PluginResult<()> {
        Ok(())
    }
}

impl Served {
    /// On a unix socket of its own.
    pub fn new(plugin: impl CachePlugin) -> Self {
        Self::named(b"shelf", plugin)
    }

    /// The same, under a name that need not be UTF-8.
    pub fn named(name: &'static [u8], plugin: impl CachePlugin) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let locator = Locator::Unix(directory.path().join("socket"));
        let mut served = Self::start(&locator, name, plugin);
        served.directory = Some(directory);
        served
    }

    /// Where a test wants it.
    pub fn at(locator: &Locator, plugin: impl CachePlugin) -> Self {
        Self::start(locator, b"shelf", plugin)
    }

    fn start(locator: &Locator, name: &'static [u8], plugin: impl CachePlugin) -> Self {
        let server = Server::builder(plugin).name(name).listen(locator).unwrap();
        let running = Some(server.spawn().unwrap());
        Self { running, locator: locator.clone(), directory: None }
    }

    pub fn locator(&self) -> String {
        self.locator.to_string()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.handle().terminate();
            let _ = running.wait();
        }
    }
}
