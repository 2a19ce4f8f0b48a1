//! TLS towards web clients: the configuration, and certificates that are replaced while they are served.
//!
//! TLS 1.2 is spoken, too: these clients are not ours to choose. No session is resumed.

pub(crate) mod files;

use std::sync::{Arc, LazyLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use spindle_spiffe_core::pem::{PemError, certificates_from_pem};
use spindle_spiffe_core::{Timestamp, Validity};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What clients speak.
pub(crate) const ALPN_HTTP: &[u8] = b"http/1.1";

/// What an ACME server speaks that checks who is here (RFC 8737 6.2).
pub(crate) const ALPN_ACME: &[u8] = b"acme-tls/1";

/// The largest file of a key or a chain, in bytes.
pub(crate) const PEM_BYTES_MAX: usize = 256 * 1024;

/// Why a certificate and a key cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("the certificate cannot be used")]
    Certificate(#[from] PemError),
    #[error("the certificate is malformed: {0}")]
    Der(String),
    #[error("the private key cannot be used: {0}")]
    Key(String),
    #[error("the private key and the certificate do not belong together")]
    Mismatch,
}

/// The one provider of cryptography.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// TLS with the certificates of `resolver`.
///
/// # Errors
/// When rustls refuses the settings, which are fixed.
pub(crate) fn server_config(
    resolver: Arc<dyn ResolvesServerCert>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// A chain and its key out of PEM texts, which may be the same text. Returns how long the leaf is valid.
///
/// That both belong together is compared here: rustls would also refuse the leaf for extensions that only its readers have to
/// know, such as the one that answers an ACME server's check.
pub(crate) fn certified_key(chain: &[u8], key: &[u8]) -> Result<(CertifiedKey, Validity), CertificateError> {
    let chain = certificates_from_pem(chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| CertificateError::Key(error.to_string()))?;
    let key = provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| CertificateError::Key(error.to_string()))?;
    let (_, leaf) =
        X509Certificate::from_der(&chain[0]).map_err(|error| CertificateError::Der(error.to_string()))?;
    if key.public_key().is_none_or(|public| public.as_ref() != leaf.public_key().raw) {
        return Err(CertificateError::Mismatch);
    }
    let [not_before, not_after] = [leaf.validity().not_before, leaf.validity().not_after]
        .map(|time| Timestamp::from_unix_secs(time.timestamp()));
    let validity = Validity { not_before, not_after };
    Ok((CertifiedKey::new(chain, key), validity))
}
