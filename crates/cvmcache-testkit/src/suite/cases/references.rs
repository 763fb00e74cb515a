//! Reference counts: what open objects rely on.

use cvmcache::plugin::{Capabilities, Status};

use crate::suite::Case;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

const COUNTS: &[Capabilities] = &[Capabilities::WRITE, Capabilities::REFCOUNT];

pub(super) const CASES: &[Case] = &[
    Case::new(
        "reference-balance",
        "An object is opened and closed as often as one likes, and BADCOUNT is the answer to one \
         close too many.",
        balance,
    )
    .needs_all(COUNTS),
    Case::new(
        "reference-look",
        "Looking whether an object is there (refcount 0) does not open it.",
        exists,
    )
    .needs_all(COUNTS),
    Case::new(
        "reference-steps",
        "A count can change by more than one; a change that would take it below zero changes \
         nothing.",
        steps,
    )
    .needs_all(COUNTS),
    Case::new(
        "reference-of-upload",
        "Each committed upload leaves one reference, also if the object was there before.",
        of_upload,
    )
    .needs_all(COUNTS),
    Case::new(
        "reference-each-session",
        "Several clients can have the same object open, and each closes its own.",
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

fn exists(probe: &Probe<'_>) -> Checked<()> {
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
