//! The JSON form of bundles: a JWK Set with SPIFFE members, and maps of them (Trust Domain and Bundle 4 and 5).
//!
//! Parsing takes what it knows and passes over the rest key by key, as 4.1.3 demands: one strange key must not cut a
//! federation. The passed-over keys are listed for the log. Documents that are ambiguous or have no `keys` are
//! refused whole. Start at [`parse`] and [`Bundle::to_json`].

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::bundle::{Bundle, BundleError, KEYS_MAX, TokenAuthority};
use crate::certificate::CERTIFICATE_BYTES_MAX;
use crate::public_key::{JwkMembers, PublicKey, PublicKeyError};
use crate::trust_domain::{TrustDomain, TrustDomainError};
use crate::x509_bundle::{X509Authority, X509BundleError};

pub mod map;

/// The longest bundle document, in bytes: the bound on keys times a large certificate's usual size.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why a text is not a bundle document or not a bundle map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleDocumentError {
    /// Longer than the bound for its kind.
    #[error("the document has {bytes} bytes, at most {max} are taken")]
    Length {
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// Not JSON, a known member twice, or a member of the wrong type.
    #[error("malformed JSON document: {0}")]
    Json(String),
    /// No `keys`, or `keys` is null (Trust Domain and Bundle 4.1.3).
    #[error("the bundle document has no \"keys\"")]
    NoKeys,
    /// More than [`KEYS_MAX`].
    #[error("a bundle has at most {KEYS_MAX} keys, this document has {0}")]
    TooManyKeys(usize),
    /// A name in a bundle map that is no trust domain name.
    #[error("{name:?} in the bundle map is not a trust domain name")]
    MapName {
        /// The name, cut to a bounded length.
        name: String,
        /// Which rule it breaks.
        source: TrustDomainError,
    },
    /// A bundle in a map is not valid.
    #[error("the bundle of {trust_domain} in the bundle map is not valid")]
    InMap {
        /// Whose bundle.
        trust_domain: TrustDomain,
        /// What is wrong with it.
        source: Box<BundleDocumentError>,
    },
}

/// A parsed document: the bundle, and what was passed over on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedBundle {
    /// The usable keys.
    pub bundle: Bundle,
    /// The keys that were passed over, for the log.
    pub ignored: Vec<IgnoredKey>,
}

/// An element of `keys` that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgnoredKey {
    /// Its place in `keys`, from 0.
    pub index: usize,
    /// Why.
    pub why: KeyFault,
}

/// Why an element of `keys` is passed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// Not an object, a known member twice, or a member of the wrong type.
    #[error("not a JWK: {0}")]
    NotAJwk(String),
    /// `use` is missing, or a value not known here.
    #[error("its \"use\" is missing or unknown")]
    Use,
    /// The key itself.
    #[error("its key cannot be used: {0}")]
    Key(PublicKeyError),
    /// `x5c` is missing or empty (X509-SVID 6.2).
    #[error("its \"x5c\" is missing or empty")]
    NoCertificate,
    /// The first `x5c` value is not padded base64 of a certificate of bounded size.
    #[error("its first \"x5c\" value is not base64 of a certificate")]
    CertificateText,
    /// The certificate is no authority.
    #[error("its certificate cannot be an authority: {0}")]
    Authority(X509BundleError),
    /// The certificate has another key than the JWK (RFC 7517 4.7).
    #[error("its certificate has another key")]
    OtherKey,
    /// A key for JWT-SVIDs or WIT-SVIDs without an ID.
    #[error("its \"kid\" is missing")]
    NoKeyId,
    /// A key for JWT-SVIDs or WIT-SVIDs that cannot be an authority.
    #[error("it cannot be an authority: {0}")]
    TokenAuthority(BundleError),
    /// A second key of the same ID: another one, or one for another SVID type (WIT-SVID 6.1).
    #[error("an earlier key has the same \"kid\"")]
    RepeatedKeyId,
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Option<Vec<&'a RawValue>>,
    spiffe_sequence: Option<u64>,
    #[serde(borrow)]
    spiffe_refresh_hint: Option<&'a RawValue>,
}

/// One element of `keys`. Members that are not named here are passed over.
#[derive(Deserialize, Serialize, Default)]
struct Jwk {
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    usage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(flatten)]
    members: JwkMembers,
    #[serde(skip_serializing_if = "Option::is_none")]
    x5c: Option<Vec<String>>,
}

