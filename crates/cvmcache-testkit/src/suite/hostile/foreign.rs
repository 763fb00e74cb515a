//! Sessions, uploads, references and reloads of another client.

use cvmcache::client::{ClientMessage, Operation};
use cvmcache::plugin::{Capabilities, ObjectId, Status};

use crate::suite::Case;
use crate::suite::client::{TestClient, part};
use crate::suite::object::TestObject;
use crate::suite::probe::Probe;
use crate::suite::step::{Checked, Step};

const STORES: &[Capabilities] = &[Capabilities::WRITE];
const COUNTS: &[Capabilities] = &[Capabilities::WRITE, Capabilities::REFCOUNT];

/// The name of the client whose session others use.
const VICTIM: &[u8] = b"test.cern.ch:victim";

pub(super) const CASES: &[Case] = &[
    Case::hostile(
        "foreign-session",
        "A request with the session id of another client, or of none, is refused.",
        session,
    )
    .needs_all(COUNTS),
    Case::hostile(
        "foreign-references",
        "A client cannot release references that only other sessions hold.",
        references,
    )
    .needs_all(COUNTS),
    Case::hostile(
        "foreign-upload-commit",
        "A client cannot add parts to the upload of another, or commit it.",
        upload_commit,
    )
    .needs_all(STORES),
    Case::hostile(
        "foreign-upload-abort",
        "A client cannot abort the upload of another.",
        upload_abort,
    )
    .needs_all(STORES),
    Case::hostile(
        "foreign-upload-begin",
        "A client cannot upload in the session of another.",
        upload_begin,
    )
    .needs_all(STORES),
    Case::hostile("foreign-quit", "A client cannot end the session of another.", quit),
    Case::hostile(
        "foreign-ioctl",
        "An Ioctl that ends a reload which was not announced, or a very large one, has no effect \
         on other clients.",
        ioctl,
    )
    .needs_all(COUNTS),
    Case::hostile(
        "foreign-reload",
        "A client cannot end the reload of another: its references stay.",
        reload,
    )
    .needs_all(&[Capabilities::WRITE, Capabilities::REFCOUNT, Capabilities::SHRINK])
    .alone(),
];

/// An object that a client has open once.
fn opened(probe: &Probe<'_>) -> Checked<(TestClient, TestObject)> {
    let mut client = probe.client_named(VICTIM)?;
    let object = probe.object(1000);
    client.store(&object).ok()?;
    Ok((client, object))
}

/// That a client has an object open, and exactly once.
fn closes_once(mut client: TestClient, object: &TestObject) -> Checked<()> {
    client.read_all(&object.id).has_content(&object.content)?;
    client.close(&object.id).ok()?;
    client.close(&object.id).fails(Status::BadCount)?;
    client.quit()
}

fn session(probe: &Probe<'_>) -> Checked<()> {
    let (victim, object) = opened(probe)?;
    let mut client = probe.client()?;
    let sessions = [victim.raw.session(), probe.below(u64::MAX), 0, u64::MAX];
    let own = client.raw.session();
    for session in sessions.into_iter().filter(|session| *session != own) {
        for change_by in [-1, 1] {
            let operation = Operation::Refcount { object: object.id, change_by };
            client.ask_as(session, 1 << 40, operation).fails_somehow()?;
        }
    }
    client.quit()?;
    closes_once(victim, &object)?;
    probe.others_are_served()
}

fn references(probe: &Probe<'_>) -> Checked<()> {
    let (victim, object) = opened(probe)?;
    let mut client = probe.client()?;
    client.close(&object.id).fails_somehow()?;
    client.open(&object.id).ok()?;
    client.change_refcount(&object.id, -2).fails_somehow()?;
    client.close(&object.id).ok()?;
    client.close(&object.id).fails_somehow()?;
    client.quit()?;
    // One that claims to be the victim, back from a reload.
    let mut client = probe.client_named(VICTIM)?;
    probe.did("Ioctl -1", client.raw.ioctl(-1))?;
    client.close(&object.id).fails_somehow()?;
    client.quit()?;
    closes_once(victim, &object)?;
    probe.others_are_served()
}

