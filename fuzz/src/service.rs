//! A few clients of a service whose requests are made of the bytes of an input, next to a model of the service.
//! After every step the plugin, the service and the model agree: on every answer, on every reference, and on
//! what is open. When all sessions have ended, nothing is left.
//!
//! The first byte of an input picks the capabilities of the plugin (0: all of them); then come the
//! steps.

mod model;
mod plugin;
mod reload;
mod step;
mod uploads;

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use cvmcache::Limits;
use cvmcache::plugin::{Capabilities, ObjectType, Status};
use cvmcache::service::{Action, Peer, Service};
use cvmcache_proto::{
    ClientMessage, Frame, HandshakeAck, Operation, PROTOCOL_VERSION, Reply, Request, ServerMessage,
};
use cvmcache_testkit::Callback;

use model::Model;
use plugin::{Cache, Stored};
use step::{Ask, Claim, Step};

/// How many clients there are at once.
const SLOTS: usize = 4;

// Limits that a few steps reach.
const MAX_OBJECT_SIZE: u32 = 8;
const MAX_TEXT: usize = 16;
const MAX_UPLOADS: usize = 3;
const MAX_LISTINGS: usize = 2;
const MAX_RELOADS: usize = 2;
/// Two entries: one has at least 48 bytes.
const LISTING_PART: usize = 49;

/// Takes the steps of an input, and then ends all sessions.
///
/// # Panics
///
/// If a rule is broken.
pub fn run(input: &[u8]) {
    let (capabilities, steps) = parse(input);
    let mut world = World::new(capabilities);
    for (number, step) in steps.enumerate() {
        world.context = format!("step {number}, {step:?}");
        world.take(step);
        world.check();
    }
    world.close();
}

/// The steps that an input says, one a line.
pub fn describe(input: &[u8]) -> String {
    let (capabilities, steps) = parse(input);
    let steps: String = steps.enumerate().map(|(n, step)| format!("{n}: {step:?}\n")).collect();
    format!("{capabilities:?}\n{steps}")
}

fn parse(input: &[u8]) -> (Capabilities, impl Iterator<Item = Step>) {
    let (bits, steps) = input.split_first().unwrap_or((&0, &[]));
    let capabilities = match bits & 127 {
        0 => Capabilities::ALL,
        bits => Capabilities::from_bits_retain(bits.into()),
    };
    let mut bytes = Unstructured::new(steps);
    let steps = std::iter::from_fn(move || {
        (bytes.len() >= step::STEP_LEN).then(|| Step::arbitrary(&mut bytes).ok()).flatten()
    });
    (capabilities, steps)
}

struct World {
    cache: Cache,
    service: Service,
    peers: [Option<Peer>; SLOTS],
    model: Model,
    /// The step that is being taken, for the messages of failures.
    context: String,
}

impl World {
    fn new(capabilities: Capabilities) -> Self {
        let mut limits = Limits::default();
        limits.max_object_size = MAX_OBJECT_SIZE;
        limits.max_text = MAX_TEXT;
        limits.max_uploads = MAX_UPLOADS;
        limits.max_listings = MAX_LISTINGS;
        limits.listing_part = LISTING_PART;
        limits.max_reloads = MAX_RELOADS;
        // Some are there from the beginning, and one with more text than a listing tells.
        let stored = |number: u8| {
            let description = (number > 0).then(|| vec![number; usize::from(number) * 9].into());
            let data = vec![number; usize::from(number) * 5];
            (step::object(number), Stored { data, object_type: ObjectType::Regular, description })
        };
        let objects: BTreeMap<_, _> = (0..3).map(stored).collect();
        let cache = Cache::new(capabilities, objects.clone());
        Self {
            service: Service::new(Box::new(cache.clone()), "fuzz", limits),
            cache,
            peers: Default::default(),
            model: Model::new(capabilities, objects),
            context: String::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Handshake { slot, name } => self.handshake(slot, name),
            Step::Ask { slot, claim, id, ask } => self.ask(slot, claim, id, ask),
            Step::Ioctl { slot, claim, change } => self.ioctl(slot, claim, change),
            Step::Quit { slot, claim } => self.quit(slot, claim),
            Step::Retire { slot } => {
                if let Some(session) = self.session(slot) {
                    let peer = self.peers[slot].as_ref().and_then(Peer::session);
                    self.service.retire(peer.expect("it has a session"));
                    self.model.retire(session);
                }
            }
            Step::End { slot, at_most } => self.end(slot, at_most),
            Step::Upset { callback, fault } => {
                self.cache.state().faults.insert(callback, fault);
            }
        }
    }

