//! Uploads: parts, commits and aborts.

use bytes::Bytes;
use cvmcache::client::NewUpload;
use cvmcache::plugin::Capabilities;

use crate::suite::Case;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

const STORES: &[Capabilities] = &[Capabilities::WRITE];

pub(super) const CASES: &[Case] = &[
    Case::new(
        "upload-commit",
        "An object exists after its last part has been stored, and not before.",
        commit,
    )
    .needs_all(STORES),
    Case::new("upload-empty-last-part", "The last part may be empty.", empty_last_part)
        .needs_all(STORES),
    Case::new("upload-unknown-size", "An upload need not announce its size.", unknown_size)
        .needs_all(STORES),
    Case::new(
        "upload-abort",
        "An upload that is aborted after some of its parts leaves nothing, and can be repeated.",
        abort,
    )
    .needs_all(STORES),
    Case::new(
        "upload-same-object",
        "Two uploads of one object at the same time both succeed.",
        same_object,
    )
    .needs_all(STORES),
    Case::new(
        "upload-abort-one-of-two",
        "The abort of one upload does not affect another of the same object.",
        abort_one_of_two,
    )
    .needs_all(STORES),
    Case::new("upload-interleaved", "The parts of many uploads may be interleaved.", interleaved)
        .needs_all(STORES),
];

/// Uploads in two parts, so that all of them pass by the same places.
fn halves(probe: &Probe<'_>, content: &Bytes) -> (Bytes, Bytes) {
    (content.slice(..probe.part), content.slice(probe.part..))
}

fn commit(probe: &Probe<'_>) -> Checked<()> {
    let (mut client, mut other) = (probe.client()?, probe.client()?);
    let object = probe.object(probe.part + 5);
    let (first, last) = halves(probe, &object.content);
    let mut upload = client.begin(object.id, object.id);
    upload.write(&mut client, first).ok()?;
    client.lacks(&object.id)?;
    other.lacks(&object.id)?;
    upload.commit(&mut client, last).ok()?;
    other.has(&object)?;
    client.close(&object.id).ok()?;
    client.quit()?;
    other.quit()
}

fn empty_last_part(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(probe.part);
    let new = NewUpload::new(object.id).expected_size(object.content.len() as u64);
    let mut upload = client.begin(new, object.id);
    upload.write(&mut client, object.content.clone()).ok()?;
    upload.commit(&mut client, "").ok()?;
    client.has(&object)?;
    client.close(&object.id).ok()?;
    client.quit()
}

fn unknown_size(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(3 * probe.part);
    let mut upload = client.begin(object.id, object.id);
    for part in [0, 1] {
        let from = part * probe.part;
        upload.write(&mut client, object.content.slice(from..from + probe.part)).ok()?;
    }
    upload.commit(&mut client, object.content.slice(2 * probe.part..)).ok()?;
    client.has(&object)?;
    client.close(&object.id).ok()?;
    client.quit()
}

fn abort(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(probe.part + 5);
    let (first, last) = halves(probe, &object.content);
    for _ in 0..2 {
        let mut upload = client.begin(object.id, object.id);
        // The aborted content is not that of the object.
        upload.write(&mut client, probe.content(probe.part)).ok()?;
        upload.abort(&mut client).ok()?;
        client.lacks(&object.id)?;
    }
    let mut upload = client.begin(object.id, object.id);
    upload.write(&mut client, first).ok()?;
    upload.commit(&mut client, last).ok()?;
    client.has(&object)?;
    client.close(&object.id).ok()?;
    client.quit()
}

fn same_object(probe: &Probe<'_>) -> Checked<()> {
    let (mut one, mut two) = (probe.client()?, probe.client()?);
    let object = probe.object(probe.part + 5);
    let (first, last) = halves(probe, &object.content);
    let mut of_one = one.begin(object.id, object.id);
    let mut of_two = two.begin(object.id, object.id);
    of_one.write(&mut one, first.clone()).ok()?;
    of_two.write(&mut two, first).ok()?;
    of_one.commit(&mut one, last.clone()).ok()?;
    of_two.commit(&mut two, last).ok()?;
    for mut client in [one, two] {
        client.has(&object)?;
        client.close(&object.id).ok()?;
        client.quit()?;
    }
    Ok(())
}

fn abort_one_of_two(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(probe.part + 5);
    let (first, last) = halves(probe, &object.content);
    let mut kept = client.begin(object.id, object.id);
    let mut given_up = client.begin(object.id, object.id);
    kept.write(&mut client, first).ok()?;
    given_up.write(&mut client, probe.content(probe.part)).ok()?;
    given_up.abort(&mut client).ok()?;
    kept.commit(&mut client, last).ok()?;
    client.has(&object)?;
    client.close(&object.id).ok()?;
    client.quit()
}

fn interleaved(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let objects = probe.objects(20, 3 * probe.part + 1);
    let mut uploads: Vec<_> = objects.iter().map(|o| client.begin(o.id, o.id)).collect();
    for number in 0..3 {
        for (upload, object) in uploads.iter_mut().zip(&objects) {
            let from = number * probe.part;
            let part = object.content.slice(from..from + probe.part);
            upload.write(&mut client, part).ok()?;
        }
    }
    for (upload, object) in uploads.iter_mut().zip(&objects) {
        upload.commit(&mut client, object.content.slice(3 * probe.part..)).ok()?;
    }
    for object in &objects {
        client.has(object)?;
        client.close(&object.id).ok()?;
    }
    client.quit()
}
