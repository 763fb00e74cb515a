//! Certificates for servers on loopback, from an authority of their own.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// An authority, a server's certificate and a client's, as PEM files.
#[derive(Debug, Clone)]
pub struct Certificates {
    directory: Arc<TempDir>,
    clients_need_one: bool,
}

impl Certificates {
    /// A new authority, with a certificate for a server and one for a client.
    #[allow(clippy::new_without_default, reason = "it makes files")]
    pub fn new() -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        let made = Self { directory, clients_need_one: false };
        let key = KeyPair::generate().unwrap();
        let mut authority = parameters("authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        made.write("ca", &authority.self_signed(&key).unwrap(), &key);
        let issuer = Issuer::new(authority, key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let certificate = parameters(name).signed_by(&key, &issuer);
            made.write(name, &certificate.unwrap(), &key);
        }
        made
    }

    /// The server refuses clients without a certificate.
    pub fn mutual(self) -> Self {
        Self { clients_need_one: true, ..self }
    }

    fn write(&self, name: &str, certificate: &Certificate, key: &KeyPair) {
        fs::write(self.path(name), certificate.pem()).unwrap();
        fs::write(self.key_path(name), key.serialize_pem()).unwrap();
    }

    /// The certificate of `ca`, `server` or `client`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.pem"))
    }

    /// The key of `ca`, `server` or `client`.
    pub fn key_path(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.key"))
    }

    /// The lines of a server's configuration.
    pub(crate) fn lines(&self) -> String {
        format!(
            "tls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients {}",
            self.path("server").display(),
            self.key_path("server").display(),
            self.path("ca").display(),
            if self.clients_need_one { "yes" } else { "no" },
        )
    }
}

fn parameters(name: &str) -> CertificateParams {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut parameters = CertificateParams::new(names).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}
