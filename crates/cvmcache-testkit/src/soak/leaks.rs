//! Checks that clients that have disconnected leave nothing behind.

use std::thread;
use std::time::{Duration, Instant};

use cvmcache::client::Client;

use super::object::Object;
use super::plugin::{self, Plugin};
use super::violation::{CheckResult, Expect, Violation, ensure};

/// How long the plugin may take to notice that clients have disconnected.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How much of the cache the last object fills, in percent: leaked uploads do not fit beside it,
/// the cache's own overhead does.
const NEARLY_ALL: u64 = 97;

/// Checks that no reference, upload or object is leaked.
pub(super) fn check_cache(plugin: &Plugin) -> CheckResult {
    let session = plugin::connect(&plugin.locator, "soak.cern.ch:last");
    let mut client = session.expect_ok("a session for the last client")?;
    wait_for("no pinned bytes once all clients have disconnected", || {
        let info = client.info().expect_ok("figures of the cache")?;
        let pinned = info.pinned_bytes;
        Ok(if pinned == 0 { Ok(()) } else { Err(format!("{pinned} are")) })
    })?;
    let shrunk = client.shrink(0).expect_ok("the cache to be shrunk")?;
    ensure(
        !shrunk.partial && shrunk.used_bytes == 0,
        "nothing in use after a shrink to 0",
        format_args!("{shrunk:?}"),
    )?;
    let object = Object::numbered(0, 0).with_size(plugin.usable_size() / 100 * NEARLY_ALL);
    store(&mut client, &object)?;
    read(&mut client, &object)?;
    client.close(&object.id).expect_ok("to close the last object")?;
    let shrunk = client.shrink(0).expect_ok("the cache to be shrunk")?;
    ensure(shrunk.used_bytes == 0, "an empty cache in the end", format_args!("{shrunk:?}"))?;
    client.quit().expect_ok("the last client to quit")
}

/// Checks that the plugin has no more descriptors open than before. Returns their number.
pub(super) fn check_descriptors(
    plugin: &Plugin,
    before: Option<usize>,
) -> CheckResult<Option<usize>> {
    let Some(before) = before else { return Ok(None) };
    wait_for(&format!("{before} descriptors as in the beginning"), || {
        let now = plugin.descriptors();
        Ok(match now {
            Some(now) if now > before => Err(format!("{now} are open")),
            now => Ok(now),
        })
    })
}

/// Stores an object part by part, so that it need not fit into the memory of this process.
fn store(client: &mut Client, object: &Object) -> CheckResult {
    let part = client.max_object_size();
    let mut upload = client.begin_upload(object.new_upload().expected_size(object.size));
    let mut offset = 0;
    loop {
        let data = object.content(offset, part);
        offset += data.len() as u64;
        let last = offset == object.size;
        let result = if last { upload.commit(client, data) } else { upload.write(client, data) };
        result.expect_ok(format_args!(
            "to fill {NEARLY_ALL} % of the empty cache with one object, at {offset} of {} bytes",
            object.size
        ))?;
        if last {
            return Ok(());
        }
    }
}

fn read(client: &mut Client, object: &Object) -> CheckResult {
    let part = client.max_object_size();
    for offset in (0..object.size).step_by(part) {
        let data = client.read(&object.id, offset, part as u32).expect_ok("the last object")?;
        let right = data == object.content(offset, part);
        ensure(right, "the last object as it was stored", format_args!("{offset} is wrong"))?;
    }
    Ok(())
}

fn wait_for<T>(
    expected: &str,
    mut poll: impl FnMut() -> CheckResult<Result<T, String>>,
) -> CheckResult<T> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match poll()? {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() > deadline => {
                return Err(Violation::new(expected, format_args!("{seen} after {TIMEOUT:?}")));
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
