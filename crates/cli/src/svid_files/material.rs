//! Answers of the Workload API as checked material: a key that fits its certificate, bundles that were meant for it.
//!
//! Pure: callers pass the time. What came for X509-SVIDs, for JWT-SVIDs and as a token are three types, so that no bundle
//! vouches for the other kind (Workload API 5.2.1, 6.2.2).

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use prost::bytes::Bytes;
use serde_json::Value;
use spindle_keys::Key;
use spindle_proto::workload::{JwtBundlesResponse, Jwtsvid, X509BundlesResponse, X509svidResponse};
use spindle_spiffe_core::{Timestamp, TrustDomain, X509Bundle};

use crate::agent_cli::{Fetched, FetchedSvid, bundle_of, verify};
use crate::error::Failure;

/// Something of which several may come, and one is chosen.
pub(crate) trait Identity {
    /// Its SPIFFE ID.
    fn spiffe_id(&self) -> &str;
    /// What tells it from others; may be empty.
    fn hint(&self) -> &str;
}

/// One X509-SVID of a message, with its ID as text.
pub(crate) struct X509Identity {
    id: String,
    pub(crate) svid: FetchedSvid,
}

impl Identity for X509Identity {
    fn spiffe_id(&self) -> &str {
        &self.id
    }

    fn hint(&self) -> &str {
        &self.svid.hint
    }
}

impl Identity for Jwtsvid {
    fn spiffe_id(&self) -> &str {
        &self.spiffe_id
    }

    fn hint(&self) -> &str {
        &self.hint
    }
}

/// All of one FetchX509SVID message. It replaces the one before as a whole (Workload API 4.4).
pub(crate) struct X509Material {
    pub(crate) identities: Vec<X509Identity>,
    /// Other trust domains' authorities, by name. They vouch for X509-SVIDs alone.
    pub(crate) federated: BTreeMap<String, X509Bundle>,
}

impl X509Material {
    /// Checks a message: chains, bundles, and that each key is that of its certificate.
    ///
    /// # Errors
    /// The first fault, which makes the whole message worthless (Workload API 4.5).
    pub(crate) fn read(message: &X509svidResponse, now: Timestamp) -> Result<Self, Failure> {
        let Fetched { svids, federated } = verify(message, now)?;
        for one in &svids {
            check_key(one)?;
        }
        let identity = |svid: FetchedSvid| X509Identity { id: svid.svid.spiffe_id().to_string(), svid };
        Ok(Self { identities: svids.into_iter().map(identity).collect(), federated })
    }
}

fn check_key(one: &FetchedSvid) -> Result<(), Failure> {
    let id = one.svid.spiffe_id();
    let key = Key::from_pkcs8_der(&one.key)
        .map_err(|error| Failure::because(format!("the key of the SVID {id} is not valid"), &error))?;
    if key.spki_der() == one.svid.spki_der() {
        return Ok(());
    }
    Err(Failure::new(format!("the key of the SVID {id} is not that of its certificate"))
        .try_this("look at the agent's log"))
}

/// All of one FetchX509Bundles message: authorities by the name of their trust domain. They vouch for X509-SVIDs alone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct X509BundleSet(pub(crate) BTreeMap<String, X509Bundle>);

impl X509BundleSet {
    /// Checks a message: each name is a trust domain, each bundle certificates of authorities and nothing else.
    ///
    /// # Errors
    /// The first fault, which makes the whole message worthless (Workload API 4.5).
    pub(crate) fn read(message: &X509BundlesResponse) -> Result<Self, Failure> {
        if message.bundles.is_empty() {
            return Err(
                Failure::new("the agent's answer has no X.509 bundle").try_this("look at the agent's log")
            );
        }
        let read = |(id, der): (&String, &Bytes)| {
            let bundle = bundle_of(id, der)?;
            Ok((bundle.trust_domain().to_string(), bundle))
        };
        message.bundles.iter().map(read).collect::<Result<_, _>>().map(Self)
    }
}

/// All of one FetchJWTBundles message: key sets by the SPIFFE ID of their trust domain. They vouch for JWT-SVIDs alone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JwtBundles(pub(crate) BTreeMap<String, Value>);

impl JwtBundles {
    /// Checks a message: each name is a trust domain, each set a list of keys.
    ///
    /// # Errors
    /// The first fault, which makes the whole message worthless (Workload API 4.5).
    pub(crate) fn read(message: &JwtBundlesResponse) -> Result<Self, Failure> {
        if message.bundles.is_empty() {
            return Err(
                Failure::new("the agent's answer has no JWT bundle").try_this("look at the agent's log")
            );
        }
        let bundle = |(id, keys): (&String, &Bytes)| {
            let fault = |why: String| Failure::new(format!("the JWT bundle of {id:?} is not valid: {why}"));
            let name = id.strip_prefix("spiffe://").unwrap_or(id);
            let name: TrustDomain = name.parse().map_err(|error| fault(format!("{error}")))?;
            let set: Value = serde_json::from_slice(keys).map_err(|error| fault(error.to_string()))?;
            if set.get("keys").is_none_or(|keys| !keys.is_array()) {
                return Err(fault("it is no key set".into()));
            }
            Ok((format!("spiffe://{name}"), set))
        };
        message.bundles.iter().map(bundle).collect::<Result<_, _>>().map(Self)
    }
}

/// A token with the times it names. The agent has vouched for it over its socket; it is not judged again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: zeroize::Zeroizing<String>,
    pub(crate) expires_at: Timestamp,
}

impl Token {
    /// Reads the end of a token.
    ///
    /// # Errors
    /// When it is no JWS with an end.
    pub(crate) fn read(svid: &Jwtsvid) -> Result<Self, Failure> {
        let claims = svid.svid.split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Option<Value> = claims.and_then(|json| serde_json::from_slice(&json).ok());
        let end = claims.as_ref().and_then(|claims| claims.get("exp")?.as_i64());
        let end =
            end.ok_or_else(|| Failure::new(format!("the JWT-SVID of {:?} has no end", svid.spiffe_id)))?;
        let text = zeroize::Zeroizing::new(svid.svid.clone());
        Ok(Self { text, expires_at: Timestamp::from_unix_secs(end) })
    }
}

#[cfg(test)]
mod tests;
