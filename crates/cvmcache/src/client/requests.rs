//! One method for each request, which sends it and waits for the reply.

use bytes::Bytes;
use cvmcache_proto::{
    Breadcrumb, CacheInfo, ListEntry, ObjectId, ObjectInfo, ObjectType, Operation, ReplyBody,
    RequestKind, Status,
};

use super::{Client, ClientError};

/// The result of a shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shrunk {
    /// What is in use now, in bytes.
    pub used_bytes: u64,
    /// True if the plugin reports that it is more than the target ([`Status::Partial`]).
    pub partial: bool,
}

/// One part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListPart {
    /// The argument of [`Client::list_part`] for the next part.
    pub listing: u64,
    /// True if there is no next part.
    pub last: bool,
    /// The objects, in the plugin's order. A part may have none and not be the last.
    pub entries: Vec<ListEntry>,
}

/// One request and its reply. All of them fail with [`ClientError::Status`] if the reply has
/// one, and as [`wait`](Self::wait) does if the plugin or the connection fails.
impl Client {
    /// Opens an object, which is not evicted until it is closed as often.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if it is not in the cache.
    pub fn open(&mut self, id: &ObjectId) -> Result<(), ClientError> {
        self.change_refcount(id, 1)
    }

    /// Closes an object.
    ///
    /// # Errors
    ///
    /// [`Status::BadCount`] if this session does not have it open, [`Status::NoEntry`] if it is not
    /// even in the cache. A plugin without [`REFCOUNT`](cvmcache_proto::Capabilities::REFCOUNT) lets
    /// anything be closed.
    pub fn close(&mut self, id: &ObjectId) -> Result<(), ClientError> {
        self.change_refcount(id, -1)
    }

    /// Adds to the reference count of an object; 0 just checks whether it exists.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if it is not in the cache, [`Status::BadCount`] if its count would
    /// overflow, or if that gives back more than this session holds.
    pub fn change_refcount(&mut self, id: &ObjectId, by: i32) -> Result<(), ClientError> {
        self.call(Operation::Refcount { object: *id, change_by: by }, |body| match body {
            ReplyBody::Refcount(result) => Some(result),
            _ => None,
        })
    }

