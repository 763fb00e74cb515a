//! A server around a [`TestCache`], on a unix socket of its own.

#![allow(dead_code, unreachable_pub, reason = "every test uses a part of it")]

use std::path::PathBuf;
use std::time::Duration;

use cvmcache::client::{Client, Connection};
use cvmcache::{Limits, Locator, RunningServer, Server};

use super::TestCache;

/// A cache with a server, on a unix socket of its own.
pub struct Fixture {
    pub cache: TestCache,
    running: Option<RunningServer>,
    pub locator: Locator,
    pub socket: PathBuf,
    _directory: tempfile::TempDir,
}

pub fn serve(workers: usize) -> Fixture {
    serve_with(workers, Limits::default())
}

pub fn serve_with(workers: usize, limits: Limits) -> Fixture {
    let cache = TestCache::default();
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("socket");
    let locator = Locator::Unix(socket.clone());
    let builder = Server::builder(cache.clone()).workers(workers).limits(limits);
    let builder = builder.handle(cache.state().handle.clone());
    let running = builder.listen(&locator).expect("a socket").spawn().expect("a server");
    Fixture { cache, running: Some(running), locator, socket, _directory: directory }
}

impl Fixture {
    pub fn client(&self, name: &'static str) -> Client {
        let builder = Client::builder().name(name).timeout(Duration::from_secs(20));
        builder.connect(&self.locator).expect("a session")
    }

    pub fn connection(&self) -> Connection {
        Connection::connect(&self.locator).expect("a connection")
    }

    pub fn running(&self) -> &RunningServer {
        self.running.as_ref().expect("it runs")
    }

    pub fn end(&mut self) {
        let running = self.running.take().expect("it runs");
        running.handle().terminate();
        running.wait().expect("a clean end");
    }
}
