//! Conversions between messages and checked values, both ways.
//!
//! Into a message nothing can fail; out of one everything is checked and the first fault is named by its field. Rules
//! that need to know the server's trust domain are not applied here: see `RegistrationEntry::check`.

mod bundle;
mod entry;
mod fault;
mod mask;
mod names;
mod record;
mod relationship;

pub use bundle::{
    GivenAuthorities, authorities_from_proto, bundle_from_proto, bundle_to_proto, given_bundle_from_proto,
};
pub use entry::{entry_from_proto, entry_to_proto, existing_entry_from_proto, merge_entry};
pub use fault::{ConvertError, Fault, Field};
pub use mask::{BundleMask, EntryMask, RelationshipMask};
pub use names::{
    selector_from_proto, selector_to_proto, selectors_from_proto, selectors_to_proto, spiffe_id_from_proto,
    spiffe_id_to_proto, trust_domain_from_proto,
};
pub use record::{entry_from_record, entry_to_record};
pub use relationship::{
    relationship_from_proto, relationship_from_record, relationship_to_proto, relationship_to_record,
};

#[cfg(test)]
mod tests;
