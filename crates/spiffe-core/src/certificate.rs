//! One pass over a DER certificate that collects the facts the SPIFFE rules ask about, and cuts DER apart.
//!
//! Malformed or repeated extensions that carry such a fact are errors, never "absent". Signatures, dates and names
//! are not judged here: see [`crate::x509_svid`] for the rules and [`crate::verify`] for the path.

use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, KeyUsage, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE,
    OID_X509_EXT_KEY_USAGE, OID_X509_EXT_SUBJECT_ALT_NAME, OID_X509_EXT_SUBJECT_KEY_IDENTIFIER, Oid,
};
use x509_parser::prelude::FromDer;

use crate::der;
use crate::spiffe_id::SpiffeId;
use crate::time::{Timestamp, Validity};

/// The largest certificate taken, in bytes: twice the DNS names of an entry ([`crate::entry::DNS_NAMES_BYTES_MAX`]).
pub const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;

/// The most certificates taken from one concatenation or PEM text: far more roots than any trust domain keeps.
pub const CERTIFICATES_MAX: usize = 1024;

/// Why bytes are not a certificate, or not a row of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Larger than [`CERTIFICATE_BYTES_MAX`].
    #[error("a certificate has at most {CERTIFICATE_BYTES_MAX} bytes, this one has {0}")]
    Size(usize),
    /// More than [`CERTIFICATES_MAX`] in one input.
    #[error("at most {CERTIFICATES_MAX} certificates are taken at once")]
    TooMany,
    /// The input does not start a DER sequence, or ends inside one.
    #[error("no DER certificate at byte {0}")]
    Framing(usize),
    /// The DER does not hold an X.509 certificate, or has bytes after it.
    #[error("malformed X.509 certificate: {0}")]
    Malformed(&'static str),
    /// The serial number is negative or has more than 20 octets (RFC 5280 4.1.2.2).
    #[error("the serial number is negative or has more than 20 octets")]
    Serial,
}

/// What people look for first in a certificate that is trusted already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateSummary {
    /// The one SPIFFE ID it names, if it names just one.
    pub spiffe_id: Option<SpiffeId>,
    /// The subject as Go prints it: last attribute first, `CN=a,O=b`.
    pub subject: String,
    /// The last valid second.
    pub not_after: Timestamp,
}

/// Sums a certificate up; one that cannot be read is summed up as nothing. Checks nothing.
pub fn certificate_summary(certificate: &CertificateDer<'_>) -> CertificateSummary {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return CertificateSummary {
            spiffe_id: None,
            subject: String::new(),
            not_after: Timestamp::from_unix_secs(0),
        };
    };
    CertificateSummary {
        spiffe_id: spiffe_id_of(&parsed),
        subject: subject_of(&parsed),
        not_after: Timestamp::from_unix_secs(parsed.validity().not_after.timestamp()),
    }
}

fn spiffe_id_of(certificate: &X509Certificate<'_>) -> Option<SpiffeId> {
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().ok(),
        _ => None,
    }
}

fn subject_of(certificate: &X509Certificate<'_>) -> String {
    let attributes: Vec<_> = certificate.subject().iter_attributes().collect();
    let texts = attributes.iter().rev().map(|attribute| {
        let name = match attribute.attr_type().to_id_string().as_str() {
            "2.5.4.3" => "CN".to_owned(),
            "2.5.4.5" => "SERIALNUMBER".to_owned(),
            "2.5.4.6" => "C".to_owned(),
            "2.5.4.10" => "O".to_owned(),
            "2.5.4.11" => "OU".to_owned(),
            other => other.to_owned(),
        };
        format!("{name}={}", attribute.as_str().unwrap_or_default())
    });
    texts.collect::<Vec<_>>().join(",")
}

/// Cuts DER certificates that stand back to back, the Workload API's form of chains and bundles. Empty input has none.
///
/// Only the outer frame of each is read; whoever uses a certificate parses it.
///
/// # Errors
/// When a byte is left over or missing, a certificate is too large, or there are too many.
pub fn split_der_certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let mut certificates = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        if certificates.len() == CERTIFICATES_MAX {
            return Err(CertificateError::TooMany);
        }
        let framing = CertificateError::Framing(bytes.len() - rest.len());
        let Some((header, content)) = der::header(rest, der::SEQUENCE) else { return Err(framing) };
        let len = header + content;
        if len > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::Size(len));
        }
        let (first, tail) = rest.split_at_checked(len).ok_or(framing)?;
        certificates.push(CertificateDer::from(first.to_vec()));
        rest = tail;
    }
    Ok(certificates)
}

/// What the rules ask about one certificate. Slices point into its DER.
pub(crate) struct CertificateFacts<'a> {
    pub(crate) serial: &'a [u8],
    pub(crate) validity: Validity,
    pub(crate) spki: &'a [u8],
    pub(crate) is_ca: bool,
    pub(crate) key_usage: Option<KeyUsage>,
    pub(crate) extended_key_usage: Option<Purposes>,
    /// All URI names, those that are no valid text as none.
    pub(crate) uris: Vec<Option<&'a str>>,
    pub(crate) subject_key_id: Option<&'a [u8]>,
    pub(crate) authority_key_id: Option<&'a [u8]>,
}

/// The two purposes an SVID must have when it names any (X509-SVID 4.4).
#[derive(Clone, Copy)]
pub(crate) struct Purposes {
    pub(crate) server_auth: bool,
    pub(crate) client_auth: bool,
}

