//! Objects exist as they were stored, and not otherwise.

use cvmcache::client::NewUpload;
use cvmcache::plugin::{Capabilities, HashAlgorithm, ObjectId, ObjectInfo, ObjectType, Status};

use crate::suite::Case;
use crate::suite::object::TestObject;
use crate::suite::probe::{Probe, skip};
use crate::suite::step::Checked;

const STORES: &[Capabilities] = &[Capabilities::WRITE];

pub(super) const CASES: &[Case] = &[
    Case::new(
        "object-absent",
        "To open, check or get the info of an absent object is NOENTRY.",
        absent,
    ),
    Case::new(
        "object-stored",
        "A stored object exists for every client, with its content, type and size.",
        stored,
    )
    .needs_all(STORES),
    Case::new("object-empty", "An object may be empty.", empty).needs_all(STORES),
    Case::new(
        "object-sizes",
        "Objects of any size are stored whole: one byte, one part, a byte more or less, many \
         parts.",
        sizes,
    )
    .needs_all(STORES),
    Case::new(
        "object-algorithms",
        "One digest under three hash algorithms names three objects.",
        algorithms,
    )
    .needs_all(STORES),
    Case::new(
        "object-zero-digest",
        "An object id with a digest of twenty zero bytes is valid.",
        zero_digest,
    )
    .needs_all(STORES),
    Case::new("object-types", "An object keeps the type it was stored with.", types)
        .needs_all(STORES),
    Case::new(
        "object-stored-again",
        "An object can be stored again, and exists afterwards.",
        stored_again,
    )
    .needs_all(STORES),
];

fn absent(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let id = probe.id();
    client.exists(&id).fails(Status::NoEntry)?;
    client.open(&id).fails(Status::NoEntry)?;
    let close = client.close(&id);
    if probe.capabilities.contains(Capabilities::REFCOUNT) {
        close.fails_with(&[Status::NoEntry, Status::BadCount])?;
    } else {
        // Without REFCOUNT, there is no count to be wrong.
        close.answered()?;
    }
    client.object_info(&id).fails(Status::NoEntry)?;
    client.quit()
}

fn stored(probe: &Probe<'_>) -> Checked<()> {
    let (mut writer, mut reader) = (probe.client()?, probe.client()?);
    let object = probe.object(10_000);
    reader.lacks(&object.id)?;
    writer.store(&object).ok()?;
    writer.has(&object)?;
    writer.close(&object.id).ok()?;
    reader.has(&object)?;
    writer.quit()?;
    reader.has(&object)?;
    reader.quit()
}

fn empty(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(0);
    client.store(&object).ok()?;
    client.has(&object)?;
    client.read(&object.id, 0, 1).has_content(b"")?;
    client.read(&object.id, 1, 1).fails(Status::OutOfBounds)?;
    client.close(&object.id).ok()?;
    client.quit()
}

fn sizes(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let part = probe.part;
    for size in [1, part - 1, part, part + 1, 2 * part, 5 * part + 7] {
        let object = probe.object(size);
        client.store(&object).ok()?;
        client.has(&object)?;
        client.close(&object.id).ok()?;
    }
    client.quit()
}

fn algorithms(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let digest = *probe.id().digest();
    let all = [HashAlgorithm::Sha1, HashAlgorithm::Ripemd160, HashAlgorithm::Shake128];
    let objects = all.map(|algorithm| TestObject {
        id: ObjectId::new(algorithm, digest),
        content: probe.content(100),
    });
    for (at, object) in objects.iter().enumerate() {
        for other in &objects[at..] {
            client.lacks(&other.id)?;
        }
        client.store(object).ok()?;
    }
    for object in &objects {
        client.has(object)?;
        client.close(&object.id).ok()?;
    }
    client.quit()
}

fn zero_digest(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let id = ObjectId::new(HashAlgorithm::Sha1, [0; ObjectId::DIGEST_LEN]);
    if client.exists(&id).unless(Status::NoEntry)?.is_some() {
        return Err(skip("somebody has stored an object of this name"));
    }
    let object = TestObject { id, content: "content of nobody".into() };
    client.store(&object).ok()?;
    client.has(&object)?;
    client.close(&id).ok()?;
    client.quit()
}

fn types(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    for object_type in [ObjectType::Regular, ObjectType::Catalog, ObjectType::Volatile] {
        let object = probe.object(50);
        client.store_as(NewUpload::new(object.id).object_type(object_type), &object).ok()?;
        client.object_info(&object.id).is(ObjectInfo::new(50, object_type))?;
        client.close(&object.id).ok()?;
    }
    client.quit()
}

fn stored_again(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(probe.part + 100);
    for _ in 0..3 {
        client.store_and_close(&object)?;
        client.has(&object)?;
    }
    client.quit()
}
