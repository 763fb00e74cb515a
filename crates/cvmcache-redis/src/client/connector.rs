//! Opens a connection to one server: the socket, TLS, and the login.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Failure;
use super::connect_error::{Attempt, ConnectError, Phase};
use super::inspected::InspectedStream;
use super::opening::Opening;
use crate::config::{Address, Config, ConfigError, SecretError, Server, Tls, read_password};

/// Opens connections, to any address.
#[derive(Clone)]
pub(super) struct Connector {
    server: Server,
    password_file: Option<PathBuf>,
    tls: Option<Arc<ClientConfig>>,
    connect_timeout: Duration,
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
        // Read for each connection, because a password may be changed.
        let from_file = match &self.password_file {
            Some(path) => {
                let read = read_password(path);
                let denied = |error: SecretError| Failure::AccessDenied(error.to_string());
                Some(read.map_err(|error| ConnectError::local(denied(error)))?)
            }
            None => None,
        };
        let password = from_file.as_deref().or(self.server.password());
        let opening = Opening::default();
        let phase = Mutex::new(Phase::Connect);
        let attempt = self.connect_unbounded(address, password, &opening, &phase);
        let opened = timeout(self.connect_timeout, attempt).await;
        opened.unwrap_or_else(|_| {
            self.describe(*phase.lock(), &opening, password, |attempt| Err(attempt.timed_out()))
        })
    }

    async fn connect_unbounded(
        &self,
        address: &Address,
        password: Option<&str>,
        opening: &Opening,
        phase: &Mutex<Phase>,
    ) -> Result<(MultiplexedConnection, Driver), ConnectError> {
        let stream = self.stream(address, phase).await.map_err(|error| {
            self.describe(*phase.lock(), opening, password, |attempt| attempt.io_error(&error))
        })?;
        *phase.lock() = Phase::Login;
        let stream = InspectedStream::new(stream, opening.clone());
        // `Node` has the deadlines of requests.
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_BUFFER);
        let failed = |error: &RedisError, failure: Failure| {
            self.describe(Phase::Login, opening, password, |attempt| {
                attempt.login_error(error, failure)
            })
        };
        let login = self.server.login(password);
        let (connection, driver) = MultiplexedConnection::new_with_config(&login, stream, config)
            .await
            .map_err(|error| failed(&error, Failure::of_login(&error)))?;
        let mut driver: Driver = Box::pin(driver);
        let mut pinging = connection.clone();
        let ping = redis::cmd("PING");
        let mut reply = Box::pin(ping.query_async::<String>(&mut pinging));
        let in_time = tokio::select! {
            biased;
            reply = &mut reply => Some(reply),
            () = &mut driver => None,
        };
        let reply = match in_time {
            Some(reply) => reply,
            None => {
                // It has passed its error on.
                drop(driver);
                let error = match reply.await {
                    Err(error) => error,
                    Ok(_) => RedisError::from(io::Error::from(io::ErrorKind::BrokenPipe)),
                };
                return Err(failed(&error, Failure::from(error.clone())));
            }
        };
        match pinged(reply.clone()) {
            Ok(()) => Ok((connection, driver)),
            Err(failure) => Err(match reply {
                Err(error) => failed(&error, failure),
                Ok(_) => self
                    .describe(Phase::Login, opening, password, |attempt| attempt.answered(failure)),
            }),
        }
    }

    fn describe<T>(
        &self,
        phase: Phase,
        opening: &Opening,
        password: Option<&str>,
        describe: impl FnOnce(&Attempt<'_>) -> T,
    ) -> T {
        describe(&Attempt {
            phase,
            uses_tls: self.tls.is_some(),
            shows_certificate: self
                .tls
                .as_ref()
                .is_some_and(|tls| tls.client_auth_cert_resolver.has_certs()),
            opening: &opening.bytes(),
            password,
        })
    }

    async fn stream(&self, address: &Address, phase: &Mutex<Phase>) -> io::Result<Box<dyn Stream>> {
        let (host, port) = match address {
            Address::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
            Address::Tcp { host, port } => (host.as_str(), *port),
        };
        let stream = TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(Box::new(stream)) };
        *phase.lock() = Phase::TlsHandshake;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(config));
        Ok(Box::new(connector.connect(name, stream).await?))
    }
}

/// Checks that a server replies to PING. A user that may not send it is served as well, and so is one of a
/// server that only reads.
///
/// The reply is compared, because TCP can connect a port on which no process listens to itself
/// (simultaneous open), and such a connection echoes.
pub(super) async fn ping(connection: &mut MultiplexedConnection) -> Result<(), Failure> {
    pinged(redis::cmd("PING").query_async::<String>(connection).await)
}

fn pinged(reply: Result<String, RedisError>) -> Result<(), Failure> {
    match reply.map_err(Failure::from) {
        Ok(reply) => pong(&reply),
        Err(Failure::AccessDenied(code)) if code.starts_with("NOPERM") => Ok(()),
        // A server that cannot save its data (MISCONF) refuses PING like a write, and can be read.
        Err(Failure::ReadOnly(_)) => Ok(()),
        Err(failure) => Err(failure),
    }
}

fn pong(reply: &str) -> Result<(), Failure> {
    match reply {
        "PONG" => Ok(()),
        _ => Err(Failure::InvalidResponse("another reply to PING than PONG".to_owned())),
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
