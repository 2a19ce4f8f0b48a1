//! A bundle document in a file, as `bundle show -format spiffe` writes it (Trust Domain and Bundle 4).

use std::path::{Path, PathBuf};

use spindle_spiffe_core::bundle_document::{self, DOCUMENT_BYTES_MAX};

use super::poll::Ask;
use super::{SourceError, log_ignored};
use crate::files::{self, ReadError};
use crate::keys::WebKey;

/// The file's path.
pub(super) struct BundleFile(pub(super) PathBuf);

impl Ask for BundleFile {
    async fn ask(&self) -> Result<Vec<WebKey>, SourceError> {
        read(&self.0).await
    }
}

async fn read(path: &Path) -> Result<Vec<WebKey>, SourceError> {
    let name = || path.display().to_string();
    let bytes = files::read(path, DOCUMENT_BYTES_MAX).await.map_err(|error| match error {
        ReadError::Io(source) => SourceError::File { path: name(), source },
        ReadError::TooLarge => SourceError::TooLarge { path: name(), max: DOCUMENT_BYTES_MAX },
    })?;
    // The document does not name its trust domain, and its keys do not depend on it.
    let unnamed = "unnamed".parse().expect("a trust domain name");
    let parsed = bundle_document::parse(unnamed, &bytes)
        .map_err(|source| SourceError::Document { path: name(), source })?;
    let told = |key: &bundle_document::IgnoredKey| format!("key {}: {}", key.index, key.why);
    // A key without a known use is another profile's, and none of ours to complain about.
    let of_use = |key: &&bundle_document::IgnoredKey| key.why != bundle_document::KeyFault::Use;
    log_ignored(&parsed.ignored.iter().filter(of_use).map(told).collect::<Vec<_>>());
    Ok(WebKey::all_of(&parsed.bundle))
}
