//! Fields of records that several methods share, by SPIRE's names.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;
use spindle_proto::spire::api::server::{agent::v1 as agent, entry::v1 as entry};
use spindle_proto::spire::api::types;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Fields;
use super::records::id_text;

pub(super) fn put(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    fields.insert(name.into(), value.into());
}

/// Nothing when there is no value.
pub(super) fn put_set(fields: &mut Fields, name: &str, value: Option<impl Into<Value>>) {
    value.into_iter().for_each(|value| put(fields, name, value));
}

/// Nothing when the text is empty.
pub(super) fn put_text(fields: &mut Fields, name: &str, text: &str) {
    put_set(fields, name, Some(text).filter(|text| !text.is_empty()));
}

/// A SPIFFE ID as text; none when it is missing or malformed.
pub(super) fn id(wire: &Option<types::Spiffeid>) -> Option<String> {
    wire.as_ref().and_then(id_text)
}

/// Lower-case hex of the digest: a request can be recognised by it, and holds nothing that is worth reading.
pub(super) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn rfc3339(unix_secs: i64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(unix_secs).ok().and_then(|at| at.format(&Rfc3339).ok())
}

fn selectors(wire: &[types::Selector]) -> String {
    let one = |selector: &types::Selector| format!("{}:{}", selector.r#type, selector.value);
    wire.iter().map(one).collect::<Vec<_>>().join(",")
}

/// SPIRE's enum name of a way to compare sets, which both kinds share; the number when it has none.
fn match_name(wire: i32) -> String {
    match types::selector_match::MatchBehavior::try_from(wire) {
        Ok(name) => name.as_str_name().into(),
        Err(_) => wire.to_string(),
    }
}

/// Every field of an entry that the mask names.
pub(super) fn entry_fields(entry: &types::Entry, mask: Option<&types::EntryMask>) -> Fields {
    let has = |wanted: fn(&types::EntryMask) -> bool| mask.is_none_or(wanted);
    let mut fields = Fields::new();
    put_text(&mut fields, "entry_id", &entry.id);
    if has(|mask| mask.spiffe_id) {
        put_set(&mut fields, "spiffe_id", id(&entry.spiffe_id));
    }
    if has(|mask| mask.parent_id) {
        put_set(&mut fields, "parent_id", id(&entry.parent_id));
    }
    if has(|mask| mask.selectors) {
        put_text(&mut fields, "selectors", &selectors(&entry.selectors));
    }
    if has(|mask| mask.federates_with) {
        put_text(&mut fields, "federates_with", &entry.federates_with.join(","));
    }
    if has(|mask| mask.dns_names) {
        put_text(&mut fields, "dns_name", &entry.dns_names.join(","));
    }
    let plain: [(&str, bool, Value); 9] = [
        ("x509_svid_ttl", has(|mask| mask.x509_svid_ttl), entry.x509_svid_ttl.into()),
        ("jwt_svid_ttl", has(|mask| mask.jwt_svid_ttl), entry.jwt_svid_ttl.into()),
        ("admin", has(|mask| mask.admin), entry.admin.into()),
        ("downstream", has(|mask| mask.downstream), entry.downstream.into()),
        ("expires_at", has(|mask| mask.expires_at), entry.expires_at.into()),
        ("revision_number", has(|mask| mask.revision_number), entry.revision_number.into()),
        ("store_svid", has(|mask| mask.store_svid), entry.store_svid.into()),
        ("hint", has(|mask| mask.hint), entry.hint.as_str().into()),
        ("created_at", has(|mask| mask.created_at), entry.created_at.into()),
    ];
    let named = plain.into_iter().filter(|(_, named, _)| *named);
    fields.extend(named.map(|(name, _, value)| (name.to_owned(), value)));
    fields
}

/// The filter fields that listing and counting agents share.
pub(super) struct AgentFilter {
    attestation_type: String,
    banned: Option<bool>,
    can_reattest: Option<bool>,
    selectors: Option<types::SelectorMatch>,
}

/// The filter fields that listing and counting entries share.
pub(super) struct EntryFilter {
    hint: Option<String>,
    parent_id: Option<types::Spiffeid>,
    spiffe_id: Option<types::Spiffeid>,
    selectors: Option<types::SelectorMatch>,
    federates_with: Option<types::FederatesWithMatch>,
    downstream: Option<bool>,
}

macro_rules! filters_from {
    ($($agents:ty),+; $($entries:ty),+) => {
        $(impl From<$agents> for AgentFilter {
            fn from(wire: $agents) -> Self {
                Self {
                    attestation_type: wire.by_attestation_type,
                    banned: wire.by_banned,
                    can_reattest: wire.by_can_reattest,
                    selectors: wire.by_selector_match,
                }
            }
        })+
        $(impl From<$entries> for EntryFilter {
            fn from(wire: $entries) -> Self {
                Self {
                    hint: wire.by_hint,
                    parent_id: wire.by_parent_id,
                    spiffe_id: wire.by_spiffe_id,
                    selectors: wire.by_selectors,
                    federates_with: wire.by_federates_with,
                    downstream: wire.by_downstream,
                }
            }
        })+
    };
}

filters_from!(
    agent::list_agents_request::Filter, agent::count_agents_request::Filter;
    entry::list_entries_request::Filter, entry::count_entries_request::Filter
);

fn put_selectors(fields: &mut Fields, filter: Option<&types::SelectorMatch>) {
    if let Some(filter) = filter {
        put(fields, "by_selector_match", match_name(filter.r#match));
        put(fields, "by_selectors", selectors(&filter.selectors));
    }
}

impl AgentFilter {
    pub(super) fn put(&self, fields: &mut Fields) {
        // SPIRE's name for this one, though it is a filter like the others.
        put_text(fields, "node_attestor_type", &self.attestation_type);
        put_set(fields, "by_banned", self.banned);
        put_set(fields, "by_can_reattest", self.can_reattest);
        put_selectors(fields, self.selectors.as_ref());
    }
}

impl EntryFilter {
    pub(super) fn put(&self, fields: &mut Fields) {
        put_set(fields, "hint", self.hint.as_deref());
        put_set(fields, "parent_id", id(&self.parent_id));
        put_set(fields, "spiffe_id", id(&self.spiffe_id));
        put_selectors(fields, self.selectors.as_ref());
        if let Some(filter) = &self.federates_with {
            put(fields, "federates_with_match", match_name(filter.r#match));
            put(fields, "federates_with", filter.trust_domains.join(","));
        }
        // SPIRE writes an address in memory here.
        put_set(fields, "downstream", self.downstream);
    }
}
