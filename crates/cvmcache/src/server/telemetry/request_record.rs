//! What is recorded of a request and of its reply.

use std::time::Instant;

use cvmcache_proto::{
    ObjectId, Operation, OperationKind, ReplyBody, Request, ServerMessage, Status,
};

/// The kind of a request: an operation, a handshake, or what makes no sense or names a session that is not
/// its own. It is its index in tables of kinds, which saves every request a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind(u8);

impl Kind {
    pub(super) const COUNT: usize = OperationKind::ALL.len() + 2;

    pub(super) const OPEN: Self = Self::of(OperationKind::Open);
    const READ: Self = Self::of(OperationKind::Read);
    const STORE: Self = Self::of(OperationKind::Store);
    const HANDSHAKE: Self = Self(OperationKind::ALL.len() as u8);
    const INVALID: Self = Self(OperationKind::ALL.len() as u8 + 1);

    pub(super) const fn of(kind: OperationKind) -> Self {
        Self(kind as u8)
    }

    /// Every kind, in the order of [`index`](Self::index).
    pub(super) fn all() -> [Self; Self::COUNT] {
        std::array::from_fn(|index| Self(index as u8))
    }

    pub(super) fn index(self) -> usize {
        self.0.into()
    }

    /// As labels have it.
    pub(super) fn name(self) -> &'static str {
        match OperationKind::ALL.get(self.index()) {
            Some(kind) => kind.name(),
            None if self == Self::HANDSHAKE => "handshake",
            None => "invalid",
        }
    }
}

/// What is counted of a request besides its reply.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    pub(super) kind: Kind,
    /// The bytes of an object that came with it.
    pub(super) bytes: u32,
    pub(super) is_last_part: bool,
}

/// A request that was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answered {
    pub(super) kind: Kind,
    pub(super) result: Result<(), Status>,
    /// The bytes of an object that came with the request or go with its reply.
    pub(super) bytes: u32,
    pub(super) is_last_part: bool,
}

/// Bytes of an object that went to a client, or came from one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Transfer {
    Read { bytes: u64 },
    Stored { bytes: u64, is_last_part: bool },
}

/// What metrics and the debug log want of a request besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestRecord {
    /// As the client counts its requests; 0 where there is none.
    pub(crate) number: u64,
    pub(super) object: Option<ObjectId>,
    pub(super) received_at: Instant,
}

impl Tally {
    #[inline]
    pub(crate) fn of(request: &Request) -> Self {
        let kind = Kind::of(request.operation.kind());
        let (bytes, is_last_part) = match &request.operation {
            // A part has at most `max_object_size` bytes, which is a u32.
            Operation::Store(part) => (part.data.len() as u32, part.last),
            _ => (0, false),
        };
        Self { kind, bytes, is_last_part }
    }

    /// The request has this reply.
    #[inline]
    pub(crate) fn answered(self, body: &ReplyBody) -> Answered {
        let Self { kind, bytes, is_last_part } = self;
        match body {
            ReplyBody::Read { result: Ok(data), .. } => {
                Answered { kind, result: Ok(()), bytes: data.len() as u32, is_last_part }
            }
            body => Answered { kind, result: body.status(), bytes, is_last_part },
        }
    }
}

impl Answered {
    /// A message that is answered before it is a request.
    pub(crate) fn by(answer: &ServerMessage) -> Self {
        let kind = match answer {
            ServerMessage::HandshakeAck(_) => Kind::HANDSHAKE,
            _ => Kind::INVALID,
        };
        let result = answer.status().unwrap_or(Err(Status::Unknown));
        Self { kind, result, bytes: 0, is_last_part: false }
    }

    /// True if the request opened an object that was there; false if the object was missing.
    #[inline]
    pub(crate) fn is_hit(&self) -> Option<bool> {
        match self.result {
            _ if self.kind != Kind::OPEN => None,
            Ok(()) => Some(true),
            Err(Status::NoEntry) => Some(false),
            Err(_) => None,
        }
    }

    /// The bytes that were read or stored, if any were.
    #[inline]
    pub(super) fn transfer(&self) -> Option<Transfer> {
        let bytes = self.bytes.into();
        match self.kind {
            _ if self.result.is_err() => None,
            Kind::READ => Some(Transfer::Read { bytes }),
            Kind::STORE => Some(Transfer::Stored { bytes, is_last_part: self.is_last_part }),
            _ => None,
        }
    }
}

impl RequestRecord {
    /// For a request that has just been taken.
    pub(crate) fn of(request: &Request, received_at: Instant) -> Self {
        let object = request.operation.object().copied();
        Self { number: request.id, object, received_at }
    }

    /// For a message that was answered before it became a request.
    pub(crate) fn of_answer(answer: &ServerMessage, received_at: Instant) -> Self {
        let number = match answer {
            ServerMessage::Reply(reply) => reply.id,
            _ => 0,
        };
        Self { number, object: None, received_at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_index_and_name() {
        for (index, &operation) in OperationKind::ALL.iter().enumerate() {
            let kind = Kind::all()[index];
            assert_eq!((kind, kind.name()), (Kind::of(operation), operation.name()));
        }
        let [.., handshake, invalid] = Kind::all();
        assert_eq!([handshake, invalid], [Kind::HANDSHAKE, Kind::INVALID]);
        assert_eq!([handshake.name(), invalid.name()], ["handshake", "invalid"]);
    }
}
