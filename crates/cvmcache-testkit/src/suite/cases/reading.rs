//! Reading: offsets, sizes, and the end of an object.

use cvmcache::plugin::{Capabilities, Status};

use crate::suite::Case;
use crate::suite::client::TestClient;
use crate::suite::object::TestObject;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

const STORES: &[Capabilities] = &[Capabilities::WRITE];

pub(super) const CASES: &[Case] = &[
    Case::new(
        "read-bounds",
        "A read at the end of an object is empty, and one beyond it is OUTOFBOUNDS.",
        bounds,
    )
    .needs_all(STORES),
    Case::new(
        "read-short",
        "A read across the end of an object returns the bytes up to the end.",
        short,
    )
    .needs_all(STORES),
    Case::new("read-large-offsets", "Offsets of 2^32 and more are not truncated.", large_offsets)
        .needs_all(STORES),
    Case::new(
        "read-anywhere",
        "Reads of any size at any offset of an object of many parts are correct.",
        anywhere,
    )
    .needs_all(STORES),
    Case::new(
        "read-large-object",
        "An object of 24 MiB and one byte is read to its end with reads of any size.",
        large_object,
    )
    .needs_all(STORES),
];

fn stored(probe: &Probe<'_>, len: usize) -> Checked<(TestClient, TestObject)> {
    let mut client = probe.client()?;
    let object = probe.object(len);
    client.store(&object).ok()?;
    Ok((client, object))
}

fn close(mut client: TestClient, object: &TestObject) -> Checked<()> {
    client.close(&object.id).ok()?;
    client.quit()
}

fn bounds(probe: &Probe<'_>) -> Checked<()> {
    let (mut client, object) = stored(probe, 1000)?;
    for size in [0, 1, 1000] {
        client.read(&object.id, 1000, size).has_content(b"")?;
        client.read(&object.id, 1001, size).fails(Status::OutOfBounds)?;
    }
    client.read(&object.id, 0, 0).has_content(b"")?;
    client.read(&object.id, 999, 1).has_content(&object.content[999..])?;
    close(client, &object)
}

fn short(probe: &Probe<'_>) -> Checked<()> {
    let (mut client, object) = stored(probe, probe.part + 100)?;
    let part = probe.part as u32;
    client.read(&object.id, 1, part).has_content(&object.content[1..=probe.part])?;
    for from in [101, probe.part, probe.part + 99] {
        client.read(&object.id, from as u64, part).has_content(&object.content[from..])?;
    }
    close(client, &object)
}

fn large_offsets(probe: &Probe<'_>) -> Checked<()> {
    let (mut client, object) = stored(probe, 1000)?;
    for offset in [(1 << 32) - 1, 1 << 32, (1 << 32) + 500, 1 << 40, 1 << 63, u64::MAX] {
        client.read(&object.id, offset, 10).fails(Status::OutOfBounds)?;
    }
    close(client, &object)
}

fn anywhere(probe: &Probe<'_>) -> Checked<()> {
    let (mut client, object) = stored(probe, 10 * probe.part + 77)?;
    let len = object.content.len();
    for _ in 0..200 {
        let offset = probe.below(len as u64) as usize;
        let size = probe.below(probe.part as u64 + 1) as usize;
        let end = len.min(offset + size);
        let read = client.read(&object.id, offset as u64, size as u32);
        read.has_content(&object.content[offset..end])?;
    }
    close(client, &object)
}

fn large_object(probe: &Probe<'_>) -> Checked<()> {
    let (mut client, object) = stored(probe, 24 * 1024 * 1024 + 1)?;
    let mut offset = 0;
    while offset < object.content.len() {
        let size = 1 + probe.below(probe.part as u64) as usize;
        let end = object.content.len().min(offset + size);
        let read = client.read(&object.id, offset as u64, size as u32);
        read.has_content(&object.content[offset..end])?;
        offset = end;
    }
    close(client, &object)
}
