//! Bundles and federation relationships of a file, in the form in which `bundle list` and `federation list` print each of
//! them with `-output json`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spindle_proto::convert::{given_bundle_from_proto, relationship_from_proto};
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::federation_relationship::BundleEndpointProfile;

use crate::config::ConfigError;
use crate::config::keys::{Key, Support, check_keys};
use crate::config::section::Section;
use crate::hcl::Value;

const BUNDLE: &[Key] = &[
    ("trust_domain", Support::Yes),
    ("x509_authorities", Support::Yes),
    ("jwt_authorities", Support::Yes),
    ("wit_authorities", Support::Yes),
    ("refresh_hint", Support::Yes),
    ("sequence_number", Support::Yes),
];

const X509_AUTHORITY: &[Key] = &[("asn1", Support::Yes), ("tainted", Support::Yes)];

const KEY: &[Key] = &[
    ("public_key", Support::Yes),
    ("key_id", Support::Yes),
    ("expires_at", Support::Yes),
    ("tainted", Support::Yes),
];

const RELATIONSHIP: &[Key] = &[
    ("trust_domain", Support::Yes),
    ("bundle_endpoint_url", Support::Yes),
    ("https_web", Support::Yes),
    ("https_spiffe", Support::Yes),
    ("trust_domain_bundle", Support::Yes),
];

/// One bundle.
pub(super) fn bundle(section: &Section<'_>) -> Result<types::Bundle, ConfigError> {
    check_keys(section, BUNDLE, &mut Vec::new())?;
    let key = |one: PublicKey| types::JwtKey {
        public_key: one.public_key.into(),
        key_id: one.key_id,
        expires_at: one.expires_at,
        tainted: one.tainted,
    };
    let wit = |one: PublicKey| types::WitKey {
        public_key: one.public_key.into(),
        key_id: one.key_id,
        expires_at: one.expires_at,
        tainted: one.tainted,
    };
    let bundle = types::Bundle {
        trust_domain: section.text("trust_domain")?.unwrap_or_default(),
        x509_authorities: each(section, "x509_authorities", x509_authority)?,
        jwt_authorities: each(section, "jwt_authorities", |one| public_key(one).map(key))?,
        wit_authorities: each(section, "wit_authorities", |one| public_key(one).map(wit))?,
        refresh_hint: section.number("refresh_hint")?.unwrap_or_default(),
        sequence_number: count(section, "sequence_number")?,
    };
    match given_bundle_from_proto(&bundle) {
        Ok(_) => Ok(bundle),
        Err(fault) => Err(ConfigError::value(section.path(), fault)),
    }
}

/// One relationship, and the bundle in it, which stands by itself from here on.
pub(super) fn relationship(
    section: &Section<'_>,
) -> Result<(types::FederationRelationship, Option<types::Bundle>), ConfigError> {
    check_keys(section, RELATIONSHIP, &mut Vec::new())?;
    let profile = match (section.block("https_web")?, section.block("https_spiffe")?) {
        (Some(_), Some(_)) => {
            let (first, second) = (section.key("https_web"), section.key("https_spiffe"));
            return Err(ConfigError::Exclusive { first, second });
        }
        (Some(_), None) => Some(BundleEndpointProfile::HttpsWeb(types::HttpsWebProfile {})),
        (None, Some(spiffe)) => {
            let endpoint_spiffe_id = spiffe.text("endpoint_spiffe_id")?.unwrap_or_default();
            Some(BundleEndpointProfile::HttpsSpiffe(types::HttpsspiffeProfile { endpoint_spiffe_id }))
        }
        (None, None) => None,
    };
    let relationship = types::FederationRelationship {
        trust_domain: section.text("trust_domain")?.unwrap_or_default(),
        bundle_endpoint_url: section.text("bundle_endpoint_url")?.unwrap_or_default(),
        bundle_endpoint_profile: profile,
        trust_domain_bundle: None,
    };
    let bundle = section.block("trust_domain_bundle")?.map(|block| bundle(&block)).transpose()?;
    match relationship_from_proto(&relationship) {
        Ok(_) => Ok((relationship, bundle)),
        Err(fault) => Err(ConfigError::value(section.path(), fault)),
    }
}

/// What the blocks of a list say. The reader of JSON gives a list of blocks as a repeated key.
pub(super) fn each<T>(
    section: &Section<'_>,
    key: &str,
    read: impl Fn(&Section<'_>) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    let mut found = Vec::new();
    for item in section.items().iter().filter(|item| item.key == key) {
        let values = match &item.value {
            Value::List(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        for value in values {
            let name = format!("{}[{}]", section.key(key), found.len());
            match value {
                Value::Object(items) => found.push(read(&Section::new(name, items))?),
                other => {
                    return Err(ConfigError::value(&name, format!("must be a block, not {}", other.kind())));
                }
            }
        }
    }
    Ok(found)
}

fn x509_authority(section: &Section<'_>) -> Result<types::X509Certificate, ConfigError> {
    check_keys(section, X509_AUTHORITY, &mut Vec::new())?;
    let tainted = section.switch("tainted")?.unwrap_or_default();
    Ok(types::X509Certificate { asn1: bytes(section, "asn1")?.into(), tainted })
}

/// What keys of both kinds have.
struct PublicKey {
    public_key: Vec<u8>,
    key_id: String,
    expires_at: i64,
    tainted: bool,
}

fn public_key(section: &Section<'_>) -> Result<PublicKey, ConfigError> {
    check_keys(section, KEY, &mut Vec::new())?;
    Ok(PublicKey {
        public_key: bytes(section, "public_key")?,
        key_id: section.text("key_id")?.unwrap_or_default(),
        expires_at: section.number("expires_at")?.unwrap_or_default(),
        tainted: section.switch("tainted")?.unwrap_or_default(),
    })
}

fn bytes(section: &Section<'_>, key: &str) -> Result<Vec<u8>, ConfigError> {
    let text = section.text(key)?.unwrap_or_default();
    match STANDARD.decode(text) {
        Ok(bytes) => Ok(bytes),
        Err(fault) => Err(ConfigError::value(&section.key(key), format!("it is not in base64: {fault}"))),
    }
}

fn count(section: &Section<'_>, key: &str) -> Result<u64, ConfigError> {
    let number = section.number(key)?.unwrap_or_default();
    u64::try_from(number).map_err(|_| ConfigError::value(&section.key(key), format!("{number} is negative")))
}
