//! A small HTTP/1.1 server: one request a connection, bounded in bytes and in time.
//!
//! For metrics and the administration socket. A thread serves one connection at a time, so what a peer can
//! spend is known: the bytes and the time of [`Bounds`].

mod connection;
mod message;

use std::time::Duration;

pub(crate) use connection::serve;
pub(crate) use message::{Method, Request, Response, StatusCode};

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// For the request, and as long again for the response.
    pub(crate) time: Duration,
    /// The bytes of the request line and the header fields.
    pub(crate) head: usize,
    /// The bytes of the body.
    pub(crate) body: usize,
}
