//! Public keys that may stand in a bundle, and their two forms: SubjectPublicKeyInfo in DER and JWK (RFC 7518 6).
//!
//! A value is a usable key: a point of its curve, or an RSA key of 2048 to 8192 bits. Each key has one encoding, so
//! equal keys have equal bytes. Private keys are nowhere in this crate.

use aws_lc_rs::signature as aws;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use serde::{Deserialize, Serialize};

use crate::der;

/// Sizes of RSA keys taken, in bits: RFC 7518 3.3 sets the lower end, the verifier the upper one.
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A public key with a checked value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey(Parts);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Parts {
    /// Uncompressed point: 4, x, y.
    Ec {
        curve: Curve,
        point: Box<[u8]>,
    },
    /// Big-endian numbers without leading zeros.
    Rsa {
        modulus: Box<[u8]>,
        exponent: Box<[u8]>,
    },
    Ed25519 {
        point: Box<[u8]>,
    },
}

/// The curves of RFC 7518 6.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

/// What kind of key it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublicKeyKind {
    /// ECDSA on P-256.
    EcP256,
    /// ECDSA on P-384.
    EcP384,
    /// ECDSA on P-521.
    EcP521,
    /// RSA with that many bits.
    Rsa(usize),
    /// Ed25519, which X.509 authorities may use and JWT-SVIDs may not.
    Ed25519,
}

/// Why bytes or JWK members are not a usable public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// Not the one DER form of a key of a known kind.
    #[error("not a DER public key of a known kind")]
    Form,
    /// A JWK `kty` or `crv` that is not known.
    #[error("unknown key type or curve")]
    UnknownType,
    /// A JWK without a member its type needs.
    #[error("the JWK lacks the member {0:?}")]
    MissingMember(&'static str),
    /// A JWK member that is not base64url, or has the wrong length.
    #[error("the JWK member {0:?} is not base64url of the right length")]
    BadMember(&'static str),
    /// The size of an RSA key.
    #[error("an RSA key has {min} to {max} bits, this one has {0}", min = RSA_BITS.start(), max = RSA_BITS.end())]
    RsaBits(usize),
    /// The numbers are no key: a point beside its curve, an even modulus.
    #[error("the value is not a valid key")]
    Value,
}

/// The members of a JWK that carry a public key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwkMembers {
    /// Key type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kty: Option<String>,
    /// Curve.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// First coordinate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// Second coordinate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// RSA modulus.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    /// RSA exponent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
}

impl PublicKey {
    /// Parses a SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// When it is not DER, of another kind, or no valid key.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, PublicKeyError> {
        read_spki(spki).ok_or(PublicKeyError::Form)?.checked()
    }

    /// Reads the key out of JWK members. Leading zeros of RSA numbers are tolerated, short coordinates are not.
    ///
    /// # Errors
    /// When the type is unknown, a member is missing or malformed, or the key not valid.
    pub fn from_jwk(jwk: &JwkMembers) -> Result<Self, PublicKeyError> {
        match (jwk.kty.as_deref(), jwk.crv.as_deref()) {
            (Some("EC"), Some(name)) => {
                let curve = Curve::ALL.iter().find(|curve| curve.name() == name);
                let curve = *curve.ok_or(PublicKeyError::UnknownType)?;
                let x = coordinate("x", jwk.x.as_deref(), curve.coordinate_bytes())?;
                let y = coordinate("y", jwk.y.as_deref(), curve.coordinate_bytes())?;
                Self(Parts::Ec { curve, point: [&[4], &x[..], &y[..]].concat().into() }).checked()
            }
            (Some("OKP"), Some("Ed25519")) => {
                Self(Parts::Ed25519 { point: coordinate("x", jwk.x.as_deref(), 32)?.into() }).checked()
            }
            (Some("RSA"), _) => {
                let modulus = without_zeros(&member("n", jwk.n.as_deref())?);
                let exponent = without_zeros(&member("e", jwk.e.as_deref())?);
                Self(Parts::Rsa { modulus, exponent }).checked()
            }
            (Some("EC"), None) => Err(PublicKeyError::MissingMember("crv")),
            (None, _) => Err(PublicKeyError::MissingMember("kty")),
            _ => Err(PublicKeyError::UnknownType),
        }
    }

    /// The key as SubjectPublicKeyInfo in DER.
    pub fn to_spki_der(&self) -> Vec<u8> {
        let (algorithm, key) = match &self.0 {
            Parts::Ec { curve, point } => (curve.algorithm(), point.to_vec()),
            Parts::Ed25519 { point } => (ED25519, point.to_vec()),
            Parts::Rsa { modulus, exponent } => {
                let (modulus, exponent) = (der::positive_integer(modulus), der::positive_integer(exponent));
                (RSA, der::element(der::SEQUENCE, &[&modulus, &exponent]))
            }
        };
        let algorithm = der::element(der::SEQUENCE, &[algorithm]);
        let key = der::element(der::BIT_STRING, &[&[0], &key]);
        der::element(der::SEQUENCE, &[&algorithm, &key])
    }

    /// The key as JWK members: coordinates in full length, RSA numbers without leading zeros.
    pub fn to_jwk(&self) -> JwkMembers {
        let text = |bytes: &[u8]| Some(BASE64_URL.encode(bytes));
        match &self.0 {
            Parts::Ec { curve, point } => {
                let (x, y) = point[1..].split_at(curve.coordinate_bytes());
                let (kty, crv) = (Some("EC".into()), Some(curve.name().into()));
                JwkMembers { kty, crv, x: text(x), y: text(y), ..JwkMembers::default() }
            }
            Parts::Ed25519 { point } => {
                let (kty, crv) = (Some("OKP".into()), Some("Ed25519".into()));
                JwkMembers { kty, crv, x: text(point), ..JwkMembers::default() }
            }
            Parts::Rsa { modulus, exponent } => {
                let kty = Some("RSA".into());
                JwkMembers { kty, n: text(modulus), e: text(exponent), ..JwkMembers::default() }
            }
        }
    }

    /// What kind of key it is.
    pub fn kind(&self) -> PublicKeyKind {
        match &self.0 {
            Parts::Ec { curve: Curve::P256, .. } => PublicKeyKind::EcP256,
            Parts::Ec { curve: Curve::P384, .. } => PublicKeyKind::EcP384,
            Parts::Ec { curve: Curve::P521, .. } => PublicKeyKind::EcP521,
            Parts::Rsa { modulus, .. } => PublicKeyKind::Rsa(bits(modulus)),
            Parts::Ed25519 { .. } => PublicKeyKind::Ed25519,
        }
    }

    /// Lets the cryptographic library judge the value.
    fn checked(self) -> Result<Self, PublicKeyError> {
        let valid = match &self.0 {
            Parts::Ec { curve: Curve::P256, point } => {
                aws::ParsedPublicKey::new(&aws::ECDSA_P256_SHA256_ASN1, point)
            }
            Parts::Ec { curve: Curve::P384, point } => {
                aws::ParsedPublicKey::new(&aws::ECDSA_P384_SHA384_ASN1, point)
            }
            Parts::Ec { curve: Curve::P521, point } => {
                aws::ParsedPublicKey::new(&aws::ECDSA_P521_SHA512_ASN1, point)
            }
            Parts::Ed25519 { point } => aws::ParsedPublicKey::new(&aws::ED25519, point),
            Parts::Rsa { modulus, exponent } => {
                if !RSA_BITS.contains(&bits(modulus)) {
                    return Err(PublicKeyError::RsaBits(bits(modulus)));
                }
                // The verifier takes exponents of at most 33 bits; 65537 is what everybody uses.
                if exponent.len() > 5 || exponent.is_empty() {
                    return Err(PublicKeyError::Value);
                }
                aws::ParsedPublicKey::new(&aws::RSA_PKCS1_2048_8192_SHA256, self.to_spki_der())
            }
        };
        valid.map(|_| self).map_err(|_| PublicKeyError::Value)
    }
}

const RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];

impl Curve {
    const ALL: [Curve; 3] = [Curve::P256, Curve::P384, Curve::P521];

    /// OID of EC keys, then OID of the curve.
    fn algorithm(self) -> &'static [u8] {
        match self {
            Self::P256 => &[
                0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
                0x3d, 0x03, 0x01, 0x07,
            ],
            Self::P384 => &[
                0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
                0x22,
            ],
            Self::P521 => &[
                0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
                0x23,
            ],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::P384 => "P-384",
            Self::P521 => "P-521",
        }
    }

    fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

fn read_spki(spki: &[u8]) -> Option<PublicKey> {
    let (content, []) = der::take(spki, der::SEQUENCE)? else { return None };
    let (algorithm, rest) = der::take(content, der::SEQUENCE)?;
    // The first byte counts unused bits, of which a key has none.
    let ([0, key @ ..], []) = der::take(rest, der::BIT_STRING)? else { return None };
    if let Some(&curve) = Curve::ALL.iter().find(|curve| curve.algorithm() == algorithm) {
        let len = 1 + 2 * curve.coordinate_bytes();
        return (key.len() == len && key[0] == 4).then(|| PublicKey(Parts::Ec { curve, point: key.into() }));
    }
    if algorithm == ED25519 {
        return (key.len() == 32).then(|| PublicKey(Parts::Ed25519 { point: key.into() }));
    }
    if algorithm != RSA {
        return None;
    }
    let (numbers, []) = der::take(key, der::SEQUENCE)? else { return None };
    let (modulus, rest) = der::take_positive_integer(numbers)?;
    let (exponent, []) = der::take_positive_integer(rest)? else { return None };
    Some(PublicKey(Parts::Rsa { modulus: modulus.into(), exponent: exponent.into() }))
}

fn member(name: &'static str, text: Option<&str>) -> Result<Vec<u8>, PublicKeyError> {
    let text = text.ok_or(PublicKeyError::MissingMember(name))?;
    BASE64_URL.decode(text).map_err(|_| PublicKeyError::BadMember(name))
}

fn coordinate(name: &'static str, text: Option<&str>, len: usize) -> Result<Vec<u8>, PublicKeyError> {
    let bytes = member(name, text)?;
    if bytes.len() == len { Ok(bytes) } else { Err(PublicKeyError::BadMember(name)) }
}

fn without_zeros(bytes: &[u8]) -> Box<[u8]> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    bytes[zeros..].into()
}

/// Length of a number without leading zeros.
fn bits(big_endian: &[u8]) -> usize {
    big_endian.first().map_or(0, |first| big_endian.len() * 8 - first.leading_zeros() as usize)
}
