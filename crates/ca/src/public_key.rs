//! Which public keys are certified, and how they are written into a certificate.
//!
//! EC keys on P-256, P-384 and P-521 as uncompressed points, Ed25519, and RSA with 2048 to 4096 bits, all in the one
//! canonical encoding. Whether a point lies on its curve shows when the request's signature is verified.

use rcgen::{PublicKeyData, SignatureAlgorithm};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;

/// The smallest RSA modulus that is certified, in bits (RFC 7518 3.3, and what TLS peers demand).
pub const RSA_BITS_MIN: usize = 2048;

/// The largest RSA modulus that is certified, in bits: verifying costs grow with its square.
pub const RSA_BITS_MAX: usize = 4096;

/// Everything before the key's bits in the canonical encoding (RFC 5480, RFC 8410), and how many bits' bytes follow.
const FIXED: &[(KeyKind, &[u8], usize)] = &[
    (KeyKind::EcP256, b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00", 65),
    (KeyKind::EcP384, b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00", 97),
    (KeyKind::EcP521, b"\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x05\x2b\x81\x04\x00\x23\x03\x81\x86\x00", 133),
    (KeyKind::Ed25519, b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", 32),
];

/// The algorithm identifier of an RSA key, with its NULL (RFC 3279 2.3.1).
const RSA_ALGORITHM: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// The kinds of public key that are certified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Elliptic curve P-256.
    EcP256,
    /// Elliptic curve P-384.
    EcP384,
    /// Elliptic curve P-521.
    EcP521,
    /// Ed25519.
    Ed25519,
    /// RSA with [`RSA_BITS_MIN`] to [`RSA_BITS_MAX`] bits.
    Rsa,
}

/// A public key that may be certified, borrowed from its DER `SubjectPublicKeyInfo`.
#[derive(Clone, Copy, Debug)]
pub struct SubjectKey<'a> {
    kind: KeyKind,
    bits: &'a [u8],
}

/// Why a public key is not certified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not a key of a certified kind, or not in its canonical encoding.
    #[error(
        "the public key is not EC P-256, P-384 or P-521 (uncompressed), Ed25519, or RSA in canonical DER"
    )]
    Unsupported,
    /// An RSA key too small or too large.
    #[error("an RSA key has {RSA_BITS_MIN} to {RSA_BITS_MAX} bits, this one has {0}")]
    RsaBits(usize),
}

impl<'a> SubjectKey<'a> {
    /// Reads a DER `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// When the key is of a kind or size that is not certified, or is encoded in another way.
    pub fn parse(spki_der: &'a [u8]) -> Result<Self, PublicKeyError> {
        for (kind, prefix, bytes) in FIXED {
            if let Some(bits) = spki_der.strip_prefix(*prefix) {
                let uncompressed = *kind == KeyKind::Ed25519 || bits.first() == Some(&4);
                let fits = bits.len() == *bytes && uncompressed;
                return if fits { Ok(Self { kind: *kind, bits }) } else { Err(PublicKeyError::Unsupported) };
            }
        }
        let bits = rsa_key_bits(spki_der).ok_or(PublicKeyError::Unsupported)?;
        let modulus_bits = modulus_bits(bits).ok_or(PublicKeyError::Unsupported)?;
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&modulus_bits) {
            return Err(PublicKeyError::RsaBits(modulus_bits));
        }
        Ok(Self { kind: KeyKind::Rsa, bits })
    }

    /// Which kind of key this is.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The content of the `subjectPublicKey` bit string.
    pub fn bits(&self) -> &'a [u8] {
        self.bits
    }
}

impl PublicKeyData for SubjectKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        match self.kind {
            KeyKind::EcP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            KeyKind::EcP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            KeyKind::EcP521 => &rcgen::PKCS_ECDSA_P521_SHA512,
            KeyKind::Ed25519 => &rcgen::PKCS_ED25519,
            KeyKind::Rsa => &rcgen::PKCS_RSA_SHA256,
        }
    }
}

