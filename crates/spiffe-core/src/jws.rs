//! Signed tokens in JWS compact serialization, as JWT-SVIDs, WIT-SVIDs and their proofs are (RFC 7515, RFC 7519).
//!
//! A text is taken apart in the order in which its parts may be believed: form, `alg`, the rest of the header, claims,
//! key, signature, time. Refused are other serializations, padding, repeated members, `crit` and every algorithm but
//! nine; `jku`, `x5u`, `jwk` and `x5c` are never looked at. No error repeats the token. Start at [`Compact::parse`].

mod algorithm;
mod claims;
mod error;
mod strict_json;
mod trust;

use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use serde_json::{Map, Value};

use crate::bundle::KEY_ID_BYTES_MAX;

pub use algorithm::SignatureAlgorithm;
pub(crate) use claims::Claims;
pub use claims::{LEEWAY_SECS_DEFAULT, LEEWAY_SECS_MAX, Leeway, LeewayError};
pub use error::{Part, TokenError};
pub(crate) use trust::trusted_key;
pub use trust::{Bundles, SvidType};

/// The longest token taken, in bytes. HTTP servers take headers of 8 to 64 KiB, so that longer ones reach nobody.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// A token cut into its parts, of which nothing was believed yet.
pub(crate) struct Compact<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// Header, dot and claims: what is signed.
    signed: &'a str,
}

/// What a header says, once `alg` is one of the nine and nothing in it is critical.
pub(crate) struct Header {
    pub(crate) algorithm: SignatureAlgorithm,
    members: Map<String, Value>,
}

impl<'a> Compact<'a> {
    /// Cuts a text of bounded length at its two dots.
    pub(crate) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Length(token.len()));
        }
        if token.trim_start().starts_with('{') {
            return Err(TokenError::JsonSerialization);
        }
        let mut parts = token.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError::Parts(token.split('.').count()));
        };
        let signed = &token[..header.len() + 1 + claims.len()];
        Ok(Self { header, claims, signature, signed })
    }

    /// Reads the header, `alg` before everything else (JWT-SVID 4).
    pub(crate) fn header(&self) -> Result<Header, TokenError> {
        let members = object(Part::Header, self.header)?;
        let algorithm = match members.get("alg") {
            None => return Err(TokenError::NoAlgorithm),
            Some(Value::String(name)) => SignatureAlgorithm::from_name(name).ok_or(TokenError::Algorithm)?,
            Some(_) => return Err(TokenError::Algorithm),
        };
        // No extension is understood here, and an empty list is malformed (RFC 7515 4.1.11).
        if members.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        Ok(Header { algorithm, members })
    }

    /// Reads the claims.
    pub(crate) fn claims(&self) -> Result<Claims, TokenError> {
        object(Part::Claims, self.claims).map(Claims::new)
    }

    /// The signature's bytes.
    pub(crate) fn signature(&self) -> Result<Vec<u8>, TokenError> {
        BASE64_URL.decode(self.signature).map_err(|_| TokenError::Base64(Part::Signature))
    }

    /// What is signed. It names a token better than the whole text does: from one ECDSA signature anybody can make a
    /// second that verifies as well.
    pub(crate) fn signed(&self) -> &'a str {
        self.signed
    }
}

impl Header {
    /// The `typ`, if there is one.
    pub(crate) fn token_type(&self) -> Result<Option<&str>, TokenError> {
        match self.members.get("typ") {
            None => Ok(None),
            Some(Value::String(name)) => Ok(Some(name)),
            Some(_) => Err(TokenError::Type),
        }
    }

    /// The `kid`, which must be there and has 1 to [`KEY_ID_BYTES_MAX`] bytes.
    pub(crate) fn key_id(&self) -> Result<&str, TokenError> {
        match self.members.get("kid") {
            None => Err(TokenError::NoKeyId),
            Some(Value::String(kid)) if (1..=KEY_ID_BYTES_MAX).contains(&kid.len()) => Ok(kid),
            Some(_) => Err(TokenError::KeyId),
        }
    }
}

fn object(part: Part, text: &str) -> Result<Map<String, Value>, TokenError> {
    let json = BASE64_URL.decode(text).map_err(|_| TokenError::Base64(part))?;
    strict_json::object(&json).map_err(|why| TokenError::Json { part, why })
}

/// A token's hash as proofs name it: base64url of SHA-256 over its text.
pub(crate) fn hash_text(token: &str) -> String {
    BASE64_URL.encode(digest::digest(&digest::SHA256, token.as_bytes()))
}
