//! Registration entries as the server stores them.
//!
//! A record that was written by [`entry_to_record`] always reads back as the same entry, except that an end before the
//! epoch becomes one just after it. Anything else is damage and is refused by field.

use spindle_spiffe_core::selector::SELECTORS_MAX;
use spindle_spiffe_core::{RegistrationEntry, Selector, Selectors, Timestamp};

use super::entry::{dns_names, end_from_wire, end_to_wire, trust_domains};
use super::fault::{ConvertError, Fault, Field, InField, at_most};
use crate::records::v1 as records;

/// The entry as a record.
pub fn entry_to_record(entry: &RegistrationEntry) -> records::EntryRecord {
    let selector = |s: &Selector| records::SelectorRecord { kind: s.kind().into(), value: s.value().into() };
    records::EntryRecord {
        id: entry.id.as_str().into(),
        spiffe_id: entry.spiffe_id.as_str().into(),
        parent_id: entry.parent_id.as_str().into(),
        selectors: entry.selectors.iter().map(selector).collect(),
        x509_svid_ttl: entry.x509_svid_ttl_secs,
        jwt_svid_ttl: entry.jwt_svid_ttl_secs,
        federates_with: entry.federates_with.iter().map(|name| name.name().into()).collect(),
        admin: entry.admin,
        downstream: entry.downstream,
        expires_at: end_to_wire(entry.expires_at),
        dns_names: entry.dns_names.iter().map(|name| name.as_str().into()).collect(),
        revision_number: entry.revision_number,
        store_svid: entry.store_svid,
        hint: entry.hint.as_str().into(),
        created_at: entry.created_at.unix_secs(),
        disable_x509_svid_prefetch: entry.disable_x509_svid_prefetch,
        jwt_svid_include_jti: entry.jwt_svid_include_jti,
    }
}

/// The entry of a record.
///
/// # Errors
/// The first field that is missing or malformed.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a record is decoded to be turned into an entry, nothing else"
)]
pub fn entry_from_record(record: records::EntryRecord) -> Result<RegistrationEntry, ConvertError> {
    Ok(RegistrationEntry {
        id: record.id.parse().field(Field::Id)?,
        spiffe_id: record.spiffe_id.parse().field(Field::SpiffeId)?,
        parent_id: record.parent_id.parse().field(Field::ParentId)?,
        selectors: selectors(&record.selectors).field(Field::Selectors)?,
        x509_svid_ttl_secs: record.x509_svid_ttl,
        jwt_svid_ttl_secs: record.jwt_svid_ttl,
        federates_with: trust_domains(&record.federates_with).field(Field::FederatesWith)?,
        admin: record.admin,
        downstream: record.downstream,
        expires_at: end_from_wire(record.expires_at).field(Field::ExpiresAt)?,
        dns_names: dns_names(&record.dns_names).field(Field::DnsNames)?,
        revision_number: record.revision_number,
        store_svid: record.store_svid,
        hint: record.hint.parse().field(Field::Hint)?,
        created_at: Timestamp::from_unix_secs(record.created_at),
        disable_x509_svid_prefetch: record.disable_x509_svid_prefetch,
        jwt_svid_include_jti: record.jwt_svid_include_jti,
    })
}

fn selectors(records: &[records::SelectorRecord]) -> Result<Selectors, Fault> {
    let selectors: Result<Vec<_>, _> =
        at_most(records, SELECTORS_MAX)?.iter().map(|s| Selector::new(&s.kind, &s.value)).collect();
    Ok(Selectors::new(selectors?)?)
}
