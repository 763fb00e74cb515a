//! Uploads of a whole object, or part by part.

use bytes::Bytes;
use cvmcache_proto::{Operation, ReplyBody, Request, StorePart};

use super::{Client, ClientError, NewUpload, Ticket};

/// An upload, part by part.
///
/// It is a request id and a count of parts, not bound to the client that began it. Dropping it sends
/// nothing: the upload lasts until it is committed or aborted, or the session ends.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut client = cvmcache::client::Client::connect(&"unix=/x".parse()?, "x:1")?;
/// # let id = "da39a3ee5e6b4b0d3255bfef95601890afd80709".parse()?;
/// let mut upload = client.begin_upload(id);
/// let part = vec![0; client.max_object_size()];
/// upload.write(&mut client, part)?;
/// assert!(!client.exists(&id)?);
/// upload.commit(&mut client, "the rest")?;
/// assert!(client.exists(&id)?);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Upload {
    new: NewUpload,
    id: u64,
    next_part: u64,
}

impl Upload {
    /// The number of the request, which names the upload in all of its parts.
    pub fn request_id(&self) -> u64 {
        self.id
    }

    /// The number of the part to come; the first is 1.
    pub fn next_part(&self) -> u64 {
        self.next_part
    }

    /// Goes on with another part than the next, as no client does.
    pub fn set_next_part(&mut self, number: u64) {
        self.next_part = number;
    }

    /// Sends a part without waiting for the reply, as no client does. A part should be
    /// `max_object_size` long unless it is the last, but that is left to the plugin to check.
    ///
    /// # Errors
    ///
    /// Those of [`Client::submit`].
    pub fn submit(
        &mut self,
        client: &mut Client,
        data: impl Into<Bytes>,
        last: bool,
    ) -> Result<Ticket<()>, ClientError> {
        let number = self.next_part;
        let mut part = StorePart::new(self.new.id, number, last, data);
        part.expected_size = self.new.expected_size;
        if number == 1 {
            part.object_type = self.new.object_type;
            part.description = self.new.description.clone();
        }
        let ticket = self.submit_operation(client, Operation::Store(part))?;
        self.next_part = number.wrapping_add(1);
        Ok(ticket)
    }

    /// Sends a part and waits for the reply.
    ///
    /// # Errors
    ///
    /// [`Status::NoSpace`] if there is no room for it, [`Status::Malformed`] if it is not
    /// [`max_object_size`](Client::max_object_size) long; others as with [`Client::wait`]. If it is the
    /// first part that is refused, there is no upload; otherwise it is to be
    /// [aborted](Self::abort).
    ///
    /// [`Status::NoSpace`]: crate::plugin::Status::NoSpace
    /// [`Status::Malformed`]: crate::plugin::Status::Malformed
    pub fn write(
        &mut self,
        client: &mut Client,
        data: impl Into<Bytes>,
    ) -> Result<(), ClientError> {
        let ticket = self.submit(client, data, false)?;
        client.wait(ticket)
    }

    /// Sends the last part, which may be empty, and waits for the commit. The object has one
    /// reference more, which is the session's.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write), but that the last part may be shorter.
    pub fn commit(
        &mut self,
        client: &mut Client,
        data: impl Into<Bytes>,
    ) -> Result<(), ClientError> {
        let ticket = self.submit(client, data, true)?;
        client.wait(ticket)
    }

    /// Aborts the upload.
    ///
    /// # Errors
    ///
    /// A status if the plugin does not know the upload, which is [`Status::Malformed`] from a server of
    /// this crate; others as with [`Client::wait`].
    ///
    /// [`Status::Malformed`]: crate::plugin::Status::Malformed
    pub fn abort(self, client: &mut Client) -> Result<(), ClientError> {
        let abort = Operation::StoreAbort { object: self.new.id };
        let ticket = self.submit_operation(client, abort)?;
        client.wait(ticket)
    }

    fn submit_operation(
        &self,
        client: &mut Client,
        operation: Operation,
    ) -> Result<Ticket<()>, ClientError> {
        let request = Request { session: client.session(), id: self.id, operation };
        let ticket = client.queue_request(request, |body| match body {
            ReplyBody::Store { result, .. } => Some(result),
            _ => None,
        })?;
        client.flush_for(ticket)
    }
}

/// Storing objects.
impl Client {
    /// Stores an object, as clients do: in parts of [`max_object_size`](Self::max_object_size),
    /// each of which is answered before the next is sent. The session holds a reference then.
    ///
    /// Unless `object` has another size, the size of `data` is announced. If a part
    /// is refused, the upload is aborted; after any other error the plugin may keep what it has until
    /// the session ends.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let mut client = cvmcache::client::Client::connect(&"unix=/x".parse()?, "x:1")?;
    /// let id = "0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33".parse()?;
    /// client.store(id, "foo")?;
    /// assert_eq!(client.read_all(&id)?, "foo");
    /// client.close(&id)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Status::NoSpace`] if there is no room for the object, [`Status::NoSupport`] if the plugin
    /// stores none; others as with [`wait`](Self::wait).
    ///
    /// [`Status::NoSpace`]: crate::plugin::Status::NoSpace
    /// [`Status::NoSupport`]: crate::plugin::Status::NoSupport
    pub fn store(
        &mut self,
        object: impl Into<NewUpload>,
        data: impl Into<Bytes>,
    ) -> Result<(), ClientError> {
        let (mut object, data) = (object.into(), data.into());
        object.expected_size.get_or_insert(data.len() as u64);
        let mut upload = self.begin_upload(object);
        let result = self.store_parts(&mut upload, data);
        // A plugin that refuses the first part has no upload to abort.
        if matches!(result, Err(ClientError::Status(_))) && upload.next_part > 2 {
            match upload.abort(self) {
                Ok(()) | Err(ClientError::Status(_)) => {}
                Err(error) => return Err(error),
            }
        }
        result
    }

