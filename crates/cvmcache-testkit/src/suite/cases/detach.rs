//! Detach: the plugin asks its clients to close what they can.

use cvmcache::plugin::{Capabilities, Status};

use crate::suite::Case;
use crate::suite::client::TestClient;
use crate::suite::probe::{Probe, skip};
use crate::suite::step::Checked;

pub(super) const CASES: &[Case] = &[Case::new(
    "detach-reaches-all",
    "A detach reaches every client, also between the replies to its requests.",
    reaches_all,
)
.needs_all(&[Capabilities::WRITE, Capabilities::REFCOUNT, Capabilities::INFO])
.alone()];

/// The size of the objects that fill the cache, in bytes.
const LARGE: usize = 1024 * 1024;

fn reaches_all(probe: &Probe<'_>) -> Checked<()> {
    let mut clients = (0..5).map(|_| probe.client()).collect::<Checked<Vec<_>>>()?;
    match probe.handle {
        Some(handle) => handle.ask_detach(),
        None => fill(probe, &mut clients[0])?,
    }
    for client in &mut clients {
        // The plugin sends the detach before this reply.
        client.lacks(&probe.id())?;
    }
    let heard = clients.iter().filter(|client| client.raw.detach_requests() > 0).count();
    if heard == 0 && probe.handle.is_none() {
        return Err(skip("the plugin does not ask to detach when everything is open"));
    }
    probe.check(
        heard == clients.len(),
        "requests of five clients, after the plugin has been given reason to ask them to detach",
        "a detach message to each of them",
        format!("a detach message to {heard} of them"),
    )?;
    clients.into_iter().try_for_each(|client| client.quit())
}

/// Pins so much that a plugin that sends detach messages at all sends one.
fn fill(probe: &Probe<'_>, client: &mut TestClient) -> Checked<()> {
    let size = probe.fillable(client)?.size_bytes;
    let mut open = Vec::new();
    for object in probe.objects((size / LARGE as u64) as usize, LARGE) {
        match client.store(&object).unless(Status::NoSpace)? {
            Some(()) => open.push(object.id),
            None => break,
        }
    }
    open.iter().try_for_each(|id| client.close(id).ok())
}