/// The DER `RSAPublicKey` inside a canonical `SubjectPublicKeyInfo` of algorithm rsaEncryption.
fn rsa_key_bits(spki_der: &[u8]) -> Option<&[u8]> {
    let (inner, rest) = der_value(spki_der, 0x30)?;
    let (bit_string, after) = der_value(inner.strip_prefix(RSA_ALGORITHM)?, 0x03)?;
    match (bit_string, rest, after) {
        ([0, bits @ ..], [], []) => Some(bits),
        _ => None,
    }
}

/// Length of a canonical modulus; the exponent must be odd, above 1 and fit 32 bits, as Go's and rustls' do.
fn modulus_bits(rsa_public_key: &[u8]) -> Option<usize> {
    let ([], key) = RSAPublicKey::from_der(rsa_public_key).ok()? else { return None };
    let exponent = key.try_exponent().ok()?;
    if exponent < 3 || exponent % 2 == 0 || exponent > u64::from(u32::MAX) {
        return None;
    }
    let modulus = key.modulus.strip_prefix(&[0]).unwrap_or(key.modulus);
    let first = modulus.first().filter(|&&first| first != 0)?;
    Some(modulus.len() * 8 - first.leading_zeros() as usize)
}

/// The content of one DER value with `tag` and a minimal definite length, and what follows it.
fn der_value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, body) = match bytes {
        [first, length, body @ ..] if *first == tag && *length < 0x80 => (usize::from(*length), body),
        [first, 0x81, length, body @ ..] if *first == tag && *length >= 0x80 => (usize::from(*length), body),
        [first, 0x82, high, low, body @ ..] if *first == tag && *high > 0 => {
            (usize::from(u16::from_be_bytes([*high, *low])), body)
        }
        _ => return None,
    };
    body.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, RsaKeySize};

    use super::*;

    fn pairs() -> Vec<(KeyKind, KeyPair)> {
        vec![
            (KeyKind::EcP256, KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()),
            (KeyKind::EcP384, KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap()),
            (KeyKind::EcP521, KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap()),
            (KeyKind::Ed25519, KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap()),
            (KeyKind::Rsa, KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap()),
            (KeyKind::Rsa, KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096).unwrap()),
        ]
    }

    #[test]
    fn every_certified_kind_is_written_as_it_was_read() {
        for (kind, pair) in pairs() {
            let spki = pair.subject_public_key_info();
            let key = SubjectKey::parse(&spki).unwrap();
            assert_eq!(key.kind(), kind);
            assert_eq!(key.subject_public_key_info(), spki);
        }
    }

    #[test]
    fn a_cut_lengthened_or_foreign_encoding_is_refused() {
        for (_, pair) in pairs() {
            let spki = pair.subject_public_key_info();
            for bytes in [&spki[..spki.len() - 1], &[&spki[..], b"\0"].concat(), &spki[1..], b"", b"\x30\x00"]
            {
                assert_eq!(SubjectKey::parse(bytes).err(), Some(PublicKeyError::Unsupported));
            }
        }
    }

    #[test]
    fn a_compressed_point_is_refused() {
        let (_, pair) = pairs().swap_remove(0);
        let mut spki = pair.subject_public_key_info();
        let at = spki.len() - 65;
        spki[at] = 2;
        assert!(SubjectKey::parse(&spki).is_err());
    }

    #[test]
    fn an_rsa_key_without_its_null_or_with_an_even_exponent_is_refused() {
        let (_, pair) = pairs().swap_remove(4);
        let spki = pair.subject_public_key_info();
        let at = spki.windows(RSA_ALGORITHM.len()).position(|window| window == RSA_ALGORITHM).unwrap();
        let mut no_null = spki.clone();
        no_null[at + 13] = 0x06;
        assert!(SubjectKey::parse(&no_null).is_err());
        let mut even = spki;
        *even.last_mut().unwrap() = 0;
        assert!(SubjectKey::parse(&even).is_err());
    }
}
