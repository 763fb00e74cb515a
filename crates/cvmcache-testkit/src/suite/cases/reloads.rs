//! Reloads: references pass to the successor of a session.

use cvmcache::plugin::{Capabilities, Status};

use crate::suite::Case;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

const COUNTS: &[Capabilities] = &[Capabilities::WRITE, Capabilities::REFCOUNT];

pub(super) const CASES: &[Case] = &[
    Case::new(
        "reload-keeps-references",
        "References of a client that announces a reload (Ioctl +1) pass to its next session.",
        keeps_references,
    )
    .needs_all(COUNTS),
    Case::new(
        "reload-keeps-pinned",
        "Objects that a client has open stay pinned during its reload.",
        keeps_pinned,
    )
    .needs_all(&[Capabilities::WRITE, Capabilities::REFCOUNT, Capabilities::SHRINK])
    .alone(),
    Case::new(
        "reload-repeated",
        "A client can reload any number of times, while other clients are served.",
        repeated,
    )
    .needs_all(COUNTS),
    Case::new("ioctl-silent", "An Ioctl has no reply.", silent),
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

fn keeps_pinned(probe: &Probe<'_>) -> Checked<()> {
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

fn repeated(probe: &Probe<'_>) -> Checked<()> {
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
