//! Listings that were never begun, belong to others, or are not ended.

use cvmcache::client::NewUpload;
use cvmcache::plugin::{Capabilities, ObjectId, ObjectType};

use crate::suite::Case;
use crate::suite::client::TestClient;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

const LISTS: &[Capabilities] = &[Capabilities::LIST];
const FILLS: &[Capabilities] = &[Capabilities::WRITE, Capabilities::LIST];

pub(super) const CASES: &[Case] = &[
    Case::hostile(
        "listing-made-up",
        "A listing that nobody has begun is refused, and the connection stays.",
        made_up,
    )
    .needs_all(LISTS),
    Case::hostile(
        "listing-foreign",
        "A client cannot go on with the listing of another, or take parts of it away.",
        foreign,
    )
    .needs_all(FILLS),
    Case::hostile(
        "listing-after-its-end",
        "A listing does not go on after its last part.",
        after_its_end,
    )
    .needs_all(FILLS),
    Case::hostile(
        "listing-unfinished",
        "A hundred listings that are not ended are given or refused, and do not stay when their \
         client has gone.",
        unfinished,
    )
    .needs_all(FILLS),
];

/// How many objects there are in listings that shall have several parts. A reply of the reference
/// library has about 4 MiB.
const MANY: usize = 6000;

/// How many requests are under way while they are stored.
const AT_ONCE: usize = 100;

/// Stores so many volatile objects that their listing comes in parts.
fn stored(probe: &Probe<'_>, client: &mut TestClient) -> Checked<Vec<ObjectId>> {
    let ids: Vec<_> = (0..MANY).map(|_| probe.id()).collect();
    for some in ids.chunks(AT_ONCE) {
        let mut under_way = Vec::new();
        for id in some {
            let new = NewUpload::new(*id).object_type(ObjectType::Volatile);
            let mut upload = client.raw.begin_upload(new.description(vec![b'd'; 1000]));
            let submitted = upload.submit(&mut client.raw, "x", true);
            under_way.push(probe.did(format!("store {id}"), submitted)?);
        }
        for ticket in under_way {
            probe.did("wait for the answer", client.raw.wait(ticket))?;
        }
    }
    ids.iter().try_for_each(|id| client.close(id).ok())?;
    Ok(ids)
}

/// That a whole listing has each of these objects.
fn is_whole(probe: &Probe<'_>, client: &mut TestClient, ids: &[ObjectId]) -> Checked<()> {
    let entries = client.list(ObjectType::Volatile).ok()?;
    let listed: std::collections::BTreeSet<_> = entries.iter().map(|entry| entry.id).collect();
    let missing = ids.iter().filter(|id| !listed.contains(id)).count();
    let received = format!("a listing without {missing} of them");
    let expected = format!("each of {} objects", ids.len());
    probe.check(missing == 0, "list Volatile objects", expected, received)
}

fn made_up(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    for listing in [1, 1 << 31, 1 << 32, u64::MAX, 1 + probe.below(u64::MAX - 1)] {
        client.list_part(listing, ObjectType::Regular).fails_somehow()?;
    }
    client.lacks(&probe.id())?;
    client.quit()?;
    probe.others_are_served()
}

fn foreign(probe: &Probe<'_>) -> Checked<()> {
    let (mut owner, mut client) = (probe.client()?, probe.client()?);
    let ids = stored(probe, &mut owner)?;
    let mut part = owner.list_part(0, ObjectType::Volatile).ok()?;
    let mut listed: std::collections::BTreeSet<_> = part.entries.iter().map(|e| e.id).collect();
    if !part.last {
        client.list_part(part.listing, ObjectType::Volatile).fails_somehow()?;
    }
    while !part.last {
        part = owner.list_part(part.listing, ObjectType::Volatile).ok()?;
        listed.extend(part.entries.iter().map(|entry| entry.id));
    }
    let missing = ids.iter().filter(|id| !listed.contains(id)).count();
    let sent = "a listing, with which another client has tried to go on";
    let expected = format!("each of {MANY} objects");
    probe.check(missing == 0, sent, expected, format!("{missing} of them are missing"))?;
    owner.quit()?;
    client.quit()?;
    probe.others_are_served()
}

fn after_its_end(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    stored(probe, &mut client)?;
    let mut listing = 0;
    loop {
        let part = client.list_part(listing, ObjectType::Volatile).ok()?;
        if part.last {
            break;
        }
        listing = part.listing;
    }
    if listing != 0 {
        client.list_part(listing, ObjectType::Volatile).fails_somehow()?;
    }
    client.lacks(&probe.id())?;
    client.quit()?;
    probe.others_are_served()
}

fn unfinished(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let ids = stored(probe, &mut client)?;
    let mut hostile = probe.client_named(&b"test.cern.ch:lists"[..])?;
    for _ in 0..100 {
        hostile.list_part(0, ObjectType::Volatile).answered()?;
    }
    is_whole(probe, &mut client, &ids)?;
    hostile.lacks(&probe.id())?;
    drop(hostile);
    for _ in 0..3 {
        let mut client = probe.client_named(&b"test.cern.ch:lists"[..])?;
        is_whole(probe, &mut client, &ids)?;
    }
    client.quit()?;
    probe.others_are_served()
}
