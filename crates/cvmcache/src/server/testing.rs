//! Fixtures of the unit tests of the server.

use std::sync::Arc;

use cvmcache_proto::{Data, ObjectId, ObjectInfo, Status};

use crate::plugin::{CachePlugin, Capabilities, PluginResult};
use crate::service::Service;
use crate::{Limits, Session};

/// A plugin whose objects are all the same, without an end, and that takes none.
pub(crate) struct Constant;

impl CachePlugin for Constant {
    fn capabilities(&self) -> Capabilities {
        Capabilities::NONE
    }

    fn object_info(&self, _: &Session, _: &ObjectId) -> PluginResult<ObjectInfo> {
        Err(Status::NoEntry)
    }

    fn read(&self, _: &Session, _: &ObjectId, _: u64, len: u32) -> PluginResult<Data> {
        Ok(Data::from(vec![b'a'; len as usize]))
    }
}

pub(crate) fn service() -> Arc<Service> {
    service_with(Limits::default())
}

pub(crate) fn service_with(limits: Limits) -> Arc<Service> {
    Arc::new(Service::new(Box::new(Constant), "test", limits))
}