    /// The session of a client that is not about to end.
    fn session(&self, slot: usize) -> Option<u64> {
        let session = self.any_session(slot)?;
        self.model.sessions[&session].leaving.is_none().then_some(session)
    }

    fn any_session(&self, slot: usize) -> Option<u64> {
        Some(self.peers[slot].as_ref()?.session()?.session().id())
    }

    /// Has a client say something; `None` if it is not there any more, or not yet.
    fn say(&mut self, slot: usize, message: ClientMessage) -> Option<Action> {
        if self.any_session(slot) != self.session(slot) {
            return None;
        }
        let peer = self.peers[slot].as_mut()?;
        let (message, attachment) = message.into_wire();
        let frame = Frame { message: Some(message), attachment, ..Frame::default() };
        Some(peer.receive(&self.service, frame))
    }

    fn claimed(&self, slot: usize, claim: Claim) -> u64 {
        let session = match claim {
            Claim::Own => self.any_session(slot),
            Claim::Of(other) => self.any_session(other),
            Claim::Unknown => None,
        };
        session.unwrap_or(0)
    }

    fn handshake(&mut self, slot: usize, name: Bytes) {
        let is_open = self.any_session(slot).is_some();
        self.peers[slot].get_or_insert_with(|| Peer::new(None));
        let protocol_version = PROTOCOL_VERSION;
        let hello = ClientMessage::Handshake { protocol_version, name: Some(name.clone()) };
        let Some(action) = self.say(slot, hello) else { return };
        let Action::Answer(ServerMessage::HandshakeAck(ack)) = action else {
            panic!("{}: {action:?}", self.context);
        };
        if is_open {
            assert_eq!(ack, HandshakeAck::refused(Status::Malformed), "{}", self.context);
        } else {
            assert_eq!(ack.result, Ok(()), "{}", self.context);
            assert_eq!(self.any_session(slot), Some(ack.session), "{}", self.context);
            assert!(!self.model.sessions.contains_key(&ack.session), "{}", self.context);
            self.model.open(ack.session, uploads::cut_text(name));
        }
    }

    fn ask(&mut self, slot: usize, claim: Claim, id: u64, ask: Ask) {
        let claimed = self.claimed(slot, claim);
        let operation = match ask {
            Ask::Fixed(operation) => operation,
            Ask::NextPart(mut part) => {
                let holder = self.model.sessions.get(&claimed);
                part.number = holder.map_or(1, |holder| holder.uploads.next(id));
                Operation::Store(part)
            }
        };
        let sent = Request { session: claimed, id, operation };
        let Some(action) = self.say(slot, ClientMessage::Request(sent.clone())) else { return };
        match action {
            Action::Handle(open, request) => {
                assert_eq!(Some(claimed), self.session(slot), "{}", self.context);
                let faults = self.cache.state().faults.clone();
                let reply = self.service.handle(&open, request.clone());
                let operation = request.operation;
                let body = self.model.answer(claimed, id, operation, &faults, &reply.body);
                assert_eq!(reply, Reply { id, body }, "{}", self.context);
            }
            Action::Answer(ServerMessage::Reply(reply)) => {
                assert_ne!(Some(claimed), self.session(slot), "{}", self.context);
                let body = sent.operation.refusal(Status::Forbidden);
                assert_eq!(reply, Reply { id, body }, "{}", self.context);
            }
            other => panic!("{}: {other:?}", self.context),
        }
    }

