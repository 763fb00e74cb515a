//! Uploads of inconsistent parts: they make no object, and the next upload does.

use bytes::Bytes;
use cvmcache::client::NewUpload;
use cvmcache::plugin::{Capabilities, Status};

use super::raw;
use crate::suite::Case;
use crate::suite::client::{TestClient, TestUpload, part};
use crate::suite::object::TestObject;
use crate::suite::probe::Probe;
use crate::suite::step::{Checked, Step};

const STORES: &[Capabilities] = &[Capabilities::WRITE];

pub(super) const CASES: &[Case] = &[
    Case::hostile(
        "upload-second-part-first",
        "An upload does not begin with its second part.",
        second_part_first,
    )
    .needs_all(STORES),
    Case::hostile("upload-part-number-zero", "No part has the number 0.", part_zero)
        .needs_all(STORES),
    Case::hostile(
        "upload-part-twice",
        "A part that was accepted is not accepted again.",
        part_twice,
    )
    .needs_all(STORES),
    Case::hostile("upload-part-skipped", "No part can be skipped.", part_skipped).needs_all(STORES),
    Case::hostile(
        "upload-part-too-short",
        "A part that is not the last must be full.",
        part_too_short,
    )
    .needs_all(STORES),
    Case::hostile(
        "upload-part-too-long",
        "A part larger than the part size is refused.",
        part_too_long,
    )
    .needs_all(STORES),
    Case::hostile(
        "upload-of-two-objects",
        "All parts of an upload are of one object.",
        of_two_objects,
    )
    .needs_all(STORES),
    Case::hostile(
        "upload-ends-twice",
        "The last part commits once, and leaves one reference.",
        ends_twice,
    )
    .needs_all(&[Capabilities::WRITE, Capabilities::REFCOUNT]),
    Case::hostile(
        "upload-wrong-size",
        "An upload of another size than announced makes a valid object or none.",
        wrong_size,
    )
    .needs_all(STORES),
    Case::hostile(
        "upload-unknown-type",
        "An object of an unknown type is refused or kept, and the connection stays.",
        unknown_type,
    )
    .needs_all(STORES),
    Case::hostile(
        "upload-abort-unknown",
        "An abort of an upload that does not exist, or no longer, is answered.",
        abort_unknown,
    )
    .needs_all(STORES),
    Case::hostile(
        "upload-after-abort",
        "An upload that was aborted does not continue.",
        after_abort,
    )
    .needs_all(STORES),
];

/// An upload of two full parts and a rest that goes wrong somewhere.
struct Attempt<'a> {
    probe: &'a Probe<'a>,
    client: TestClient,
    object: TestObject,
    upload: TestUpload,
}

impl<'a> Attempt<'a> {
    fn begin(probe: &'a Probe<'a>) -> Checked<Self> {
        let client = probe.client()?;
        Self::begin_as(probe, client)
    }

    fn begin_as(probe: &'a Probe<'a>, mut client: TestClient) -> Checked<Self> {
        let object = probe.object(2 * probe.part + 5);
        let new = NewUpload::new(object.id).expected_size(object.content.len() as u64);
        let upload = client.begin(new, object.id);
        Ok(Self { probe, client, object, upload })
    }

    /// Sends part `number`, which is the last if it is the third.
    fn part(&mut self, number: u64) -> Step<()> {
        let from = (number.clamp(1, 3) as usize - 1) * self.probe.part;
        let end = self.object.content.len().min(from + self.probe.part);
        let data = self.object.content.slice(from..end);
        self.upload.raw.set_next_part(number);
        match number {
            3 => self.upload.commit(&mut self.client, data),
            _ => self.upload.write(&mut self.client, data),
        }
    }

    /// Gives up, and makes sure that the object can be stored as if nothing had happened.
    fn give_up(self) -> Checked<()> {
        let Self { probe, mut client, object, upload } = self;
        // What was never begun, or has ended with the failure, cannot be aborted.
        upload.abort(&mut client).answered()?;
        client.lacks(&object.id)?;
        client.store(&object).ok()?;
        client.has(&object)?;
        client.close(&object.id).ok()?;
        client.quit()?;
        probe.others_are_served()
    }
}

fn second_part_first(probe: &Probe<'_>) -> Checked<()> {
    let mut attempt = Attempt::begin(probe)?;
    attempt.part(2).fails_somehow()?;
    attempt.part(3).fails_somehow()?;
    attempt.give_up()
}

fn part_zero(probe: &Probe<'_>) -> Checked<()> {
    let mut attempt = Attempt::begin(probe)?;
    attempt.part(0).fails_somehow()?;
    attempt.give_up()
}

fn part_twice(probe: &Probe<'_>) -> Checked<()> {
    for number in [1, 2] {
        let mut attempt = Attempt::begin(probe)?;
        for before in 1..=number {
            attempt.part(before).ok()?;
        }
        attempt.part(number).fails_somehow()?;
        attempt.give_up()?;
    }
    Ok(())
}

