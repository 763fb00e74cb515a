//! The reported size, used and pinned bytes.

use cvmcache::plugin::Capabilities;

use crate::suite::Case;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "info-consistent",
        "Pinned bytes do not exceed used bytes, and used bytes do not exceed the size.",
        consistent,
    )
    .needs_all(&[Capabilities::INFO]),
    Case::new("info-used", "A stored object counts as used, however small it is.", used)
        .needs_all(&[Capabilities::INFO, Capabilities::WRITE])
        .alone(),
    Case::new(
        "info-pinned",
        "An object counts as pinned once while any client has it open.",
        pinned,
    )
    .needs_all(&[Capabilities::INFO, Capabilities::WRITE, Capabilities::REFCOUNT])
    .alone(),
    Case::new(
        "info-clean-ups",
        "A plugin that declares the shrink rate reports its number of clean-ups.",
        clean_ups,
    )
    .needs_all(&[Capabilities::INFO, Capabilities::SHRINK_RATE]),
];

fn consistent(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    client.info().ok_and("OK, with a size and pinned <= used <= size", |info| {
        info.size_bytes > 0
            && info.pinned_bytes <= info.used_bytes
            && info.used_bytes <= info.size_bytes
    })?;
    client.quit()
}

fn used(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    for len in [7, 100_000] {
        let before = client.info().ok()?.used_bytes;
        let object = probe.object(len);
        client.store(&object).ok()?;
        let least = if len == 7 { before + 1 } else { before + len as u64 };
        client.info().ok_and(format!("OK, with used >= {least}"), |i| i.used_bytes >= least)?;
        client.close(&object.id).ok()?;
    }
    client.quit()
}

fn pinned(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let object = probe.object(100_000);
    let before = client.info().ok()?.pinned_bytes;
    client.store(&object).ok()?;
    let with_one = client
        .info()
        .ok_and(format!("OK, with pinned >= {}", before + 100_000), |info| {
            info.pinned_bytes >= before + 100_000
        })?
        .pinned_bytes;
    client.open(&object.id).ok()?;
    let is = |pinned| format!("OK, with pinned = {pinned}");
    client.info().ok_and(is(with_one), |info| info.pinned_bytes == with_one)?;
    client.close(&object.id).ok()?;
    client.info().ok_and(is(with_one), |info| info.pinned_bytes == with_one)?;
    client.close(&object.id).ok()?;
    client.info().ok_and(is(before), |info| info.pinned_bytes == before)?;
    client.quit()
}

fn clean_ups(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    client.info().ok_and("OK, with a number of clean-ups that is not negative", |info| {
        info.shrink_count.is_some()
    })?;
    client.quit()
}
