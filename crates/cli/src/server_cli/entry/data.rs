//! `-data` files: SPIRE's JSON of registration entries, `{"entries": [ … ]}`.
//!
//! Keys are those of its internal message, whose expiry is spelled `entryExpiry`. Unknown keys are refused: an entry
//! without a setting that its author wrote down could give an identity to the wrong caller. What `export` writes beside the
//! entries is passed over, as SPIRE's tool does with it.

use std::str::FromStr;

use serde::Deserialize;
use serde::de::IgnoredAny;
use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{SpiffeId, TrustDomain};

use crate::console::Console;
use crate::error::Failure;
use crate::input;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntries {
    entries: Vec<RawEntry>,
    #[serde(rename = "version")]
    _version: Option<IgnoredAny>,
    /// The server knows its own, and refuses entries of another.
    #[serde(rename = "trust_domain")]
    _trust_domain: Option<IgnoredAny>,
    bundles: Option<IgnoredAny>,
    federation_relationships: Option<IgnoredAny>,
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) entries: Vec<types::Entry>,
    /// Whether bundles or relationships stand beside the entries.
    pub(super) has_federation: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawEntry {
    entry_id: String,
    spiffe_id: String,
    parent_id: String,
    selectors: Vec<RawSelector>,
    x509_svid_ttl: i32,
    jwt_svid_ttl: i32,
    federates_with: Vec<String>,
    admin: bool,
    downstream: bool,
    #[serde(rename = "entryExpiry", alias = "entry_expiry")]
    entry_expiry: i64,
    dns_names: Vec<String>,
    revision_number: i64,
    store_svid: bool,
    hint: String,
    created_at: i64,
    additional_attributes: Option<RawAttributes>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSelector {
    r#type: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawAttributes {
    disable_x509_svid_prefetch: bool,
    jwt_svid_include_jti: bool,
}

/// The entries of a file, or of standard input for `-`. What is passed over is told.
pub(super) fn read(path: &str, console: &mut Console<'_>) -> Result<Vec<types::Entry>, Failure> {
    let data = parse(&input::read_data(path)?).map_err(|what| {
        Failure::new(format!("{path}: {what}"))
            .try_this(r#"write {"entries": [{"spiffe_id": …, "parent_id": …, "selectors": [{"type": …, "value": …}]}]}"#)
    })?;
    if data.has_federation {
        let what = "Note: bundles and relationships of the file are left alone; `import -file` sets them.";
        writeln!(console.err, "{what}")?;
    }
    Ok(data.entries)
}

/// The entries of a text; a fault says which entry and what.
pub(super) fn parse(text: &str) -> Result<Data, String> {
    let raw: RawEntries = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let entry = |(at, raw): (usize, RawEntry)| entry(raw).map_err(|what| format!("entry {at}: {what}"));
    let has_federation = raw.bundles.is_some() || raw.federation_relationships.is_some();
    let entries = raw.entries.into_iter().enumerate().map(entry).collect::<Result<_, _>>()?;
    Ok(Data { entries, has_federation })
}

fn entry(raw: RawEntry) -> Result<types::Entry, String> {
    let attributes = |raw: RawAttributes| types::entry::AdditionalAttributes {
        disable_x509_svid_prefetch: raw.disable_x509_svid_prefetch,
        jwt_svid_include_jti: raw.jwt_svid_include_jti,
    };
    Ok(types::Entry {
        spiffe_id: Some(spiffe_id("spiffe_id", &raw.spiffe_id)?),
        parent_id: Some(spiffe_id("parent_id", &raw.parent_id)?),
        id: raw.entry_id,
        selectors: raw
            .selectors
            .into_iter()
            .map(|raw| types::Selector { r#type: raw.r#type, value: raw.value })
            .collect(),
        x509_svid_ttl: raw.x509_svid_ttl,
        jwt_svid_ttl: raw.jwt_svid_ttl,
        federates_with: raw.federates_with.iter().map(|text| trust_domain(text)).collect::<Result<_, _>>()?,
        admin: raw.admin,
        downstream: raw.downstream,
        expires_at: raw.entry_expiry,
        dns_names: raw.dns_names,
        revision_number: raw.revision_number,
        store_svid: raw.store_svid,
        hint: raw.hint,
        created_at: raw.created_at,
        additional_attributes: raw.additional_attributes.map(attributes),
    })
}

fn spiffe_id(key: &str, text: &str) -> Result<types::Spiffeid, String> {
    match SpiffeId::from_str(text) {
        Ok(id) => Ok(spiffe_id_to_proto(&id)),
        Err(error) => Err(format!("{key} {text:?}: {error}")),
    }
}

/// A trust domain by its name or SPIFFE ID, as its name.
fn trust_domain(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("spiffe://").unwrap_or(text);
    match TrustDomain::from_str(name) {
        Ok(name) => Ok(name.to_string()),
        Err(error) => Err(format!("federates_with {text:?}: {error}")),
    }
}
