//! The exporter of a build without the feature `prometheus`: an error.

use std::net::SocketAddr;

use super::MetricsError;

/// There is none.
pub(crate) enum Exporter {}

impl Exporter {
    pub(crate) fn available() -> Result<(), MetricsError> {
        Err(MetricsError::NoFeature)
    }

    pub(crate) fn install(_: SocketAddr) -> Result<Self, MetricsError> {
        Err(MetricsError::NoFeature)
    }

    pub(crate) fn serve(self) -> Result<(), MetricsError> {
        match self {}
    }
}
