//! The JWT-SVIDs that JWT authorities sign (JWT-SVID 2 and 3). Start at [`JwtSigner::sign_jwt_svid`].

use serde::Serialize;
use spindle_spiffe_core::{Audience, SpiffeId, Timestamp};

use crate::token::{Jwt, SignedToken, Subject, TokenSignError, TokenSigner, token_id};

/// A JWT authority of one trust domain.
pub type JwtSigner = TokenSigner<Jwt>;

/// What goes into one token. Nothing else does.
#[derive(Clone, Copy, Debug)]
pub struct JwtSvidRequest<'a> {
    /// The identity; a member of the authority's trust domain with a path.
    pub spiffe_id: &'a SpiffeId,
    /// Who is to accept it.
    pub audience: &'a Audience,
    /// Now.
    pub issued_at: Timestamp,
    /// The end wanted; it is cut to the authority's.
    pub expires_at: Timestamp,
    /// The `iss` claim, if there is to be one.
    pub issuer: Option<&'a str>,
    /// Random bytes for the `jti` claim, if there is to be one.
    pub token_id: Option<[u8; 16]>,
}

/// The claims, by name. `aud` is a list also for one value, as SPIRE has it.
#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a [String],
    exp: i64,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    sub: &'a str,
}

impl JwtSigner {
    /// Signs one token. Takes CPU time only (a remote key would wait); call it on a blocking thread.
    ///
    /// # Errors
    /// When the identity is foreign or has no path, nothing is left of the lifetime, or the signature fails.
    pub fn sign_jwt_svid(&self, request: &JwtSvidRequest<'_>) -> Result<SignedToken, TokenSignError> {
        let JwtSvidRequest { spiffe_id, issued_at, expires_at, .. } = *request;
        self.sign(&Subject { spiffe_id, issued_at, expires_at }, |expires_at| Claims {
            aud: request.audience.values(),
            exp: expires_at.unix_secs(),
            iat: issued_at.unix_secs(),
            iss: request.issuer,
            jti: request.token_id.map(token_id),
            sub: spiffe_id.as_str(),
        })
    }
}
