//! Listings: all objects of a type, which of them are pinned, and their descriptions.

use std::collections::{BTreeMap, BTreeSet};

use cvmcache::client::NewUpload;
use cvmcache::plugin::{Capabilities, ListEntry, ObjectId, ObjectType};

use crate::suite::Case;
use crate::suite::client::{Listing, TestClient};
use crate::suite::object::{LISTED_IN_PARTS, LONG_DESCRIPTION, TestObject};
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

const LISTS: &[Capabilities] = &[Capabilities::WRITE, Capabilities::LIST];
const PINS: &[Capabilities] = &[Capabilities::WRITE, Capabilities::LIST, Capabilities::REFCOUNT];

const TYPES: [ObjectType; 3] = [ObjectType::Regular, ObjectType::Catalog, ObjectType::Volatile];

pub(super) const CASES: &[Case] = &[
    Case::new("list-types", "A listing has each object of one type exactly once.", types)
        .needs_all(LISTS),
    Case::new(
        "list-pinned",
        "Of a thousand objects, a listing marks exactly the open ones as pinned.",
        pinned,
    )
    .needs_all(PINS),
    Case::new(
        "list-descriptions",
        "A listing has descriptions as they were stored, also those that are not UTF-8.",
        descriptions,
    )
    .needs_all(LISTS),
    Case::new(
        "list-in-parts",
        "A listing of more than 4 MiB is complete and comes in several parts.",
        in_parts,
    )
    .needs_all(LISTS),
    Case::new("list-concurrent", "Several listings can be open at the same time.", concurrent)
        .needs_all(LISTS),
];

/// Stores an object and keeps it open: what is closed may be evicted before it is listed.
fn store_as(
    client: &mut TestClient,
    object: &TestObject,
    object_type: ObjectType,
    description: &[u8],
) -> Checked<()> {
    let new = NewUpload::new(object.id).object_type(object_type);
    client.store_as(new.description(description.to_vec()), object).ok()
}

/// The same of many objects.
fn store_all_as(
    client: &mut TestClient,
    objects: &[TestObject],
    object_type: ObjectType,
    description: &[u8],
) -> Checked<()> {
    let objects = objects.iter().map(|object| (object.id, object.content.clone()));
    client.store_all(objects, object_type, description)
}

fn close<'a>(
    client: &mut TestClient,
    objects: impl IntoIterator<Item = &'a TestObject>,
) -> Checked<()> {
    client.close_all(objects.into_iter().map(|object| &object.id))
}

/// Those of `wanted` that are not listed exactly once.
fn not_once(entries: &[ListEntry], wanted: impl IntoIterator<Item = ObjectId>) -> Vec<String> {
    let mut counts = BTreeMap::new();
    for entry in entries {
        *counts.entry(entry.id).or_insert(0) += 1;
    }
    let count = |id| counts.get(&id).copied().unwrap_or(0);
    let wrong = wanted.into_iter().filter(|id| count(*id) != 1);
    wrong.map(|id| format!("{id}: {} times", count(id))).take(3).collect()
}

fn types(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let objects = TYPES.map(|_| probe.objects(10, 20));
    for (object_type, objects) in TYPES.into_iter().zip(&objects) {
        for object in objects {
            store_as(&mut client, object, object_type, b"")?;
        }
    }
    for (own, object_type) in TYPES.into_iter().enumerate() {
        let entries = client.list(object_type)?;
        for (of, objects) in objects.iter().enumerate() {
            let sent = format!("list {object_type:?} objects");
            let ids = objects.iter().map(|object| object.id);
            if of == own {
                let wrong = not_once(&entries, ids);
                let expected = "each of the ten objects of this type once";
                probe.check(wrong.is_empty(), sent, expected, wrong.join(", "))?;
            } else {
                let ids: BTreeSet<_> = ids.collect();
                let stray = entries.iter().find(|entry| ids.contains(&entry.id));
                let expected = format!("no {:?} objects", TYPES[of]);
                probe.check(stray.is_none(), sent, expected, format!("{stray:?}"))?;
            }
        }
    }
    close(&mut client, objects.iter().flatten())?;
    client.quit()
}

