//! A proxy in front of a server, which cuts connections in the middle of replies, or leads new ones to another server.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::thread;

/// A proxy on loopback. It ends with the process.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    server_port: Arc<AtomicU16>,
    cuts: Arc<AtomicU64>,
}

impl Proxy {
    /// Passes on a number of bytes of replies in this range on each connection, and then cuts it.
    pub fn cutting(server_port: u16, reply_bytes: RangeInclusive<usize>) -> Self {
        Self::new(server_port, move || fastrand::usize(reply_bytes.clone()))
    }

    /// Passes everything on.
    pub fn to(server_port: u16) -> Self {
        Self::new(server_port, || usize::MAX)
    }

    fn new(server_port: u16, reply_bytes: impl Fn() -> usize + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let cuts = Arc::new(AtomicU64::new(0));
        let server_port = Arc::new(AtomicU16::new(server_port));
        let (counter, port) = (Arc::clone(&cuts), Arc::clone(&server_port));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let port = port.load(Ordering::Relaxed);
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let (bytes, cuts) = (reply_bytes(), Arc::clone(&counter));
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass(from, to, usize::MAX));
                thread::spawn(move || {
                    if pass(server, client, bytes) {
                        cuts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { address, server_port, cuts }
    }

    /// Leads new connections to another server, as the new address of a name does.
    pub fn lead_to(&self, server_port: u16) {
        self.server_port.store(server_port, Ordering::Relaxed);
    }

    /// The URL for a plugin.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Relaxed)
    }
}

/// Passes up to `left` bytes on, and closes both. True if there were more.
fn pass(mut from: TcpStream, mut to: TcpStream, mut left: usize) -> bool {
    let mut buffer = [0; 16 * 1024];
    let is_cut = loop {
        let len = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break false,
            Ok(len) => len,
        };
        if to.write_all(&buffer[..len.min(left)]).is_err() {
            break false;
        }
        if len > left {
            break true;
        }
        left -= len;
    };
    // The other side may have closed already.
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
    is_cut
}
