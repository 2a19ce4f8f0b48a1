//! Who signs the server's authority when it is not its own root.
//!
//! One trait is the seam: the authorities ask for a certificate and get a chain with the roots it leads to, whoever signs.
//! Which one it is, the configuration says; see [`open`]. What it hands out is checked by the authorities, not here.

mod disk;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use rustls_pki_types::CertificateDer;
use spindle_spiffe_core::{Clock, Entropy, Timestamp, TrustDomain, X509Authority};

pub use disk::DiskUpstreamError;

use crate::config::UpstreamSettings;
use crate::live::LiveSettings;

/// Signs authorities of this server.
pub(crate) trait UpstreamAuthority: Send + Sync {
    /// Has the authority signed that `csr_der` asks for, for no longer than `ttl_secs`.
    fn mint(&self, csr_der: Vec<u8>, ttl_secs: i64) -> BoxFuture<'_, Result<Minted, UpstreamError>>;
}

/// A signed authority.
pub(crate) struct Minted {
    /// The new certificate, then what leads from it to a root, without the root.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// Every root of the upstream authority.
    pub(crate) roots: Vec<X509Authority>,
}

/// Why an upstream authority cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Its files.
    #[error("UpstreamAuthority \"disk\" cannot be used")]
    Disk(#[from] DiskUpstreamError),
    /// It does not sign.
    #[error("the upstream authority does not sign")]
    Sign(#[from] spindle_ca::UpstreamSignError),
    /// The work on it broke off.
    #[error("the upstream authority stopped: {0}")]
    Stopped(String),
}

impl UpstreamSettings {
    /// Reads the files, as it is done before each authority. Blocks on the disk.
    ///
    /// # Errors
    /// When they do not make an upstream authority.
    pub fn check(&self, trust_domain: &TrustDomain, now: Timestamp) -> Result<(), UpstreamError> {
        match self {
            Self::Disk(files) => Ok(disk::read(files, trust_domain, now).map(drop)?),
        }
    }
}

/// The upstream authority that the configuration names, ready to sign; later it is the one that `live` says.
pub(crate) async fn open(
    settings: &UpstreamSettings,
    live: LiveSettings,
    trust_domain: &TrustDomain,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Arc<dyn UpstreamAuthority>, UpstreamError> {
    match settings {
        UpstreamSettings::Disk(files) => {
            Ok(Arc::new(disk::DiskUpstream::open(files, live, trust_domain.clone(), clock, entropy).await?))
        }
    }
}
