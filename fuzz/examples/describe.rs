//! Says what an input of the target `service` does, step by step.
//!
//! `cargo run -p cvmcache-fuzz --example describe -- fuzz/artifacts/service/crash-…`

use std::io::{self, Write};

fn main() -> io::Result<()> {
    for path in std::env::args_os().skip(1) {
        let steps = cvmcache_fuzz::service::describe(&std::fs::read(path)?);
        writeln!(io::stdout(), "{steps}")?;
    }
    Ok(())
}
