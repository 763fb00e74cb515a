//! What a plugin author implements: [`CachePlugin`], and the types of its methods.

use bytes::Bytes;

pub use cvmcache_proto::{
    Breadcrumb, CacheInfo, Capabilities, Data, HashAlgorithm, ListEntry, ObjectId, ObjectInfo,
    ObjectType, ParseObjectIdError, Status,
};

#[cfg(feature = "admin")]
use crate::admin::Administration;
pub use crate::read_buffer::ReadBuffer;
use crate::session::Session;

/// What a callback returns. The error is the protocol's status, from which the client makes the
/// error number that a system call on the mount fails with.
pub type PluginResult<T> = Result<T, Status>;

/// An iterator over objects of a cache, see [`CachePlugin::list`].
pub type Listing = Box<dyn Iterator<Item = PluginResult<ListEntry>> + Send>;

/// A cache: what CernVM-FS clients on this node open, read and store objects in.
///
/// Implement [`capabilities`](Self::capabilities), [`object_info`](Self::object_info) and
/// [`read`](Self::read), and whatever else the capabilities promise; then hand it to
/// [`run`](crate::run) or to a [`Server`](crate::Server).
///
/// # The life of an object
///
/// ```text
///   begin ──► write, write, … ──► commit        the object appears, with one reference
///     │            │
///     └────────────┴──► drop                    the upload is aborted
///
///   change_refcount(+1)   open: from now on it must not be evicted
///   object_info           how large it is
///   read, read, …
///   change_refcount(-1)   close: at zero references it may be evicted
/// ```
///
/// # What is taken care of
///
/// - Only what the capabilities declare is called (but see
///   [`takes_references`](Self::takes_references)); everything else is answered
///   [`Status::NoSupport`].
/// - Requests arrive checked: sizes are within the protocol's bounds, the parts of an upload come in
///   order and complete, a listing is continued only by the session that started it.
/// - A session that ends, however it ends, closes what it left open: its uploads are dropped, and
///   its references are released through [`change_refcount`](Self::change_refcount), unless it
///   announced a reload. Then they are for the session that comes after it.
/// - A panic in a callback is answered with [`Status::IoErr`], and the plugin goes on.
///
/// # Threads
///
/// Callbacks take `&self`. With `workers(0)`, the default, they all run on the I/O thread, one at
/// a time; none of them should block for long then. With `workers(n)`, up to n of them run at
/// once. A plugin that waits for something else requests [`workers`](Self::workers). In both cases these
/// keep their order: the parts of one upload, and the changes that one session makes to the reference
/// count of one object.
///
/// To a plugin that mostly need not wait, a worker is dear: it takes longer to wake than the callback itself. Such
/// a one implements [`try_change_refcount`](Self::try_change_refcount), [`try_object_info`](Self::try_object_info)
/// and [`try_read`](Self::try_read) as well.
pub trait CachePlugin: Send + Sync + 'static {
    /// The capabilities of the plugin. Called once, on the thread that starts the server, before the first
    /// session: it cannot change later.
    fn capabilities(&self) -> Capabilities;

    /// Opens (`by` > 0) or closes (`by` < 0) an object, or with `by` = 0 checks whether it exists.
    ///
    /// An object with references must not be evicted, if [`Capabilities::REFCOUNT`] is declared. Called
    /// only if [`takes_references`](Self::takes_references); otherwise opening an object asks
    /// [`object_info`](Self::object_info) whether it exists.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if there is no such object, [`Status::BadCount`] if the count would
    /// fall below zero or overflow; then nothing has changed. `by` is below -1 when a session that
    /// had an object open several times has ended. A session releases no more than it holds.
    fn change_refcount(&self, session: &Session, id: &ObjectId, by: i32) -> PluginResult<()> {
        let _ = (session, id, by);
        Err(Status::NoSupport)
    }

    /// True if [`change_refcount`](Self::change_refcount) is called; by default, if
    /// [`Capabilities::REFCOUNT`] is declared. A plugin that opens a file when an object is opened, and
    /// closes it with the object, but may evict the object meanwhile, does not declare that capability
    /// and returns true here. Asked once, like [`capabilities`](Self::capabilities).
    fn takes_references(&self) -> bool {
        self.capabilities().contains(Capabilities::REFCOUNT)
    }

    /// The size and type of an object.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if there is no such object; the client fetches it then. Any other status
    /// fails the request.
    fn object_info(&self, session: &Session, id: &ObjectId) -> PluginResult<ObjectInfo>;

    /// Reads `len` bytes of an object from `offset` on, or fewer at its end. `len` is at most
    /// [`Limits::max_object_size`](crate::Limits::max_object_size), `offset` anything at all. A
    /// reply of more than `len` bytes is not sent: the client gets [`Status::IoErr`] instead.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if there is no such object, [`Status::OutOfBounds`] if `offset` is
    /// larger than its size, [`Status::Corrupted`] if it is not what was stored. An `offset` equal
    /// to the size is not an error: the data is empty.
    fn read(&self, session: &Session, id: &ObjectId, offset: u64, len: u32) -> PluginResult<Data>;

    /// [`change_refcount`](Self::change_refcount) without waiting: `None` if it would have to wait, and nothing
    /// has changed then. By default, `None`.
    ///
    /// With workers, this and the other `try_` methods are called first, on the I/O thread; after `None`,
    /// a worker calls the other method. So they must not wait: for a disk, for the network, or for a lock that is held
    /// meanwhile. Only single references are changed so. It is not called while a change that the session has sent
    /// before is under way for the same object.
    ///
    /// # Errors
    ///
    /// As there.
    fn try_change_refcount(
        &self,
        session: &Session,
        id: &ObjectId,
        by: i32,
    ) -> Option<PluginResult<()>> {
        let _ = (session, id, by);
        None
    }

    /// [`object_info`](Self::object_info) without waiting, see
    /// [`try_change_refcount`](Self::try_change_refcount).
    ///
    /// # Errors
    ///
    /// As there.
    fn try_object_info(
        &self,
        session: &Session,
        id: &ObjectId,
    ) -> Option<PluginResult<ObjectInfo>> {
        let _ = (session, id);
        None
    }

    /// [`read`](Self::read) without waiting, see [`try_change_refcount`](Self::try_change_refcount). From a file
    /// that may be in the page cache, [`ReadBuffer::read_cached_at`] reads.
    ///
    /// # Errors
    ///
    /// As there.
    fn try_read(
        &self,
        session: &Session,
        id: &ObjectId,
        offset: u64,
        len: u32,
    ) -> Option<PluginResult<Data>> {
        let _ = (session, id, offset, len);
        None
    }

    /// Begins an upload. Called only with [`Capabilities::WRITE`].
    ///
    /// Several sessions may upload the same object at the same time.
    ///
    /// # Errors
    ///
    /// [`Status::NoSpace`] if there is no room for it; the client goes on without caching it. Any
    /// other status ends the upload, too.
    fn begin(&self, session: &Session, object: NewObject) -> PluginResult<Box<dyn Transaction>> {
        let _ = (session, object);
        Err(Status::NoSupport)
    }

    /// How full the cache is. Called only with [`Capabilities::INFO`].
    ///
    /// `session` is `None` when the server itself calls it: every two seconds for its
    /// [metrics](crate::ServerBuilder::metrics), and for a
    /// [status report](crate::ServerHandle::report).
    ///
    /// # Errors
    ///
    /// Any status that is the reason why it is not known.
    fn info(&self, session: Option<&Session>) -> PluginResult<CacheInfo> {
        let _ = session;
        Err(Status::NoSupport)
    }

    /// Evicts objects without references until at most `target` bytes are in use, and returns how
    /// many bytes are then. Called only with [`Capabilities::SHRINK`].
    ///
    /// If what is in use cannot be brought down to `target`, the client gets
    /// [`Status::Partial`]: that is not an error of the callback.
    ///
    /// # Errors
    ///
    /// Any status that is the reason why nothing could be evicted.
    fn shrink(&self, session: &Session, target: u64) -> PluginResult<u64> {
        let _ = (session, target);
        Err(Status::NoSupport)
    }

    /// Starts a listing of the objects of one type. Called only with [`Capabilities::LIST`].
    ///
    /// It may be approximate: objects that come or go meanwhile may be in it or not. It is
    /// continued on the thread of whichever request is for its next part, and dropped with the session.
    ///
    /// # Errors
    ///
    /// Any status that is the reason why there is no listing; an error within it ends it.
    fn list(&self, session: &Session, object_type: ObjectType) -> PluginResult<Listing> {
        let _ = (session, object_type);
        Err(Status::NoSupport)
    }

    /// Keeps a breadcrumb for a repository, instead of the one kept before. Called only with
    /// [`Capabilities::BREADCRUMB`].
    ///
    /// # Errors
    ///
    /// Any status that is the reason why it is not kept.
    fn store_breadcrumb(
        &self,
        session: &Session,
        repository: &[u8],
        breadcrumb: Breadcrumb,
    ) -> PluginResult<()> {
        let _ = (session, repository, breadcrumb);
        Err(Status::NoSupport)
    }

    /// The breadcrumb that was kept for a repository. Called only with
    /// [`Capabilities::BREADCRUMB`].
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if there is none.
    fn load_breadcrumb(&self, session: &Session, repository: &[u8]) -> PluginResult<Breadcrumb> {
        let _ = (session, repository);
        Err(Status::NoSupport)
    }

    /// How many threads run callbacks, unless [`ServerBuilder::workers`](crate::ServerBuilder::workers)
    /// (in a program: `CVMFS_CACHE_PLUGIN_WORKERS`) says otherwise: 0, the default, for a plugin that
    /// never waits, and as many as should wait at once for one that does. Asked once, when the server
    /// starts.
    fn workers(&self) -> usize {
        0
    }

    /// The plugin's own part of the [administration socket](crate::admin): gauges and commands; by default,
    /// none.
    #[cfg(feature = "admin")]
    fn administration(&self) -> Option<&dyn Administration> {
        None
    }
}

