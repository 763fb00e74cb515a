//! What is recorded of a request and of its reply.

use std::time::Instant;

use cvmcache_proto::{
    ObjectId, Operation, OperationKind, Reply, ReplyBody, Request, ServerMessage, Status,
};

/// The kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Operation(OperationKind),
    Handshake,
    /// It makes no sense, or names a session that is not its own.
    Invalid,
}

impl Kind {
    pub(super) const COUNT: usize = OperationKind::ALL.len() + 2;

    /// Every kind, in the order of [`index`](Self::index).
    pub(super) fn all() -> [Self; Self::COUNT] {
        std::array::from_fn(|index| match OperationKind::ALL.get(index) {
            Some(&kind) => Self::Operation(kind),
            None if index == OperationKind::ALL.len() => Self::Handshake,
            None => Self::Invalid,
        })
    }

    pub(super) fn index(self) -> usize {
        match self {
            Self::Operation(kind) => kind as usize,
            Self::Handshake => OperationKind::ALL.len(),
            Self::Invalid => OperationKind::ALL.len() + 1,
        }
    }

    /// As labels have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Operation(kind) => kind.name(),
            Self::Handshake => "handshake",
            Self::Invalid => "invalid",
        }
    }
}

/// What is recorded of a request once it has been answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestRecord {
    pub(super) kind: Kind,
    /// As the client counts its requests; 0 where there is none.
    pub(crate) number: u64,
    pub(super) object: Option<ObjectId>,
    pub(super) received_at: Instant,
    /// How many bytes of an object came with it, and whether they were the last ones.
    pub(super) bytes: usize,
    pub(super) is_last: bool,
}

/// How a request was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplyOutcome {
    pub(super) result: Result<(), Status>,
    /// The bytes of an object that go with the answer.
    pub(super) sent: usize,
}

impl RequestRecord {
    /// For a request that has just been taken.
    pub(crate) fn of(request: &Request, received_at: Instant) -> Self {
        let (mut bytes, mut is_last) = (0, false);
        if let Operation::Store(part) = &request.operation {
            (bytes, is_last) = (part.data.len(), part.last);
        }
        let operation = &request.operation;
        let (kind, object) = (Kind::Operation(operation.kind()), operation.object().copied());
        Self { kind, number: request.id, object, received_at, bytes, is_last }
    }

    /// For a message that was answered before it became a request.
    pub(crate) fn of_answer(answer: &ServerMessage, received_at: Instant) -> Self {
        let (kind, number) = match answer {
            ServerMessage::HandshakeAck(_) => (Kind::Handshake, 0),
            ServerMessage::Reply(reply) => (Kind::Invalid, reply.id),
            _ => (Kind::Invalid, 0),
        };
        Self { kind, number, object: None, received_at, bytes: 0, is_last: false }
    }
}

impl ReplyOutcome {
    pub(crate) fn of(answer: &ServerMessage) -> Self {
        let sent = match answer {
            ServerMessage::Reply(Reply {
                body: ReplyBody::Read { result: Ok(data), .. }, ..
            }) => data.len(),
            _ => 0,
        };
        let result = answer.status().unwrap_or(Err(Status::Unknown));
        Self { result, sent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_counted_at_its_own_index() {
        for (index, kind) in Kind::all().into_iter().enumerate() {
            assert_eq!(kind.index(), index, "{kind:?}");
        }
    }
}
