//! A plugin that wraps another, and injects faults into its callbacks.

use bytes::Bytes;
use cvmcache::admin::Administration;
use cvmcache::plugin::{
    Breadcrumb, CacheInfo, Capabilities, Data, ListEntry, Listing, NewObject, ObjectId, ObjectInfo,
    ObjectType, PluginResult,
};
use cvmcache::{CachePlugin, Session, Transaction};

use crate::faults::Open;
use crate::{Callback, Faults};

/// A plugin whose callbacks have the faults of its [`Faults`], and call the wrapped plugin
/// otherwise. `capabilities`, `takes_references` and `workers` have no faults.
///
/// ```
/// use cvmcache::client::Client;
/// use cvmcache::plugin::*;
/// use cvmcache::{CachePlugin, Server, Session};
/// use cvmcache_testkit::{Callback, Fault, Faulty};
///
/// /// A cache in which every object is empty.
/// struct Empty;
///
/// impl CachePlugin for Empty {
///     fn capabilities(&self) -> Capabilities {
///         Capabilities::NONE
///     }
///     fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
///         Ok(ObjectInfo::default())
///     }
///     fn read(&self, _: &Session, _: &ObjectId, _: u64, _: u32) -> PluginResult<Data> {
///         Ok(Data::default())
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let locator = format!("unix={}/socket", directory.path().display()).parse()?;
/// let plugin = Faulty::new(Empty);
/// let faults = plugin.faults();
/// let running = Server::builder(plugin).listen(&locator)?.spawn()?;
///
/// let mut client = Client::connect(&locator, "test.cern.ch:1")?;
/// let id = "da39a3ee5e6b4b0d3255bfef95601890afd80709".parse()?;
/// faults.plan(Callback::Read, Fault::Panic);
/// let error = client.read(&id, 0, 10).unwrap_err();
/// assert_eq!(error.status(), Some(Status::IoErr));
/// assert!(client.read(&id, 0, 10)?.is_empty());
/// # running.handle().terminate();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Faulty<P> {
    plugin: P,
    faults: Faults,
}

impl<P> Faulty<P> {
    /// Wraps a plugin. There are no faults until [`faults`](Self::faults) has some.
    pub fn new(plugin: P) -> Self {
        Self { plugin, faults: Faults::default() }
    }

    /// A handle on what goes wrong, to be kept when a server takes the plugin.
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// The plugin inside.
    pub fn get_ref(&self) -> &P {
        &self.plugin
    }

    /// Takes the plugin out.
    pub fn into_inner(self) -> P {
        self.plugin
    }
}

impl<P: CachePlugin> CachePlugin for Faulty<P> {
    fn capabilities(&self) -> Capabilities {
        self.plugin.capabilities()
    }

    fn takes_references(&self) -> bool {
        self.plugin.takes_references()
    }

    fn change_refcount(&self, session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        self.faults.strike(Callback::ChangeRefcount)?;
        self.plugin.change_refcount(session, id, by)
    }

    fn object_info(&self, session: &Session, id: &ObjectId) -> PluginResult<ObjectInfo> {
        self.faults.strike(Callback::ObjectInfo)?;
        self.plugin.object_info(session, id)
    }

    fn read(&self, session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data> {
        self.faults.strike(Callback::Read)?;
        self.plugin.read(session, id, offset, len)
    }

    fn begin(&self, session: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        self.faults.strike(Callback::Begin)?;
        let upload = self.plugin.begin(session, object)?;
        Ok(Box::new(FaultyUpload { upload, open: self.faults.transaction_opened() }))
    }

    fn info(&self, session: Option<&Session>) -> PluginResult<CacheInfo> {
        self.faults.strike(Callback::Info)?;
        self.plugin.info(session)
    }

    fn shrink(&self, session: &Session, target: u64) -> PluginResult<u64> {
        self.faults.strike(Callback::Shrink)?;
        self.plugin.shrink(session, target)
    }

    fn list(&self, session: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        self.faults.strike(Callback::List)?;
        let listing = self.plugin.list(session, object_type)?;
        Ok(Box::new(FaultyListing { listing, open: self.faults.listing_opened() }))
    }

    fn store_breadcrumb(
        &self,
        session: &Session,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        self.faults.strike(Callback::StoreBreadcrumb)?;
        self.plugin.store_breadcrumb(session, repository, breadcrumb)
    }

    fn load_breadcrumb(&self, session: &Session, repository: &[u8]) -> PluginResult<Breadcrumb> {
        self.faults.strike(Callback::LoadBreadcrumb)?;
        self.plugin.load_breadcrumb(session, repository)
    }

    fn workers(&self) -> usize {
        self.plugin.workers()
    }

    fn administration(&self) -> Option<&dyn Administration> {
        self.plugin.administration()
    }
}

/// What is inside goes first, so that nothing counts as dropped that is not.
struct FaultyUpload {
    upload: Box<dyn Transaction>,
    open: Open,
}

impl Transaction for FaultyUpload {
    fn write(&mut self, data: Bytes) -> PluginResult<()> {
        self.open.faults().strike(Callback::Write)?;
        self.upload.write(data)
    }

    fn commit(self: Box<Self>) -> PluginResult<()> {
        let FaultyUpload { open, upload } = *self;
        open.faults().strike(Callback::Commit)?;
        upload.commit()
    }
}

struct FaultyListing {
    listing: Listing,
    open: Open,
}

impl Iterator for FaultyListing {
    type Item = PluginResult<ListEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.open.faults().strike(Callback::Next) {
            Ok(()) => self.listing.next(),
            Err(status) => Some(Err(status)),
        }
    }
}
