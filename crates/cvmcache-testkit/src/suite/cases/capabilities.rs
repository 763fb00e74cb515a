//! Undeclared capabilities.

use cvmcache::client::NewUpload;
use cvmcache::plugin::{Breadcrumb, Capabilities, ObjectType, Status};

use crate::suite::Case;
use crate::suite::probe::{Probe, skip};
use crate::suite::step::Checked;

pub(super) const CASES: &[Case] = &[Case::new(
    "capability-undeclared",
    "A request for a capability that the plugin has not declared is NOSUPPORT.",
    undeclared,
)];

fn undeclared(probe: &Probe<'_>) -> Checked<()> {
    if probe.capabilities.contains(Capabilities::ALL) {
        return Err(skip("the plugin declares everything"));
    }
    let lacks = |capability| !probe.capabilities.contains(capability);
    let mut client = probe.client()?;
    let id = probe.id();
    if lacks(Capabilities::WRITE) {
        let mut upload = client.begin(NewUpload::new(id), id);
        upload.commit(&mut client, "content").fails(Status::NoSupport)?;
    }
    if lacks(Capabilities::INFO) {
        client.info().fails(Status::NoSupport)?;
    }
    if lacks(Capabilities::SHRINK) {
        client.shrink(u64::MAX).fails(Status::NoSupport)?;
    }
    if lacks(Capabilities::LIST) {
        client.list_part(0, ObjectType::Regular).fails(Status::NoSupport)?;
    }
    if lacks(Capabilities::BREADCRUMB) {
        let breadcrumb = Breadcrumb { catalog: id, timestamp: 1, revision: Some(1) };
        client.store_breadcrumb(b"test.cern.ch", breadcrumb).fails(Status::NoSupport)?;
        client.load_breadcrumb(b"test.cern.ch").fails(Status::NoSupport)?;
    }
    client.quit()
}