enum Usable {
    X509(X509Authority),
    Jwt(TokenAuthority),
    Wit(TokenAuthority),
}

/// Parses the bundle document of `trust_domain`, which the document itself does not name.
///
/// A missing sequence counts as 0. A hint that is not a positive integer counts as missing: it is advice only.
///
/// # Errors
/// When the document is too long, not JSON, ambiguous, without `keys`, or has too many.
pub fn parse(trust_domain: TrustDomain, json: &[u8]) -> Result<ParsedBundle, BundleDocumentError> {
    read(trust_domain, json, None)
}

/// With a `usage` all keys are for that, whatever they say.
fn read(
    trust_domain: TrustDomain,
    json: &[u8],
    usage: Option<&str>,
) -> Result<ParsedBundle, BundleDocumentError> {
    if json.len() > DOCUMENT_BYTES_MAX {
        return Err(BundleDocumentError::Length { bytes: json.len(), max: DOCUMENT_BYTES_MAX });
    }
    let document: Document<'_> =
        serde_json::from_slice(json).map_err(|error| BundleDocumentError::Json(error.to_string()))?;
    let keys = document.keys.ok_or(BundleDocumentError::NoKeys)?;
    if keys.len() > KEYS_MAX {
        return Err(BundleDocumentError::TooManyKeys(keys.len()));
    }
    let mut bundle = Bundle::new(trust_domain);
    bundle.sequence = document.spiffe_sequence.unwrap_or(0);
    let hint = document.spiffe_refresh_hint.and_then(|hint| hint.get().parse().ok());
    bundle.refresh_hint_secs = hint.filter(|hint| (1..=crate::bundle::REFRESH_HINT_SECS_MAX).contains(hint));
    let mut ignored = Vec::new();
    for (index, key) in keys.into_iter().enumerate() {
        if let Err(why) = read_key(key, usage).and_then(|key| add(&mut bundle, key)) {
            ignored.push(IgnoredKey { index, why });
        }
    }
    Ok(ParsedBundle { bundle, ignored })
}

fn read_key(raw: &RawValue, usage: Option<&str>) -> Result<Usable, KeyFault> {
    let jwk: Jwk = serde_json::from_str(raw.get()).map_err(|error| KeyFault::NotAJwk(error.to_string()))?;
    match usage.or(jwk.usage.as_deref()) {
        Some("x509-svid") => x509_authority(&jwk).map(Usable::X509),
        Some("jwt-svid") => token_authority(&jwk).map(Usable::Jwt),
        Some("wit-svid") => token_authority(&jwk).map(Usable::Wit),
        _ => Err(KeyFault::Use),
    }
}

/// The first `x5c` value becomes the authority; its key must be the JWK's own.
fn x509_authority(jwk: &Jwk) -> Result<X509Authority, KeyFault> {
    let key = PublicKey::from_jwk(&jwk.members).map_err(KeyFault::Key)?;
    let text = jwk.x5c.as_ref().and_then(|x5c| x5c.first()).ok_or(KeyFault::NoCertificate)?;
    // Base64 has four characters for three bytes; longer texts are not decoded at all.
    if text.len() / 4 * 3 > CERTIFICATE_BYTES_MAX + 3 {
        return Err(KeyFault::CertificateText);
    }
    let der = BASE64_STANDARD.decode(text).map_err(|_| KeyFault::CertificateText)?;
    let authority = X509Authority::parse(CertificateDer::from(der)).map_err(KeyFault::Authority)?;
    if authority.spki_der() == key.to_spki_der() { Ok(authority) } else { Err(KeyFault::OtherKey) }
}

fn token_authority(jwk: &Jwk) -> Result<TokenAuthority, KeyFault> {
    let key = PublicKey::from_jwk(&jwk.members).map_err(KeyFault::Key)?;
    let kid = jwk.kid.as_deref().ok_or(KeyFault::NoKeyId)?;
    TokenAuthority::new(kid, &key.to_spki_der(), None, false).map_err(KeyFault::TokenAuthority)
}

