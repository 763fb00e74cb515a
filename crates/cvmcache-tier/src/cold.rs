//! The cold tier: what an object store has to do for the tier, and the registry of stores.
//!
//! A store needs to do what it is asked once, and say truly what came of it. Deadlines, retries, resuming and
//! verification are not its business: the tier does them, the same for all stores.

mod adapter;
mod content;
mod credentials;
mod download;
mod error;
mod failure;
mod kinds;
mod registry;
mod retry;
mod send;
#[cfg(test)]
mod tests;
mod upload;

use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

pub(crate) use download::Reading;
pub use error::ColdError;
pub use registry::{Registry, StoreKind, StoreSettings};
pub(crate) use retry::retried;
pub(crate) use send::send;

use crate::key::StoreKey;

/// A place for cold objects, such as a bucket of an object store.
///
/// Opening one is [`StoreKind::open`]; dropping it ends what it does in the background. Methods run on the
/// tier's own threads, of which there are few: they must not block. What is cancelled is dropped at an await.
#[async_trait]
pub trait ColdStore: fmt::Debug + Send + Sync + 'static {
    /// Begins to read an object from byte `from` on. With `etag`, only the version that has this tag.
    ///
    /// # Errors
    ///
    /// [`ColdError::NotFound`]; [`ColdError::Changed`] if it has another tag; any other.
    async fn download(
        &self,
        key: &StoreKey,
        from: u64,
        etag: Option<&str>,
    ) -> Result<Download, ColdError>;

    /// Reads the bytes of `range`, or fewer at the end of the object.
    ///
    /// # Errors
    ///
    /// [`ColdError::NotFound`], or any other.
    async fn read_range(&self, key: &StoreKey, range: Range<u64>) -> Result<Bytes, ColdError>;

    /// Stores an object of `len` bytes, instead of one that has this key. It appears whole or not at all:
    /// `content` that fails, or has another length, stores nothing.
    ///
    /// # Errors
    ///
    /// [`ColdError::ReadOnly`] for a store that takes nothing, or any other.
    async fn upload(
        &self,
        key: &StoreKey,
        len: u64,
        content: BoxStream<'_, Result<Bytes, ColdError>>,
    ) -> Result<Uploaded, ColdError>;

    /// Deletes an object. That there is none is no error.
    ///
    /// # Errors
    ///
    /// [`ColdError::ReadOnly`], or any other.
    async fn delete(&self, key: &StoreKey) -> Result<(), ColdError>;

    /// The length of an object in bytes, or `None` if there is none.
    ///
    /// # Errors
    ///
    /// If it cannot be known.
    async fn exists(&self, key: &StoreKey) -> Result<Option<u64>, ColdError>;

    /// All objects whose keys begin with the whole components of `prefix`, in any order.
    fn list(&self, prefix: &str) -> BoxStream<'_, Result<Listed, ColdError>>;

    /// Takes other settings, such as new credentials. What is under way ends with those that it began with.
    ///
    /// # Errors
    ///
    /// If they make no sense; those before stay in force.
    fn reconfigure(&self, settings: &StoreSettings) -> Result<(), ColdError>;
}

/// An object that is being read.
pub struct Download {
    /// The length of the whole object in bytes, wherever the reading began.
    pub len: u64,
    /// What tells this version of the object from another one, if the store says.
    pub etag: Option<String>,
    /// Its bytes.
    pub content: BoxStream<'static, Result<Bytes, ColdError>>,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { len, etag, content: _ } = self;
        f.debug_struct("Download").field("len", len).field("etag", etag).finish_non_exhaustive()
    }
}

/// What a store says of an object that it has stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Uploaded {
    /// The store has compared the bytes that it has with a checksum of those that were sent. Otherwise, the
    /// tier reads them back.
    pub is_verified: bool,
}

impl Uploaded {
    /// One that the store has verified.
    pub fn verified() -> Self {
        Self { is_verified: true }
    }
}

/// An object in a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: StoreKey,
    /// Its length in bytes.
    pub len: u64,
    /// When it was stored.
    pub modified: SystemTime,
}
