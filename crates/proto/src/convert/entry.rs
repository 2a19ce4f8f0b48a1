//! Registration entries as they travel.
//!
//! Each field is checked by one function, so that creating, merging and reading back apply the same rules. Rules over
//! several fields are left to `RegistrationEntry::check`. Start at [`entry_from_proto`].

use std::collections::BTreeSet;

use spindle_spiffe_core::entry::DNS_NAMES_MAX;
use spindle_spiffe_core::{DnsName, EntryId, RegistrationEntry, Selectors, SpiffeId, Timestamp, TrustDomain};

use super::fault::{ConvertError, Fault, Field, InField, at_most};
use super::mask::EntryMask;
use super::names::{
    selectors_from_proto, selectors_to_proto, spiffe_id_from_proto, spiffe_id_to_proto,
    trust_domain_from_proto,
};
use crate::spire::api::types;

/// The most foreign trust domains one entry may federate with; real ones have a handful, and all their bundles must fit
/// one answer of the Workload API.
pub(super) const FEDERATES_WITH_MAX: usize = 1024;

/// The entry with all its fields.
pub fn entry_to_proto(entry: &RegistrationEntry) -> types::Entry {
    types::Entry {
        id: entry.id.as_str().into(),
        spiffe_id: Some(spiffe_id_to_proto(&entry.spiffe_id)),
        parent_id: Some(spiffe_id_to_proto(&entry.parent_id)),
        selectors: selectors_to_proto(&entry.selectors),
        x509_svid_ttl: ttl_to_proto(entry.x509_svid_ttl_secs),
        federates_with: entry.federates_with.iter().map(|name| name.name().into()).collect(),
        admin: entry.admin,
        downstream: entry.downstream,
        expires_at: end_to_wire(entry.expires_at),
        dns_names: entry.dns_names.iter().map(|name| name.as_str().into()).collect(),
        revision_number: entry.revision_number,
        store_svid: entry.store_svid,
        jwt_svid_ttl: ttl_to_proto(entry.jwt_svid_ttl_secs),
        hint: entry.hint.as_str().into(),
        created_at: entry.created_at.unix_secs(),
        additional_attributes: attributes_to_proto(entry),
    }
}

/// The entry a message describes. An empty id is replaced by `new_id`; counters are taken as they stand.
///
/// # Errors
/// The first field that is missing or malformed.
pub fn entry_from_proto(
    wire: &types::Entry,
    new_id: impl FnOnce() -> EntryId,
) -> Result<RegistrationEntry, ConvertError> {
    let id = if wire.id.is_empty() { new_id() } else { wire.id.parse().field(Field::Id)? };
    let attributes = wire.additional_attributes.unwrap_or_default();
    Ok(RegistrationEntry {
        id,
        parent_id: id_from_proto(wire.parent_id.as_ref()).field(Field::ParentId)?,
        spiffe_id: id_from_proto(wire.spiffe_id.as_ref()).field(Field::SpiffeId)?,
        selectors: some_selectors(wire).field(Field::Selectors)?,
        x509_svid_ttl_secs: ttl_from_proto(wire.x509_svid_ttl).field(Field::X509SvidTtl)?,
        jwt_svid_ttl_secs: ttl_from_proto(wire.jwt_svid_ttl).field(Field::JwtSvidTtl)?,
        federates_with: trust_domains(&wire.federates_with).field(Field::FederatesWith)?,
        admin: wire.admin,
        downstream: wire.downstream,
        expires_at: end_from_wire(wire.expires_at).field(Field::ExpiresAt)?,
        dns_names: dns_names(&wire.dns_names).field(Field::DnsNames)?,
        revision_number: wire.revision_number,
        store_svid: wire.store_svid,
        hint: wire.hint.parse().field(Field::Hint)?,
        created_at: Timestamp::from_unix_secs(wire.created_at),
        disable_x509_svid_prefetch: attributes.disable_x509_svid_prefetch,
        jwt_svid_include_jti: attributes.jwt_svid_include_jti,
    })
}

/// The entry a server sent: it must have an id.
///
/// # Errors
/// The first field that is missing or malformed.
pub fn existing_entry_from_proto(wire: &types::Entry) -> Result<RegistrationEntry, ConvertError> {
    let id: EntryId = match wire.id.as_str() {
        "" => return Err(ConvertError { field: Field::Id, fault: Fault::Missing }),
        id => id.parse().field(Field::Id)?,
    };
    entry_from_proto(wire, || id)
}

