//! An object that a case stores.

use bytes::Bytes;
use cvmcache::plugin::ObjectId;

/// An object and its id.
#[derive(Debug, Clone)]
pub(super) struct TestObject {
    pub(super) id: ObjectId,
    pub(super) content: Bytes,
}

/// A description as long as nearly the longest path (`PATH_MAX`), so that few objects have many bytes of them.
pub(super) const LONG_DESCRIPTION: [u8; 4000] = [b'd'; 4000];

/// How many objects with a long description are in a listing of several parts. A part of the reference library
/// has about 4 MiB (`kListingSize`).
pub(super) const LISTED_IN_PARTS: usize = 1500;
