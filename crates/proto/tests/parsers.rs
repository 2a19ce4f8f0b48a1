//! The parsers against random bytes, and against good inputs with a few bytes changed. The same checks run without end in
//! `tests/fuzz`.

#[path = "../../spiffe-core/tests/support/explore.rs"]
mod explore;
#[path = "support/invariants.rs"]
mod invariants;

use explore::explore;
use prost::Message;
use spindle_proto::convert::{entry_to_record, existing_entry_from_proto};
use spindle_proto::spire::api::types;

fn entry() -> types::Entry {
    let id = |path: &str| Some(types::Spiffeid { trust_domain: "td.example".into(), path: path.into() });
    types::Entry {
        id: "entry-1".into(),
        spiffe_id: id("/web"),
        parent_id: id("/spire/agent/join_token/x"),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:1000".into() }],
        x509_svid_ttl: 3600,
        federates_with: vec!["other.example".into()],
        dns_names: vec!["web.example".into()],
        hint: "internal".into(),
        expires_at: 4_000_000_000,
        ..Default::default()
    }
}

#[test]
fn entries_on_the_wire() {
    explore(&[entry().encode_to_vec()], invariants::entry_message);
}

#[test]
fn entries_in_the_store() {
    let record = entry_to_record(&existing_entry_from_proto(&entry()).unwrap());
    explore(&[record.encode_to_vec()], invariants::entry_record);
}

#[test]
fn bundles_on_the_wire() {
    let bundle = types::Bundle {
        trust_domain: "td.example".into(),
        refresh_hint: 60,
        sequence_number: 3,
        ..Default::default()
    };
    explore(&[bundle.encode_to_vec()], invariants::bundle_message);
}

#[test]
fn relationships_on_the_wire() {
    use spindle_proto::spire::api::types::federation_relationship::BundleEndpointProfile;

    let profile = types::HttpsspiffeProfile { endpoint_spiffe_id: "spiffe://td.example/endpoint".into() };
    let relationship = types::FederationRelationship {
        trust_domain: "td.example".into(),
        bundle_endpoint_url: "https://td.example:8443/bundle".into(),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsSpiffe(profile)),
        trust_domain_bundle: Some(types::Bundle { trust_domain: "td.example".into(), ..Default::default() }),
    };
    explore(&[relationship.encode_to_vec()], invariants::relationship_message);
}
