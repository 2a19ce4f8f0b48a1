//! Signatures over two nonces: made with a node's key, and checked against the key in its certificate.
//!
//! What is signed is SHA-256 of the server's nonce followed by the node's, with ECDSA on whatever curve or with RSA-PSS.
//! Start at [`NodeKey::answer`] and [`Challenger::check`].

use std::fmt;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    self as aws, EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, KeyPair, ParsedPublicKey,
    RsaParameters, RsaPssSaltLength,
};
use rustls_pki_types::PrivateKeyDer;
use spindle_spiffe_core::PublicKey;
use spindle_spiffe_core::public_key::PublicKeyKind;

use super::message::{Challenge, EcdsaProof, Response, RsaProof};

/// Length of a nonce.
pub const NONCE_BYTES: usize = 32;

/// Random bytes that are never used twice.
pub type Nonce = [u8; NONCE_BYTES];

/// RSA-PSS with the longest salt, which is what Go's `crypto/rsa` signs with when it is told nothing else, and so SPIRE's agent.
const RSA_PSS_LONGEST_SALT: RsaParameters =
    aws::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);

/// Why an answer proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// A challenge for another kind of key.
    #[error("expecting {0} challenge")]
    OtherChallenge(&'static str),
    /// An answer for another kind of key.
    #[error("expecting {0} response")]
    OtherResponse(&'static str),
    /// A server's nonce of the wrong length.
    #[error("invalid challenge nonce")]
    ChallengeNonce,
    /// A node's nonce of the wrong length.
    #[error("invalid response nonce")]
    ResponseNonce,
    /// A signature by another key, or over other nonces.
    #[error("{0} signature verify failed")]
    Signature(&'static str),
    /// The cryptographic library refuses.
    #[error("the key cannot sign")]
    Sign,
}

/// The curves, each with the algorithms of a fixed signature length.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    const ALL: [Self; 3] = [Self::P256, Self::P384, Self::P521];

    fn of(kind: PublicKeyKind) -> Option<Self> {
        match kind {
            PublicKeyKind::EcP256 => Some(Self::P256),
            PublicKeyKind::EcP384 => Some(Self::P384),
            PublicKeyKind::EcP521 => Some(Self::P521),
            PublicKeyKind::Rsa(_) | PublicKeyKind::Ed25519 => None,
        }
    }

    /// Length of `r` and of `s`.
    fn number_bytes(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn signing(self) -> &'static EcdsaSigningAlgorithm {
        match self {
            Self::P256 => &aws::ECDSA_P256_SHA256_FIXED_SIGNING,
            Self::P384 => &aws::ECDSA_P384_SHA384_FIXED_SIGNING,
            Self::P521 => &aws::ECDSA_P521_SHA256_FIXED_SIGNING,
        }
    }

    fn verification(self) -> &'static EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &aws::ECDSA_P256_SHA256_FIXED,
            Self::P384 => &aws::ECDSA_P384_SHA384_FIXED,
            Self::P521 => &aws::ECDSA_P521_SHA256_FIXED,
        }
    }

    /// SHA-256 of both nonces, in the form that the curve's algorithms take.
    ///
    /// The library pairs P-384 with SHA-384 alone. ECDSA signs the digest as a number, and SHA-256's with sixteen zero bytes
    /// before it is the same number (FIPS 186-5 6.4.1: no more than the leftmost 384 bits are taken).
    fn digest(self, nonces: &[u8; 2 * NONCE_BYTES]) -> Option<Digest> {
        let digest = digest::digest(&digest::SHA256, nonces);
        if self != Self::P384 {
            return Some(digest);
        }
        let mut padded = [0; 48];
        padded[16..].copy_from_slice(digest.as_ref());
        Digest::import_less_safe(&padded, &digest::SHA384).ok()
    }
}

fn joined(server: &Nonce, node: &Nonce) -> [u8; 2 * NONCE_BYTES] {
    let mut both = [0; 2 * NONCE_BYTES];
    both[..NONCE_BYTES].copy_from_slice(server);
    both[NONCE_BYTES..].copy_from_slice(node);
    both
}