fn add(bundle: &mut Bundle, key: Usable) -> Result<(), KeyFault> {
    match key {
        Usable::X509(authority) => {
            if !bundle.x509_authorities.contains(&authority) {
                bundle.x509_authorities.push(authority);
            }
        }
        Usable::Jwt(authority) if bundle.wit_authority(authority.kid()).is_some() => {
            return Err(KeyFault::RepeatedKeyId);
        }
        Usable::Wit(authority) if bundle.jwt_authority(authority.kid()).is_some() => {
            return Err(KeyFault::RepeatedKeyId);
        }
        Usable::Jwt(authority) => add_token(&mut bundle.jwt_authorities, authority)?,
        Usable::Wit(authority) => add_token(&mut bundle.wit_authorities, authority)?,
    }
    Ok(())
}

/// An exact repeat does no harm.
fn add_token(authorities: &mut Vec<TokenAuthority>, authority: TokenAuthority) -> Result<(), KeyFault> {
    match authorities.iter().find(|earlier| earlier.kid() == authority.kid()) {
        Some(earlier) if earlier == &authority => {}
        Some(_) => return Err(KeyFault::RepeatedKeyId),
        None => authorities.push(authority),
    }
    Ok(())
}

/// A JWK Set without members of its own (RFC 7517 5).
#[derive(Serialize)]
struct KeySet {
    keys: Vec<Jwk>,
}

#[derive(Serialize)]
struct Printed {
    keys: Vec<Jwk>,
    spiffe_sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_refresh_hint: Option<u64>,
}

impl Bundle {
    /// The bundle document, indented: one JWK per X.509 authority without `kid`, one per JWT and WIT authority with it.
    pub fn to_json(&self) -> String {
        print(&self.printed(self.refresh_hint_secs))
    }

    /// Parses a bundle document and drops the list of keys that were passed over; [`parse`] keeps it.
    ///
    /// # Errors
    /// As [`parse`].
    pub fn from_json(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleDocumentError> {
        parse(trust_domain, json).map(|parsed| parsed.bundle)
    }

    /// The keys of JWT-SVIDs as a plain JWK Set, indented: each with its `kid`, none with a `use`, and an empty list when
    /// there are none (Workload API 6.2.2).
    pub fn jwt_key_set(&self) -> String {
        print(&KeySet { keys: printed_tokens(None, &self.jwt_authorities).collect() })
    }

    /// The keys of WIT-SVIDs in the same form (Workload API 7.1).
    pub fn wit_key_set(&self) -> String {
        print(&KeySet { keys: printed_tokens(None, &self.wit_authorities).collect() })
    }

    /// The bundle whose keys of WIT-SVIDs stand in a plain JWK Set: each key needs a `kid`, and a `use` means nothing (Workload
    /// API 7.1). Keys that cannot be used are passed over.
    ///
    /// # Errors
    /// As [`parse`].
    pub fn from_wit_key_set(trust_domain: TrustDomain, json: &[u8]) -> Result<Self, BundleDocumentError> {
        read(trust_domain, json, Some("wit-svid")).map(|parsed| parsed.bundle)
    }

    fn printed(&self, spiffe_refresh_hint: Option<u64>) -> Printed {
        let x509_bundle = self.x509_bundle();
        let x509 = x509_bundle.authorities().iter().map(|authority| Jwk {
            usage: Some("x509-svid".into()),
            kid: None,
            members: authority.key().to_jwk(),
            x5c: Some(vec![BASE64_STANDARD.encode(authority.der())]),
        });
        let keys = x509
            .chain(printed_tokens(Some("jwt-svid"), &self.jwt_authorities))
            .chain(printed_tokens(Some("wit-svid"), &self.wit_authorities));
        Printed { keys: keys.collect(), spiffe_sequence: self.sequence, spiffe_refresh_hint }
    }
}

fn printed_tokens(usage: Option<&str>, authorities: &[TokenAuthority]) -> impl Iterator<Item = Jwk> {
    authorities.iter().map(move |authority| Jwk {
        usage: usage.map(Into::into),
        kid: Some(authority.kid().into()),
        members: authority.key().to_jwk(),
        x5c: None,
    })
}

/// Four spaces of indentation, as SPIRE prints.
fn print(value: &impl Serialize) -> String {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).expect("text, numbers and lists always serialise");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// Bundles by trust domain, as a map carries them.
pub type BundleMap = BTreeMap<TrustDomain, Bundle>;
