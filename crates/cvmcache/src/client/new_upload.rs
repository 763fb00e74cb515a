//! The metadata of an object to be stored: its id, type, size and description.

use bytes::Bytes;
use cvmcache_proto::{ObjectId, ObjectType};

/// An object to be stored: its id and its metadata. Where the defaults
/// will do, an [`ObjectId`] takes its place.
///
/// ```
/// use cvmcache::client::NewUpload;
/// use cvmcache::plugin::ObjectType;
///
/// let id = "da39a3ee5e6b4b0d3255bfef95601890afd80709".parse()?;
/// let new = NewUpload::new(id).object_type(ObjectType::Volatile).description("/a/file");
/// # Ok::<(), cvmcache::plugin::ParseObjectIdError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUpload {
    pub(super) id: ObjectId,
    pub(super) object_type: ObjectType,
    pub(super) description: Option<Bytes>,
    pub(super) expected_size: Option<u64>,
}

impl NewUpload {
    /// A regular object without description, of unknown size.
    pub fn new(id: ObjectId) -> Self {
        Self { id, object_type: ObjectType::Regular, description: None, expected_size: None }
    }

    /// Sets the type; default [`ObjectType::Regular`].
    #[must_use]
    pub fn object_type(mut self, object_type: ObjectType) -> Self {
        self.object_type = object_type;
        self
    }

    /// Sets the description, usually a path; default none. It need not be UTF-8. A server of this
    /// crate takes up to [`Limits::max_text`](crate::Limits::max_text) bytes.
    #[must_use]
    pub fn description(mut self, description: impl Into<Bytes>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Sets the size to announce, in bytes. By default, [`Client::store`] announces that of
    /// the data, and [`Client::begin_upload`] none. It need not be true: a server of this crate answers
    /// [`Status::Malformed`] to the part that exceeds it, and to a last part that does not reach it.
    ///
    /// [`Client::store`]: super::Client::store
    /// [`Client::begin_upload`]: super::Client::begin_upload
    /// [`Status::Malformed`]: crate::plugin::Status::Malformed
    #[must_use]
    pub fn expected_size(mut self, bytes: u64) -> Self {
        self.expected_size = Some(bytes);
        self
    }
}

impl From<ObjectId> for NewUpload {
    fn from(id: ObjectId) -> Self {
        Self::new(id)
    }
}
