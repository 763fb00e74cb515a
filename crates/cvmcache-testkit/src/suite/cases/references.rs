//! Reference counts: opened objects stay until they are closed.

use cvmcache::plugin::{Capabilities, Status};

use crate::suite::Case;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

const COUNTS: &[Capabilities] = &[Capabilities::WRITE, Capabilities::REFCOUNT];

pub(super) const CASES: &[Case] = &[
    Case::new(
        "reference-balance",
        "An object can be opened any number of times, and one close more than opens is BADCOUNT.",
        balance,
    )
    .needs_all(COUNTS),
    Case::new(
        "reference-check",
        "A change of the reference count by 0 checks for existence, and does not open the object.",
        check,
    )
    .needs_all(COUNTS),
    Case::new(
        "reference-steps",
        "A reference count can change by more than one; a change below zero is refused and has no \
         effect.",
        steps,
    )
    .needs_all(COUNTS),
    Case::new(
        "reference-of-upload",
        "Each committed upload leaves one reference, also if the object existed before.",
        of_upload,
    )
    .needs_all(COUNTS),
    Case::new(
        "reference-each-session",
        "Several sessions can have one object open, and each closes its own.",
        each_session,
    )
    .needs_all(COUNTS),
];

fn balance(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(100);
    client.store_and_close(&object)?;
    client.close(&object.id).fails(Status::BadCount)?;
    for _ in 0..3 {
        client.open(&object.id).ok()?;
    }
    for _ in 0..3 {
        client.close(&object.id).ok()?;
    }
    client.close(&object.id).fails(Status::BadCount)?;
    client.has(&object)?;
    client.quit()
}

fn check(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(100);
    client.store_and_close(&object)?;
    client.exists(&object.id).ok()?;
    client.close(&object.id).fails(Status::BadCount)?;
    client.quit()
}

fn steps(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(100);
    client.store_and_close(&object)?;
    client.change_refcount(&object.id, 5).ok()?;
    client.change_refcount(&object.id, -6).fails(Status::BadCount)?;
    client.change_refcount(&object.id, -4).ok()?;
    client.change_refcount(&object.id, -2).fails(Status::BadCount)?;
    client.close(&object.id).ok()?;
    client.close(&object.id).fails(Status::BadCount)?;
    client.quit()
}

fn of_upload(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(100);
    client.store(&object).ok()?;
    client.store(&object).ok()?;
    client.close(&object.id).ok()?;
    client.close(&object.id).ok()?;
    client.close(&object.id).fails(Status::BadCount)?;
    client.quit()
}

fn each_session(probe: &Probe<'_>) -> Checked<()> {
    let mut clients = [probe.client()?, probe.client()?, probe.client()?];
    let object = probe.object(100);
    clients[0].store_and_close(&object)?;
    for client in &mut clients {
        client.open(&object.id).ok()?;
    }
    for client in &mut clients {
        client.has(&object)?;
        client.close(&object.id).ok()?;
    }
    clients.into_iter().try_for_each(|client| client.quit())
}