    /// Prepares an upload. The first part is its first request.
    pub fn begin_upload(&mut self, object: impl Into<NewUpload>) -> Upload {
        Upload { new: object.into(), id: self.next_id(), next_part: 1 }
    }

    fn store_parts(&mut self, upload: &mut Upload, mut data: Bytes) -> Result<(), ClientError> {
        while data.len() > self.max_object_size() {
            let part = data.split_to(self.max_object_size());
            upload.write(self, part)?;
        }
        upload.commit(self, data)
    }
}

#[cfg(test)]
mod tests {
    use cvmcache_proto::{ObjectType, Status};

    use super::super::fake::{FakePlugin, PluginEnd, object};
    use super::*;

    const PART: usize = 4096;

    /// Takes parts in, all of one upload, until the last, and answers them; returns number, size
    /// and lastness of each.
    fn take_parts(end: &mut PluginEnd, expected_size: Option<u64>) -> Vec<(u64, usize, bool)> {
        let mut parts = Vec::new();
        let mut upload = None;
        loop {
            let (id, Operation::Store(part)) = end.request() else { panic!("not a part") };
            assert_eq!(*upload.get_or_insert(id), id, "all parts have the same number");
            assert_eq!(part.object, object(7));
            assert_eq!(part.expected_size, expected_size);
            let (object_type, description) = match part.number {
                1 => (ObjectType::Catalog, Some(Bytes::from_static(b"caf\xe9"))),
                _ => (ObjectType::Regular, None),
            };
            assert_eq!((part.object_type, part.description), (object_type, description));
            parts.push((part.number, part.data.len(), part.last));
            end.reply(id, ReplyBody::Store { result: Ok(()), part: part.number });
            if part.last {
                return parts;
            }
        }
    }

    fn catalog() -> NewUpload {
        NewUpload::new(object(7)).object_type(ObjectType::Catalog).description(&b"caf\xe9"[..])
    }

    #[test]
    fn an_object_is_cut_into_full_parts_and_a_last_one() {
        let sizes = [0, 1, PART, PART + 1, 3 * PART];
        let (plugin, mut client) = FakePlugin::with_client(move |end| {
            for size in sizes {
                let parts = take_parts(end, Some(size as u64));
                let count = size.div_ceil(PART).max(1);
                let expected: Vec<_> = (1..=count)
                    .map(|number| {
                        let last = number == count;
                        let len = if last { size - PART * (count - 1) } else { PART };
                        (number as u64, len, last)
                    })
                    .collect();
                assert_eq!(parts, expected);
            }
            end.expect_end();
        });
        for size in sizes {
            client.store(catalog(), vec![7; size]).unwrap();
        }
        drop(client);
        plugin.join();
    }

    #[test]
    fn a_refused_part_aborts_the_upload() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            let refuse = |end: &mut PluginEnd, result| {
                let (id, Operation::Store(part)) = end.request() else { panic!("not a part") };
                end.reply(id, ReplyBody::Store { result, part: part.number });
                id
            };
            refuse(end, Err(Status::NoSpace));
            let upload = refuse(end, Ok(()));
            refuse(end, Err(Status::NoSpace));
            let (id, operation) = end.request();
            assert_eq!((id, operation), (upload, Operation::StoreAbort { object: object(7) }));
            end.reply(id, ReplyBody::Store { result: Ok(()), part: 0 });
            end.expect_end();
        });
        for _ in 0..2 {
            let error = client.store(object(7), vec![7; 3 * PART]).unwrap_err();
            assert_eq!(error.status(), Some(Status::NoSpace));
        }
        drop(client);
        plugin.join();
    }

    #[test]
    fn parts_of_an_upload_interleave_with_other_requests() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            let (upload, operation) = end.request();
            assert!(matches!(operation, Operation::Store(StorePart { number: 1, .. })));
            end.reply(upload, ReplyBody::Store { result: Ok(()), part: 1 });
            let there = Operation::Refcount { object: object(7), change_by: 0 };
            end.serve(there, ReplyBody::Refcount(Err(Status::NoEntry)));
            let (id, operation) = end.request();
            assert_eq!(id, upload);
            assert!(matches!(operation, Operation::Store(StorePart { number: 5, .. })));
            end.reply(upload, ReplyBody::Store { result: Err(Status::Malformed), part: 5 });
            let (id, operation) = end.request();
            assert_eq!((id, operation), (upload, Operation::StoreAbort { object: object(7) }));
            end.reply(upload, ReplyBody::Store { result: Ok(()), part: 0 });
        });
        let mut upload = client.begin_upload(catalog());
        upload.write(&mut client, vec![0; PART]).unwrap();
        assert!(!client.exists(&object(7)).unwrap());
        assert_eq!(upload.next_part(), 2);
        upload.set_next_part(5);
        let error = upload.commit(&mut client, "end").unwrap_err();
        assert_eq!(error.status(), Some(Status::Malformed));
        upload.abort(&mut client).unwrap();
        plugin.join();
    }

    #[test]
    fn an_upload_without_a_size_announces_none() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            assert_eq!(take_parts(end, None), [(1, 0, true)]);
            assert_eq!(take_parts(end, Some(99)), [(1, 1, true)]);
        });
        client.begin_upload(catalog()).commit(&mut client, "").unwrap();
        client.store(catalog().expected_size(99), "x").unwrap();
        plugin.join();
    }
}
