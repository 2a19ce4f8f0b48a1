//! The identity we present and the bundles we trust, replaced without restarting anything.
//!
//! Handshakes that begin after a `set` see the new value, open connections are not touched. Clones share one value.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spindle_spiffe_core::x509_svid::X509SvidError;
use spindle_spiffe_core::{X509Bundles, X509Svid};

/// Why a chain and a key cannot be presented.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The chain is no X509-SVID.
    #[error("the certificate chain to present is not an X509-SVID")]
    Svid(#[from] X509SvidError),
    /// The key cannot be loaded. Says nothing of its content.
    #[error("the private key of {spiffe_id} cannot be used for TLS")]
    Key {
        /// The identity.
        spiffe_id: String,
    },
    /// The key belongs to another certificate.
    #[error("the private key does not belong to the certificate of {spiffe_id}")]
    Mismatch {
        /// The identity.
        spiffe_id: String,
    },
}

/// The certificate and key to present, possibly none yet.
#[derive(Clone, Default)]
pub struct LiveIdentity(Arc<ArcSwapOption<Presented>>);

struct Presented {
    svid: X509Svid,
    key: Arc<CertifiedKey>,
}

impl LiveIdentity {
    /// No identity yet: a server refuses handshakes, a client presents no certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Presents `chain`, leaf first, with its private key in PKCS#8 DER from now on. Keeps the old one on error.
    ///
    /// # Errors
    /// When the chain is no X509-SVID, the key is of an unknown kind, or they do not belong together.
    pub fn set(&self, chain: Vec<CertificateDer<'static>>, pkcs8_der: &[u8]) -> Result<(), IdentityError> {
        let svid = X509Svid::parse(chain)?;
        let spiffe_id = || svid.spiffe_id().to_string();
        // Borrowed: the caller keeps the only copy of the key outside the cryptographic library, and wipes it.
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8_der));
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|_| IdentityError::Key { spiffe_id: spiffe_id() })?;
        let key = CertifiedKey::new(svid.chain().to_vec(), key);
        match key.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(IdentityError::Mismatch { spiffe_id: spiffe_id() }),
        }
        self.0.store(Some(Arc::new(Presented { svid, key: Arc::new(key) })));
        Ok(())
    }

    /// Presents nothing from now on.
    pub fn clear(&self) {
        self.0.store(None);
    }

    /// What is presented now.
    pub fn svid(&self) -> Option<X509Svid> {
        self.0.load().as_ref().map(|presented| presented.svid.clone())
    }

    fn key(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|presented| presented.key.clone())
    }
}

impl fmt::Debug for LiveIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveIdentity").field(&self.svid()).finish()
    }
}

impl ResolvesServerCert for LiveIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key()
    }
}

impl ResolvesClientCert for LiveIdentity {
    fn resolve(&self, _root_hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key()
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}

/// The bundles that peers are held against.
#[derive(Clone, Debug, Default)]
pub struct LiveBundles(Arc<ArcSwap<X509Bundles>>);

impl LiveBundles {
    /// Trusts `bundles`.
    pub fn new(bundles: X509Bundles) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(bundles)))
    }

    /// Trusts `bundles` and nothing else from now on.
    pub fn set(&self, bundles: X509Bundles) {
        self.0.store(Arc::new(bundles));
    }

    /// What is trusted now.
    pub fn load(&self) -> Arc<X509Bundles> {
        self.0.load_full()
    }
}
