//! The flaws on the wire, and which case of the suite has to fail for each.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cvmcache::plugin::*;
use cvmcache_proto::{ClientMessage, HandshakeAck, Operation, Reply, ReplyBody, Request};
use cvmcache_proto::{PROTOCOL_VERSION, ServerMessage};

use super::meddler::Common;

/// One thing that is wrong on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WireFlaw {
    /// The process id is missing.
    NoPid,
    /// The process id is none.
    PidZero,
    /// Parts are smaller than clients take.
    SmallParts,
    /// Parts are smaller than clients take, from the first client on.
    AlwaysSmallParts,
    /// Parts are larger than clients take.
    LargeParts,
    /// All sessions have the same number.
    OneSession,
    /// A session has the number of open connections.
    SessionsByCount,
    /// A name that is not UTF-8 ends the connection.
    ClosesOnBytes,
    /// A long name ends the connection.
    ClosesOnLongNames,
    /// A client without a name is refused.
    RefusesAnonymous,
    /// The connection of a client that quits stays.
    StaysAfterQuit,
    /// A client that quits gets a reply.
    AnswersQuit,
    /// A client that is one too many is not let in.
    FiftyClients,
    /// A request for an undeclared capability succeeds.
    GrantsUndeclared,
    /// What is not declared is not answered.
    IgnoresUndeclared,
    /// Every request is answered twice.
    AnswersTwice,
    /// The five hundredth request is not answered.
    LosesAnAnswer,
    /// Two replies have each other's id.
    SwapsAnswers,
    /// Two reads have each other's number.
    SwapsReads,
    /// The fortieth read is not answered.
    LosesARead,
    /// The reply to a part has not its number.
    PartsWithoutNumber,
    /// A listing comes in one part, however large it is.
    OneListingPart,
    /// The first part of a listing is marked as the last.
    ListingEndsEarly,
    /// A listing has no number to go on with.
    ListingWithoutNumber,
    /// A listing goes on with its first part for ever.
    ListingWithoutEnd,
    /// Reloads do not reach the plugin.
    DropsIoctls,
    /// From the eleventh on, reloads do not reach the plugin.
    DropsLaterIoctls,
    /// An Ioctl is answered.
    AnswersIoctls,
    /// A detach reaches only one client.
    DetachesOne,
}

use WireFlaw::*;

/// Which cases have to catch what.
pub(crate) const TABLE: &[(WireFlaw, &[&str])] = &[
    (NoPid, &["session-offer"]),
    (PidZero, &["session-offer"]),
    (SmallParts, &["session-offer"]),
    (LargeParts, &["session-offer"]),
    (OneSession, &["session-ids"]),
    (SessionsByCount, &["session-ids"]),
    (ClosesOnBytes, &["session-names"]),
    (ClosesOnLongNames, &["session-names"]),
    (RefusesAnonymous, &["session-names"]),
    (StaysAfterQuit, &["session-quit"]),
    (AnswersQuit, &["session-quit"]),
    (FiftyClients, &["session-many"]),
    (GrantsUndeclared, &["capability-undeclared"]),
    (IgnoresUndeclared, &["capability-undeclared"]),
    (AnswersTwice, &["object-absent", "pipeline-replies"]),
    (LosesAnAnswer, &["pipeline-replies"]),
    (SwapsAnswers, &["pipeline-replies"]),
    (SwapsReads, &["pipeline-reads"]),
    (LosesARead, &["pipeline-reads"]),
    (PartsWithoutNumber, &["object-stored"]),
    (OneListingPart, &["list-in-parts"]),
    (ListingEndsEarly, &["list-in-parts"]),
    (ListingWithoutNumber, &["list-in-parts"]),
    (ListingWithoutEnd, &["list-in-parts", "list-types"]),
    (DropsIoctls, &["reload-keeps-references", "reload-keeps-pinned"]),
    (DropsLaterIoctls, &["reload-repeated"]),
    (AnswersIoctls, &["ioctl-silent"]),
    (DetachesOne, &["detach-reaches-all"]),
];

impl WireFlaw {
    /// True if a client waits in vain.
    pub(crate) fn is_silent(self) -> bool {
        matches!(
            self,
            StaysAfterQuit | IgnoresUndeclared | LosesAnAnswer | LosesARead | PartsWithoutNumber
        )
    }
}