fn pinned(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let objects = probe.objects(1000, 4);
    store_all_as(&mut client, &objects, ObjectType::Regular, b"/pinned")?;
    close(&mut client, &objects)?;
    let open: Vec<_> = objects.iter().step_by(10).map(|object| object.id).collect();
    for id in &open {
        client.open(id).ok()?;
    }
    let ours: BTreeSet<_> = objects.iter().map(|object| object.id).collect();
    let pinned = |entries: Vec<ListEntry>| -> BTreeSet<ObjectId> {
        let is_ours = |entry: &ListEntry| entry.pinned && ours.contains(&entry.id);
        entries.into_iter().filter(is_ours).map(|entry| entry.id).collect()
    };
    let entries = client.list(ObjectType::Regular)?;
    let wrong = not_once(&entries, ours.iter().copied());
    let sent = "list Regular objects";
    probe.check(wrong.is_empty(), sent, "each of a thousand objects once", wrong.join(", "))?;
    let listed = pinned(entries);
    probe.check(
        listed == open.iter().copied().collect(),
        sent,
        "100 of them pinned, which are those that are open",
        format!("{} pinned", listed.len()),
    )?;
    for id in &open {
        client.close(id).ok()?;
    }
    let listed = pinned(client.list(ObjectType::Regular)?);
    let received = format!("{} pinned", listed.len());
    probe.check(listed.is_empty(), sent, "none of them pinned, as all are closed", received)?;
    client.quit()
}

fn descriptions(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let long = vec![b'x'; 1000];
    let all = [&b"/a/path"[..], "/ä/💾".as_bytes(), b"caf\xe9 \xff\xfe", b"\n\x1b[2J\t", &long];
    let objects = probe.objects(all.len(), 20);
    for (object, description) in objects.iter().zip(all) {
        store_as(&mut client, object, ObjectType::Regular, description)?;
    }
    let entries = client.list(ObjectType::Regular)?;
    for (object, description) in objects.iter().zip(all) {
        let entry = entries.iter().find(|entry| entry.id == object.id);
        let listed = entry.and_then(|entry| entry.description.as_deref());
        let shown = |bytes: &[u8]| format!("\"{}\"", bytes.escape_ascii());
        probe.check(
            listed == Some(description),
            format!("list Regular objects, of which {}", object.id),
            format!("the description {}", shown(description)),
            listed.map_or("none".to_owned(), shown),
        )?;
    }
    close(&mut client, &objects)?;
    client.quit()
}

fn in_parts(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    // More than a plugin might bound a listing to, such as 4096; the other cases do with fewer.
    let objects = probe.objects(6000, 1);
    store_all_as(&mut client, &objects, ObjectType::Volatile, &LONG_DESCRIPTION[..1000])?;
    let mut listing = Listing::default();
    while !client.list_more(&mut listing, ObjectType::Volatile)? {}
    let Listing { parts, entries, .. } = listing;
    let sent = "list Volatile objects, of which there are 6 MB";
    probe.check(parts > 1, sent, "several parts", format!("{parts} part"))?;
    let wrong = not_once(&entries, objects.iter().map(|object| object.id));
    probe.check(wrong.is_empty(), sent, "each of 6000 objects once", wrong.join(", "))?;
    close(&mut client, &objects)?;
    client.quit()
}

fn concurrent(probe: &Probe<'_>) -> Checked<()> {
    let mut clients = [probe.client()?, probe.client()?];
    let objects = probe.objects(LISTED_IN_PARTS, 1);
    store_all_as(&mut clients[0], &objects, ObjectType::Catalog, &LONG_DESCRIPTION)?;
    // Two of the same client, and one of another.
    let mut listings = [0, 0, 1].map(|client| (client, Listing::default(), false));
    while listings.iter().any(|(_, _, ended)| !ended) {
        for (client, listing, ended) in listings.iter_mut().filter(|(_, _, ended)| !ended) {
            *ended = clients[*client].list_more(listing, ObjectType::Catalog)?;
        }
    }
    for (_, listing, _) in &listings {
        let wrong = not_once(&listing.entries, objects.iter().map(|object| object.id));
        let expected = format!("each of {LISTED_IN_PARTS} objects once in each");
        probe.check(wrong.is_empty(), "three listings in turns", expected, wrong.join(", "))?;
    }
    close(&mut clients[0], &objects)?;
    clients.into_iter().try_for_each(|client| client.quit())
}
