//! Breadcrumbs: the last known catalog of a repository.

use cvmcache::plugin::{Breadcrumb, Capabilities, HashAlgorithm, Status};

use crate::suite::Case;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

const KEEPS: &[Capabilities] = &[Capabilities::BREADCRUMB];

pub(super) const CASES: &[Case] = &[
    Case::new(
        "breadcrumb-absent",
        "The breadcrumb of a repository that has stored none is NOENTRY.",
        absent,
    )
    .needs_all(KEEPS),
    Case::new(
        "breadcrumb-kept",
        "A breadcrumb is loaded with the catalog, timestamp and revision it was stored with, by \
         any client.",
        kept,
    )
    .needs_all(KEEPS),
    Case::new("breadcrumb-replaced", "A breadcrumb replaces the one before.", replaced)
        .needs_all(KEEPS),
    Case::new(
        "breadcrumb-names",
        "Each repository has its own breadcrumb, also if its name is long or not UTF-8.",
        names,
    )
    .needs_all(KEEPS),
];

/// A repository that no other client has.
fn repository(probe: &Probe<'_>) -> Vec<u8> {
    format!("{}.cern.ch", probe.id()).into_bytes()
}

fn absent(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    client.load_breadcrumb(&repository(probe)).fails(Status::NoEntry)?;
    client.quit()
}

fn kept(probe: &Probe<'_>) -> Checked<()> {
    let (mut client, mut other) = (probe.client()?, probe.client()?);
    let all = [HashAlgorithm::Sha1, HashAlgorithm::Ripemd160, HashAlgorithm::Shake128];
    for (algorithm, number) in all.into_iter().zip([1, 1 << 32, u64::MAX]) {
        let name = repository(probe);
        let catalog = probe.id_by(algorithm);
        let breadcrumb = Breadcrumb { catalog, timestamp: number, revision: Some(number - 1) };
        client.store_breadcrumb(&name, breadcrumb).ok()?;
        client.load_breadcrumb(&name).is(breadcrumb)?;
        other.load_breadcrumb(&name).is(breadcrumb)?;
    }
    client.quit()?;
    other.quit()
}

fn replaced(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let name = repository(probe);
    for revision in [7, 8, 3] {
        let breadcrumb =
            Breadcrumb { catalog: probe.id(), timestamp: revision, revision: Some(revision) };
        client.store_breadcrumb(&name, breadcrumb).ok()?;
        client.load_breadcrumb(&name).is(breadcrumb)?;
    }
    client.quit()
}

fn names(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let base = repository(probe);
    let long = [b'x'; 500];
    // As text, the second and the third are the same; so are the last two, cut anywhere.
    let ends = [&b""[..], b"\xff\xfe", b"\xfe\xff", b"2", &long, &long[1..]];
    let names = ends.map(|end| [&*base, end].concat());
    let crumb =
        |revision| Breadcrumb { catalog: probe.id(), timestamp: 1, revision: Some(revision) };
    let breadcrumbs = [1, 2, 3, 4, 5, 6].map(crumb);
    for (name, breadcrumb) in names.iter().zip(breadcrumbs) {
        client.store_breadcrumb(name, breadcrumb).ok()?;
    }
    for (name, breadcrumb) in names.iter().zip(breadcrumbs) {
        client.load_breadcrumb(name).is(breadcrumb)?;
    }
    client.quit()
}
