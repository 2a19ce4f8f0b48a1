//! TLS for the port that is scraped: a certificate of files, and clients that may have to show one.
//!
//! TLS 1.2 is spoken, too: scrapers are not ours to choose. No session is resumed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use spindle_spiffe_core::pem::{PemError, certificates_from_pem};
use tokio_rustls::TlsAcceptor;

use crate::config::{ClientTrust, PrometheusTls};

/// The largest file of a key or of certificates, in bytes.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// Why a certificate cannot be served, or clients not be told by theirs.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A file cannot be read, or is too large.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file as configured.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds no certificates.
    #[error("{} holds no usable certificate", .path.display())]
    Certificates {
        /// The file as configured.
        path: PathBuf,
        /// What is wrong with it.
        source: PemError,
    },
    /// A file holds no private key.
    #[error("{} holds no usable private key: {why}", .path.display())]
    Key {
        /// The file as configured.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The files do not go together, or their content cannot be used.
    #[error("the certificate, its key or the authorities of clients cannot be used: {0}")]
    Unusable(String),
}

/// Shakes hands with what is configured.
pub(crate) fn acceptor(config: &PrometheusTls) -> Result<TlsAcceptor, TlsFault> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unusable = |error: &dyn std::error::Error| TlsFault::Unusable(error.to_string());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = match &config.clients {
        ClientTrust::Anyone => builder.with_no_client_auth(),
        ClientTrust::Authorities(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| unusable(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(&error))?)
        }
    };
    let (chain, path) = (certificates(&config.certificate)?, &config.private_key);
    let key = PrivateKeyDer::from_pem_slice(&read(path)?)
        .map_err(|error| TlsFault::Key { path: path.clone(), why: error.to_string() })?;
    let mut tls = builder.with_single_cert(chain, key).map_err(|error| unusable(&error))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

fn certificates(path: &Path) -> Result<Vec<rustls_pki_types::CertificateDer<'static>>, TlsFault> {
    certificates_from_pem(&read(path)?)
        .map_err(|source| TlsFault::Certificates { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsFault> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > PEM_BYTES_MAX {
            return Err(io::Error::other(format!("it has more than {PEM_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    };
    read().map_err(|source| TlsFault::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