fn part_skipped(probe: &Probe<'_>) -> Checked<()> {
    let mut attempt = Attempt::begin(probe)?;
    attempt.part(1).ok()?;
    attempt.part(3).fails_somehow()?;
    attempt.give_up()?;
    let mut attempt = Attempt::begin(probe)?;
    attempt.part(1).ok()?;
    attempt.part(u64::MAX).fails_somehow()?;
    attempt.give_up()
}

fn part_too_short(probe: &Probe<'_>) -> Checked<()> {
    for len in [0, 1, probe.part - 1] {
        let mut attempt = Attempt::begin(probe)?;
        attempt.part(1).ok()?;
        let short = attempt.object.content.slice(probe.part..probe.part + len);
        attempt.upload.write(&mut attempt.client, short).fails_somehow()?;
        attempt.give_up()?;
    }
    Ok(())
}

fn part_too_long(probe: &Probe<'_>) -> Checked<()> {
    for (len, last) in [(probe.part + 1, false), (probe.part + 1, true), (4 << 20, true)] {
        let mut attempt = Attempt::begin(probe)?;
        let (upload, client) = (&mut attempt.upload, &mut attempt.client);
        let data = probe.content(len);
        let step = if last { upload.commit(client, data) } else { upload.write(client, data) };
        step.fails_somehow()?;
        attempt.give_up()?;
    }
    Ok(())
}

fn of_two_objects(probe: &Probe<'_>) -> Checked<()> {
    let mut attempt = Attempt::begin(probe)?;
    attempt.part(1).ok()?;
    let other = probe.object(probe.part + 5);
    let (session, number) = (attempt.client.raw.session(), attempt.upload.raw.request_id());
    for (len, last) in [(probe.part, false), (5, true)] {
        let stray = part(other.id, 2, last, other.content.slice(..len));
        attempt.client.ask_as(session, number, stray).fails_somehow()?;
    }
    attempt.client.lacks(&other.id)?;
    attempt.give_up()
}

fn ends_twice(probe: &Probe<'_>) -> Checked<()> {
    let mut attempt = Attempt::begin(probe)?;
    for number in 1..=3 {
        attempt.part(number).ok()?;
    }
    attempt.part(3).fails_somehow()?;
    let Attempt { mut client, object, .. } = attempt;
    client.has(&object)?;
    client.close(&object.id).ok()?;
    client.close(&object.id).fails(Status::BadCount)?;
    client.quit()?;
    probe.others_are_served()
}

fn wrong_size(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    for (len, said) in [
        (10, 1 << 63),
        (10, u64::MAX - 1),
        (10, 1 << 32),
        (10, 11),
        (10, 9),
        (probe.part + 5, 1 << 63),
        (probe.part + 5, 5),
        (probe.part + 5, 0),
    ] {
        let object = probe.object(len);
        let new = NewUpload::new(object.id).expected_size(said);
        let sent = format!("store {len} bytes, said to be {said}");
        let stored = client.raw.store(new, object.content.clone());
        match probe.trace.step(sent, stored).answered()? {
            Some(()) => {
                client.has(&object)?;
                client.close(&object.id).ok()?;
            }
            None => client.lacks(&object.id)?,
        }
    }
    let object = probe.object(1000);
    client.store_and_close(&object)?;
    client.has(&object)?;
    client.quit()?;
    probe.others_are_served()
}

fn unknown_type(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    for object_type in [3, 77, -1_i64] {
        let object = probe.object(0);
        let store = part(object.id, 1, true, Bytes::new());
        let sent = format!("store an empty object of type {object_type}");
        let answer = raw::ask(probe, &mut client, &sent, store, |message| {
            message.number(7, object_type as u64)
        });
        match answer.answered()? {
            Some(()) => {
                client.has(&object)?;
                client.close(&object.id).ok()?;
            }
            None => client.lacks(&object.id)?,
        }
    }
    client.quit()?;
    probe.others_are_served()
}

fn abort_unknown(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let id = probe.id();
    client.begin(id, id).abort(&mut client).answered()?;
    let mut attempt = Attempt::begin_as(probe, client)?;
    attempt.part(1).ok()?;
    attempt.client.abort(attempt.upload.raw.request_id(), attempt.object.id).ok()?;
    attempt.give_up()
}

fn after_abort(probe: &Probe<'_>) -> Checked<()> {
    let mut attempt = Attempt::begin(probe)?;
    attempt.part(1).ok()?;
    attempt.client.abort(attempt.upload.raw.request_id(), attempt.object.id).ok()?;
    attempt.part(2).fails_somehow()?;
    attempt.part(3).fails_somehow()?;
    attempt.give_up()
}
