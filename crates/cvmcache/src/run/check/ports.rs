//! Which processes listen on a TCP port.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use procfs::ProcResult;
use procfs::net::{TcpNetEntry, TcpState};
use procfs::process::{FDTarget, Process, all_processes};

/// The processes that listen where this address would be bound, as far as their descriptors can be
/// seen: those of other users only by root.
pub(super) fn listeners(address: SocketAddr) -> BTreeSet<u32> {
    let table = |table: ProcResult<Vec<TcpNetEntry>>| table.unwrap_or_default();
    let sockets = table(procfs::net::tcp()).into_iter().chain(table(procfs::net::tcp6()));
    let meets = |entry: &TcpNetEntry| {
        let (ip, other) = (address.ip().to_canonical(), entry.local_address.ip().to_canonical());
        entry.state == TcpState::Listen
            && entry.local_address.port() == address.port()
            && (ip == other || ip.is_unspecified() || other.is_unspecified())
    };
    let inodes: BTreeSet<_> = sockets.filter(meets).map(|entry| entry.inode).collect();
    if inodes.is_empty() {
        return BTreeSet::new();
    }
    let has_one = |process: &Process| {
        let mut descriptors = process.fd().ok()?.flatten();
        descriptors
            .any(|fd| matches!(fd.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
            .then(|| process.pid().cast_unsigned())
    };
    let processes = all_processes().into_iter().flatten().flatten();
    processes.filter_map(|process| has_one(&process)).collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process;

    use super::*;

    #[test]
    fn the_process_that_listens_on_a_port_is_found() {
        for host in ["127.0.0.1", "0.0.0.0"] {
            let listener = TcpListener::bind((host, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            assert!(listeners(address).contains(&process::id()), "{host}");
            drop(listener);
            assert!(!listeners(address).contains(&process::id()), "{host}");
        }
    }
}
