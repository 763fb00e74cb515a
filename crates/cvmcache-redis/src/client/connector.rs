//! Opens a connection to one server: the socket, TLS, and the login.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Failure;
use super::bounded::BoundedStream;
use crate::config::{Address, Config, ConfigError, Server, Tls, read_password};

/// Opens connections, to any address.
#[derive(Clone)]
pub(super) struct Connector {
    server: Server,
    password_file: Option<PathBuf>,
    tls: Option<Arc<ClientConfig>>,
    connect_timeout: Duration,
}

/// Why there is no connection: what requests fail with, and the reason for the log.
pub(super) struct ConnectError {
    pub(super) failure: Failure,
    pub(super) reason: String,
}

impl From<Failure> for ConnectError {
    fn from(failure: Failure) -> Self {
        Self { reason: failure.to_string(), failure }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self { failure: Failure::Unreachable, reason: error.to_string() }
    }
}

/// Does the I/O of a connection. It has to be polled, and ends with the connection.
pub(super) type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How many requests the redis crate buffers for writing before further ones wait for a place.
const PIPELINE_BUFFER: usize = 1024;

impl Connector {
    pub(super) fn new(config: &Config) -> Result<Self, ConfigError> {
        let tls = match (&config.tls, config.server.uses_tls()) {
            (_, false) => None,
            (Some(tls), true) => Some(tls.config()),
            (None, true) => Some(Tls::new(None, None)?.config()),
        };
        Ok(Self {
            server: config.server.clone(),
            password_file: config.password_file.clone(),
            tls,
            connect_timeout: config.timeout,
        })
    }

    /// Connects and logs in.
    pub(super) async fn open(
        &self,
        address: &Address,
    ) -> Result<(MultiplexedConnection, Driver), ConnectError> {
        let opened = timeout(self.connect_timeout, self.connect_unbounded(address)).await;
        opened.unwrap_or_else(|_| Err(Failure::Timeout.into()))
    }

    async fn connect_unbounded(
        &self,
        address: &Address,
    ) -> Result<(MultiplexedConnection, Driver), ConnectError> {
        // Read for each connection, because a password may be changed.
        let from_file = match &self.password_file {
            Some(path) => Some(
                read_password(path).map_err(|error| Failure::AccessDenied(error.to_string()))?,
            ),
            None => None,
        };
        let login = self.server.login(from_file.as_deref().or(self.server.password()));
        let stream = self.stream(address).await?;
        // `Node` has the deadlines of requests.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        let (mut connection, driver) =
            MultiplexedConnection::new_with_config(&login, BoundedStream::new(stream), config)
                .await
                .map_err(|error| Failure::of_login(&error))?;
        let mut driver: Driver = Box::pin(driver);
        tokio::select! {
            () = &mut driver => return Err(Failure::Unreachable.into()),
            greeted = ping(&mut connection) => greeted?,
        }
        Ok((connection, driver))
    }

    async fn stream(&self, address: &Address) -> io::Result<Box<dyn Stream>> {
        let (host, port) = match address {
            Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Tcp { host, port } => (host.as_str(), *port),
        };
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(config));
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

/// Checks that a server replies to PING. A user that may not send it is served as well.
///
/// The reply is compared, because TCP can connect a port on which no process listens to itself
/// (simultaneous open), and such a connection echoes.
pub(super) async fn ping(connection: &mut MultiplexedConnection) -> Result<(), Failure> {
    let reply = redis::cmd("PING").query_async::<String>(connection).await;
    match reply.map_err(Failure::from) {
        Ok(reply) if reply != "PONG" => Err(Failure::InvalidResponse(format!("PING: {reply}"))),
        Err(Failure::AccessDenied(code)) if code.starts_with("NOPERM") => Ok(()),
        other => other.map(|_| ()),
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn a_connection_that_echoes_is_an_invalid_response() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let echo = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            // The error, if any, is that of the closed connection.
            let _ = io::copy(&mut &stream, &mut &stream);
        });
        let config = Config::new(&url).unwrap();
        let connector = Connector::new(&config).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let opened = runtime.block_on(connector.open(&config.server.addresses()[0]));
        let failure = opened.err().map(|error| error.failure);
        assert!(matches!(failure, Some(Failure::InvalidResponse(_))), "{failure:?}");
        drop(runtime);
        echo.join().unwrap();
    }
}
