//! One private key and the four kinds the server and the agent make.
//!
//! A [`Key`] is a cheap handle: clones share one secret, which is wiped when the last handle goes. It prints as its type
//! name only. Remote keys (a cloud service, a hardware module) are left out until a key manager brings them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use rcgen::{KeyPair, PublicKeyData, RsaKeySize, SignatureAlgorithm, SigningKey};
use zeroize::{Zeroize, Zeroizing};

use crate::fingerprint::key_identifier;
use crate::manager::KeyError;

/// The kinds of key that can be made, in SPIRE's spelling: `ec-p256`, `ec-p384`, `rsa-2048`, `rsa-4096`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// Elliptic curve P-256, signs with SHA-256. The default everywhere.
    #[default]
    EcP256,
    /// Elliptic curve P-384, signs with SHA-384.
    EcP384,
    /// RSA with 2048 bits, signs with SHA-256 (PKCS#1 v1.5).
    Rsa2048,
    /// RSA with 4096 bits, signs with SHA-256 (PKCS#1 v1.5).
    Rsa4096,
}

/// The text is none of the four kinds.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no key type; it is one of ec-p256, ec-p384, rsa-2048, rsa-4096")]
pub struct KeyTypeError(String);

/// A private key that signs. Clones share it; the secret bytes are wiped with the last clone.
#[derive(Clone)]
pub struct Key(Arc<Secret>);

struct Secret {
    pair: KeyPair,
    key_type: KeyType,
    spki_der: Vec<u8>,
    subject_key_id: [u8; 20],
}

impl KeyType {
    /// Every kind there is.
    pub const ALL: [KeyType; 4] = [Self::EcP256, Self::EcP384, Self::Rsa2048, Self::Rsa4096];

    /// The kind as text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EcP256 => "ec-p256",
            Self::EcP384 => "ec-p384",
            Self::Rsa2048 => "rsa-2048",
            Self::Rsa4096 => "rsa-4096",
        }
    }

    /// Whether this is one of the RSA kinds.
    pub const fn is_rsa(self) -> bool {
        matches!(self, Self::Rsa2048 | Self::Rsa4096)
    }
}

impl FromStr for KeyType {
    type Err = KeyTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found.ok_or_else(|| KeyTypeError(text.chars().take(40).collect()))
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Key {
    /// Makes a new random key. RSA takes up to some seconds of CPU time.
    ///
    /// # Errors
    /// When the cryptographic library refuses, for lack of randomness.
    pub fn generate(key_type: KeyType) -> Result<Self, KeyError> {
        let pair = match key_type {
            KeyType::EcP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
            KeyType::EcP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
            KeyType::Rsa2048 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
            KeyType::Rsa4096 => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096),
        };
        let pair = pair.map_err(|error| KeyError::Generate { key_type, why: error.to_string() })?;
        Ok(Self::from_pair(pair, key_type))
    }

    /// Reads a private key in PKCS#8 DER (RFC 5958), as key files and the Workload API carry it.
    ///
    /// # Errors
    /// When it cannot be parsed, or is none of the four kinds.
    pub fn from_pkcs8_der(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = KeyPair::try_from(pkcs8).map_err(|_| KeyError::NotPkcs8)?;
        let key_type = key_type_of(&pair).ok_or(KeyError::UnsupportedKey)?;
        Ok(Self::from_pair(pair, key_type))
    }

    fn from_pair(pair: KeyPair, key_type: KeyType) -> Self {
        let spki_der = pair.subject_public_key_info();
        let subject_key_id = key_identifier(pair.der_bytes());
        Self(Arc::new(Secret { pair, key_type, spki_der, subject_key_id }))
    }

    /// Which kind of key this is.
    pub fn key_type(&self) -> KeyType {
        self.0.key_type
    }

    /// The public key as a DER `SubjectPublicKeyInfo` (RFC 5280 4.1.2.7).
    pub fn spki_der(&self) -> &[u8] {
        &self.0.spki_der
    }

    /// SHA-1 of the public key's bits (RFC 5280 4.2.1.2, method 1), which names the key in certificates.
    pub fn subject_key_id(&self) -> [u8; 20] {
        self.0.subject_key_id
    }

    /// The private key in PKCS#8 DER, wiped when dropped.
    pub fn pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.pair.serialize_der())
    }
}

/// The kind of a parsed pair; `None` for what is not made here, such as Ed25519 or RSA with 3072 bits.
fn key_type_of(pair: &KeyPair) -> Option<KeyType> {
    let algorithm = PublicKeyData::algorithm(pair);
    if algorithm == &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Some(KeyType::EcP256);
    }
    if algorithm == &rcgen::PKCS_ECDSA_P384_SHA384 {
        return Some(KeyType::EcP384);
    }
    if algorithm != &rcgen::PKCS_RSA_SHA256 {
        return None;
    }
    match rsa_bits(pair.der_bytes())? {
        2048 => Some(KeyType::Rsa2048),
        4096 => Some(KeyType::Rsa4096),
        _ => None,
    }
}

/// Length of the modulus in a DER `RSAPublicKey`, in bits.
fn rsa_bits(rsa_public_key: &[u8]) -> Option<usize> {
    use x509_parser::prelude::FromDer;
    let (_, sequence) = x509_parser::public_key::RSAPublicKey::from_der(rsa_public_key).ok()?;
    let modulus = sequence.modulus.iter().position(|&byte| byte != 0)?;
    let bytes = &sequence.modulus[modulus..];
    Some(bytes.len() * 8 - bytes[0].leading_zeros() as usize)
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        self.0.pair.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        PublicKeyData::algorithm(&self.0.pair)
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.pair.sign(message)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Drop for Secret {
    /// Wipes our PKCS#8 copy. The copy inside the cryptographic library is wiped by that library.
    fn drop(&mut self) {
        self.pair.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_type_prints_what_it_parses() {
        for kind in KeyType::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        for text in ["", "EC-P256", "ec_p256", "ec-p521", "rsa-1024", "rsa-2048 ", "p256"] {
            assert!(text.parse::<KeyType>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_key_prints_only_its_type_name() {
        let key = Key::generate(KeyType::EcP256).unwrap();
        assert_eq!(format!("{key:?}"), "Key");
        assert_eq!(format!("{:#?}", Some(&key)), "Some(\n    Key,\n)");
    }

    #[test]
    fn every_kind_survives_pkcs8_and_signs() {
        for kind in KeyType::ALL {
            let key = Key::generate(kind).unwrap();
            let again = Key::from_pkcs8_der(&key.pkcs8_der()).unwrap();
            assert_eq!(again.key_type(), kind);
            assert_eq!(again.spki_der(), key.spki_der());
            assert_eq!(again.subject_key_id(), key.subject_key_id());
            assert!(!again.sign(b"message").unwrap().is_empty());
        }
    }

    #[test]
    fn what_is_not_one_of_the_four_kinds_is_refused() {
        let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        let rsa3072 = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072).unwrap();
        for pair in [ed25519, p521, rsa3072] {
            assert!(matches!(Key::from_pkcs8_der(pair.serialized_der()), Err(KeyError::UnsupportedKey)));
        }
        for garbage in [&b""[..], b"\x30\x00", b"not a key at all"] {
            assert!(matches!(Key::from_pkcs8_der(garbage), Err(KeyError::NotPkcs8)));
        }
    }
}
