//! The conformance cases, by subject.

mod breadcrumbs;
mod capabilities;
mod detach;
mod eviction;
mod info;
mod listings;
mod objects;
mod pipelining;
mod reading;
mod references;
mod reloads;
mod sessions;
mod uploads;

use super::Case;

pub(super) const ALL: &[&[Case]] = &[
    sessions::CASES,
    capabilities::CASES,
    objects::CASES,
    reading::CASES,
    references::CASES,
    uploads::CASES,
    pipelining::CASES,
    info::CASES,
    eviction::CASES,
    listings::CASES,
    breadcrumbs::CASES,
    reloads::CASES,
    detach::CASES,
];
