//! Eviction: shrinking, pinned objects, and the size of the cache.

use cvmcache::client::Shrunk;
use cvmcache::plugin::{Capabilities, Status};

use crate::suite::Case;
use crate::suite::client::TestClient;
use crate::suite::object::TestObject;
use crate::suite::probe::{Probe, skip};
use crate::suite::step::Checked;

const SHRINKS: &[Capabilities] = &[Capabilities::WRITE, Capabilities::SHRINK, Capabilities::INFO];
const PINS: &[Capabilities] =
    &[Capabilities::WRITE, Capabilities::SHRINK, Capabilities::INFO, Capabilities::REFCOUNT];
const FILLS: &[Capabilities] = &[Capabilities::WRITE, Capabilities::INFO, Capabilities::REFCOUNT];

/// The size of the objects that fill a cache, in bytes.
const LARGE: usize = 1024 * 1024;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "evict-all",
        "A shrink to 0 with no object pinned empties the cache: no bytes are used, and no object \
         exists.",
        all,
    )
    .needs_all(SHRINKS)
    .alone(),
    Case::new("evict-none", "A shrink to at least the bytes used evicts nothing.", none)
        .needs_all(SHRINKS)
        .alone(),
    Case::new(
        "evict-to-target",
        "A shrink below the bytes used evicts until the target is reached.",
        to_target,
    )
    .needs_all(SHRINKS)
    .alone(),
    Case::new(
        "evict-keeps-pinned",
        "A shrink keeps pinned objects readable, and is PARTIAL if they exceed its target.",
        keeps_pinned,
    )
    .needs_all(PINS)
    .alone(),
    Case::new(
        "evict-keeps-uploads",
        "An open upload does not count as used, and survives a shrink to 0.",
        keeps_uploads,
    )
    .needs_all(SHRINKS)
    .alone(),
    Case::new(
        "quota-under-pressure",
        "However much is stored, the bytes used stay within the size, pinned objects stay, and \
         the object stored last exists.",
        under_pressure,
    )
    .needs_all(FILLS)
    .alone(),
    Case::new(
        "quota-all-pinned",
        "With the cache full of pinned objects, a store is NOSPACE and no object is lost; once \
         objects are closed, a store succeeds.",
        all_pinned,
    )
    .needs_all(FILLS)
    .alone(),
];

/// Empties the cache, but for what other clients hold open.
fn emptied(probe: &Probe<'_>) -> Checked<TestClient> {
    let mut client = probe.client()?;
    let left = client.shrink(0).ok()?;
    let pinned = client.info().ok()?.pinned_bytes;
    if left.partial && pinned > 0 {
        return Err(skip(format!("others have {pinned} bytes open")));
    }
    Ok(client)
}

/// Whether the cache was brought down to `target` bytes.
fn down_to(target: u64) -> (String, impl FnOnce(&Shrunk) -> bool) {
    let expected = format!("OK, with used <= {target}");
    (expected, move |shrunk| !shrunk.partial && shrunk.used_bytes <= target)
}

fn all(probe: &Probe<'_>) -> Checked<()> {
    let mut client = emptied(probe)?;
    let objects = probe.objects(20, 10_000);
    for object in &objects {
        client.store_and_close(object)?;
    }
    let (expected, holds) = down_to(0);
    client.shrink(0).ok_and(expected, holds)?;
    client.info().ok_and("OK, with nothing used", |info| info.used_bytes == 0)?;
    for object in &objects {
        client.lacks(&object.id)?;
        client.store_and_close(object)?;
        client.has(object)?;
    }
    client.quit()
}

fn none(probe: &Probe<'_>) -> Checked<()> {
    let mut client = emptied(probe)?;
    let objects = probe.objects(20, 10_000);
    for object in &objects {
        client.store_and_close(object)?;
    }
    let used = client.info().ok()?.used_bytes;
    for target in [used, u64::MAX] {
        let (expected, holds) = down_to(target);
        client.shrink(target).ok_and(expected, holds)?;
    }
    objects.iter().try_for_each(|object| client.has(object))?;
    client.quit()
}

