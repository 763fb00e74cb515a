//! Handshakes and sessions.

use cvmcache::Locator;
use cvmcache::client::ClientMessage;

use crate::suite::Case;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

pub(super) const CASES: &[Case] = &[
    Case::new(
        "session-offer",
        "The handshake has a part size from 4 KiB to 512 KiB and, on a unix socket, the process \
         id.",
        offer,
    ),
    Case::new("session-ids", "No two sessions have the same id.", ids),
    Case::new(
        "session-names",
        "The name of a client may be long, empty, absent or not UTF-8.",
        names,
    ),
    Case::new(
        "session-quit",
        "After a Quit, the plugin closes the connection without a reply.",
        quit,
    ),
    Case::new("session-many", "A hundred clients can be connected at once.", many),
];

fn offer(probe: &Probe<'_>) -> Checked<()> {
    let client = probe.client()?;
    if let Locator::Unix(_) = probe.locator {
        let pid = client.raw.plugin_pid();
        let is_there = pid.is_some_and(|pid| pid > 0);
        probe.check(is_there, "handshake", "the plugin's process id", format!("{pid:?}"))?;
    }
    client.quit()
}

fn ids(probe: &Probe<'_>) -> Checked<()> {
    let (first, second) = (probe.client()?, probe.client()?);
    let ids = [first.raw.session(), second.raw.session()];
    probe.check(ids[0] != ids[1], "two handshakes", "two numbers", format!("{ids:?}"))?;
    first.quit()?;
    let third = probe.client()?;
    let taken = third.raw.session() == ids[1];
    probe.check(!taken, "a third handshake", "a number of its own", format!("{}", ids[1]))?;
    third.quit()?;
    second.quit()
}

fn names(probe: &Probe<'_>) -> Checked<()> {
    for name in [&b""[..], b"no-colon", b"caf\xe9.cern.ch:\xff\xfe", &[b'x'; 1000]] {
        let mut client = probe.client_named(name.to_vec())?;
        client.lacks(&probe.id())?;
        client.quit()?;
    }
    let builder = cvmcache::client::Client::builder().timeout(probe.timeout);
    probe.did("handshake without a name", builder.connect(probe.locator))?;
    Ok(())
}

fn quit(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    client.lacks(&probe.id())?;
    let quit = ClientMessage::Quit { session: client.raw.session() };
    let mut connection = client.raw.into_connection();
    let ended = connection.send(quit).and_then(|()| connection.receive());
    probe.trace.step("Quit", ended).ok_and("the end of the connection", Option::is_none)?;
    Ok(())
}

fn many(probe: &Probe<'_>) -> Checked<()> {
    let mut clients = (0..100).map(|_| probe.client()).collect::<Checked<Vec<_>>>()?;
    for client in &mut clients {
        client.lacks(&probe.id())?;
    }
    clients.into_iter().try_for_each(|client| client.quit())
}