impl<'a> CertificateFacts<'a> {
    pub(crate) fn parse(der: &'a [u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::Size(der.len()));
        }
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| CertificateError::Malformed("not X.509 in DER"))?;
        if !rest.is_empty() {
            return Err(CertificateError::Malformed("bytes after its end"));
        }
        let tbs = certificate.tbs_certificate;
        let mut facts = Self {
            serial: checked_serial(tbs.raw_serial())?,
            validity: Validity {
                not_before: Timestamp::from_unix_secs(tbs.validity.not_before.timestamp()),
                not_after: Timestamp::from_unix_secs(tbs.validity.not_after.timestamp()),
            },
            spki: tbs.subject_pki.raw,
            is_ca: false,
            key_usage: None,
            extended_key_usage: None,
            uris: Vec::new(),
            subject_key_id: None,
            authority_key_id: None,
        };
        for (index, extension) in tbs.extensions().iter().enumerate() {
            if tbs.extensions()[..index].iter().any(|earlier| earlier.oid == extension.oid) {
                return Err(CertificateError::Malformed("an extension occurs twice"));
            }
            facts.note(extension)?;
        }
        Ok(facts)
    }

    fn note(&mut self, extension: &X509Extension<'a>) -> Result<(), CertificateError> {
        match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => self.is_ca = constraints.ca,
            ParsedExtension::KeyUsage(usage) => self.key_usage = Some(*usage),
            ParsedExtension::ExtendedKeyUsage(usage) => {
                self.extended_key_usage =
                    Some(Purposes { server_auth: usage.server_auth, client_auth: usage.client_auth });
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                self.uris = names.general_names.iter().filter_map(uri).collect();
            }
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| id.0);
            }
            _ if RULED.contains(&extension.oid) => {
                return Err(CertificateError::Malformed(
                    "an extension that SPIFFE has rules for cannot be read",
                ));
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the key may sign certificates, as far as a key usage extension says so.
    pub(crate) fn may_sign_certificates(&self) -> bool {
        self.key_usage.is_some_and(|usage| usage.key_cert_sign())
    }
}

/// The extensions whose content decides something here: unreadable ones must not pass as absent.
const RULED: [Oid<'static>; 6] = [
    OID_X509_EXT_BASIC_CONSTRAINTS,
    OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_EXTENDED_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME,
    OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
    OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
];

/// A URI name: its text, or `Some(None)` when it is one that cannot be read.
#[expect(clippy::option_option, reason = "the outer option filters the list, the inner one is a value in it")]
fn uri<'a>(name: &GeneralName<'a>) -> Option<Option<&'a str>> {
    match name {
        GeneralName::URI(uri) => Some(Some(uri)),
        GeneralName::Invalid(tag, _) if tag.0 == 6 => Some(None),
        _ => None,
    }
}

fn checked_serial(raw: &[u8]) -> Result<&[u8], CertificateError> {
    match raw {
        [] => Err(CertificateError::Serial),
        [first, ..] if first & 0x80 != 0 => Err(CertificateError::Serial),
        _ if raw.len() > 20 => Err(CertificateError::Serial),
        _ => Ok(raw),
    }
}

/// Lower-case hex without separators, SPIRE's form of key identifiers.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// Joins certificates without padding.
pub(crate) fn concat_der<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> Vec<u8> {
    certificates.into_iter().flat_map(|certificate| certificate.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(len: usize) -> Vec<u8> {
        der::element(der::SEQUENCE, &[&vec![0xaa; len]])
    }

    #[test]
    fn frames_of_all_lengths_are_cut_apart() {
        let lengths = [0, 1, 127, 128, 255, 256, 65_000];
        let certificates = split_der_certificates(&lengths.map(framed).concat()).unwrap();
        assert_eq!(certificates.iter().map(|one| one.to_vec()).collect::<Vec<_>>(), lengths.map(framed));
        assert!(split_der_certificates(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_frame_that_is_cut_short_padded_or_of_another_type_is_refused() {
        let good = framed(300);
        for end in 1..good.len() {
            assert_eq!(split_der_certificates(&good[..end]), Err(CertificateError::Framing(0)), "{end}");
        }
        let second_at = good.len();
        let followed = |tail: &[u8]| split_der_certificates(&[&good[..], tail].concat());
        for tail in [
            &[0][..],
            &[0x31, 0],
            &[0x30],
            &[0x30, 0x80],
            &[0x30, 0x81, 1, 0],
            &[0x30, 0x82, 0, 200, 0],
            &[0x30, 0x85, 1, 0, 0, 0, 0],
            &[0x30, 0xff],
        ] {
            assert_eq!(followed(tail), Err(CertificateError::Framing(second_at)), "{tail:x?}");
        }
    }

    #[test]
    fn frames_past_the_bounds_are_refused() {
        let size = CERTIFICATE_BYTES_MAX + 1;
        assert_eq!(split_der_certificates(&framed(size - 4)), Err(CertificateError::Size(size)));
        assert_eq!(
            split_der_certificates(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
            Err(CertificateError::Size(0x1_0000_0005))
        );
        assert_eq!(
            split_der_certificates(&framed(0).repeat(CERTIFICATES_MAX)).unwrap().len(),
            CERTIFICATES_MAX
        );
        assert_eq!(
            split_der_certificates(&framed(0).repeat(CERTIFICATES_MAX + 1)),
            Err(CertificateError::TooMany)
        );
    }

    #[test]
    fn hex_is_lower_case_and_padded() {
        assert_eq!(hex(&[0, 1, 0xab, 0xff]), "0001abff");
        assert_eq!(hex(&[]), "");
    }
}
