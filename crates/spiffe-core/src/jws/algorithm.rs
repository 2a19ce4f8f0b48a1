//! The nine signature algorithms of JWT-SVID 2.1 and WIT-SVID 2.3, and which keys go with them (RFC 7518 3).

use std::fmt;

use aws_lc_rs::signature as aws;

use crate::public_key::{PublicKey, PublicKeyKind};

/// A signature algorithm of RFC 7518 that SVIDs may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// RSA PKCS#1 v1.5 with SHA-256.
    Rs256,
    /// RSA PKCS#1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS#1 v1.5 with SHA-512.
    Rs512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// RSA-PSS with SHA-256, its salt as long as the hash.
    Ps256,
    /// RSA-PSS with SHA-384, its salt as long as the hash.
    Ps384,
    /// RSA-PSS with SHA-512, its salt as long as the hash.
    Ps512,
}

impl SignatureAlgorithm {
    /// All nine.
    pub const ALL: [SignatureAlgorithm; 9] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
    ];

    /// Their names, for texts.
    pub(crate) const NAMES: &'static str = "RS256, RS384, RS512, ES256, ES384, ES512, PS256, PS384 and PS512";

    /// The algorithm of that name, which is case-sensitive (RFC 7515 4.1.1).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// Its name in `alg`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
        }
    }

    /// Whether keys of that kind sign with it. Usable RSA keys have 2048 bits and more, so that each will do.
    pub fn fits(self, kind: PublicKeyKind) -> bool {
        match self {
            Self::Es256 => kind == PublicKeyKind::EcP256,
            Self::Es384 => kind == PublicKeyKind::EcP384,
            Self::Es512 => kind == PublicKeyKind::EcP521,
            _ => matches!(kind, PublicKeyKind::Rsa(_)),
        }
    }

    /// Whether `signature` is one of `message` by that key. ECDSA signatures are their two numbers in full length, side
    /// by side (RFC 7518 3.4).
    pub(crate) fn verifies(self, key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
        self.fits(key.kind())
            && aws::UnparsedPublicKey::new(self.verification(), key.to_spki_der())
                .verify(message, signature)
                .is_ok()
    }

    fn verification(self) -> &'static dyn aws::VerificationAlgorithm {
        match self {
            Self::Rs256 => &aws::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &aws::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &aws::RSA_PKCS1_2048_8192_SHA512,
            Self::Es256 => &aws::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &aws::ECDSA_P384_SHA384_FIXED,
            Self::Es512 => &aws::ECDSA_P521_SHA512_FIXED,
            Self::Ps256 => &aws::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &aws::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &aws::RSA_PSS_2048_8192_SHA512,
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
