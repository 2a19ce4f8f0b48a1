//! A certificate and its key in files, read again when they change.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use spindle_runtime::Shutdown;
use spindle_spiffe_core::ErrorChain;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{info, warn};

use super::{CertificateError, PEM_BYTES_MAX, certified_key};
use crate::config::ServingFiles;
use crate::files::{self, ReadError};

/// Why files cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error("cannot read {path}")]
    Read { path: String, source: ReadError },
    #[error("{certificate} and {key} cannot be served")]
    Content { certificate: String, key: String, source: CertificateError },
}

/// The certificate of two files.
pub(crate) struct FileCertificate {
    files: ServingFiles,
    served: ArcSwap<CertifiedKey>,
}

impl std::fmt::Debug for FileCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileCertificate({})", self.files.certificate.display())
    }
}

/// What stands in both files.
type Content = (Vec<u8>, Vec<u8>);

impl FileCertificate {
    /// Reads both files.
    pub(crate) async fn load(files: ServingFiles) -> Result<(Self, Content), FilesError> {
        let content = read(&files).await?;
        let served = ArcSwap::from_pointee(parse(&files, &content)?);
        Ok((Self { files, served }, content))
    }

    /// Reads the files again, once an interval and when `again` asks for it. What cannot be served is logged once, and the
    /// old certificate stays: files that are being replaced do not fit together for a moment.
    pub(crate) async fn watch(self: Arc<Self>, mut content: Content, again: Arc<Notify>, shutdown: Shutdown) {
        let mut failure = None;
        loop {
            // All arms are cancel-safe: they only wait.
            tokio::select! {
                () = sleep(self.files.sync_interval) => {}
                () = again.notified() => {}
                () = shutdown.begun() => return,
            }
            match self.look(&mut content).await {
                Ok(()) => failure = None,
                Err(error) => {
                    let text = ErrorChain(&error).to_string();
                    if failure.as_ref() != Some(&text) {
                        warn!(error = text, "the serving certificate is not replaced, the old one stays");
                    }
                    failure = Some(text);
                }
            }
        }
    }

    async fn look(&self, content: &mut Content) -> Result<(), FilesError> {
        let found = read(&self.files).await?;
        if found != *content {
            self.served.store(Arc::new(parse(&self.files, &found)?));
            *content = found;
        }
        Ok(())
    }
}

impl ResolvesServerCert for FileCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.served.load_full())
    }
}

async fn read(files: &ServingFiles) -> Result<Content, FilesError> {
    let one = async |path: &Path| {
        let unreadable = |source| FilesError::Read { path: path.display().to_string(), source };
        files::read(path, PEM_BYTES_MAX).await.map_err(unreadable)
    };
    Ok((one(&files.certificate).await?, one(&files.key).await?))
}

fn parse(files: &ServingFiles, (chain, key): &Content) -> Result<CertifiedKey, FilesError> {
    let (certified, validity) = certified_key(chain, key).map_err(|source| {
        let [certificate, key] = [&files.certificate, &files.key].map(|path| path.display().to_string());
        FilesError::Content { certificate, key, source }
    })?;
    info!(cert_file_path = %files.certificate.display(), expires_at = %validity.not_after, "serving certificate read");
    Ok(certified)
}
