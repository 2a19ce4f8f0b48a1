//! Names, numbers and types on the wire, held against tables of facts: a change here is a change for every client.
//!
//! The tables of the Workload API and the Broker API are those of the standard, written by hand. The tables of the server, of the agent's admin
//! socket and of SDS are files; their lines about `spire` and `envoy` agree with what SPIRE and Envoy have published, those
//! about `spindle` are ours.

use std::collections::BTreeSet;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, ServiceDescriptorProto,
};

use crate::{
    AGENT_DESCRIPTOR_SET, BROKER_DESCRIPTOR_SET, ENVOY_DESCRIPTOR_SET, SERVER_DESCRIPTOR_SET,
    WORKLOAD_DESCRIPTOR_SET,
};

const WORKLOAD_METHODS: &[&str] = &[
    "SpiffeWorkloadAPI/FetchJWTBundles(JWTBundlesRequest) stream JWTBundlesResponse",
    "SpiffeWorkloadAPI/FetchJWTSVID(JWTSVIDRequest) JWTSVIDResponse",
    "SpiffeWorkloadAPI/FetchWITBundles(WITBundlesRequest) stream WITBundlesResponse",
    "SpiffeWorkloadAPI/FetchWITSVID(WITSVIDRequest) stream WITSVIDResponse",
    "SpiffeWorkloadAPI/FetchX509Bundles(X509BundlesRequest) stream X509BundlesResponse",
    "SpiffeWorkloadAPI/FetchX509SVID(X509SVIDRequest) stream X509SVIDResponse",
    "SpiffeWorkloadAPI/ValidateJWTSVID(ValidateJWTSVIDRequest) ValidateJWTSVIDResponse",
];

const WORKLOAD_FIELDS: &[(&str, &str, i32, &str)] = &[
    ("X509SVIDResponse", "svids", 1, "repeated X509SVID"),
    ("X509SVIDResponse", "crl", 2, "repeated bytes"),
    ("X509SVIDResponse", "federated_bundles", 3, "repeated X509SVIDResponse.FederatedBundlesEntry"),
    ("X509SVIDResponse.FederatedBundlesEntry", "key", 1, "string"),
    ("X509SVIDResponse.FederatedBundlesEntry", "value", 2, "bytes"),
    ("X509SVID", "spiffe_id", 1, "string"),
    ("X509SVID", "x509_svid", 2, "bytes"),
    ("X509SVID", "x509_svid_key", 3, "bytes"),
    ("X509SVID", "bundle", 4, "bytes"),
    ("X509SVID", "hint", 5, "string"),
    ("X509BundlesResponse", "crl", 1, "repeated bytes"),
    ("X509BundlesResponse", "bundles", 2, "repeated X509BundlesResponse.BundlesEntry"),
    ("X509BundlesResponse.BundlesEntry", "key", 1, "string"),
    ("X509BundlesResponse.BundlesEntry", "value", 2, "bytes"),
    ("JWTSVIDRequest", "audience", 1, "repeated string"),
    ("JWTSVIDRequest", "spiffe_id", 2, "string"),
    ("JWTSVIDResponse", "svids", 1, "repeated JWTSVID"),
    ("JWTSVID", "spiffe_id", 1, "string"),
    ("JWTSVID", "svid", 2, "string"),
    ("JWTSVID", "hint", 3, "string"),
    ("JWTBundlesResponse", "bundles", 1, "repeated JWTBundlesResponse.BundlesEntry"),
    ("JWTBundlesResponse.BundlesEntry", "key", 1, "string"),
    ("JWTBundlesResponse.BundlesEntry", "value", 2, "bytes"),
    ("ValidateJWTSVIDRequest", "audience", 1, "string"),
    ("ValidateJWTSVIDRequest", "svid", 2, "string"),
    ("ValidateJWTSVIDResponse", "spiffe_id", 1, "string"),
    ("ValidateJWTSVIDResponse", "claims", 2, "google.protobuf.Struct"),
    ("WITSVIDRequest", "spiffe_id", 1, "string"),
    ("WITSVIDResponse", "svids", 1, "repeated WITSVID"),
    ("WITSVID", "spiffe_id", 1, "string"),
    ("WITSVID", "wit_svid", 2, "string"),
    ("WITSVID", "wit_svid_key", 3, "string"),
    ("WITSVID", "hint", 4, "string"),
    ("WITBundlesResponse", "bundles", 1, "repeated WITBundlesResponse.BundlesEntry"),
    ("WITBundlesResponse.BundlesEntry", "key", 1, "string"),
    ("WITBundlesResponse.BundlesEntry", "value", 2, "string"),
];

/// One fact a line: a field, a value of an enum, or a method.
#[derive(Default)]
struct Facts {
    fields: BTreeSet<String>,
    methods: BTreeSet<String>,
}

