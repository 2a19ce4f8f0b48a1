//! What survives a restart: the account, and each domain's key and certificate, in one file each.
//!
//! A domain's file is the one that Go's autocert keeps, so that a provider that takes the place of SPIRE's needs no new
//! certificates: the private key, then the chain, in PEM. Accounts are not shared: their forms differ.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use instant_acme::AccountCredentials;
use serde::{Deserialize, Serialize};
use spindle_spiffe_core::ErrorChain;
use tracing::warn;

use crate::files::{self, ReadError};
use crate::site::Domain;
use crate::tls::PEM_BYTES_MAX;

/// Where the account stands, in the cache directory.
const ACCOUNT_FILE: &str = "spindle_acme_account.json";

/// The largest account file, in bytes.
const ACCOUNT_BYTES_MAX: usize = 64 * 1024;

/// The cache directory, or nothing.
pub(super) struct Cache(Option<PathBuf>);

/// An account with the server that it belongs to.
#[derive(Serialize, Deserialize)]
pub(super) struct Account {
    pub(super) directory_url: String,
    pub(super) credentials: AccountCredentials,
}

impl Cache {
    pub(super) async fn open(directory: Option<PathBuf>) -> Result<Self, (PathBuf, io::Error)> {
        if let Some(path) = &directory {
            files::make_private_directory(path).await.map_err(|error| (path.clone(), error))?;
        }
        Ok(Self(directory))
    }

    /// Key and chain of a domain; none when there are none, or they cannot be read.
    pub(super) async fn certificate(&self, domain: &Domain) -> Option<Vec<u8>> {
        self.read(domain.as_str(), PEM_BYTES_MAX).await
    }

    /// The account with this server.
    pub(super) async fn account(&self, directory_url: &str) -> Option<Account> {
        let bytes = self.read(ACCOUNT_FILE, ACCOUNT_BYTES_MAX).await?;
        match serde_json::from_slice::<Account>(&bytes) {
            Ok(account) => Some(account).filter(|account| account.directory_url == directory_url),
            Err(error) => {
                warn!(%error, file = ACCOUNT_FILE, "the ACME account is malformed, a new one is made");
                None
            }
        }
    }

    pub(super) async fn keep_certificate(&self, domain: &Domain, pem: &[u8]) {
        self.keep(domain.as_str(), pem).await;
    }

    pub(super) async fn keep_account(&self, account: &Account) {
        match serde_json::to_vec_pretty(account) {
            Ok(bytes) => self.keep(ACCOUNT_FILE, &bytes).await,
            Err(error) => warn!(%error, "the ACME account is not kept"),
        }
    }

    async fn read(&self, name: &str, bytes_max: usize) -> Option<Vec<u8>> {
        let path = self.0.as_ref()?.join(name);
        match files::read(&path, bytes_max).await {
            Ok(bytes) => Some(bytes),
            Err(ReadError::Io(error)) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                warn!(path = %path.display(), error = %ErrorChain(&error), "a file of the ACME cache cannot be read");
                None
            }
        }
    }

    /// What cannot be kept is served all the same; it has to be fetched anew after a restart.
    async fn keep(&self, name: &str, content: &[u8]) {
        let Some(path) = self.0.as_ref().map(|directory| directory.join(name)) else { return };
        if let Err(error) = files::replace(&path, content).await {
            warn!(path = %path.display(), %error, "a file of the ACME cache cannot be written");
        }
    }
}
