//! A WIT-SVID with its private key, as the agent holds it.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use serde::Deserialize;
use serde_json::Value;
use spindle_keys::Key;
use spindle_spiffe_core::public_key::JwkMembers;
use spindle_spiffe_core::{
    Bundle, PublicKey, RegistrationEntry, SignatureAlgorithm, SpiffeId, Timestamp, Validity, WitAuthority,
};
use zeroize::Zeroizing;

/// The longest token taken: a hundred times what ours need.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// What keys of workloads sign proofs by: they are on P-256.
pub(super) const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::Es256;

/// A WIT-SVID with its key. Both are wiped when the last answer lets go of them.
pub(crate) struct HeldWit {
    /// Unique in the life of the process: names this WIT-SVID in fingerprints.
    pub(crate) number: u64,
    /// The token in JWS compact form.
    pub(crate) token: Zeroizing<String>,
    /// The private key as a JWK in JSON (RFC 7517).
    pub(crate) key_jwk: Zeroizing<String>,
    pub(crate) spiffe_id: SpiffeId,
    /// The authority that signed it.
    kid: String,
    /// The seconds in which it is accepted.
    pub(super) validity: Validity,
}

#[derive(Deserialize)]
struct Header {
    typ: String,
    kid: String,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    iat: Option<i64>,
    exp: i64,
    #[serde(default)]
    aud: Option<Value>,
    cnf: Confirmation,
}

#[derive(Deserialize)]
struct Confirmation {
    jwk: ConfirmedKey,
}

#[derive(Deserialize)]
struct ConfirmedKey {
    alg: String,
    #[serde(flatten)]
    members: JwkMembers,
}

impl HeldWit {
    /// Takes the server's answer for `entry` and `key`. Its signature is for its receivers to verify.
    ///
    /// # Errors
    /// In words, when the answer is not a living WIT-SVID of that entry's identity that is bound to that key.
    pub(super) fn received(
        number: u64,
        entry: &RegistrationEntry,
        key: &Key,
        token: Zeroizing<String>,
        now: Timestamp,
    ) -> Result<Self, String> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(format!("a WIT-SVID of {} bytes, at most {TOKEN_BYTES_MAX} are taken", token.len()));
        }
        let (header, claims) =
            parts(&token).ok_or("a WIT-SVID that is no JWS in compact form with its claims")?;
        if header.typ != "wit+jwt" || claims.aud.is_some() {
            return Err("a token that is no WIT-SVID".into());
        }
        if claims.sub != entry.spiffe_id.as_str() {
            return Err(format!("a WIT-SVID of {:.100} for the entry of {}", claims.sub, entry.spiffe_id));
        }
        let confirmed = PublicKey::from_jwk(&claims.cnf.jwk.members).map(|key| key.to_spki_der());
        if claims.cnf.jwk.alg != ALGORITHM.name() || confirmed.is_ok_and(|der| der != key.spki_der()) {
            return Err("a WIT-SVID that is bound to another key".into());
        }
        let expires_at = Timestamp::from_unix_secs(claims.exp);
        let not_before = claims.iat.map_or(now, Timestamp::from_unix_secs);
        if expires_at <= now || expires_at <= not_before {
            return Err(format!("a WIT-SVID that was issued at {not_before} and ends at {expires_at}"));
        }
        let key_jwk = key.private_jwk(ALGORITHM).ok_or("a key that has no JWK")?;
        let validity = Validity { not_before, not_after: expires_at - 1 };
        let spiffe_id = entry.spiffe_id.clone();
        Ok(Self { number, token, key_jwk, spiffe_id, kid: header.kid, validity })
    }

    /// Whether it may be given for `entry` under the own trust domain's bundle.
    pub(super) fn serves(&self, entry: &RegistrationEntry, bundle: &Bundle) -> bool {
        self.spiffe_id == entry.spiffe_id && bundle.wit_authority(&self.kid).is_some()
    }

    /// Whether what signed it is in doubt or gone, so that it has to be replaced.
    pub(super) fn has_lost_its_authority(&self, bundle: &Bundle) -> bool {
        bundle.wit_authority(&self.kid).is_none_or(WitAuthority::is_tainted)
    }
}

impl fmt::Debug for HeldWit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeldWit({}, until {})", self.spiffe_id, self.validity.not_after)
    }
}

/// Header and claims of a token with three parts.
fn parts(token: &str) -> Option<(Header, Claims)> {
    let mut parts = token.split('.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if signature.is_empty() || parts.next().is_some() {
        return None;
    }
    let header = serde_json::from_slice(&BASE64_URL.decode(header).ok()?).ok()?;
    Some((header, serde_json::from_slice(&BASE64_URL.decode(payload).ok()?).ok()?))
}