/// What is sent instead of a message.
#[derive(Debug, Default)]
pub(crate) struct Out {
    pub(crate) to_plugin: Vec<ClientMessage>,
    pub(crate) to_client: Vec<ServerMessage>,
    pub(crate) close: bool,
}

/// The inspection of the messages of one connection.
#[derive(Debug)]
pub(crate) struct Tamper {
    flaw: Option<WireFlaw>,
    /// Which connection it is; 0 is the suite's own.
    number: usize,
    common: Arc<Common>,
    /// The session, as the plugin knows it.
    session: u64,
    replies: u64,
    reads: u64,
    held: Option<Reply>,
    entries: Vec<ListEntry>,
    first_part: Option<ReplyBody>,
}

impl Tamper {
    pub(crate) fn new(flaw: Option<WireFlaw>, number: usize, common: Arc<Common>) -> Self {
        Self {
            flaw,
            number,
            common,
            session: 0,
            replies: 0,
            reads: 0,
            held: None,
            entries: Vec::new(),
            first_part: None,
        }
    }

    pub(crate) fn common(&self) -> &Common {
        &self.common
    }

    /// Whether a client stays connected that the plugin has disconnected.
    pub(crate) fn stays_open(&self) -> bool {
        self.flaw == Some(StaysAfterQuit)
    }

    /// A client has sent this.
    pub(crate) fn asked(&mut self, mut message: ClientMessage, out: &mut Out) {
        match (self.flaw, &mut message) {
            (Some(flaw), ClientMessage::Handshake { name, .. }) => {
                let name = name.as_deref();
                out.close = match flaw {
                    ClosesOnBytes => name.is_some_and(|name| str::from_utf8(name).is_err()),
                    ClosesOnLongNames => name.is_some_and(|name| name.len() > 255),
                    FiftyClients => self.common.open.load(Ordering::SeqCst) > 50,
                    _ => false,
                };
                if flaw == RefusesAnonymous && name.is_none() {
                    let refusal = HandshakeAck::refused(Status::Forbidden);
                    out.to_client.push(ServerMessage::HandshakeAck(refusal));
                    return;
                }
            }
            (Some(OneSession | SessionsByCount), message) => self.correct_session(message),
            (Some(DropsIoctls), ClientMessage::Ioctl { .. }) => return,
            (Some(DropsLaterIoctls), ClientMessage::Ioctl { .. })
                if self.common.ioctls.fetch_add(1, Ordering::SeqCst) >= 10 =>
            {
                return;
            }
            (Some(AnswersIoctls), ClientMessage::Ioctl { .. })
            | (Some(AnswersQuit), ClientMessage::Quit { .. }) => {
                let body = ReplyBody::Refcount(Ok(()));
                out.to_client.push(ServerMessage::Reply(Reply { id: 0, body }));
            }
            (Some(ListingWithoutEnd), ClientMessage::Request(request)) => {
                if let Operation::List { listing: 1.., .. } = request.operation
                    && let Some(body) = self.first_part.clone()
                {
                    out.to_client.push(ServerMessage::Reply(Reply { id: request.id, body }));
                    return;
                }
            }
            _ => {}
        }
        out.to_plugin.push(message);
    }

    /// The plugin has sent this.
    pub(crate) fn answered(&mut self, message: ServerMessage, out: &mut Out) {
        let replies = match message {
            ServerMessage::HandshakeAck(ack) => {
                self.session = ack.session;
                out.to_client.push(ServerMessage::HandshakeAck(self.offered(ack)));
                return;
            }
            ServerMessage::Detach if self.flaw == Some(DetachesOne) && self.number != 1 => return,
            ServerMessage::Reply(reply) => self.replied(reply, out),
            message => {
                out.to_client.push(message);
                return;
            }
        };
        out.to_client.extend(replies.into_iter().map(ServerMessage::Reply));
    }

