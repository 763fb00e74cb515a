//! When all clients have gone: that nothing is left of them.

use std::thread;
use std::time::{Duration, Instant};

use cvmcache::Locator;
use cvmcache::client::Client;

use super::broken::{Broken, Expect, Kept, ensure};
use super::client::TIMEOUT;
use super::object::Object;
use super::plugin::Plugin;
use super::run::UNLIMITED;

/// How long the plugin may take to notice that clients have gone.
const PATIENCE: Duration = Duration::from_secs(20);

/// How much of the cache the last object fills, in percent: what uploads have left behind shows,
/// and what the cache needs for itself does not.
const NEARLY_ALL: u64 = 97;

/// That the plugin counts no reference, keeps no upload and no object that it need not keep.
pub(super) fn check_nothing_left(locator: &Locator, size: Option<u64>) -> Kept {
    let builder = Client::builder().name("soak.cern.ch:last").timeout(TIMEOUT);
    let mut client = builder.connect(locator).or_broken("a session for the last client")?;
    wait_for("no pinned bytes once all clients have gone", || {
        let info = client.info().or_broken("figures of the cache")?;
        let pinned = info.pinned_bytes;
        Ok(if pinned == 0 { Ok(()) } else { Err(format!("{pinned} are")) })
    })?;
    let shrunk = client.shrink(0).or_broken("the cache to be shrunk")?;
    ensure(
        !shrunk.partial && shrunk.used_bytes == 0,
        "nothing in use after a shrink to 0",
        format_args!("{shrunk:?}"),
    )?;
    let size = size.unwrap_or(UNLIMITED);
    let object = Object::numbered(0, 0).with_size(size / 100 * NEARLY_ALL);
    store(&mut client, &object)?;
    read(&mut client, &object)?;
    client.close(&object.id).or_broken("to close the last object")?;
    let shrunk = client.shrink(0).or_broken("the cache to be shrunk")?;
    ensure(shrunk.used_bytes == 0, "an empty cache in the end", format_args!("{shrunk:?}"))?;
    client.quit().or_broken("the last client to be let go")
}

/// That the plugin has no more descriptors open than before. Returns how many those are.
pub(super) fn check_descriptors(plugin: &Plugin, before: Option<usize>) -> Kept<Option<usize>> {
    let Some(before) = before else { return Ok(None) };
    wait_for(&format!("{before} descriptors as in the beginning"), || {
        let now = plugin.descriptors();
        Ok(match now {
            Some(now) if now > before => Err(format!("{now} are open")),
            now => Ok(now),
        })
    })
}

/// Part by part, so that it need not fit into this process.
fn store(client: &mut Client, object: &Object) -> Kept {
    let part = client.max_object_size();
    let mut upload = client.begin_upload(object.new_upload().expected_size(object.size));
    let mut offset = 0;
    loop {
        let data = object.content(offset, part);
        offset += data.len() as u64;
        let last = offset == object.size;
        let result = if last { upload.commit(client, data) } else { upload.write(client, data) };
        result.or_broken(format_args!(
            "to fill {NEARLY_ALL} % of the empty cache with one object, at {offset} of {} bytes",
            object.size
        ))?;
        if last {
            return Ok(());
        }
    }
}

fn read(client: &mut Client, object: &Object) -> Kept {
    let part = client.max_object_size();
    for offset in (0..object.size).step_by(part) {
        let data = client.read(&object.id, offset, part as u32).or_broken("the last object")?;
        let right = data == object.content(offset, part);
        ensure(right, "the last object as it was stored", format_args!("{offset} is wrong"))?;
    }
    Ok(())
}

fn wait_for<T>(expected: &str, mut look: impl FnMut() -> Kept<Result<T, String>>) -> Kept<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look()? {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() > deadline => {
                return Err(Broken::new(expected, format_args!("{seen} after {PATIENCE:?}")));
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}
