//! One entry of a file into a message, its parts checked by the code that checks them on the wire.

use std::str::FromStr;

use spindle_proto::convert::{entry_from_proto, entry_to_proto, spiffe_id_to_proto};
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{EntryId, SpiffeId, TrustDomain};

use crate::config::ConfigError;
use crate::config::keys::{Key, Support, check_keys};
use crate::config::section::Section;
use crate::duration;
use crate::hcl::Value;

const KEYS: &[Key] = &[
    ("entry_id", Support::Yes),
    ("id", Support::Yes),
    ("spiffe_id", Support::Yes),
    ("parent_id", Support::Yes),
    ("selectors", Support::Yes),
    ("x509_svid_ttl", Support::Yes),
    ("jwt_svid_ttl", Support::Yes),
    ("federates_with", Support::Yes),
    ("admin", Support::Yes),
    ("downstream", Support::Yes),
    ("entry_expiry", Support::Yes),
    // SPIRE's spelling in its own files, and the one of its API.
    ("entryExpiry", Support::Yes),
    ("expires_at", Support::Yes),
    ("dns_names", Support::Yes),
    ("store_svid", Support::Yes),
    ("hint", Support::Yes),
    ("additional_attributes", Support::Yes),
    ("revision_number", Support::Yes),
    ("created_at", Support::Yes),
];

const ATTRIBUTES: &[Key] =
    &[("disable_x509_svid_prefetch", Support::Yes), ("jwt_svid_include_jti", Support::Yes)];

const SELECTOR: &[Key] = &[("type", Support::Yes), ("value", Support::Yes)];

const SPIFFE_ID: &[Key] = &[("trust_domain", Support::Yes), ("path", Support::Yes)];

/// The entry in the form that a server gives it back.
pub(super) fn read(section: &Section<'_>) -> Result<types::Entry, ConfigError> {
    check_keys(section, KEYS, &mut Vec::new())?;
    let wire = types::Entry {
        id: one_of(section, &["entry_id", "id"], |key| section.text(key))?.unwrap_or_default(),
        spiffe_id: Some(spiffe_id(section, "spiffe_id")?),
        parent_id: Some(spiffe_id(section, "parent_id")?),
        selectors: selectors(section)?,
        x509_svid_ttl: ttl(section, "x509_svid_ttl")?,
        jwt_svid_ttl: ttl(section, "jwt_svid_ttl")?,
        federates_with: trust_domains(section)?,
        admin: section.switch("admin")?.unwrap_or_default(),
        downstream: section.switch("downstream")?.unwrap_or_default(),
        expires_at: one_of(section, &["entry_expiry", "entryExpiry", "expires_at"], |key| {
            section.number(key)
        })?
        .unwrap_or_default(),
        dns_names: section.texts("dns_names")?.unwrap_or_default(),
        store_svid: section.switch("store_svid")?.unwrap_or_default(),
        hint: section.text("hint")?.unwrap_or_default(),
        additional_attributes: attributes(section)?,
        // Counters are the server's; the time of making gives imports their order.
        revision_number: section.number("revision_number")?.unwrap_or_default(),
        created_at: section.number("created_at")?.unwrap_or_default(),
    };
    checked(section, &wire)
}

/// What is wrong with an entry, in its parts or in how they go together.
pub(super) fn fault(wire: &types::Entry, trust_domain: Option<&TrustDomain>) -> Option<String> {
    match entry_from_proto(wire, placeholder) {
        Err(fault) => Some(fault.to_string()),
        Ok(entry) => {
            let own = entry.spiffe_id.trust_domain();
            entry.check(trust_domain.unwrap_or(&own)).err().map(|fault| fault.to_string())
        }
    }
}

/// Stands in for an ID that the server makes up.
fn placeholder() -> EntryId {
    EntryId::from_str("placeholder").expect("letters make an entry ID")
}

fn checked(section: &Section<'_>, wire: &types::Entry) -> Result<types::Entry, ConfigError> {
    let checked =
        entry_from_proto(wire, placeholder).map_err(|fault| ConfigError::value(section.path(), fault))?;
    Ok(types::Entry { id: wire.id.clone(), ..entry_to_proto(&checked) })
}