/// `old` with the fields that `mask` names taken from `wire`. Only those are checked. Id, revision number and time of
/// making always stay; the caller counts the revision.
///
/// # Errors
/// The first masked field that is missing or malformed.
pub fn merge_entry(
    old: &RegistrationEntry,
    wire: &types::Entry,
    mask: &EntryMask,
) -> Result<RegistrationEntry, ConvertError> {
    let mask = mask.fields();
    let mut entry = old.clone();
    if mask.parent_id {
        entry.parent_id = id_from_proto(wire.parent_id.as_ref()).field(Field::ParentId)?;
    }
    if mask.spiffe_id {
        entry.spiffe_id = id_from_proto(wire.spiffe_id.as_ref()).field(Field::SpiffeId)?;
    }
    if mask.selectors {
        entry.selectors = some_selectors(wire).field(Field::Selectors)?;
    }
    if mask.x509_svid_ttl {
        entry.x509_svid_ttl_secs = ttl_from_proto(wire.x509_svid_ttl).field(Field::X509SvidTtl)?;
    }
    if mask.jwt_svid_ttl {
        entry.jwt_svid_ttl_secs = ttl_from_proto(wire.jwt_svid_ttl).field(Field::JwtSvidTtl)?;
    }
    if mask.federates_with {
        entry.federates_with = trust_domains(&wire.federates_with).field(Field::FederatesWith)?;
    }
    if mask.expires_at {
        entry.expires_at = end_from_wire(wire.expires_at).field(Field::ExpiresAt)?;
    }
    if mask.dns_names {
        entry.dns_names = dns_names(&wire.dns_names).field(Field::DnsNames)?;
    }
    if mask.hint {
        entry.hint = wire.hint.parse().field(Field::Hint)?;
    }
    merge_switches(&mut entry, wire, mask);
    Ok(entry)
}

/// The fields that cannot be wrong.
fn merge_switches(entry: &mut RegistrationEntry, wire: &types::Entry, mask: &types::EntryMask) {
    if mask.admin {
        entry.admin = wire.admin;
    }
    if mask.downstream {
        entry.downstream = wire.downstream;
    }
    if mask.store_svid {
        entry.store_svid = wire.store_svid;
    }
    if mask.additional_attributes {
        let attributes = wire.additional_attributes.unwrap_or_default();
        entry.disable_x509_svid_prefetch = attributes.disable_x509_svid_prefetch;
        entry.jwt_svid_include_jti = attributes.jwt_svid_include_jti;
    }
}

fn attributes_to_proto(entry: &RegistrationEntry) -> Option<types::entry::AdditionalAttributes> {
    let attributes = types::entry::AdditionalAttributes {
        disable_x509_svid_prefetch: entry.disable_x509_svid_prefetch,
        jwt_svid_include_jti: entry.jwt_svid_include_jti,
    };
    (attributes != types::entry::AdditionalAttributes::default()).then_some(attributes)
}

fn id_from_proto(wire: Option<&types::Spiffeid>) -> Result<SpiffeId, Fault> {
    spiffe_id_from_proto(wire.ok_or(Fault::Missing)?)
}

fn some_selectors(wire: &types::Entry) -> Result<Selectors, Fault> {
    match wire.selectors.as_slice() {
        [] => Err(Fault::Entry(spindle_spiffe_core::entry::EntryError::NoSelectors)),
        selectors => selectors_from_proto(selectors),
    }
}

/// A lifetime for the wire; 68 years and more all count as 68 years there.
fn ttl_to_proto(secs: u32) -> i32 {
    i32::try_from(secs).unwrap_or(i32::MAX)
}

fn ttl_from_proto(secs: i32) -> Result<u32, Fault> {
    u32::try_from(secs).map_err(|_| Fault::Negative(secs.into()))
}

/// The wire has 0 for "never", so an end at or before the epoch becomes second 1: just as over.
pub(super) fn end_to_wire(end: Option<Timestamp>) -> i64 {
    end.map_or(0, |end| end.unix_secs().max(1))
}

pub(super) fn end_from_wire(unix_secs: i64) -> Result<Option<Timestamp>, Fault> {
    match unix_secs {
        ..0 => Err(Fault::Negative(unix_secs)),
        0 => Ok(None),
        _ => Ok(Some(Timestamp::from_unix_secs(unix_secs))),
    }
}

/// Trust domains in the order given, each once.
pub(super) fn trust_domains(wire: &[String]) -> Result<Vec<TrustDomain>, Fault> {
    let mut seen = BTreeSet::new();
    let mut names = Vec::new();
    for name in at_most(wire, FEDERATES_WITH_MAX)? {
        let name = trust_domain_from_proto(name)?;
        if seen.insert(name.clone()) {
            names.push(name);
        }
    }
    Ok(names)
}

pub(super) fn dns_names(wire: &[String]) -> Result<Vec<DnsName>, Fault> {
    let names: Result<Vec<DnsName>, _> =
        at_most(wire, DNS_NAMES_MAX)?.iter().map(|name| name.parse()).collect();
    Ok(names?)
}
