//! Bundle maps: the bundles of many trust domains in one JSON document (Trust Domain and Bundle 5).
//!
//! A map is taken whole or not at all, and is the full state of the world: what is not in it is gone. Hints inside are
//! dropped, because they must not change how often the map is fetched. Start at [`parse`] and [`to_json`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::bundle::Bundle;
use crate::bundle_document::{BundleDocumentError, BundleMap, Printed, print};
use crate::trust_domain::TrustDomain;

/// The longest bundle map, in bytes.
pub const MAP_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The most trust domains in one map; a federation knows dozens.
pub const TRUST_DOMAINS_MAX: usize = 4096;

/// Two bundles of one trust domain cannot stand in one map.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("two bundles of trust domain {0} cannot stand in one bundle map")]
pub struct RepeatedTrustDomain(pub TrustDomain);

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    trust_domains: Entries<'a>,
}

/// Names and values in their order, no name twice; which a map type would hide.
struct Entries<'a>(BTreeMap<Cow<'a, str>, &'a RawValue>);

/// Parses a bundle map. Keys that are passed over inside a bundle do not show; refresh hints are dropped.
///
/// # Errors
/// When the map is too long, not JSON, without `trust_domains`, names a trust domain twice or by anything but its bare
/// name, or one of its bundles is not valid.
pub fn parse(json: &[u8]) -> Result<BundleMap, BundleDocumentError> {
    if json.len() > MAP_BYTES_MAX {
        return Err(BundleDocumentError::Length { bytes: json.len(), max: MAP_BYTES_MAX });
    }
    let document: Document<'_> =
        serde_json::from_slice(json).map_err(|error| BundleDocumentError::Json(error.to_string()))?;
    document.trust_domains.0.into_iter().map(|(name, value)| read_entry(&name, value)).collect()
}

fn read_entry(name: &str, value: &RawValue) -> Result<(TrustDomain, Bundle), BundleDocumentError> {
    let trust_domain: TrustDomain = name
        .parse()
        .map_err(|source| BundleDocumentError::MapName { name: name.chars().take(80).collect(), source })?;
    let mut parsed = super::parse(trust_domain.clone(), value.get().as_bytes()).map_err(|source| {
        BundleDocumentError::InMap { trust_domain: trust_domain.clone(), source: Box::new(source) }
    })?;
    parsed.bundle.refresh_hint_secs = None;
    Ok((trust_domain, parsed.bundle))
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of bundles by trust domain name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(Name(name)) = access.next_key()? {
            if entries.len() == TRUST_DOMAINS_MAX {
                return Err(A::Error::custom(format_args!("more than {TRUST_DOMAINS_MAX} trust domains")));
            }
            let shown: String = name.chars().take(80).collect();
            if entries.insert(name, access.next_value()?).is_some() {
                return Err(A::Error::custom(format_args!("trust domain {shown:?} occurs twice")));
            }
        }
        Ok(Entries(entries))
    }
}

/// A key that borrows where the text has no escapes; `Cow` alone would always copy.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Serialize)]
struct PrintedMap<'a> {
    trust_domains: BTreeMap<&'a str, Printed>,
}

/// The bundle map of the given bundles, without refresh hints.
///
/// # Errors
/// When two bundles are of one trust domain.
pub fn to_json<'a>(bundles: impl IntoIterator<Item = &'a Bundle>) -> Result<String, RepeatedTrustDomain> {
    let mut trust_domains = BTreeMap::new();
    for bundle in bundles {
        if trust_domains.insert(bundle.trust_domain.name(), bundle.printed(None)).is_some() {
            return Err(RepeatedTrustDomain(bundle.trust_domain.clone()));
        }
    }
    Ok(print(&PrintedMap { trust_domains }))
}
