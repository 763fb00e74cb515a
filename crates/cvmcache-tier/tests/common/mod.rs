//! Servers for tests on loopback: one of S3 that checks signatures, one of plain HTTP, and a proxy that cuts and
//! stalls connections. Each ends when it is dropped.

#![allow(dead_code, reason = "no test uses all of it")]

pub(crate) mod proxy;
pub(crate) mod s3_server;
pub(crate) mod web_server;

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// The threads of a server, which end with it.
#[derive(Debug)]
struct Threads(Option<Runtime>);

impl Threads {
    fn start() -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self(Some(runtime.expect("threads can be started")))
    }

    /// A listening socket on loopback.
    fn listen(&self) -> (TcpListener, SocketAddr) {
        let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = socket.local_addr().expect("an address");
        socket.set_nonblocking(true).expect("it can be set");
        let _context = self.runtime().enter();
        (TcpListener::from_std(socket).expect("a socket"), address)
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("it is taken when dropped")
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
