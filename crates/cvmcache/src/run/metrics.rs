//! The address at which metrics are served.

#[cfg_attr(not(feature = "prometheus"), path = "metrics/no_exporter.rs")]
mod exporter;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use thiserror::Error;

use super::Failure;
use crate::Options;
use crate::config_keys::METRICS;

pub(super) use exporter::Exporter;

/// Where metrics are served, the value of `CVMFS_CACHE_PLUGIN_METRICS`: `ADDRESS:PORT`, or a port of the
/// loopback address. An IPv6 address stands in brackets; names of hosts are not understood.
///
/// ```
/// let address: cvmcache::MetricsAddress = "9469".parse()?;
/// assert_eq!(address.get().to_string(), "127.0.0.1:9469");
/// # Ok::<(), cvmcache::InvalidMetricsAddress>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsAddress(SocketAddr);

/// What was to be an address for metrics is none: a name, a port above 65535, or no port at all.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not an address and a port: use 127.0.0.1:PORT, or [::1]:PORT")]
pub struct InvalidMetricsAddress;

impl MetricsAddress {
    /// The address and the port. Port 0 is one that the system chooses.
    pub fn get(self) -> SocketAddr {
        self.0
    }
}

impl FromStr for MetricsAddress {
    type Err = InvalidMetricsAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let loopback = |port: u16| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let address = text.parse().ok().or_else(|| text.parse().ok().map(loopback));
        address.map(Self).ok_or(InvalidMetricsAddress)
    }
}

/// Why metrics are not served. Each of them is found before a client is.
#[derive(Debug, Error)]
pub(super) enum MetricsError {
    #[error("cannot serve metrics at {address}: {source}; set {key} to another port", key = METRICS.name())]
    #[cfg_attr(not(feature = "prometheus"), expect(dead_code, reason = "there is no exporter"))]
    Bind { address: SocketAddr, source: io::Error },
    #[error("metrics cannot be served: {0}")]
    #[cfg_attr(not(feature = "prometheus"), expect(dead_code, reason = "there is no exporter"))]
    Thread(io::Error),
    #[error("{key} is set, but the program has installed a recorder of its own: unset it", key = METRICS.name())]
    #[cfg_attr(not(feature = "prometheus"), expect(dead_code, reason = "there is no exporter"))]
    Recorder,
    #[error(
        "{key} is set, but this plugin was built without metrics: unset it, or have it built \
         with the feature `prometheus` of the crate cvmcache", key = METRICS.name()
    )]
    #[cfg_attr(feature = "prometheus", expect(dead_code, reason = "there is an exporter"))]
    NoFeature,
}

/// The exporter of metrics, if the configuration has one. From now on, they are recorded.
pub(super) fn prepare(options: &Options) -> Result<Option<Exporter>, Failure> {
    match options.value::<MetricsAddress>(&METRICS)? {
        None => Ok(None),
        Some(MetricsAddress(address)) => Ok(Some(Exporter::install(address)?)),
    }
}

/// How long to wait for a port, in steps: a plugin that a client has just left may be about to end.
const PORT_STEPS: u32 = 40;
const PORT_STEP: Duration = Duration::from_millis(50);

/// Binds a port, and waits for it for a while if it is in use.
pub(super) fn wait_for_port<T>(mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..PORT_STEPS {
        match bind() {
            Err(error) if error.kind() == ErrorKind::AddrInUse => thread::sleep(PORT_STEP),
            result => return result,
        }
    }
    bind()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_the_loopback_address() {
        let address = |text: &str| text.parse::<MetricsAddress>().map(|it| it.get().to_string());
        assert_eq!(address("9469").as_deref(), Ok("127.0.0.1:9469"));
        assert_eq!(address("0.0.0.0:9469").as_deref(), Ok("0.0.0.0:9469"));
        assert_eq!(address("[::1]:9469").as_deref(), Ok("[::1]:9469"));
        for text in ["", ":9469", "yes", "127.0.0.1", "127.0.0.1:70000", "localhost:9469"] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_in_use_is_waited_for_and_other_errors_are_not() {
        let mut tries = 0;
        let mut bind = |errors: u32, kind: ErrorKind| {
            tries = 0;
            let result = wait_for_port(|| {
                tries += 1;
                if tries > errors { Ok(()) } else { Err(kind.into()) }
            });
            (result.map_err(|error| error.kind()), tries)
        };
        assert_eq!(bind(2, ErrorKind::AddrInUse), (Ok(()), 3));
        let refused = ErrorKind::PermissionDenied;
        assert_eq!(bind(2, refused), (Err(refused), 1));
    }
}
