//! Bytes from outside: whatever decodes is either refused or a value that travels unchanged from then on.

use prost::Message;

use super::super::*;
use crate::records::v1 as records;
use crate::spire::api::types;

#[test]
fn any_bytes_are_refused_or_become_a_stable_entry() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Ok(wire) = types::Entry::decode(bytes) else { return };
        let new_id = || "new".parse().unwrap();
        if let Ok(entry) = entry_from_proto(&wire, new_id) {
            assert_eq!(existing_entry_from_proto(&entry_to_proto(&entry)).unwrap(), entry);
            assert_eq!(entry_from_record(entry_to_record(&entry)).unwrap(), entry);
        }
    });
}

#[test]
fn any_bytes_are_refused_or_become_a_stable_stored_entry() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Ok(record) = records::EntryRecord::decode(bytes) else { return };
        if let Ok(entry) = entry_from_record(record) {
            assert_eq!(entry_from_record(entry_to_record(&entry)).unwrap(), entry);
        }
    });
}

#[test]
fn any_bytes_are_refused_or_become_a_stable_bundle() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Ok(wire) = types::Bundle::decode(bytes) else { return };
        if let Ok(bundle) = bundle_from_proto(&wire) {
            assert_eq!(bundle_from_proto(&bundle_to_proto(&bundle)).unwrap(), bundle);
        }
    });
}

/// Random bytes seldom decode to a whole entry; random fields often nearly make one.
#[test]
fn any_fields_are_refused_or_become_a_stable_entry() {
    bolero::check!().with_type::<(Vec<String>, [i32; 2], [i64; 3], [bool; 5])>().for_each(
        |(texts, ttls, times, switches)| {
            let text = |at: usize| texts.get(at).cloned().unwrap_or_default();
            let id = |at| types::Spiffeid { trust_domain: text(at), path: text(at + 1) };
            let mut wire = entry_to_proto(&super::plain_entry());
            match texts.len() % 5 {
                0 => wire.spiffe_id = Some(id(0)),
                1 => wire.parent_id = Some(id(0)),
                2 => wire.selectors = vec![types::Selector { r#type: text(0), value: text(1) }],
                3 => wire.federates_with.clone_from(texts),
                _ => wire.dns_names.clone_from(texts),
            }
            wire.hint = text(2);
            (wire.x509_svid_ttl, wire.jwt_svid_ttl) = (ttls[0], ttls[1]);
            (wire.expires_at, wire.created_at, wire.revision_number) = (times[0], times[1], times[2]);
            (wire.admin, wire.downstream, wire.store_svid) = (switches[0], switches[1], switches[2]);
            if let Ok(entry) = existing_entry_from_proto(&wire) {
                assert_eq!(existing_entry_from_proto(&entry_to_proto(&entry)).unwrap(), entry);
                assert_eq!(entry_from_record(entry_to_record(&entry)).unwrap(), entry);
            }
        },
    );
}
