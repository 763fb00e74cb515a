//! Reads of a range or of a whole object.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use cvmcache_proto::{Data, ObjectId, Operation, ReplyBody, RequestKind};

use super::{Client, ClientError, Ticket};

/// How many reads [`Client::read_all`] has in flight.
const READS_IN_FLIGHT: usize = 16;

/// The memory to reserve for an object before it has been read, at most, in bytes.
const BELIEVED_SIZE: u64 = 64 * 1024 * 1024;

/// Reading objects.
impl Client {
    /// Reads `size` bytes of an object from `offset` on, or fewer at its end. A client does not
    /// request more than [`max_object_size`](Self::max_object_size); this one can, and a server of
    /// this crate answers [`Status::Malformed`].
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if it is not in the cache, [`Status::OutOfBounds`] if `offset` is
    /// larger than its size; [`ClientError::Unexpected`] if the reply has more than `size` bytes;
    /// others as with [`wait`](Self::wait).
    ///
    /// [`Status::Malformed`]: crate::plugin::Status::Malformed
    /// [`Status::NoEntry`]: crate::plugin::Status::NoEntry
    /// [`Status::OutOfBounds`]: crate::plugin::Status::OutOfBounds
    pub fn read(&mut self, id: &ObjectId, offset: u64, size: u32) -> Result<Bytes, ClientError> {
        let ticket = self.queue_read(id, offset, size)?;
        let data = self.wait(ticket)?.into_bytes();
        if data.len() > size as usize {
            return Err(unexpected("it has more bytes than were asked for"));
        }
        Ok(data)
    }

    /// Reads all of an object into memory, with 16 reads in flight. An object that is not open may be
    /// evicted meanwhile.
    ///
    /// # Errors
    ///
    /// [`Status::NoEntry`] if it is not in the cache, or not any more; [`ClientError::Unexpected`] if
    /// it is shorter than its size; others as with [`wait`](Self::wait).
    ///
    /// [`Status::NoEntry`]: crate::plugin::Status::NoEntry
    pub fn read_all(&mut self, id: &ObjectId) -> Result<Bytes, ClientError> {
        let size = self.object_info(id)?.size;
        let mut reads = VecDeque::with_capacity(READS_IN_FLIGHT);
        let result = self.read_in_order(id, size, &mut reads);
        reads.into_iter().for_each(|(ticket, _)| self.forget(ticket));
        result
    }

    /// Has a read of `size` bytes from `offset` on sent before the client next waits, see
    /// [`queue`](Self::queue). The reply is taken as it comes, even if it has more bytes than that.
    ///
    /// # Errors
    ///
    /// Those of [`submit`](Self::submit).
    pub fn queue_read(
        &mut self,
        id: &ObjectId,
        offset: u64,
        size: u32,
    ) -> Result<Ticket<Data>, ClientError> {
        self.queue_typed(Operation::Read { object: *id, offset, size }, |body| match body {
            ReplyBody::Read { result, .. } => Some(result),
            _ => None,
        })
    }

    /// Leaves in `reads` what is still in flight if it fails.
    fn read_in_order(
        &mut self,
        id: &ObjectId,
        size: u64,
        reads: &mut VecDeque<(Ticket<Data>, u32)>,
    ) -> Result<Bytes, ClientError> {
        let mut data = BytesMut::with_capacity(size.min(BELIEVED_SIZE) as usize);
        let mut offset = 0;
        loop {
            while reads.len() < READS_IN_FLIGHT && offset < size {
                let len = (size - offset).min(u64::from(self.handshake.max_object_size)) as u32;
                reads.push_back((self.queue_read(id, offset, len)?, len));
                offset += u64::from(len);
            }
            let Some((ticket, len)) = reads.pop_front() else { return Ok(data.freeze()) };
            let piece = self.wait(ticket)?;
            if piece.len() != len as usize {
                let reason = "it has not as many bytes as the object should have there";
                return Err(unexpected(reason));
            }
            data.extend(piece);
        }
    }
}

fn unexpected(reason: &'static str) -> ClientError {
    ClientError::Unexpected { asked: RequestKind::Read, reason }
}

#[cfg(test)]
mod tests {
    use cvmcache_proto::{ObjectInfo, ObjectType, Status};

    use super::super::fake::{FakePlugin, PluginEnd, object};
    use super::*;

    #[test]
    fn a_reply_longer_than_the_read_is_an_error() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            let read = |offset, size| Operation::Read { object: object(1), offset, size };
            end.serve(read(7, 5), bytes(b"short"));
            end.serve(read(10, 5), bytes(b""));
            end.serve(read(0, 5), bytes(b"longer"));
        });
        assert_eq!(client.read(&object(1), 7, 5).unwrap(), "short");
        assert_eq!(client.read(&object(1), 10, 5).unwrap(), "");
        let error = client.read(&object(1), 0, 5).unwrap_err();
        assert!(error.to_string().contains("more bytes"), "{error}");
        plugin.join();
    }

    #[test]
    fn an_object_is_read_with_several_reads_in_flight() {
        let object_bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
        let content = Bytes::from(object_bytes);
        let served = content.clone();
        let (plugin, mut client) = FakePlugin::with_client(move |end| {
            let size = served.len() as u64;
            let info = ObjectInfo::new(size, ObjectType::Regular);
            let ask = Operation::ObjectInfo { object: object(1) };
            end.serve(ask, ReplyBody::ObjectInfo(Ok(info)));
            // No reply before the maximum is in flight, and the last comes first.
            let mut asked: Vec<_> = (0..READS_IN_FLIGHT).map(|_| end.request()).collect();
            asked.reverse();
            for _ in 0..served.len().div_ceil(4096) - READS_IN_FLIGHT {
                answer(end, asked.pop().unwrap(), &served);
                asked.insert(0, end.request());
            }
            asked.into_iter().for_each(|read| answer(end, read, &served));
        });
        assert_eq!(client.read_all(&object(1)).unwrap(), content);
        assert_eq!(client.unclaimed_replies(), 0);
        plugin.join();

        fn answer(end: &mut PluginEnd, (id, read): (u64, Operation), content: &Bytes) {
            let Operation::Read { offset, size, .. } = read else { panic!("not a read") };
            let offset = offset as usize;
            let piece = content.slice(offset..offset + size as usize);
            let data_crc32 = None;
            end.reply(id, ReplyBody::Read { result: Ok(piece.into()), data_crc32 });
        }
    }

    #[test]
    fn an_object_shorter_than_its_size_is_an_error() {
        let (plugin, mut client) = FakePlugin::with_client(|end| {
            let info = ObjectInfo::new(u64::MAX, ObjectType::Regular);
            let ask = Operation::ObjectInfo { object: object(1) };
            end.serve(ask.clone(), ReplyBody::ObjectInfo(Ok(info)));
            for _ in 0..READS_IN_FLIGHT {
                let (id, _) = end.request();
                end.reply(id, bytes(b"short"));
            }
            end.serve(ask, ReplyBody::ObjectInfo(Err(Status::NoEntry)));
        });
        let error = client.read_all(&object(1)).unwrap_err();
        assert!(error.to_string().contains("not as many bytes"), "{error}");
        assert_eq!(client.object_info(&object(1)).unwrap_err().status(), Some(Status::NoEntry));
        assert_eq!(client.unclaimed_replies(), READS_IN_FLIGHT as u64 - 1);
        plugin.join();
    }

    fn bytes(bytes: &'static [u8]) -> ReplyBody {
        let data = Bytes::from_static(bytes).into();
        ReplyBody::Read { result: Ok(data), data_crc32: None }
    }
}