/// A server's side of one challenge: the key that must answer, and the nonce it was given.
pub(super) struct Challenger {
    key: AskedKey,
    nonce: Nonce,
}

enum AskedKey {
    Rsa { spki_der: Vec<u8> },
    Ecdsa { curve: Curve, spki_der: Vec<u8> },
}

impl Challenger {
    /// None for a kind of key that has no challenge, such as Ed25519.
    pub(super) fn new(key: &PublicKey, nonce: Nonce) -> Option<Self> {
        let spki_der = key.to_spki_der();
        let key = match (key.kind(), Curve::of(key.kind())) {
            (PublicKeyKind::Rsa(_), _) => AskedKey::Rsa { spki_der },
            (_, Some(curve)) => AskedKey::Ecdsa { curve, spki_der },
            (_, None) => return None,
        };
        Some(Self { key, nonce })
    }

    pub(super) fn challenge(&self) -> Challenge {
        match self.key {
            AskedKey::Rsa { .. } => Challenge::rsa(&self.nonce),
            AskedKey::Ecdsa { .. } => Challenge::ecdsa(&self.nonce),
        }
    }

    /// Whether the holder of the key has answered this very challenge.
    pub(super) fn check(&self, response: &Response) -> Result<(), ProofError> {
        match &self.key {
            AskedKey::Rsa { spki_der } => {
                let proof = response.rsa_signature.as_ref().ok_or(ProofError::OtherResponse("RSA"))?;
                let signed = joined(&self.nonce, &nonce(&proof.nonce)?);
                // Go's verifier finds the length of the salt; this one is told, so it is asked for both in use.
                let algorithms = [&RSA_PSS_LONGEST_SALT, &aws::RSA_PSS_2048_8192_SHA256];
                let verifies = |algorithm: &'static RsaParameters| {
                    let key = ParsedPublicKey::new(algorithm, spki_der).ok()?;
                    key.verify_sig(&signed, &proof.signature).ok()
                };
                let proven = algorithms.into_iter().any(|algorithm| verifies(algorithm).is_some());
                if proven { Ok(()) } else { Err(ProofError::Signature("RSA")) }
            }
            AskedKey::Ecdsa { curve, spki_der } => {
                let proof = response.ecdsa_signature.as_ref().ok_or(ProofError::OtherResponse("ECDSA"))?;
                let signed = joined(&self.nonce, &nonce(&proof.nonce)?);
                verify_ecdsa(*curve, spki_der, &signed, proof).ok_or(ProofError::Signature("ECDSA"))
            }
        }
    }
}

fn nonce(bytes: &[u8]) -> Result<Nonce, ProofError> {
    bytes.try_into().map_err(|_| ProofError::ResponseNonce)
}

fn verify_ecdsa(
    curve: Curve,
    spki_der: &[u8],
    signed: &[u8; 2 * NONCE_BYTES],
    proof: &EcdsaProof,
) -> Option<()> {
    let len = curve.number_bytes();
    let signature = [padded(&proof.r, len)?, padded(&proof.s, len)?].concat();
    let key = ParsedPublicKey::new(curve.verification(), spki_der).ok()?;
    key.verify_digest_sig(&curve.digest(signed)?, &signature).ok()
}

/// A big-endian number in exactly `len` bytes; none when it is larger.
fn padded(number: &[u8], len: usize) -> Option<Vec<u8>> {
    let number = without_zeros(number);
    let zeros = len.checked_sub(number.len())?;
    Some([&vec![0; zeros], number].concat())
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|&&byte| byte == 0).count();
    &number[zeros..]
}

/// Why a node's private key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NodeKeyError {
    /// Of another kind, or damaged.
    #[error(
        "the private key is not RSA of 2048 to 8192 bits or EC on P-256, P-384 or P-521, in PKCS#8, PKCS#1 or SEC 1"
    )]
    Kind,
    /// It belongs to another certificate.
    #[error("the private key is not the one of the certificate")]
    Other,
}

