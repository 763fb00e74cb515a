//! Why a store did not do what it was asked.

use thiserror::Error;

/// Why a store did not do what it was asked. Texts have neither credentials nor signed URLs in them.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ColdError {
    /// There is no such object.
    #[error("the store has no object of this name")]
    NotFound,
    /// The object is another one than when reading began.
    #[error("the object in the store was replaced while it was read")]
    Changed,
    /// The store refuses these credentials; they may have expired.
    #[error("the store refuses the credentials: {0}")]
    Denied(String),
    /// The store cannot be reached, or not now: it may be tried again.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The store answers what cannot be used, or refuses for good.
    #[error("the store has failed: {0}")]
    Failed(String),
    /// The store takes nothing.
    #[error("the store is read only")]
    ReadOnly,
    /// The settings make no sense.
    #[error("{0}")]
    Settings(String),
    /// What was to be stored could not be read here.
    #[error("the object cannot be read here: {0}")]
    Source(String),
}

impl ColdError {
    /// True if the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Denied(_))
    }
}
