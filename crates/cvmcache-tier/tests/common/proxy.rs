//! A TCP proxy that cuts, stalls and slows what passes through it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;

use super::Threads;

/// What happens to a connection.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    /// All passes.
    Clear,
    /// It is closed after so many bytes from the server.
    Cut(u64),
    /// It is reset after so many bytes from the server.
    Reset(u64),
    /// It is closed after so many bytes from the client.
    CutRequests(u64),
    /// Nothing passes any more after so many bytes from the server.
    Stall(u64),
    /// So many bytes from the server pass in each of these times.
    Slow(usize, Duration),
    /// The server is not asked: this is answered.
    Answer(Vec<u8>),
}

/// A proxy before a server.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    _threads: Threads,
}

struct Shared {
    next: Mutex<VecDeque<Line>>,
    others: Mutex<Line>,
    /// Changes when there are new lines, which ends the connections that there are.
    changes: watch::Sender<()>,
}

impl Proxy {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let threads = Threads::start();
        let (listener, address) = threads.listen();
        let shared = Arc::new(Shared {
            next: Mutex::default(),
            others: Mutex::new(Line::Clear),
            changes: watch::Sender::new(()),
        });
        let state = Arc::clone(&shared);
        threads.runtime().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let line = state.next.lock().pop_front();
                let line = line.unwrap_or_else(|| state.others.lock().clone());
                let mut changes = state.changes.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = changes.changed() => {}
                        _ = serve(client, server, line) => {}
                    }
                });
            }
        });
        Self { address, shared, _threads: threads }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, the next `count` connections are like this, and those after them clear.
    pub(crate) fn next(&self, count: usize, line: Line) {
        *self.shared.next.lock() = std::iter::repeat_n(line, count).collect();
        *self.shared.others.lock() = Line::Clear;
        self.shared.changes.send_replace(());
    }

    /// From now on, all connections are like this.
    pub(crate) fn all(&self, line: Line) {
        self.shared.next.lock().clear();
        *self.shared.others.lock() = line;
        self.shared.changes.send_replace(());
    }
}

async fn serve(client: TcpStream, server: SocketAddr, line: Line) -> io::Result<()> {
    if let Line::Reset(_) = line {
        client.set_zero_linger()?;
    }
    let (from_client, mut to_client) = client.into_split();
    if let Line::Answer(answer) = line {
        return answer_with(from_client, to_client, &answer).await;
    }
    let (mut from_server, to_server) = TcpStream::connect(server).await?.into_split();
    let requests = match line {
        Line::CutRequests(len) => len,
        _ => u64::MAX,
    };
    let there = async move {
        let mut to_server = to_server;
        io::copy(&mut from_client.take(requests), &mut to_server).await?;
        // A client that has closed wants no more.
        io::Result::Ok(())
    };
    let back = async move {
        match line {
            Line::Cut(len) | Line::Reset(len) => {
                io::copy(&mut from_server.take(len), &mut to_client).await?;
            }
            Line::Stall(len) => {
                io::copy(&mut from_server.take(len), &mut to_client).await?;
                std::future::pending::<()>().await;
            }
            Line::Slow(len, time) => loop {
                let mut piece = (&mut from_server).take(len as u64);
                if io::copy(&mut piece, &mut to_client).await? == 0 {
                    break;
                }
                tokio::time::sleep(time).await;
            },
            Line::Clear | Line::CutRequests(_) | Line::Answer(_) => {
                io::copy(&mut from_server, &mut to_client).await?;
            }
        }
        io::Result::Ok(())
    };
    tokio::select! {
        result = there => result,
        result = back => result,
    }
}

/// Answers the first request, and closes.
async fn answer_with(
    mut client: OwnedReadHalf,
    mut to_client: OwnedWriteHalf,
    answer: &[u8],
) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await?);
    }
    to_client.write_all(answer).await?;
    to_client.shutdown().await
}
