//! Overlong texts: descriptions, and names of clients and repositories.

use cvmcache::client::{ClientMessage, NewUpload};
use cvmcache::plugin::{Breadcrumb, Capabilities, ObjectType};

use super::raw;
use crate::suite::Case;
use crate::suite::probe::Probe;
use crate::suite::step::Checked;

pub(super) const CASES: &[Case] = &[
    Case::hostile(
        "text-long-description",
        "Descriptions of 9 MB are refused or kept, and objects can be listed afterwards.",
        long_description,
    )
    .needs_all(&[Capabilities::WRITE]),
    Case::hostile(
        "text-long-client-name",
        "A client whose name has 1 MB is answered, and other clients are served.",
        long_client_name,
    ),
    Case::hostile(
        "text-long-repository-name",
        "A breadcrumb of a repository whose name has 1 MB is refused or kept, and the connection \
         stays.",
        long_repository_name,
    )
    .needs_all(&[Capabilities::BREADCRUMB]),
];

/// What no path and no name is as long as, in bytes.
const LONG: usize = 1_000_000;

fn long_description(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    for object in probe.objects(3, 0) {
        let described = NewUpload::new(object.id).description(vec![b'd'; 9 * LONG]);
        let mut upload = client.begin(described, object.id);
        match upload.commit(&mut client, "").answered()? {
            Some(()) => client.close(&object.id).ok()?,
            None => client.lacks(&object.id)?,
        }
        client.store_and_close(&object)?;
        client.has(&object)?;
    }
    if probe.capabilities.contains(Capabilities::LIST) {
        // Together they fit into no frame.
        client.list(ObjectType::Regular)?;
    }
    client.quit()?;
    probe.others_are_served()
}

fn long_client_name(probe: &Probe<'_>) -> Checked<()> {
    let mut connection = probe.connection()?;
    let name = Some(vec![b'n'; LONG].into());
    let hello = ClientMessage::Handshake { protocol_version: 1, name };
    probe.did("a handshake with a name of 1 MB", connection.send(hello))?;
    raw::session(probe, &mut connection).answered()?;
    probe.others_are_served()
}

fn long_repository_name(probe: &Probe<'_>) -> Checked<()> {
    let mut client = probe.client()?;
    let name = vec![b'r'; LONG];
    let breadcrumb = Breadcrumb { catalog: probe.id(), timestamp: 1, revision: Some(1) };
    let sent = "store a breadcrumb for a name of 1 MB";
    let stored = client.raw.store_breadcrumb(name.clone(), breadcrumb);
    let kept = probe.trace.step(sent, stored).answered()?.is_some();
    let loaded = probe.trace.step("load it again", client.raw.load_breadcrumb(name));
    if kept {
        loaded.is(breadcrumb)?;
    } else {
        loaded.fails_somehow()?;
    }
    client.lacks(&probe.id())?;
    client.quit()?;
    probe.others_are_served()
}
