//! Certificates as PEM text, RFC 7468. Sections of other kinds are passed over on input and never made.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::certificate::{CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX};

/// The longest PEM text taken, in bytes: hundreds of roots with comments between them.
pub const PEM_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why a text holds no usable PEM certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Longer than [`PEM_BYTES_MAX`].
    #[error("a PEM text has at most {PEM_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
    /// A section that starts but does not end, or is not base64.
    #[error("malformed PEM text: {0}")]
    Malformed(String),
    /// A certificate above the size bound.
    #[error("a certificate has at most {CERTIFICATE_BYTES_MAX} bytes, one in the PEM text has {0}")]
    CertificateSize(usize),
    /// More than [`CERTIFICATES_MAX`].
    #[error("at most {CERTIFICATES_MAX} certificates are taken from one PEM text")]
    TooMany,
    /// No certificate section.
    #[error("the PEM text has no certificate")]
    Empty,
}

/// The certificates of a PEM text, in their order, at least one.
///
/// # Errors
/// When a section is malformed, a bound is passed, or no section is a certificate.
pub fn certificates_from_pem(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    if text.len() > PEM_BYTES_MAX {
        return Err(PemError::Length(text.len()));
    }
    let mut certificates = Vec::new();
    for section in CertificateDer::pem_slice_iter(text) {
        let certificate = section.map_err(|error| PemError::Malformed(error.to_string()))?;
        if certificate.len() > CERTIFICATE_BYTES_MAX {
            return Err(PemError::CertificateSize(certificate.len()));
        }
        if certificates.len() == CERTIFICATES_MAX {
            return Err(PemError::TooMany);
        }
        certificates.push(certificate);
    }
    if certificates.is_empty() { Err(PemError::Empty) } else { Ok(certificates) }
}

/// PEM text of the certificates, 64 characters a line.
pub fn certificates_to_pem<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>,
) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let mut rest = BASE64_STANDARD.encode(certificate);
        while !rest.is_empty() {
            let tail = rest.split_off(rest.len().min(64));
            text.push_str(&rest);
            text.push('\n');
            rest = tail;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(len: usize) -> CertificateDer<'static> {
        CertificateDer::from(vec![7; len])
    }

    #[test]
    fn text_and_certificates_agree_for_all_line_lengths() {
        for len in [1, 46, 47, 48, 49, 95, 96, 97, 1000] {
            let certificates = [der(len), der(3)];
            let text = certificates_to_pem(&certificates);
            assert!(text.lines().all(|line| line.len() <= 64));
            assert_eq!(certificates_from_pem(text.as_bytes()).unwrap(), certificates);
        }
    }

    #[test]
    fn other_sections_and_text_around_are_passed_over() {
        let text = format!(
            "a comment\n-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n{}the end\n",
            certificates_to_pem(&[der(5)])
        );
        assert_eq!(certificates_from_pem(text.as_bytes()).unwrap(), [der(5)]);
    }

    #[test]
    fn texts_without_a_whole_certificate_are_refused() {
        assert_eq!(certificates_from_pem(b""), Err(PemError::Empty));
        assert_eq!(certificates_from_pem(b"MIIB"), Err(PemError::Empty));
        for text in [
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            assert!(matches!(certificates_from_pem(text.as_bytes()), Err(PemError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn texts_past_the_bounds_are_refused() {
        assert_eq!(
            certificates_from_pem(&vec![b'a'; PEM_BYTES_MAX + 1]),
            Err(PemError::Length(PEM_BYTES_MAX + 1))
        );
        let large = certificates_to_pem(&[der(CERTIFICATE_BYTES_MAX + 1)]);
        assert_eq!(
            certificates_from_pem(large.as_bytes()),
            Err(PemError::CertificateSize(CERTIFICATE_BYTES_MAX + 1))
        );
        let many = certificates_to_pem(&vec![der(1); CERTIFICATES_MAX + 1]);
        assert_eq!(certificates_from_pem(many.as_bytes()), Err(PemError::TooMany));
    }
}
