//! What must hold for any input of each parser here. Shared by the random tests and the fuzz targets in `tests/fuzz`.
#![allow(dead_code, reason = "each user takes its own part of this")]
#![allow(clippy::unwrap_used, reason = "a failing step is the finding")]

use prost::Message;
use spindle_proto::convert::{
    bundle_from_proto, bundle_to_proto, entry_from_proto, entry_from_record, entry_to_proto, entry_to_record,
    existing_entry_from_proto, relationship_from_proto, relationship_from_record, relationship_to_proto,
    relationship_to_record,
};
use spindle_proto::records::v1 as records;
use spindle_proto::spire::api::types;

/// An accepted entry is the same after any further journey, over the wire and into the store.
pub(crate) fn entry_message(input: &[u8]) {
    let Ok(wire) = types::Entry::decode(input) else { return };
    let Ok(entry) = entry_from_proto(&wire, || "new".parse().unwrap()) else { return };
    assert_eq!(existing_entry_from_proto(&entry_to_proto(&entry)).unwrap(), entry);
    assert_eq!(entry_from_record(entry_to_record(&entry)).unwrap(), entry);
}

/// So is a stored one.
pub(crate) fn entry_record(input: &[u8]) {
    let Ok(record) = records::EntryRecord::decode(input) else { return };
    let Ok(entry) = entry_from_record(record) else { return };
    assert_eq!(entry_from_record(entry_to_record(&entry)).unwrap(), entry);
}

/// And a bundle.
pub(crate) fn bundle_message(input: &[u8]) {
    let Ok(wire) = types::Bundle::decode(input) else { return };
    let Ok(bundle) = bundle_from_proto(&wire) else { return };
    assert_eq!(bundle_from_proto(&bundle_to_proto(&bundle)).unwrap(), bundle);
}

/// And a federation relationship, with its bundle and in the store.
pub(crate) fn relationship_message(input: &[u8]) {
    let Ok(wire) = types::FederationRelationship::decode(input) else { return };
    let Ok((relationship, bundle)) = relationship_from_proto(&wire) else { return };
    let again = relationship_from_proto(&relationship_to_proto(&relationship, bundle.as_ref())).unwrap();
    assert_eq!(again, (relationship.clone(), bundle));
    assert_eq!(relationship_from_record(&relationship_to_record(&relationship)).unwrap(), relationship);
}
