//! Listings that are unknown, of another session, or unfinished.

use std::collections::BTreeSet;

use bytes::Bytes;
use cvmcache::plugin::{Capabilities, ObjectId, ObjectType};

use crate::suite::Case;
use crate::suite::client::{Listing, TestClient};
use crate::suite::object::{LISTED_IN_PARTS, LONG_DESCRIPTION};
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

const LISTS: &[Capabilities] = &[Capabilities::LIST];
const FILLS: &[Capabilities] = &[Capabilities::WRITE, Capabilities::LIST];

pub(super) const CASES: &[Case] = &[
    Case::hostile(
        "listing-unknown",
        "A listing id that was never given is refused, and the connection stays.",
        unknown,
    )
    .needs_all(LISTS),
    Case::hostile(
        "listing-foreign",
        "A client cannot continue the listing of another, or consume parts of it.",
        foreign,
    )
    .needs_all(FILLS),
    Case::hostile(
        "listing-after-its-end",
        "A listing does not continue after its last part.",
        after_its_end,
    )
    .needs_all(FILLS),
    Case::hostile(
        "listing-unfinished",
        "A hundred unfinished listings are given or refused, and keep no other client from \
         listing.",
        unfinished,
    )
    .needs_all(FILLS),
];

/// Stores so many volatile objects that a listing comes in parts, and returns those that have to be in it:
/// they are open, because other clients may have the cache evict closed ones.
fn in_parts(probe: &Probe<'_>, client: &mut TestClient) -> Checked<BTreeSet<ObjectId>> {
    let ids: Vec<_> = (0..LISTED_IN_PARTS).map(|_| probe.id()).collect();
    let objects = ids.iter().map(|id| (*id, Bytes::from_static(b"x")));
    client.store_all(objects, ObjectType::Volatile, &LONG_DESCRIPTION)?;
    Ok(ids.into_iter().collect())
}

/// The first part of a listing, and whether it is the last, too.
fn begin(client: &mut TestClient) -> Checked<(Listing, bool)> {
    let mut listing = Listing::default();
    let ended = client.list_more(&mut listing, ObjectType::Volatile)?;
    Ok((listing, ended))
}

/// All objects of a listing that was begun, and the id with which its last part was requested.
fn rest(
    client: &mut TestClient,
    (mut listing, mut ended): (Listing, bool),
) -> Checked<(BTreeSet<ObjectId>, u64)> {
    let mut number = 0;
    while !ended {
        number = listing.number;
        ended = client.list_more(&mut listing, ObjectType::Volatile)?;
    }
    Ok((listing.ids, number))
}

/// That a listing has each of these objects.
fn is_whole(
    probe: &Probe<'_>,
    listed: &BTreeSet<ObjectId>,
    ids: &BTreeSet<ObjectId>,
) -> Checked<()> {
    let missing = ids.difference(listed).count();
    let expected = format!("each of {} objects", ids.len());
    let received = format!("a listing without {missing} of them");
    probe.check(missing == 0, "list Volatile objects, to the end", expected, received)
}

fn unknown(probe: &Probe<'_>) -> Checked<()> {
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
    let ids = in_parts(probe, &mut owner)?;
    let first = begin(&mut owner)?;
    if !first.1 {
        client.list_part(first.0.number, ObjectType::Volatile).fails_somehow()?;
    }
    let (listed, _) = rest(&mut owner, first)?;
    is_whole(probe, &listed, &ids)?;
    owner.close_all(&ids)?;
    owner.quit()?;
    client.quit()?;
    probe.others_are_served()
}

fn after_its_end(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let ids = in_parts(probe, &mut client)?;
    let first = begin(&mut client)?;
    let (_, listing) = rest(&mut client, first)?;
    if listing != 0 {
        client.list_part(listing, ObjectType::Volatile).fails_somehow()?;
    }
    client.lacks(&probe.id())?;
    client.close_all(&ids)?;
    client.quit()?;
    probe.others_are_served()
}

fn unfinished(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let ids = in_parts(probe, &mut client)?;
    let mut hostile = probe.client_named(&b"test.cern.ch:lists"[..])?;
    for _ in 0..100 {
        hostile.list_part(0, ObjectType::Volatile).answered()?;
    }
    let first = begin(&mut client)?;
    is_whole(probe, &rest(&mut client, first)?.0, &ids)?;
    hostile.lacks(&probe.id())?;
    drop(hostile);
    let first = begin(&mut client)?;
    is_whole(probe, &rest(&mut client, first)?.0, &ids)?;
    client.close_all(&ids)?;
    client.quit()?;
    probe.others_are_served()
}