    /// Whether an object is in the cache.
    ///
    /// # Errors
    ///
    /// Any status but [`Status::NoEntry`].
    pub fn exists(&mut self, id: &ObjectId) -> Result<bool, ClientError> {
        match self.change_refcount(id, 0) {
            Err(ClientError::Status(Status::NoEntry)) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// The size and type of an object.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if it is not in the cache.
    pub fn object_info(&mut self, id: &ObjectId) -> Result<ObjectInfo, ClientError> {
        self.call(Operation::ObjectInfo { object: *id }, |body| match body {
            ReplyBody::ObjectInfo(result) => Some(result),
            _ => None,
        })
    }

    /// How full the cache is.
    ///
    /// # Errors
    ///
    /// [`Status::NoSupport`] if the plugin does not report it.
    pub fn info(&mut self) -> Result<CacheInfo, ClientError> {
        self.call(Operation::Info, |body| match body {
            ReplyBody::Info(result) => Some(result),
            _ => None,
        })
    }

    /// Requests evictions until at most `target` bytes are in use. That more are left is no error.
    ///
    /// # Errors
    ///
    /// [`Status::NoSupport`] if the plugin does not evict on request. [`Status::Partial`] is none: see
    /// [`Shrunk::partial`].
    pub fn shrink(&mut self, target: u64) -> Result<Shrunk, ClientError> {
        self.call(Operation::Shrink { target }, |body| match body {
            ReplyBody::Shrink { result, used_bytes } => Some(match result {
                Ok(()) => Ok(Shrunk { used_bytes, partial: false }),
                Err(Status::Partial) => Ok(Shrunk { used_bytes, partial: true }),
                Err(status) => Err(status),
            }),
            _ => None,
        })
    }

    /// All objects of one type, in memory: a full cache may have millions of them.
    ///
    /// # Errors
    ///
    /// Those of [`list_part`](Self::list_part). What was listed before is lost then.
    pub fn list(&mut self, object_type: ObjectType) -> Result<Vec<ListEntry>, ClientError> {
        let mut entries = Vec::new();
        let mut listing = 0;
        loop {
            let part = self.list_part(listing, object_type)?;
            entries.extend(part.entries);
            if part.last {
                return Ok(entries);
            }
            listing = part.listing;
        }
    }

    /// Some objects of one type: the first if `listing` is 0, else those that follow the part
    /// that named it.
    ///
    /// # Errors
    ///
    /// [`Status::NoSupport`] if the plugin does not list its objects; another, which is
    /// [`Status::Malformed`] from a server of this crate, if there is no such listing;
    /// [`Status::NoSpace`] if too many are open; [`ClientError::Unexpected`] if there is more, but no
    /// listing id to request it with.
    pub fn list_part(
        &mut self,
        listing: u64,
        object_type: ObjectType,
    ) -> Result<ListPart, ClientError> {
        let part = self.call(Operation::List { listing, object_type }, |body| match body {
            ReplyBody::List { result, listing, last, entries } => {
                Some(result.map(|()| ListPart { listing, last, entries }))
            }
            _ => None,
        })?;
        if part.listing == 0 && !part.last {
            // A request with 0 would begin again.
            let reason = "it is not the last part, and has no number to ask for the next with";
            return Err(ClientError::Unexpected { asked: RequestKind::List, reason });
        }
        Ok(part)
    }

    /// Stores the breadcrumb of a repository, whose name need not be UTF-8.
    ///
    /// # Errors
    ///
    /// [`Status::NoSupport`] if the plugin keeps none.
    pub fn store_breadcrumb(
        &mut self,
        repository: impl Into<Bytes>,
        breadcrumb: Breadcrumb,
    ) -> Result<(), ClientError> {
        let repository = repository.into();
        self.call(Operation::BreadcrumbStore { repository, breadcrumb }, |body| match body {
            ReplyBody::Breadcrumb(result) => Some(result.map(|_| ())),
            _ => None,
        })
    }

    /// The breadcrumb of a repository.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if there is none; [`Status::NoSupport`] if the plugin keeps none;
    /// [`ClientError::Unexpected`] if the reply has none, or that of another repository.
    pub fn load_breadcrumb(
        &mut self,
        repository: impl Into<Bytes>,
    ) -> Result<Breadcrumb, ClientError> {
        let asked = repository.into();
        let repository = asked.clone();
        let found = self.call(Operation::BreadcrumbLoad { repository }, |body| match body {
            ReplyBody::Breadcrumb(result) => Some(result),
            _ => None,
        })?;
        match found {
            Some((name, breadcrumb)) if name == asked => Ok(breadcrumb),
            Some(_) => Err(unexpected("it names another repository")),
            None => Err(unexpected("it has no breadcrumb")),
        }
    }
}

fn unexpected(reason: &'static str) -> ClientError {
    ClientError::Unexpected { asked: RequestKind::BreadcrumbLoad, reason }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakePlugin, object};
    use super::*;

    #[test]
    fn objects_are_opened_closed_and_checked_for_existence() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            let change = |change_by| Operation::Refcount { object: object(1), change_by };
            end.serve(change(1), ReplyBody::Refcount(Ok(())));
            end.serve(change(-1), ReplyBody::Refcount(Err(Status::BadCount)));
            end.serve(change(0), ReplyBody::Refcount(Ok(())));
            end.serve(change(0), ReplyBody::Refcount(Err(Status::NoEntry)));
            end.serve(change(0), ReplyBody::Refcount(Err(Status::IoErr)));
        });
        client.open(&object(1)).unwrap();
        let error = client.close(&object(1)).unwrap_err();
        assert_eq!(error.status(), Some(Status::BadCount));
        assert_eq!(error.to_string(), "the plugin answered: reference count out of bounds");
        assert!(client.exists(&object(1)).unwrap());
        assert!(!client.exists(&object(1)).unwrap());
        assert_eq!(client.exists(&object(1)).unwrap_err().status(), Some(Status::IoErr));
        plugin.join();
    }

    #[test]
    fn a_partial_shrink_returns_the_bytes_still_used() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            for (result, used_bytes) in
                [(Ok(()), 1), (Err(Status::Partial), 2), (Err(Status::NoSupport), 3)]
            {
                let shrink = Operation::Shrink { target: used_bytes };
                end.serve(shrink, ReplyBody::Shrink { result, used_bytes });
            }
        });
        assert_eq!(client.shrink(1).unwrap(), Shrunk { used_bytes: 1, partial: false });
        assert_eq!(client.shrink(2).unwrap(), Shrunk { used_bytes: 2, partial: true });
        assert_eq!(client.shrink(3).unwrap_err().status(), Some(Status::NoSupport));
        plugin.join();
    }

    #[test]
    fn a_listing_is_followed_to_its_last_part() {
        let entry = |number| ListEntry::new(object(number), true, None);
        let (plugin, mut client) = FakePlugin::with_client(move |end| {
            let ask = |listing| Operation::List { listing, object_type: ObjectType::Catalog };
            let part =
                |listing, last, entries| ReplyBody::List { result: Ok(()), listing, last, entries };
            end.serve(ask(0), part(9, false, vec![entry(1), entry(2)]));
            end.serve(ask(9), part(9, false, Vec::new()));
            end.serve(ask(9), part(9, true, vec![entry(3)]));
            let result = Err(Status::Malformed);
            let failed = ReplyBody::List { result, listing: 0, last: true, entries: Vec::new() };
            end.serve(ask(77), failed);
            end.serve(ask(0), part(0, false, vec![entry(1)]));
        });
        assert_eq!(client.list(ObjectType::Catalog).unwrap(), [1, 2, 3].map(entry));
        let error = client.list_part(77, ObjectType::Catalog).unwrap_err();
        assert_eq!(error.status(), Some(Status::Malformed));
        let error = client.list(ObjectType::Catalog).unwrap_err();
        assert!(error.to_string().contains("no number to ask for the next with"), "{error}");
        plugin.join();
    }

    #[test]
    fn a_breadcrumb_of_another_repository_is_an_error() {
        let breadcrumb = Breadcrumb { catalog: object(1), timestamp: 5, revision: Some(6) };
        let (plugin, mut client) = FakePlugin::with_client(move |end| {
            let repository = Bytes::from_static(b"caf\xe9");
            let name = repository.clone();
            let store = Operation::BreadcrumbStore { repository: name, breadcrumb };
            end.serve(store, ReplyBody::Breadcrumb(Ok(None)));
            let load = Operation::BreadcrumbLoad { repository: repository.clone() };
            for found in [Some((repository, breadcrumb)), None, Some((Bytes::new(), breadcrumb))] {
                end.serve(load.clone(), ReplyBody::Breadcrumb(Ok(found)));
            }
        });
        let repository = &b"caf\xe9"[..];
        client.store_breadcrumb(repository, breadcrumb).unwrap();
        assert_eq!(client.load_breadcrumb(repository).unwrap(), breadcrumb);
        let error = client.load_breadcrumb(repository).unwrap_err();
        assert!(error.to_string().contains("no breadcrumb"), "{error}");
        let error = client.load_breadcrumb(repository).unwrap_err();
        assert!(error.to_string().contains("another repository"), "{error}");
        plugin.join();
    }
}