/// A node's private key. It prints as its type name only; the library wipes it when it is dropped.
pub struct NodeKey(PrivateKey);

enum PrivateKey {
    Rsa(Box<RsaKeyPair>),
    Ecdsa { curve: Curve, pair: EcdsaKeyPair },
}

impl NodeKey {
    /// Takes a key in any of the three forms that PEM files carry.
    ///
    /// # Errors
    /// When it is of a kind that cannot be challenged, or damaged.
    pub fn from_der(key: &PrivateKeyDer<'_>) -> Result<Self, NodeKeyError> {
        let rsa = match key {
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()).ok(),
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
            _ => None,
        };
        if let Some(pair) = rsa {
            return Ok(Self(PrivateKey::Rsa(Box::new(pair))));
        }
        let of = |curve: Curve| {
            let pair = EcdsaKeyPair::from_private_key_der(curve.signing(), key.secret_der()).ok()?;
            Some(Self(PrivateKey::Ecdsa { curve, pair }))
        };
        Curve::ALL.into_iter().find_map(of).ok_or(NodeKeyError::Kind)
    }

    /// Refuses a key that is not the one in the certificate.
    ///
    /// # Errors
    /// When it belongs to another certificate, or the certificate has no usable key.
    pub fn require_certificate(&self, certificate: &[u8]) -> Result<(), NodeKeyError> {
        use x509_parser::prelude::{FromDer, X509Certificate};
        let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| NodeKeyError::Other)?;
        let theirs = &certificate.tbs_certificate.subject_pki.subject_public_key.data;
        let own: &[u8] = match &self.0 {
            PrivateKey::Rsa(pair) => pair.public_key().as_ref(),
            PrivateKey::Ecdsa { pair, .. } => pair.public_key().as_ref(),
        };
        if own == theirs.as_ref() { Ok(()) } else { Err(NodeKeyError::Other) }
    }

    /// Answers a challenge. `nonce` must be fresh: it keeps a server from choosing what is signed.
    ///
    /// # Errors
    /// When the challenge is for another kind of key, or malformed.
    pub fn answer(&self, challenge: &Challenge, nonce: &Nonce) -> Result<Response, ProofError> {
        let kind = match self.0 {
            PrivateKey::Rsa(_) => "RSA",
            PrivateKey::Ecdsa { .. } => "ECDSA",
        };
        let asked = match self.0 {
            PrivateKey::Rsa(_) => &challenge.rsa_signature,
            PrivateKey::Ecdsa { .. } => &challenge.ecdsa_signature,
        };
        let asked = asked.as_ref().ok_or(ProofError::OtherChallenge(kind))?;
        let theirs = asked.nonce.as_slice().try_into().map_err(|_| ProofError::ChallengeNonce)?;
        self.sign(&joined(theirs, nonce), nonce).ok_or(ProofError::Sign)
    }

    fn sign(&self, signed: &[u8; 2 * NONCE_BYTES], nonce: &Nonce) -> Option<Response> {
        let nonce = nonce.to_vec();
        match &self.0 {
            PrivateKey::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&aws::RSA_PSS_SHA256, &SystemRandom::new(), signed, &mut signature).ok()?;
                Some(Response { rsa_signature: Some(RsaProof { nonce, signature }), ecdsa_signature: None })
            }
            PrivateKey::Ecdsa { curve, pair } => {
                let signature = pair.sign_digest(&curve.digest(signed)?).ok()?;
                let (r, s) = signature.as_ref().split_at_checked(curve.number_bytes())?;
                let [r, s] = [r, s].map(|number| without_zeros(number).to_vec());
                Some(Response { rsa_signature: None, ecdsa_signature: Some(EcdsaProof { nonce, r, s }) })
            }
        }
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey")
    }
}

#[cfg(test)]
mod tests;