    fn offered(&self, mut ack: HandshakeAck) -> HandshakeAck {
        // Without an offer that it can take, the suite does not begin.
        let is_case = self.number > 0;
        match self.flaw {
            Some(NoPid) => ack.pid = None,
            Some(PidZero) => ack.pid = Some(0),
            Some(SmallParts) if is_case => ack.max_object_size = 4095,
            Some(AlwaysSmallParts) => ack.max_object_size = 4095,
            Some(LargeParts) if is_case => ack.max_object_size = 1024 * 1024,
            Some(OneSession) => ack.session = 1,
            Some(SessionsByCount) => {
                ack.session = self.common.open.load(Ordering::SeqCst) as u64;
            }
            _ => {}
        }
        debug_assert_eq!(ack.protocol_version, PROTOCOL_VERSION);
        ack
    }

    fn replied(&mut self, mut reply: Reply, out: &mut Out) -> Vec<Reply> {
        self.replies += 1;
        let is_read = matches!(reply.body, ReplyBody::Read { .. });
        self.reads += u64::from(is_read);
        match self.flaw {
            Some(GrantsUndeclared) => reply.body = granted(reply.body),
            Some(IgnoresUndeclared) if is_unsupported(&reply.body) => return Vec::new(),
            Some(AnswersTwice) => return vec![reply.clone(), reply],
            Some(LosesAnAnswer) if self.replies == 500 => return Vec::new(),
            Some(LosesARead) if self.reads == 40 => return Vec::new(),
            Some(SwapsReads) if is_read => return self.swapped(reply),
            Some(SwapsAnswers) if matches!(reply.body, ReplyBody::ObjectInfo(_)) => {
                return self.swapped(reply);
            }
            Some(PartsWithoutNumber) => {
                if let ReplyBody::Store { part, .. } = &mut reply.body {
                    *part = 0;
                }
            }
            _ => {}
        }
        if let ReplyBody::List { listing, last, entries, .. } = &mut reply.body {
            match self.flaw {
                Some(OneListingPart) => {
                    self.entries.append(entries);
                    if !*last {
                        let (listing, object_type) = (*listing, ObjectType::Volatile);
                        let operation = Operation::List { listing, object_type };
                        let request = Request { session: self.session, id: reply.id, operation };
                        out.to_plugin.push(ClientMessage::Request(request));
                        return Vec::new();
                    }
                    *entries = mem::take(&mut self.entries);
                }
                Some(ListingEndsEarly) => *last = true,
                Some(ListingWithoutNumber) => *listing = 0,
                Some(ListingWithoutEnd) => {
                    *last = false;
                    self.first_part = Some(reply.body.clone());
                }
                _ => {}
            }
        }
        vec![reply]
    }

    /// Keeps every other reply until the next, and has them exchange their numbers.
    fn swapped(&mut self, mut reply: Reply) -> Vec<Reply> {
        let Some(mut before) = self.held.take() else {
            self.held = Some(reply);
            return Vec::new();
        };
        mem::swap(&mut before.id, &mut reply.id);
        vec![before, reply]
    }

    fn correct_session(&self, message: &mut ClientMessage) {
        match message {
            ClientMessage::Quit { session } | ClientMessage::Ioctl { session, .. } => {
                *session = self.session;
            }
            ClientMessage::Request(request) => request.session = self.session,
            ClientMessage::Handshake { .. } => {}
        }
    }
}

fn is_unsupported(body: &ReplyBody) -> bool {
    const NO: Result<(), Status> = Err(Status::NoSupport);
    match body {
        ReplyBody::Store { result, .. } | ReplyBody::Shrink { result, .. } => *result == NO,
        ReplyBody::List { result, .. } => *result == NO,
        ReplyBody::Info(result) => *result == Err(Status::NoSupport),
        ReplyBody::Breadcrumb(result) => *result == Err(Status::NoSupport),
        _ => false,
    }
}

fn granted(mut body: ReplyBody) -> ReplyBody {
    if is_unsupported(&body) {
        match &mut body {
            ReplyBody::Store { result, .. }
            | ReplyBody::Shrink { result, .. }
            | ReplyBody::List { result, .. } => *result = Ok(()),
            ReplyBody::Info(result) => *result = Ok(CacheInfo::default()),
            ReplyBody::Breadcrumb(result) => *result = Ok(None),
            _ => {}
        }
    }
    body
}