/// An object about to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewObject {
    /// Its name.
    pub id: ObjectId,
    /// Its type.
    pub object_type: ObjectType,
    /// What it will be, in bytes, if the client knows. The server holds the client to it, but it
    /// is only a promise: reserve nothing of consequence for it.
    pub expected_size: Option<u64>,
    /// Usually a path, to be shown in listings. It need not be UTF-8. The memory is the plugin's to
    /// keep: it holds nothing else.
    pub description: Option<Bytes>,
}

impl NewObject {
    /// A regular object of unknown size without a description; set the fields to change that.
    pub fn new(id: ObjectId) -> Self {
        Self { id, object_type: ObjectType::Regular, expected_size: None, description: None }
    }
}

/// An open upload. Dropping it aborts the upload.
///
/// Its methods are called one at a time, in the order of the parts, though not always on the same
/// thread: the I/O thread without workers, and any of them otherwise. It is dropped when the client
/// gives the upload up, when its session ends, after an error, and after
/// [`Limits::upload_idle`](crate::Limits::upload_idle) without a part.
pub trait Transaction: Send {
    /// Appends bytes. They are `max_object_size` many, except for the last ones, and never none.
    /// The memory is the plugin's to keep: the bytes were received into a buffer of their size.
    ///
    /// # Errors
    ///
    /// [`Status::NoSpace`] if there is no room for them. After an error the transaction is dropped:
    /// it is neither written to again nor committed.
    fn write(&mut self, data: Bytes) -> PluginResult<()>;

    /// Makes the object appear, with one reference, which is the session's. If it has appeared
    /// already, it is kept, and gains a reference.
    ///
    /// # Errors
    ///
    /// Any status that is the reason why the object does not exist now.
    fn commit(self: Box<Self>) -> PluginResult<()>;
}
