//! The identifier of a public key, as certificates carry it in their key identifier extensions.
//!
//! SHA-1 names the key here and secures nothing: RFC 5280 4.2.1.2 method 1, which SPIRE uses too.

use aws_lc_rs::digest;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The bytes are not one DER `SubjectPublicKeyInfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the public key is not a DER SubjectPublicKeyInfo")]
pub struct SpkiError;

/// SHA-1 of the subject public key's bits inside a DER `SubjectPublicKeyInfo`.
///
/// # Errors
/// When the bytes cannot be parsed or more bytes follow.
pub fn subject_key_id(spki_der: &[u8]) -> Result<[u8; 20], SpkiError> {
    match SubjectPublicKeyInfo::from_der(spki_der) {
        Ok(([], spki)) => Ok(key_identifier(&spki.subject_public_key.data)),
        _ => Err(SpkiError),
    }
}

/// SHA-1 of the bits of a public key, without tag, length and count of unused bits.
pub fn key_identifier(public_key_bits: &[u8]) -> [u8; 20] {
    let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, public_key_bits);
    digest.as_ref().try_into().expect("SHA-1 has 20 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{Key, KeyType};

    #[test]
    fn the_identifier_is_taken_over_the_bits_only() {
        let key = Key::generate(KeyType::EcP256).unwrap();
        assert_eq!(subject_key_id(key.spki_der()), Ok(key.subject_key_id()));
        // The uncompressed point is the last 65 bytes of a P-256 key.
        let point = &key.spki_der()[key.spki_der().len() - 65..];
        assert_eq!(key_identifier(point), key.subject_key_id());
    }

    #[test]
    fn sha1_of_a_known_text_is_right() {
        let expected = [
            0xa9, 0x99, 0x3e, 0x36, 0x47, 0x06, 0x81, 0x6a, 0xba, 0x3e, 0x25, 0x71, 0x78, 0x50, 0xc2, 0x6c,
            0x9c, 0xd0, 0xd8, 0x9d,
        ];
        assert_eq!(key_identifier(b"abc"), expected);
    }

    #[test]
    fn anything_but_one_public_key_is_refused() {
        let key = Key::generate(KeyType::EcP256).unwrap();
        let trailing = [key.spki_der(), b"\0"].concat();
        for bytes in [&b""[..], b"\x30\x00", &key.spki_der()[..20], &trailing] {
            assert_eq!(subject_key_id(bytes), Err(SpkiError));
        }
    }
}