impl Facts {
    /// The facts of all packages that are not Google's.
    fn of(descriptor_set: &[u8]) -> Self {
        let mut facts = Self::default();
        let set = FileDescriptorSet::decode(descriptor_set).unwrap();
        for file in set.file.iter().filter(|file| !file.package().starts_with("google.")) {
            file.message_type.iter().for_each(|message| facts.message(file.package(), message));
            file.enum_type.iter().for_each(|one| facts.enumeration(file.package(), one));
            file.service.iter().for_each(|service| facts.service(file.package(), service));
        }
        facts
    }

    fn message(&mut self, scope: &str, message: &DescriptorProto) {
        let name = join(scope, message.name());
        for field in &message.field {
            let (type_, number) = (type_name(field), field.number());
            let oneof = match field.oneof_index {
                Some(at) if !field.proto3_optional() => {
                    format!(" in {}", message.oneof_decl[usize::try_from(at).unwrap()].name())
                }
                Some(_) => " optional".into(),
                None => String::new(),
            };
            self.fields.insert(format!("{name} {} = {number} {type_}{oneof}", field.name()));
        }
        message.nested_type.iter().for_each(|nested| self.message(&name, nested));
        message.enum_type.iter().for_each(|nested| self.enumeration(&name, nested));
    }

    fn enumeration(&mut self, scope: &str, enumeration: &EnumDescriptorProto) {
        for value in &enumeration.value {
            self.fields.insert(format!(
                "{scope}.{} {} = {}",
                enumeration.name(),
                value.name(),
                value.number()
            ));
        }
    }

    fn service(&mut self, scope: &str, service: &ServiceDescriptorProto) {
        let name = join(scope, service.name());
        for method in &service.method {
            let stream = |on| if on { "stream " } else { "" };
            let (input, output) =
                (method.input_type().trim_start_matches('.'), method.output_type().trim_start_matches('.'));
            let (asks, answers) = (stream(method.client_streaming()), stream(method.server_streaming()));
            self.methods.insert(format!("{name}/{}({asks}{input}) {answers}{output}", method.name()));
        }
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.into() } else { format!("{scope}.{name}") }
}

fn type_name(field: &FieldDescriptorProto) -> String {
    let name = match field.r#type() {
        Type::Message | Type::Enum => field.type_name().trim_start_matches('.').into(),
        scalar => format!("{scalar:?}").to_lowercase(),
    };
    if field.label() == Label::Repeated { format!("repeated {name}") } else { name }
}

#[test]
fn wap_05_wap_06_wep_25_the_workload_api_is_the_one_of_the_standard() {
    let facts = Facts::of(WORKLOAD_DESCRIPTOR_SET);
    let expected: BTreeSet<_> = WORKLOAD_FIELDS
        .iter()
        .map(|(message, field, number, type_)| format!("{message} {field} = {number} {type_}"))
        .collect();
    assert_eq!(facts.fields, expected);
    assert_eq!(facts.methods.iter().map(String::as_str).collect::<Vec<_>>(), WORKLOAD_METHODS);
}

/// Holds a descriptor set against a table of one fact a line.
#[track_caller]
fn check(descriptor_set: &[u8], table: &str) {
    let facts = Facts::of(descriptor_set);
    let expected: BTreeSet<_> = table.lines().map(String::from).collect();
    let found: BTreeSet<_> = facts.fields.union(&facts.methods).cloned().collect();
    let gone: Vec<_> = expected.difference(&found).collect();
    let new: Vec<_> = found.difference(&expected).collect();
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}\nnew: {new:#?}");
}

#[test]
fn the_server_api_is_the_one_that_clients_know() {
    check(SERVER_DESCRIPTOR_SET, include_str!("wire_facts/server.txt"));
}

#[test]
fn the_api_of_the_agents_admin_socket_is_the_one_that_clients_know() {
    check(AGENT_DESCRIPTOR_SET, include_str!("wire_facts/agent.txt"));
}

#[test]
fn bep_24_bap_03_bap_05_bap_06_the_broker_api_is_the_one_of_the_standard() {
    check(BROKER_DESCRIPTOR_SET, include_str!("wire_facts/broker.txt"));
}

#[test]
fn sds_is_the_one_that_envoy_speaks() {
    check(ENVOY_DESCRIPTOR_SET, include_str!("wire_facts/envoy.txt"));
}

#[test]
fn descriptor_sets_are_complete_for_reflection() {
    for set in [
        WORKLOAD_DESCRIPTOR_SET,
        SERVER_DESCRIPTOR_SET,
        AGENT_DESCRIPTOR_SET,
        BROKER_DESCRIPTOR_SET,
        ENVOY_DESCRIPTOR_SET,
    ] {
        let set = FileDescriptorSet::decode(set).unwrap();
        let names: BTreeSet<_> = set.file.iter().map(|file| file.name().to_owned()).collect();
        for file in &set.file {
            assert!(file.dependency.iter().all(|name| names.contains(name)), "{}", file.name());
        }
    }
}
