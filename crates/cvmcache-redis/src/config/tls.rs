//! TLS: the trusted authorities, and the certificate of the plugin.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;

/// A bound on what is read, should the configuration name a wrong file. The authorities of a
/// distribution take a quarter of a megabyte.
const MAX_PEM: u64 = 16 * 1024 * 1024;

/// How connections with TLS are made.
#[derive(Clone)]
pub struct Tls(Arc<ClientConfig>);

/// Why TLS cannot be set up.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file holds no certificates.
    #[error(
        "no certificate in {path:?}: {source}; name a PEM file that the plugin's user can read"
    )]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file holds no key.
    #[error("no key in {path:?}: {source}; name a PEM file that the plugin's user can read")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file holds no certificate of an authority that can be used.
    #[error(
        "{path:?} holds no certificate; name the PEM file of the authority that the server's \
             certificate comes from"
    )]
    NoAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The system knows no authorities.
    #[error(
        "the system trusts no certificate authority; install the package ca-certificates, or \
             name one in CVMFS_CACHE_PLUGIN_REDIS_CA"
    )]
    NoSystemAuthorities,
    /// Certificate and key of the plugin do not make an identity.
    #[error("certificate and key do not go together: {source}")]
    Identity {
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// The cryptography cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Setup(rustls::Error),
}

impl Tls {
    /// Trusts the authorities in this file, or those of the system, and shows this certificate
    /// with this key. All files are PEM, and are read once, here.
    ///
    /// # Errors
    ///
    /// [`TlsError`], which names the file that cannot be used.
    pub fn new(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Self, TlsError> {
        let roots = match ca {
            Some(path) => authorities_in(path)?,
            None => authorities_of_the_system()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = certificates(certificate)?;
                let no_key = |source| TlsError::Key { path: key.to_owned(), source };
                let key = read(key)
                    .and_then(|text| PrivateKeyDer::from_pem_slice(&text))
                    .map_err(no_key)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|source| TlsError::Identity { source })?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

fn authorities_in(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates(path)?);
    match added {
        0 => Err(TlsError::NoAuthority { path: path.to_owned() }),
        _ => Ok(roots),
    }
}

fn authorities_of_the_system() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (added, _) =
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 { Err(TlsError::NoSystemAuthorities) } else { Ok(roots) }
}

/// A FIFO is an error, and not waited for.
fn read(path: &Path) -> Result<Vec<u8>, pem::Error> {
    cvmcache::read_regular_file(path, MAX_PEM).map_err(pem::Error::Io)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let none = |source| TlsError::Certificate { path: path.to_owned(), source };
    let text = read(path).map_err(none)?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(none)?;
    if found.is_empty() { Err(none(pem::Error::NoItemsFound)) } else { Ok(found) }
}
