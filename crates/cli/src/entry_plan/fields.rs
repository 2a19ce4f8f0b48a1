//! The fields of an entry that a file can set, in a form in which two entries can be compared.
//!
//! Counters and the ID are left out. Where the order of a list means nothing it is sorted; that of DNS names does, as the
//! first one becomes the common name.

use std::fmt;

use serde_json::Value;
use spindle_proto::spire::api::types;

use crate::output::text;

/// How many fields there are.
const FIELDS: usize = 14;

/// One field that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldChange {
    /// Its name in files.
    pub field: &'static str,
    /// As it is.
    pub old: Value,
    /// As it is to be.
    pub new: Value,
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.field, Shown(&self.old), Shown(&self.new))
    }
}

/// A value for people: texts bare, lists in brackets.
pub(crate) struct Shown<'a>(pub(crate) &'a Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) if text.is_empty() => f.write_str("\"\""),
            // A text could hold anything that a terminal obeys.
            Value::String(text) => text.chars().try_for_each(|c| {
                if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") }
            }),
            Value::Array(values) => {
                f.write_str("[")?;
                for (at, value) in values.iter().enumerate() {
                    write!(f, "{}{}", if at == 0 { "" } else { " " }, Shown(value))?;
                }
                f.write_str("]")
            }
            other => write!(f, "{other}"),
        }
    }
}

/// Every field with its name in files.
pub fn fields(entry: &types::Entry) -> [(&'static str, Value); FIELDS] {
    let attributes = entry.additional_attributes.unwrap_or_default();
    [
        ("spiffe_id", text::id(&entry.spiffe_id).into()),
        ("parent_id", text::id(&entry.parent_id).into()),
        ("selectors", selectors(entry).into()),
        ("x509_svid_ttl", entry.x509_svid_ttl.into()),
        ("jwt_svid_ttl", entry.jwt_svid_ttl.into()),
        ("federates_with", federates_with(entry).into()),
        ("admin", entry.admin.into()),
        ("downstream", entry.downstream.into()),
        ("entry_expiry", entry.expires_at.into()),
        ("dns_names", entry.dns_names.clone().into()),
        ("store_svid", entry.store_svid.into()),
        ("hint", entry.hint.clone().into()),
        ("disable_x509_svid_prefetch", attributes.disable_x509_svid_prefetch.into()),
        ("jwt_svid_include_jti", attributes.jwt_svid_include_jti.into()),
    ]
}

/// The fields in which two entries differ.
pub(super) fn changes(old: &types::Entry, new: &types::Entry) -> Vec<FieldChange> {
    let pairs = fields(old).into_iter().zip(fields(new));
    pairs
        .filter(|((_, old), (_, new))| old != new)
        .map(|((field, old), (_, new))| FieldChange { field, old, new })
        .collect()
}

/// What two entries of a server may not share: parent, SPIFFE ID and selectors.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Likeness {
    spiffe_id: String,
    parent_id: String,
    selectors: Vec<String>,
}

impl Likeness {
    /// That of one entry.
    pub fn of(entry: &types::Entry) -> Self {
        Self {
            spiffe_id: text::id(&entry.spiffe_id),
            parent_id: text::id(&entry.parent_id),
            selectors: selectors(entry),
        }
    }
}

fn selectors(entry: &types::Entry) -> Vec<String> {
    let selectors = entry.selectors.iter();
    sorted(selectors.map(|selector| format!("{}:{}", selector.r#type, selector.value)).collect())
}

fn federates_with(entry: &types::Entry) -> Vec<String> {
    let names = entry.federates_with.iter();
    sorted(names.map(|name| name.strip_prefix("spiffe://").unwrap_or(name).to_owned()).collect())
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts.dedup();
    texts
}
