//! Reloads: a client goes, and comes back for what it had open.

use cvmcache::plugin::{Capabilities, Status};

use crate::suite::Case;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

const COUNTS: &[Capabilities] = &[Capabilities::WRITE, Capabilities::REFCOUNT];

pub(super) const CASES: &[Case] = &[
    Case::new(
        "reload-keeps-references",
        "A client that announces a reload (Ioctl +1) finds what it had open still open, and closes \
         it in its new session.",
        keeps_references,
    )
    .needs_all(COUNTS),
    Case::new(
        "reload-keeps-from-eviction",
        "What a client has open stays while it is away for a reload.",
        keeps_from_eviction,
    )
    .needs_all(&[Capabilities::WRITE, Capabilities::REFCOUNT, Capabilities::SHRINK])
    .alone(),
    Case::new(
        "reload-again-and-again",
        "A client can reload any number of times, while others go on.",
        again_and_again,
    )
    .needs_all(COUNTS),
    Case::new("ioctl-silent", "An Ioctl gets no answer.", silent),
];

/// A name of its own, as each mount has one, of the repository that all are of: a plugin may keep
/// repositories apart.
fn name(probe: &Probe<'_>) -> Vec<u8> {
    format!("test.cern.ch:{}", probe.id()).into_bytes()
}

fn keeps_references(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client_named(name(probe))?;
    let object = probe.object(10_000);
    client.store(&object).ok()?;
    client.open(&object.id).ok()?;
    let mut client = client.reload()?;
    client.read_all(&object.id).has_content(&object.content)?;
    client.close(&object.id).ok()?;
    client.close(&object.id).ok()?;
    client.close(&object.id).fails(Status::BadCount)?;
    client.quit()
}

fn keeps_from_eviction(probe: &Probe<'_>) -> Checked<()> {
    let mut other = probe.client()?;
    let mut client = probe.client_named(name(probe))?;
    let object = probe.object(10_000);
    client.store(&object).ok()?;
    let away = client.announce_reload()?;
    other.shrink(0).ok_and("PARTIAL", |shrunk| shrunk.partial)?;
    let mut client = away.finish()?;
    client.read_all(&object.id).has_content(&object.content)?;
    client.close(&object.id).ok()?;
    other.shrink(0).ok()?;
    other.lacks(&object.id)?;
    client.quit()?;
    other.quit()
}

fn again_and_again(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client_named(name(probe))?;
    let mut other = probe.client()?;
    let object = probe.object(10_000);
    client.store(&object).ok()?;
    for _ in 0..20 {
        client = client.reload()?;
        other.has(&object)?;
    }
    client.close(&object.id).ok()?;
    client.close(&object.id).fails(Status::BadCount)?;
    client.quit()?;
    other.quit()
}

fn silent(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client_named(name(probe))?;
    probe.did("Ioctl +1", client.raw.ioctl(1))?;
    client.lacks(&probe.id())?;
    probe.did("Ioctl -1", client.raw.ioctl(-1))?;
    client.lacks(&probe.id())?;
    client.quit()
}