/// Begins an upload in one session, has another client send a request with its id, and goes on
/// with it. In the session of the upload, the client is refused; in its own, where there is no such
/// upload, `in_its_own` says what will do.
fn interfere(
    probe: &Probe<'_>,
    with: impl Fn(&Probe<'_>, ObjectId) -> Operation,
    in_its_own: fn(Step<()>) -> Checked<()>,
) -> Checked<()> {
    let mut victim = probe.client_named(VICTIM)?;
    let mut client = probe.client()?;
    let object = probe.object(probe.part + 5);
    let mut upload = victim.begin(object.id, object.id);
    upload.write(&mut victim, object.content.slice(..probe.part)).ok()?;
    let number = upload.raw.request_id();
    client.ask_as(victim.raw.session(), number, with(probe, object.id)).fails_somehow()?;
    let own = client.raw.session();
    in_its_own(client.ask_as(own, number, with(probe, object.id)))?;
    victim.lacks(&object.id)?;
    upload.commit(&mut victim, object.content.slice(probe.part..)).ok()?;
    victim.has(&object)?;
    victim.close(&object.id).ok()?;
    victim.quit()?;
    client.quit()?;
    probe.others_are_served()
}

fn upload_commit(probe: &Probe<'_>) -> Checked<()> {
    let full = |probe: &Probe<'_>, id| part(id, 2, false, probe.content(probe.part));
    let last = |probe: &Probe<'_>, id| part(id, 2, true, probe.content(5));
    interfere(probe, full, Step::fails_somehow)?;
    interfere(probe, last, Step::fails_somehow)
}

fn upload_abort(probe: &Probe<'_>) -> Checked<()> {
    let abort = |_: &Probe<'_>, object| Operation::StoreAbort { object };
    interfere(probe, abort, |step| step.answered().map(drop))
}

fn upload_begin(probe: &Probe<'_>) -> Checked<()> {
    let mut victim = probe.client_named(VICTIM)?;
    let mut client = probe.client()?;
    let id = probe.id();
    for session in [victim.raw.session(), u64::MAX] {
        client.ask_as(session, 1 << 40, part(id, 1, true, probe.content(5))).fails_somehow()?;
        client.lacks(&id)?;
    }
    victim.lacks(&id)?;
    victim.quit()?;
    client.quit()?;
    probe.others_are_served()
}

fn quit(probe: &Probe<'_>) -> Checked<()> {
    let mut victim = probe.client_named(VICTIM)?;
    let mut client = probe.client()?;
    let session = victim.raw.session();
    let message = ClientMessage::Quit { session };
    let sent = "Quit, in the session of another client";
    probe.did(sent, client.raw.connection_mut().send(message))?;
    // The plugin has handled it when it has closed the connection.
    let _ = client.raw.quit();
    victim.lacks(&probe.id())?;
    victim.quit()?;
    probe.others_are_served()
}

fn reload(probe: &Probe<'_>) -> Checked<()> {
    let mut victim = probe.client_named(probe.id().to_string())?;
    let object = probe.object(1000);
    victim.store(&object).ok()?;
    let away = victim.announce_reload()?;
    let mut client = probe.client()?;
    for change in [-1, i32::MIN] {
        probe.did(format!("Ioctl {change:+}"), client.raw.ioctl(change))?;
    }
    client.shrink(0).ok_and("PARTIAL", |shrunk| shrunk.partial)?;
    client.quit()?;
    closes_once(away.finish()?, &object)?;
    probe.others_are_served()
}

fn ioctl(probe: &Probe<'_>) -> Checked<()> {
    let (victim, object) = opened(probe)?;
    // With the victim's name, and with one that no other client has.
    let own = probe.id().to_string();
    for name in [VICTIM, own.as_bytes()] {
        let mut client = probe.client_named(name.to_vec())?;
        for change in [-1, i32::MIN, -i32::MAX, 0, i32::MAX, i32::MAX, -i32::MAX, -i32::MAX] {
            probe.did(format!("Ioctl {change:+}"), client.raw.ioctl(change))?;
        }
        client.lacks(&probe.id())?;
        client.quit()?;
    }
    closes_once(victim, &object)?;
    probe.others_are_served()
}
