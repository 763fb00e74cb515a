//! The kinds of operations, with the names that metrics, tools and tests use.

use crate::{Operation, RequestKind};

/// What an [`Operation`] does, without its operands.
///
/// One message of the protocol opens an object, closes it and checks whether it exists; here these are
/// three kinds. [`RequestKind`] is the kind of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum OperationKind {
    /// Opens an object: a change of its reference count above zero.
    Open,
    /// Asks whether an object exists: a change of its reference count by zero.
    Exists,
    /// Closes an object: a change of its reference count below zero.
    Close,
    /// Asks for type and size of an object.
    ObjectInfo,
    /// Reads from an object.
    Read,
    /// Uploads a part of an object.
    Store,
    /// Aborts an upload.
    Abort,
    /// Asks for a part of a listing.
    List,
    /// Asks to shrink the cache.
    Shrink,
    /// Asks how full the cache is.
    Info,
    /// Stores a breadcrumb.
    StoreBreadcrumb,
    /// Loads a breadcrumb.
    LoadBreadcrumb,
}

impl OperationKind {
    /// Every kind, in the order of the enumeration: `ALL[kind as usize]` is `kind`.
    pub const ALL: [Self; 12] = [
        Self::Open,
        Self::Exists,
        Self::Close,
        Self::ObjectInfo,
        Self::Read,
        Self::Store,
        Self::Abort,
        Self::List,
        Self::Shrink,
        Self::Info,
        Self::StoreBreadcrumb,
        Self::LoadBreadcrumb,
    ];

    /// A name that does not change between versions, for a label of a metric or a column.
    ///
    /// ```
    /// use cvmcache_proto::OperationKind;
    ///
    /// assert_eq!(OperationKind::LoadBreadcrumb.name(), "load_breadcrumb");
    /// ```
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Exists => "exists",
            Self::Close => "close",
            Self::ObjectInfo => "object_info",
            Self::Read => "read",
            Self::Store => "store",
            Self::Abort => "abort",
            Self::List => "list",
            Self::Shrink => "shrink",
            Self::Info => "info",
            Self::StoreBreadcrumb => "store_breadcrumb",
            Self::LoadBreadcrumb => "load_breadcrumb",
        }
    }

    /// The kind of message that carries it.
    pub const fn request(self) -> RequestKind {
        match self {
            Self::Open | Self::Exists | Self::Close => RequestKind::Refcount,
            Self::ObjectInfo => RequestKind::ObjectInfo,
            Self::Read => RequestKind::Read,
            Self::Store => RequestKind::Store,
            Self::Abort => RequestKind::StoreAbort,
            Self::List => RequestKind::List,
            Self::Shrink => RequestKind::Shrink,
            Self::Info => RequestKind::Info,
            Self::StoreBreadcrumb => RequestKind::BreadcrumbStore,
            Self::LoadBreadcrumb => RequestKind::BreadcrumbLoad,
        }
    }
}

impl Operation {
    /// What the operation does, without its operands.
    pub const fn kind(&self) -> OperationKind {
        match self {
            Operation::Refcount { change_by: 1.., .. } => OperationKind::Open,
            Operation::Refcount { change_by: 0, .. } => OperationKind::Exists,
            Operation::Refcount { .. } => OperationKind::Close,
            Operation::Read { .. } => OperationKind::Read,
            Operation::ObjectInfo { .. } => OperationKind::ObjectInfo,
            Operation::Store(_) => OperationKind::Store,
            Operation::StoreAbort { .. } => OperationKind::Abort,
            Operation::Info => OperationKind::Info,
            Operation::Shrink { .. } => OperationKind::Shrink,
            Operation::List { .. } => OperationKind::List,
            Operation::BreadcrumbStore { .. } => OperationKind::StoreBreadcrumb,
            Operation::BreadcrumbLoad { .. } => OperationKind::LoadBreadcrumb,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_kinds_are_in_the_order_of_the_enumeration_and_their_names_differ() {
        for (index, kind) in OperationKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{kind:?}");
        }
        // The last variant. A new one behind it belongs into `ALL`, too.
        assert_eq!(OperationKind::ALL.len(), OperationKind::LoadBreadcrumb as usize + 1);
        let names: HashSet<_> = OperationKind::ALL.map(OperationKind::name).into();
        assert_eq!(names.len(), OperationKind::ALL.len());
    }
}
