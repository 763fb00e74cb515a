//! `cvmcache detach`: has a plugin ask its clients to release what they can do without.

use std::io::Write;

use clap::Args;

use crate::Verdict;
use crate::admin::AdminRemote;
use crate::admin::schema::Detached;
use crate::error::Result;
use crate::output;

const EXAMPLES: &str = "\
Examples:
  cvmcache detach unix=/var/lib/cvmfs/cvmcache-ram.socket

Clients close nested catalogs that no job uses, so that more of the cache can be evicted. They do so
when they come to it: look at the pinned bytes in cvmcache info afterwards.

It uses the plugin's administration socket, as the plugin's user or root.";

const INSTEAD: &str = "the protocol has no request for a detach: press R and Enter on the terminal of the \
                       plugin, if it was started by hand, or see its documentation for a signal";

/// Have all clients asked to close the catalogs that they can do without
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Detach {
    #[command(flatten)]
    remote: AdminRemote,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Detach {
    pub(crate) fn run(self, out: &mut dyn Write) -> Result<Verdict> {
        let admin = self.remote.find("detach", INSTEAD)?;
        let answer = admin.post::<Detached>("/v1/detach", None)?;
        if self.json {
            output::json(out, &answer.json)?;
            return Ok(Verdict::Good);
        }
        match answer.value.asked {
            0 => writeln!(out, "no client is connected")?,
            1 => writeln!(out, "1 session is asked")?,
            asked => writeln!(out, "{} sessions are asked", output::count(asked))?,
        }
        Ok(Verdict::Good)
    }
}