fn to_target(probe: &Probe<'_>) -> Checked<()> {
    let mut client = emptied(probe)?;
    for object in probe.objects(40, 10_000) {
        client.store_and_close(&object)?;
    }
    let target = client.info().ok()?.used_bytes / 2;
    let (expected, holds) = down_to(target);
    let shrunk = client.shrink(target).ok_and(expected, holds)?;
    let same = format!("OK, with used = {}, as the shrink said", shrunk.used_bytes);
    client.info().ok_and(same, |info| info.used_bytes == shrunk.used_bytes)?;
    client.quit()
}

fn keeps_pinned(probe: &Probe<'_>) -> Checked<()> {
    let mut client = emptied(probe)?;
    let (open, closed) = (probe.objects(5, 10_000), probe.objects(20, 10_000));
    for object in &open {
        client.store(object).ok()?;
    }
    for object in &closed {
        client.store_and_close(object)?;
    }
    client.shrink(0).ok_and("PARTIAL", |shrunk| shrunk.partial)?;
    for object in &closed {
        client.lacks(&object.id)?;
    }
    for object in &open {
        client.read_all(&object.id).has_content(&object.content)?;
        client.close(&object.id).ok()?;
    }
    let (expected, holds) = down_to(0);
    client.shrink(0).ok_and(expected, holds)?;
    open.iter().try_for_each(|object| client.lacks(&object.id))?;
    client.quit()
}

fn keeps_uploads(probe: &Probe<'_>) -> Checked<()> {
    let mut client = emptied(probe)?;
    let object = probe.object(probe.part + 5);
    let mut upload = client.begin(object.id, object.id);
    upload.write(&mut client, object.content.slice(..probe.part)).ok()?;
    let (expected, holds) = down_to(0);
    client.shrink(0).ok_and(expected, holds)?;
    upload.commit(&mut client, object.content.slice(probe.part..)).ok()?;
    client.has(&object)?;
    client.close(&object.id).ok()?;
    client.quit()
}

fn under_pressure(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let size = probe.fillable(&mut client)?.size_bytes;
    let open = probe.objects(3, LARGE);
    for object in &open {
        client.store(object).ok()?;
    }
    let mut last = None;
    for number in 0..size * 3 / 2 / LARGE as u64 {
        let object = probe.object(LARGE);
        client.store_and_close(&object)?;
        if number % 16 == 0 {
            let expected = format!("OK, with used <= {size}");
            client.info().ok_and(expected, |info| info.used_bytes <= size)?;
            // The others are pinned, too.
            client.read(&open[0].id, 0, 1000).has_content(&open[0].content[..1000])?;
        }
        last = Some(object);
    }
    for object in open.iter().chain(&last) {
        client.has(object)?;
    }
    for object in &open {
        client.close(&object.id).ok()?;
    }
    client.quit()
}

fn all_pinned(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let size = probe.fillable(&mut client)?.size_bytes;
    let mut open: Vec<TestObject> = Vec::new();
    loop {
        let object = probe.object(LARGE);
        // The one too many is refused in any case.
        let step = client.store(&object);
        if (open.len() as u64 + 1) * LARGE as u64 > size {
            step.fails(Status::NoSpace)?;
            break;
        }
        // The first that is refused ends the loop; whatever else goes wrong ends the case.
        match step.unless(Status::NoSpace)? {
            Some(()) => open.push(object),
            None => break,
        }
    }
    probe.check(
        open.len() as u64 * LARGE as u64 >= size / 2,
        "objects of 1 MiB that are kept open, until one is refused",
        format!("room for at least half of {size} bytes"),
        format!("{} objects", open.len()),
    )?;
    for object in &open {
        client.read(&object.id, 5, 1000).has_content(&object.content[5..1005])?;
    }
    // A plugin may need some space before it admits uploads again.
    let closed = open.len() / 2;
    for object in open.drain(..closed) {
        client.close(&object.id).ok()?;
    }
    let object = probe.object(LARGE);
    client.store_and_close(&object)?;
    client.has(&object)?;
    for object in &open {
        client.read_all(&object.id).has_content(&object.content)?;
        client.close(&object.id).ok()?;
    }
    client.quit()
}