/// The value of a key that has several spellings, of which one may be used.
fn one_of<T>(
    section: &Section<'_>,
    keys: &[&str],
    read: impl Fn(&str) -> Result<Option<T>, ConfigError>,
) -> Result<Option<T>, ConfigError> {
    let mut found: Option<(&str, T)> = None;
    for key in keys {
        let Some(value) = read(key)? else { continue };
        if let Some((first, _)) = found {
            return Err(ConfigError::Exclusive { first: section.key(first), second: section.key(key) });
        }
        found = Some((key, value));
    }
    Ok(found.map(|(_, value)| value))
}

/// A SPIFFE ID as a text, or as a block of its two parts.
fn spiffe_id(section: &Section<'_>, key: &str) -> Result<types::Spiffeid, ConfigError> {
    let is_block =
        section.items().iter().any(|item| item.key == key && matches!(item.value, Value::Object(_)));
    let text = match is_block {
        true => section.block(key)?.map(|parts| two_parts(&parts)).transpose()?,
        false => section.text(key)?,
    };
    let name = section.key(key);
    let text = text.ok_or_else(|| ConfigError::Missing { key: name.clone() })?;
    match SpiffeId::from_str(&text) {
        Ok(id) => Ok(spiffe_id_to_proto(&id)),
        Err(fault) => Err(ConfigError::value(&name, format!("{text:?}: {fault}"))),
    }
}

fn two_parts(parts: &Section<'_>) -> Result<String, ConfigError> {
    check_keys(parts, SPIFFE_ID, &mut Vec::new())?;
    let part = |key| parts.text(key).map(Option::unwrap_or_default);
    Ok(format!("spiffe://{}{}", part("trust_domain")?, part("path")?))
}

/// Selectors as `type:value`, or as blocks of the two; the key may be repeated, which is how lists of blocks arrive.
fn selectors(section: &Section<'_>) -> Result<Vec<types::Selector>, ConfigError> {
    let mut found = Vec::new();
    for item in section.items().iter().filter(|item| item.key == "selectors") {
        match &item.value {
            Value::List(values) => {
                values.iter().try_for_each(|value| selector(section, value).map(|one| found.push(one)))?;
            }
            value => found.push(selector(section, value)?),
        }
    }
    Ok(found)
}

fn selector(section: &Section<'_>, value: &Value) -> Result<types::Selector, ConfigError> {
    let key = section.key("selectors");
    match value {
        Value::Text(text) => match text.split_once(':') {
            Some((kind, value)) => Ok(types::Selector { r#type: kind.into(), value: value.into() }),
            None => Err(ConfigError::value(&key, format!("{text:?} must be formatted as type:value"))),
        },
        Value::Object(items) => {
            let parts = Section::new(key, items);
            check_keys(&parts, SELECTOR, &mut Vec::new())?;
            let part = |key| parts.text(key).map(Option::unwrap_or_default);
            Ok(types::Selector { r#type: part("type")?, value: part("value")? })
        }
        other => Err(ConfigError::value(&key, format!("{} is no selector", other.kind()))),
    }
}

/// A lifetime in seconds, or as a duration such as `1h30m`.
fn ttl(section: &Section<'_>, key: &str) -> Result<i32, ConfigError> {
    let Some(text) = section.text(key)? else { return Ok(0) };
    let secs = match text.parse::<i64>() {
        Ok(secs) => secs,
        Err(_) => duration::parse_secs(&text).map_err(|fault| {
            ConfigError::value(&section.key(key), format!("neither seconds nor a duration: {fault}"))
        })?,
    };
    i32::try_from(secs)
        .map_err(|_| ConfigError::value(&section.key(key), format!("{secs} seconds are too many")))
}

/// Trust domains by their names or SPIFFE IDs, as their names.
fn trust_domains(section: &Section<'_>) -> Result<Vec<String>, ConfigError> {
    let texts = section.texts("federates_with")?.unwrap_or_default();
    Ok(texts.iter().map(|text| text.strip_prefix("spiffe://").unwrap_or(text).to_owned()).collect())
}

fn attributes(section: &Section<'_>) -> Result<Option<types::entry::AdditionalAttributes>, ConfigError> {
    let Some(block) = section.block("additional_attributes")? else { return Ok(None) };
    check_keys(&block, ATTRIBUTES, &mut Vec::new())?;
    Ok(Some(types::entry::AdditionalAttributes {
        disable_x509_svid_prefetch: block.switch("disable_x509_svid_prefetch")?.unwrap_or_default(),
        jwt_svid_include_jti: block.switch("jwt_svid_include_jti")?.unwrap_or_default(),
    }))
}
