//! Where each kind of record lives in the store, and how it is encoded.
//!
//! The store sees kinds and bytes only. Values are the protobuf messages of `spindle.records.v1`, so that they can gain
//! fields; keys are readable text, so that an export can be read by a person.

use prost::Message;
use spindle_ca::Family;
use spindle_proto::convert::{
    entry_from_record, entry_to_record, relationship_from_record, relationship_to_record,
};
use spindle_proto::records::v1 as records;
use spindle_spiffe_core::{EntryId, FederationRelationship, RegistrationEntry, SpiffeId, TrustDomain};
use spindle_store::{Kind, Record, RecordKey};

use super::DirectoryError;

/// A registration entry, by entry id.
pub(crate) const ENTRY: Kind = Kind(1);
/// Marks (parent, SPIFFE ID, selectors) as taken; the value is the entry id.
pub(crate) const SIMILARITY: Kind = Kind(2);
/// An attested agent, by SPIFFE ID.
pub(crate) const AGENT: Kind = Kind(3);
/// An unused join token, by token.
pub(crate) const JOIN_TOKEN: Kind = Kind(4);
/// A trust bundle, by trust domain name.
pub(crate) const BUNDLE: Kind = Kind(5);
/// A journal of authorities, one per server and family, by server name and family.
pub(crate) const JOURNAL: Kind = Kind(6);
/// The roles of an identity, by SPIFFE ID.
pub(crate) const ROLES: Kind = Kind(20);
/// Written whenever somebody gains power; a change that holds only while nobody does is based on it.
pub(crate) const POWER: Kind = Kind(21);

/// Says when an entry last began to federate with a trust domain, by its name. Nothing else depends on its value: whoever
/// adds a reference writes it blindly, so that many can at once, and whoever deletes the bundle asks that it has stayed.
pub(crate) const REFERENCE: Kind = Kind(10);
/// A federation relationship, by trust domain name.
pub(crate) const RELATIONSHIP: Kind = Kind(11);
/// A deleted bundle whose entries are still being unlinked, by trust domain name.
pub(crate) const UNLINKING: Kind = Kind(12);

pub(crate) fn entry_key(id: &EntryId) -> RecordKey {
    RecordKey::new(ENTRY, id.as_str().as_bytes())
}

pub(crate) fn agent_key(id: &SpiffeId) -> RecordKey {
    RecordKey::new(AGENT, id.as_str().as_bytes())
}

pub(crate) fn join_token_key(token: &str) -> RecordKey {
    RecordKey::new(JOIN_TOKEN, token.as_bytes())
}

pub(crate) fn bundle_key(trust_domain: &TrustDomain) -> RecordKey {
    RecordKey::new(BUNDLE, trust_domain.name().as_bytes())
}

pub(crate) fn reference_key(trust_domain: &TrustDomain) -> RecordKey {
    RecordKey::new(REFERENCE, trust_domain.name().as_bytes())
}

pub(crate) fn relationship_key(trust_domain: &TrustDomain) -> RecordKey {
    RecordKey::new(RELATIONSHIP, trust_domain.name().as_bytes())
}

pub(crate) fn unlinking_key(trust_domain: &TrustDomain) -> RecordKey {
    RecordKey::new(UNLINKING, trust_domain.name().as_bytes())
}

pub(crate) fn journal_key() -> RecordKey {
    RecordKey::new(JOURNAL, b"local")
}

/// The journal of a family that signs tokens.
pub(crate) fn token_journal_key(family: Family) -> RecordKey {
    match family {
        Family::Wit => RecordKey::new(JOURNAL, b"local/wit"),
        _ => RecordKey::new(JOURNAL, b"local/jwt"),
    }
}

pub(crate) fn roles_key(id: &SpiffeId) -> RecordKey {
    RecordKey::new(ROLES, id.as_str().as_bytes())
}

pub(crate) fn power_key() -> RecordKey {
    RecordKey::new(POWER, b"mark")
}

/// One key for all entries with the same parent, SPIFFE ID and selector set: a digest of the three, each with its length
/// in front so that no two different triples meet.
pub(crate) fn similarity_key(entry: &RegistrationEntry) -> RecordKey {
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut part = |text: &str| {
        digest.update(&(text.len() as u64).to_be_bytes());
        digest.update(text.as_bytes());
    };
    part(entry.parent_id.as_str());
    part(entry.spiffe_id.as_str());
    for selector in &entry.selectors {
        part(selector.as_str());
    }
    RecordKey::new(SIMILARITY, digest.finish().as_ref())
}

pub(crate) fn encode_entry(entry: &RegistrationEntry) -> Vec<u8> {
    entry_to_record(entry).encode_to_vec()
}

pub(crate) fn encode_relationship(relationship: &FederationRelationship) -> Vec<u8> {
    relationship_to_record(relationship).encode_to_vec()
}

pub(crate) fn decode_relationship(record: &Record) -> Result<FederationRelationship, DirectoryError> {
    relationship_from_record(&decode(record)?)
        .map_err(|error| DirectoryError::Record { key: describe(&record.key), why: error.to_string() })
}

pub(crate) fn decode_entry(record: &Record) -> Result<RegistrationEntry, DirectoryError> {
    let message: records::EntryRecord = decode(record)?;
    entry_from_record(message)
        .map_err(|error| DirectoryError::Record { key: describe(&record.key), why: error.to_string() })
}

pub(crate) fn decode<M: Message + Default>(record: &Record) -> Result<M, DirectoryError> {
    M::decode(record.value.as_ref())
        .map_err(|error| DirectoryError::Record { key: describe(&record.key), why: error.to_string() })
}

/// A record's name for an error message.
pub(crate) fn describe(key: &RecordKey) -> String {
    let kind = match key.kind {
        ENTRY => "entry",
        SIMILARITY => "entry index",
        AGENT => "agent",
        JOIN_TOKEN => return "join token".into(),
        BUNDLE => "bundle",
        JOURNAL => "authority journal",
        REFERENCE => "mark of references to",
        RELATIONSHIP => "federation relationship",
        UNLINKING => "unlinking of",
        ROLES => "roles of",
        POWER => "power",
        _ => "unknown record",
    };
    if key.kind == SIMILARITY { kind.into() } else { format!("{kind} {}", String::from_utf8_lossy(&key.key)) }
}
