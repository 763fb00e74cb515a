//! Requests in flight, and their replies until they are claimed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};

use cvmcache_proto::{Envelope, Reply, ReplyBody, RequestKind, Status};

use super::ClientError;

/// A claim to the reply of one request, see [`Client::wait`](super::Client::wait). It is good for the
/// client that returned it, and for no other.
#[derive(Debug)]
#[must_use = "the reply is kept until it is waited for; `Client::forget` says that it need not be"]
pub struct Ticket<T = ReplyBody> {
    client: u64,
    key: Key,
    kind: RequestKind,
    read: Read<T>,
}

impl<T> Ticket<T> {
    /// Takes the result out of a reply.
    pub(super) fn open(&self, body: ReplyBody) -> Result<T, ClientError> {
        let asked = self.kind;
        let answer = if answers(&body, asked) { (self.read)(body) } else { None };
        let reason = "it is the answer to something else";
        Ok(answer.ok_or(ClientError::Unexpected { asked, reason })??)
    }
}

/// Takes the result out of a reply; `None` if it has none.
pub(super) type Read<T> = fn(ReplyBody) -> Option<Result<T, Status>>;

/// Number and part of a request, which its reply repeats, and a serial number: two requests may
/// have the same number and part, and then have their replies in order.
type Key = (u64, u64, u64);

/// Requests in flight, and their replies until they are claimed.
#[derive(Debug)]
pub(super) struct Pending {
    /// Distinguishes its tickets from those of other clients, which count their requests the same way.
    client: u64,
    replies: BTreeMap<Key, Option<ReplyBody>>,
    serial: u64,
}

impl Default for Pending {
    fn default() -> Self {
        static CLIENTS: AtomicU64 = AtomicU64::new(0);
        let client = CLIENTS.fetch_add(1, Ordering::Relaxed);
        Self { client, replies: BTreeMap::new(), serial: 0 }
    }
}

impl Pending {
    /// Begins to wait for a reply.
    pub(super) fn expect<T>(&mut self, request: Envelope, read: Read<T>) -> Ticket<T> {
        self.serial += 1;
        let key = (request.id, request.part, self.serial);
        self.replies.insert(key, None);
        Ticket { client: self.client, key, kind: request.kind, read }
    }

    /// Keeps a reply until it is claimed; false if no request in flight has its id.
    pub(super) fn answer(&mut self, reply: Reply) -> bool {
        let part = match reply.body {
            ReplyBody::Store { part, .. } => part,
            _ => 0,
        };
        let same = (reply.id, part, 0)..=(reply.id, part, u64::MAX);
        match self.replies.range_mut(same).find(|(_, kept)| kept.is_none()) {
            Some((_, kept)) => *kept = Some(reply.body),
            None => return false,
        }
        true
    }

    /// Whether there is a reply.
    pub(super) fn is_answered<T>(&self, ticket: &Ticket<T>) -> Result<bool, ClientError> {
        self.check(ticket)?;
        self.replies.get(&ticket.key).map(Option::is_some).ok_or(ClientError::ForeignTicket)
    }

    /// Returns the reply, if there is one.
    pub(super) fn claim<T>(
        &mut self,
        ticket: &Ticket<T>,
    ) -> Result<Option<ReplyBody>, ClientError> {
        self.check(ticket)?;
        match self.replies.entry(ticket.key) {
            Entry::Occupied(reply) if reply.get().is_some() => Ok(reply.remove()),
            Entry::Occupied(_) => Ok(None),
            Entry::Vacant(_) => Err(ClientError::ForeignTicket),
        }
    }

    /// Drops the claim to a reply.
    pub(super) fn forget<T>(&mut self, ticket: &Ticket<T>) {
        if self.check(ticket).is_ok() {
            self.replies.remove(&ticket.key);
        }
    }

    fn check<T>(&self, ticket: &Ticket<T>) -> Result<(), ClientError> {
        if ticket.client == self.client { Ok(()) } else { Err(ClientError::ForeignTicket) }
    }
}

/// Whether a reply is of the kind that goes with a request.
fn answers(body: &ReplyBody, request: RequestKind) -> bool {
    use RequestKind as Kind;
    match body {
        ReplyBody::Refcount(_) => request == Kind::Refcount,
        ReplyBody::Read { .. } => request == Kind::Read,
        ReplyBody::ObjectInfo(_) => request == Kind::ObjectInfo,
        ReplyBody::Store { .. } => matches!(request, Kind::Store | Kind::StoreAbort),
        ReplyBody::Info(_) => request == Kind::Info,
        ReplyBody::Shrink { .. } => request == Kind::Shrink,
        ReplyBody::List { .. } => request == Kind::List,
        ReplyBody::Breadcrumb(_) => {
            matches!(request, Kind::BreadcrumbStore | Kind::BreadcrumbLoad)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(id: u64, part: u64, result: Result<(), Status>) -> Reply {
        Reply { id, body: ReplyBody::Store { result, part } }
    }

    fn expect(pending: &mut Pending, id: u64, part: u64) -> Ticket {
        pending.expect(Envelope { kind: RequestKind::Store, id, part }, |body| Some(Ok(body)))
    }

    #[test]
    fn a_reply_is_for_the_request_with_its_number_and_part() {
        let mut pending = Pending::default();
        let [a, b, c] = [(1, 1), (1, 2), (2, 1)].map(|(id, part)| expect(&mut pending, id, part));
        assert!(pending.answer(store(1, 2, Ok(()))));
        assert_eq!(pending.claim(&a).unwrap(), None);
        assert!(pending.is_answered(&b).unwrap());
        assert_eq!(pending.claim(&b).unwrap(), Some(store(1, 2, Ok(())).body));
        assert!(!pending.is_answered(&c).unwrap());
        assert!(matches!(pending.claim(&b), Err(ClientError::ForeignTicket)));
    }

    #[test]
    fn a_ticket_of_another_client_is_refused_even_with_equal_numbers() {
        let (mut ours, mut theirs) = (Pending::default(), Pending::default());
        let (ticket, foreign) = (expect(&mut ours, 1, 1), expect(&mut theirs, 1, 1));
        assert!(ours.answer(store(1, 1, Ok(()))));
        assert!(matches!(ours.is_answered(&foreign), Err(ClientError::ForeignTicket)));
        assert!(matches!(ours.claim(&foreign), Err(ClientError::ForeignTicket)));
        ours.forget(&foreign);
        assert_eq!(ours.claim(&ticket).unwrap(), Some(store(1, 1, Ok(())).body));
    }

    #[test]
    fn a_reply_to_a_forgotten_request_is_not_kept() {
        let mut pending = Pending::default();
        let ticket = expect(&mut pending, 1, 1);
        pending.forget(&ticket);
        assert!(!pending.answer(store(1, 1, Ok(()))));
        assert!(pending.replies.is_empty());
    }

    #[test]
    fn requests_with_the_same_number_have_their_replies_in_order() {
        let mut pending = Pending::default();
        let [first, second] = [(); 2].map(|()| expect(&mut pending, 1, 1));
        let replies = [store(1, 1, Ok(())), store(1, 1, Err(Status::Malformed))];
        assert!(replies.clone().map(|reply| pending.answer(reply)) == [true; 2]);
        assert!(!pending.answer(store(1, 1, Ok(()))), "nobody waits for a third");
        assert_eq!(pending.claim(&second).unwrap(), Some(replies[1].body.clone()));
        assert_eq!(pending.claim(&first).unwrap(), Some(replies[0].body.clone()));
    }
}
