//! An object that a case stores.

use bytes::Bytes;
use cvmcache::plugin::ObjectId;

/// An object and its id.
#[derive(Debug, Clone)]
pub(super) struct TestObject {
    pub(super) id: ObjectId,
    pub(super) content: Bytes,
}