    fn ioctl(&mut self, slot: usize, claim: Claim, connection_change: i32) {
        let session = self.claimed(slot, claim);
        let message = ClientMessage::Ioctl { session, connection_change };
        let Some(action) = self.say(slot, message) else { return };
        assert!(matches!(action, Action::Nothing), "{}: {action:?}", self.context);
        if self.session(slot) == Some(session) {
            self.model.ioctl(session, connection_change);
        }
    }

    fn quit(&mut self, slot: usize, claim: Claim) {
        let session = self.claimed(slot, claim);
        let Some(action) = self.say(slot, ClientMessage::Quit { session }) else { return };
        let goes = matches!(action, Action::Quit);
        assert_eq!(goes, self.session(slot) == Some(session), "{}: {action:?}", self.context);
    }

    fn end(&mut self, slot: usize, at_most: usize) {
        let Some(session) = self.any_session(slot) else {
            self.peers[slot] = None;
            return;
        };
        self.model.leave(session);
        // What cannot be given back at the end stays: in doubt, references are kept.
        self.cache.state().faults.remove(&Callback::ChangeRefcount);
        let before = self.cache.state().references.clone();
        let open = self.peers[slot].as_ref().and_then(Peer::session).expect("it has a session");
        let ended = self.service.end(open, at_most);
        let after = self.cache.state().references.clone();
        let holder = self.model.sessions.get_mut(&session).expect("it is open");
        let leaving = holder.leaving.as_mut().expect("it ends");
        let there = leaving.len();
        // Each object is given back in one go.
        leaving.retain(|id, _| before.get(id) == after.get(id));
        assert!(there - leaving.len() <= at_most, "{}", self.context);
        assert_eq!(ended, leaving.is_empty(), "{}", self.context);
        if ended {
            self.model.sessions.remove(&session);
            self.peers[slot] = None;
        }
    }

    /// That plugin and model agree.
    fn check(&self) {
        let state = self.cache.state();
        let context = &self.context;
        assert_eq!(state.violations, [""; 0], "{context}");
        assert_eq!(state.references, self.model.references(), "references after {context}");
        assert_eq!(state.objects, self.model.objects, "objects after {context}");
        let holders = || self.model.sessions.values();
        let uploads: usize = holders().map(|holder| holder.uploads.transactions()).sum();
        assert_eq!(state.open_uploads, uploads, "open uploads after {context}");
        let listings: usize = holders().map(|holder| holder.listings.len()).sum();
        assert_eq!(state.open_listings, listings, "open listings after {context}");
        let away: u64 =
            self.model.handovers.values().map(|handover| u64::from(handover.announced)).sum();
        assert_eq!(self.service.pending_reloads(), away, "pending reloads after {context}");
    }

    /// Ends all sessions and reports all pending reloads done: nothing is left.
    fn close(mut self) {
        self.context = "the end".to_owned();
        for slot in 0..SLOTS {
            self.end(slot, usize::MAX);
        }
        self.check();
        let away = self.model.handovers.iter().map(|(name, e)| (name.clone(), e.announced));
        for (name, mut announced) in away.collect::<Vec<_>>() {
            assert_ne!(announced, 0, "a handover without a pending reload");
            self.handshake(0, name);
            while announced > 0 {
                let back = announced.min(i32::MAX as u32);
                self.ioctl(0, Claim::Own, -(back as i32));
                announced -= back;
            }
            self.end(0, usize::MAX);
            self.check();
        }
        let state = self.cache.state();
        assert!(state.references.is_empty(), "{:?} are left", state.references);
        assert_eq!((state.open_uploads, state.open_listings), (0, 0));
        assert_eq!(self.service.pending_reloads(), 0);
    }
}
