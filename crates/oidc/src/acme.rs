//! Certificates from an ACME server (RFC 8555) by TLS-ALPN-01 (RFC 8737): one for each domain, before clients ask for it.
//!
//! The checks of the ACME server come in on the port that serves clients, so nothing else has to be reachable. Certificates
//! and account stand in the cache directory: those that SPIRE's provider left there are taken over. Start at [`open`].

mod cache;
mod certificates;
mod http;
mod manager;
mod order;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use spindle_spiffe_core::{Clock, Entropy};

use crate::config::ListenAddress;
use crate::site::Domain;
use cache::Cache;
pub(crate) use certificates::Certificates;
pub(crate) use manager::Manager;

/// The directory of Let's Encrypt, the default.
pub const DIRECTORY_URL: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// Where and how to get certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcmeConfig {
    /// The directory of the ACME server.
    pub directory_url: String,
    /// Whom the ACME server may write to.
    pub email: String,
    /// Where account and certificates are kept; none keeps them in memory.
    pub cache_dir: Option<PathBuf>,
    /// The names to get certificates for.
    pub domains: Vec<Domain>,
    /// Where to listen. The ACME server has to reach it as port 443 of each domain.
    pub address: ListenAddress,
}

/// Opens the cache and puts its certificates up. Nobody is called yet.
///
/// # Errors
/// When the cache directory cannot be made.
pub(crate) async fn open(
    config: AcmeConfig,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<(Manager, Arc<Certificates>), (PathBuf, io::Error)> {
    let cache = Cache::open(config.cache_dir.clone()).await?;
    let certificates = Arc::new(Certificates::default());
    let manager = Manager::new(config, cache, certificates.clone(), clock, entropy).await;
    Ok((manager, certificates))
}
