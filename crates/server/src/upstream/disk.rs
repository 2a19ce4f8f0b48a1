//! `UpstreamAuthority "disk"`: a signing certificate and its key in files.
//!
//! The files, whichever are configured at the moment, are read for each authority, so whoever replaces them has the next one
//! signed by the new certificate. While
//! they cannot be used the ones read last sign on, and the log says so: half a replacement must not stop rotation.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use spindle_ca::{UpstreamCa, UpstreamCaError};
use spindle_spiffe_core::pem::{PEM_BYTES_MAX, PemError, certificates_from_pem};
use spindle_spiffe_core::{Clock, Entropy, ErrorChain, Timestamp, TrustDomain, Validity};
use tracing::warn;
use zeroize::Zeroizing;

use super::{Minted, UpstreamAuthority, UpstreamError};
use crate::config::{DiskUpstreamSettings, UpstreamSettings};
use crate::issuer::BACKDATE_SECS;
use crate::live::LiveSettings;

/// Files that sign.
pub(super) struct DiskUpstream(Arc<Shared>);

struct Shared {
    live: LiveSettings,
    trust_domain: TrustDomain,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// As read last.
    current: Mutex<Arc<UpstreamCa>>,
}

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum DiskUpstreamError {
    /// The operating system refused.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Larger than a PEM text may be.
    #[error("{path} has more than {PEM_BYTES_MAX} bytes", path = path.display())]
    Size {
        /// The file.
        path: PathBuf,
    },
    /// No certificates in it.
    #[error("{path} holds no usable certificates", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: PemError,
    },
    /// No private key in it.
    #[error("{path} holds no unencrypted private key in PEM", path = path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// They do not make an upstream authority.
    #[error("{path} is no upstream authority", path = path.display())]
    Authority {
        /// The certificate file.
        path: PathBuf,
        /// Why not.
        source: UpstreamCaError,
    },
}

impl DiskUpstream {
    /// Reads the files for the first time.
    pub(super) async fn open(
        files: &DiskUpstreamSettings,
        live: LiveSettings,
        trust_domain: TrustDomain,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, UpstreamError> {
        let files = files.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let current = Mutex::new(Arc::new(read(&files, &trust_domain, clock.now())?));
            Ok::<_, UpstreamError>(Self(Arc::new(Shared { live, trust_domain, clock, entropy, current })))
        });
        opened.await.map_err(|error| UpstreamError::Stopped(error.to_string()))?
    }
}

impl UpstreamAuthority for DiskUpstream {
    fn mint(&self, csr_der: Vec<u8>, ttl_secs: i64) -> BoxFuture<'_, Result<Minted, UpstreamError>> {
        let shared = self.0.clone();
        Box::pin(async move {
            let minted = tokio::task::spawn_blocking(move || shared.mint(&csr_der, ttl_secs));
            minted.await.map_err(|error| UpstreamError::Stopped(error.to_string()))?
        })
    }
}

impl Shared {
    fn mint(&self, csr_der: &[u8], ttl_secs: i64) -> Result<Minted, UpstreamError> {
        let now = self.clock.now();
        let upstream = self.read_anew(now);
        let validity = Validity { not_before: now - BACKDATE_SECS, not_after: now + ttl_secs };
        let chain = upstream.sign(csr_der, validity, self.entropy.serial())?;
        Ok(Minted { chain, roots: upstream.roots().to_vec() })
    }

    fn read_anew(&self, now: Timestamp) -> Arc<UpstreamCa> {
        let live = self.live.load();
        let files = live.upstream.as_ref().map(|UpstreamSettings::Disk(files)| files);
        let read = files.map(|files| read(files, &self.trust_domain, now));
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            None => {}
            Some(Ok(upstream)) => *current = Arc::new(upstream),
            Some(Err(error)) => {
                warn!(error = %ErrorChain(&error), "the upstream authority's files cannot be used; those read before sign on");
            }
        }
        current.clone()
    }
}

pub(super) fn read(
    files: &DiskUpstreamSettings,
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<UpstreamCa, DiskUpstreamError> {
    let key_pem = contents(&files.key_file_path)?;
    let no_key = || DiskUpstreamError::NoKey { path: files.key_file_path.clone() };
    let key = Zeroizing::new(PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| no_key())?);
    let certificates = certificates(&files.cert_file_path)?;
    let bundle = files.bundle_file_path.as_deref().map(self::certificates).transpose()?;
    UpstreamCa::new(trust_domain, &key, certificates, bundle, now)
        .map_err(|source| DiskUpstreamError::Authority { path: files.cert_file_path.clone(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DiskUpstreamError> {
    certificates_from_pem(&contents(path)?)
        .map_err(|source| DiskUpstreamError::Certificates { path: path.to_owned(), source })
}

/// The whole file, up to its bound; wiped when dropped, for it may hold a key.
fn contents(path: &Path) -> Result<Zeroizing<Vec<u8>>, DiskUpstreamError> {
    let mut text = Zeroizing::new(Vec::new());
    let most = PEM_BYTES_MAX as u64 + 1;
    File::open(path)
        .and_then(|file| file.take(most).read_to_end(&mut text))
        .map_err(|source| DiskUpstreamError::Read { path: path.to_owned(), source })?;
    if text.len() > PEM_BYTES_MAX {
        return Err(DiskUpstreamError::Size { path: path.to_owned() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
