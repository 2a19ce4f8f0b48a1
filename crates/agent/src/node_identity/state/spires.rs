//! The form in which SPIRE's agent keeps the same things in a file of the same name, so that its node can be taken over with
//! the identity it has. Read only; what is kept next is kept in our form.
//!
//! It names no trust domain: the SVID tells. Start at [`SpiresDocument`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Deserializer};
use spindle_spiffe_core::pem::certificates_from_pem;

/// The file of SPIRE's agent. Its other members are about an attestation under way, which begins anew.
#[derive(Deserialize)]
pub(super) struct SpiresDocument {
    #[serde(deserialize_with = "present")]
    svid: Option<Vec<String>>,
    #[serde(deserialize_with = "present")]
    bundle: Option<Vec<String>>,
    pub(super) reattestable: bool,
}

/// A list that may be null and must not be missing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    Option::deserialize(deserializer)
}

impl SpiresDocument {
    /// The chain, leaf first; empty when the agent has no SVID.
    ///
    /// # Errors
    /// In words.
    pub(super) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        certificates(self.svid.as_deref())
    }

    /// The authorities.
    ///
    /// # Errors
    /// In words.
    pub(super) fn roots(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        certificates(self.bundle.as_deref())
    }
}

/// Each text is one certificate in PEM, in base64 once more.
fn certificates(texts: Option<&[String]>) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut all = Vec::new();
    for text in texts.unwrap_or_default() {
        let pem = STANDARD.decode(text).map_err(|error| error.to_string())?;
        all.extend(certificates_from_pem(&pem).map_err(|error| error.to_string())?);
    }
    Ok(all)
}
