//! Messages as SPIRE's `-output json` prints them: proto names in alphabetical order, unset scalars shown, unset
//! messages left out, 64-bit numbers as texts, bytes in base64.

mod authority;
mod jwt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use spindle_proto::admin::v1 as admin;
use spindle_proto::spire::agent::debug::v1 as agent_debug;
use spindle_proto::spire::api::server::agent::v1 as agent;
use spindle_proto::spire::api::server::bundle::v1 as bundle;
use spindle_proto::spire::api::server::debug::v1 as debug;
use spindle_proto::spire::api::server::entry::v1 as entry;
use spindle_proto::spire::api::server::svid::v1 as svid;
use spindle_proto::spire::api::server::trustdomain::v1 as trustdomain;
use spindle_proto::spire::api::types;
use spindle_proto::workload;

pub use jwt::structure;

/// A message with a JSON form.
pub trait ToJson {
    /// The JSON form.
    fn to_json(&self) -> Value;
}

/// Builds an object; fields without a value are left out.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let mut fields: Vec<_> =
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    Value::Object(Map::from_iter(fields))
}

fn some(value: impl Into<Value>) -> Option<Value> {
    Some(value.into())
}

/// A 64-bit number, which JSON readers would round.
fn long(number: impl Into<i128>) -> Option<Value> {
    some(number.into().to_string())
}

/// Bytes in base64.
pub fn base64(bytes: &[u8]) -> Value {
    STANDARD.encode(bytes).into()
}

fn list<'a, T: ToJson + 'a>(items: impl IntoIterator<Item = &'a T>) -> Option<Value> {
    some(items.into_iter().map(ToJson::to_json).collect::<Vec<_>>())
}

fn texts(items: &[String]) -> Option<Value> {
    some(items.to_vec())
}

fn message<T: ToJson>(message: &Option<T>) -> Option<Value> {
    message.as_ref().map(ToJson::to_json)
}

impl ToJson for types::Spiffeid {
    fn to_json(&self) -> Value {
        object([("path", some(self.path.clone())), ("trust_domain", some(self.trust_domain.clone()))])
    }
}

impl ToJson for types::Selector {
    fn to_json(&self) -> Value {
        object([("type", some(self.r#type.clone())), ("value", some(self.value.clone()))])
    }
}

impl ToJson for types::Status {
    fn to_json(&self) -> Value {
        // SPIRE's status has no reason; without one the object is exactly SPIRE's.
        let reason = Some(&self.reason).filter(|reason| !reason.is_empty()).cloned();
        object([
            ("code", some(self.code)),
            ("message", some(self.message.clone())),
            ("reason", reason.and_then(some)),
        ])
    }
}

impl ToJson for types::entry::AdditionalAttributes {
    fn to_json(&self) -> Value {
        object([
            ("disable_x509_svid_prefetch", some(self.disable_x509_svid_prefetch)),
            ("jwt_svid_include_jti", some(self.jwt_svid_include_jti)),
        ])
    }
}

impl ToJson for types::Entry {
    fn to_json(&self) -> Value {
        object([
            ("additional_attributes", message(&self.additional_attributes)),
            ("admin", some(self.admin)),
            ("created_at", long(self.created_at)),
            ("dns_names", texts(&self.dns_names)),
            ("downstream", some(self.downstream)),
            ("expires_at", long(self.expires_at)),
            ("federates_with", texts(&self.federates_with)),
            ("hint", some(self.hint.clone())),
            ("id", some(self.id.clone())),
            ("jwt_svid_ttl", some(self.jwt_svid_ttl)),
            ("parent_id", message(&self.parent_id)),
            ("revision_number", long(self.revision_number)),
            ("selectors", list(&self.selectors)),
            ("spiffe_id", message(&self.spiffe_id)),
            ("store_svid", some(self.store_svid)),
            ("x509_svid_ttl", some(self.x509_svid_ttl)),
        ])
    }
}

impl ToJson for types::Agent {
    fn to_json(&self) -> Value {
        object([
            ("agent_version", some(self.agent_version.clone())),
            ("attestation_type", some(self.attestation_type.clone())),
            ("banned", some(self.banned)),
            ("can_reattest", some(self.can_reattest)),
            ("id", message(&self.id)),
            ("selectors", list(&self.selectors)),
            ("x509svid_expires_at", long(self.x509svid_expires_at)),
            ("x509svid_serial_number", some(self.x509svid_serial_number.clone())),
        ])
    }
}

impl ToJson for types::X509Certificate {
    fn to_json(&self) -> Value {
        object([("asn1", Some(base64(&self.asn1))), ("tainted", some(self.tainted))])
    }
}

fn public_key(key: &[u8], id: &str, expires_at: i64, tainted: bool) -> Value {
    object([
        ("expires_at", long(expires_at)),
        ("key_id", some(id)),
        ("public_key", Some(base64(key))),
        ("tainted", some(tainted)),
    ])
}

impl ToJson for types::JwtKey {
    fn to_json(&self) -> Value {
        public_key(&self.public_key, &self.key_id, self.expires_at, self.tainted)
    }
}

impl ToJson for types::Jwtsvid {
    fn to_json(&self) -> Value {
        object([
            ("expires_at", long(self.expires_at)),
            ("hint", some(self.hint.clone())),
            ("id", message(&self.id)),
            ("issued_at", long(self.issued_at)),
            ("token", some(self.token.clone())),
        ])
    }
}

impl ToJson for svid::MintJwtsvidResponse {
    fn to_json(&self) -> Value {
        object([("svid", message(&self.svid))])
    }
}

impl ToJson for types::Witsvid {
    fn to_json(&self) -> Value {
        object([
            ("expires_at", long(self.expires_at)),
            ("hint", some(self.hint.clone())),
            ("id", message(&self.id)),
            ("issued_at", long(self.issued_at)),
            ("token", some(self.token.clone())),
        ])
    }
}

impl ToJson for types::WitKey {
    fn to_json(&self) -> Value {
        public_key(&self.public_key, &self.key_id, self.expires_at, self.tainted)
    }
}

impl ToJson for types::Bundle {
    fn to_json(&self) -> Value {
        object([
            ("jwt_authorities", list(&self.jwt_authorities)),
            ("refresh_hint", long(self.refresh_hint)),
            ("sequence_number", long(self.sequence_number)),
            ("trust_domain", some(self.trust_domain.clone())),
            ("wit_authorities", list(&self.wit_authorities)),
            ("x509_authorities", list(&self.x509_authorities)),
        ])
    }
}

impl ToJson for types::FederationRelationship {
    fn to_json(&self) -> Value {
        use types::federation_relationship::BundleEndpointProfile;
        let (web, spiffe) = match &self.bundle_endpoint_profile {
            Some(BundleEndpointProfile::HttpsWeb(_)) => (Some(object([])), None),
            Some(BundleEndpointProfile::HttpsSpiffe(spiffe)) => {
                (None, Some(object([("endpoint_spiffe_id", some(spiffe.endpoint_spiffe_id.clone()))])))
            }
            None => (None, None),
        };
        object([
            ("bundle_endpoint_url", some(self.bundle_endpoint_url.clone())),
            ("https_spiffe", spiffe),
            ("https_web", web),
            ("trust_domain", some(self.trust_domain.clone())),
            ("trust_domain_bundle", message(&self.trust_domain_bundle)),
        ])
    }
}

impl ToJson for types::JoinToken {
    fn to_json(&self) -> Value {
        object([("expires_at", long(self.expires_at)), ("value", some(self.value.clone()))])
    }
}

impl ToJson for types::Logger {
    fn to_json(&self) -> Value {
        object([
            ("current_level", some(self.current_level().as_str_name())),
            ("launch_level", some(self.launch_level().as_str_name())),
        ])
    }
}

impl ToJson for debug::get_info_response::Cert {
    fn to_json(&self) -> Value {
        object([
            ("expires_at", long(self.expires_at)),
            ("id", message(&self.id)),
            ("subject", some(self.subject.clone())),
        ])
    }
}

impl ToJson for agent_debug::get_info_response::Cert {
    fn to_json(&self) -> Value {
        object([
            ("expires_at", long(self.expires_at)),
            ("id", message(&self.id)),
            ("subject", some(self.subject.clone())),
        ])
    }
}

impl ToJson for agent_debug::GetInfoResponse {
    #[allow(deprecated, reason = "old scripts read the old field")]
    fn to_json(&self) -> Value {
        object([
            ("cached_jwt_svids_count", some(self.cached_jwt_svids_count)),
            ("cached_svidstore_x509_svids_count", some(self.cached_svidstore_x509_svids_count)),
            ("cached_x509_svids_count", some(self.cached_x509_svids_count)),
            ("last_sync_success", long(self.last_sync_success)),
            ("svid_chain", list(&self.svid_chain)),
            ("svids_count", some(self.svids_count)),
            ("uptime", some(self.uptime)),
        ])
    }
}

impl ToJson for debug::GetInfoResponse {
    fn to_json(&self) -> Value {
        object([
            ("agents_count", some(self.agents_count)),
            ("entries_count", some(self.entries_count)),
            ("federated_bundles_count", some(self.federated_bundles_count)),
            ("svid_chain", list(&self.svid_chain)),
            ("uptime", some(self.uptime)),
        ])
    }
}

impl ToJson for () {
    fn to_json(&self) -> Value {
        object([])
    }
}

macro_rules! counts {
    ($($name:ty),+) => {
        $(impl ToJson for $name {
            fn to_json(&self) -> Value {
                object([("count", some(self.count))])
            }
        })+
    };
}
counts!(agent::CountAgentsResponse, bundle::CountBundlesResponse, entry::CountEntriesResponse);

impl ToJson for admin::Grant {
    fn to_json(&self) -> Value {
        object([
            ("allow_admin", some(self.allow_admin)),
            ("allow_downstream", some(self.allow_downstream)),
            ("max_jwt_svid_ttl", some(self.max_jwt_svid_ttl)),
            ("max_x509_svid_ttl", some(self.max_x509_svid_ttl)),
            ("parent_path_prefix", some(self.parent_path_prefix.clone())),
            ("path_prefix", some(self.path_prefix.clone())),
            ("role", some(self.role.clone())),
            ("verbs", texts(&self.verbs)),
        ])
    }
}

impl ToJson for admin::Holder {
    fn to_json(&self) -> Value {
        object([
            ("configured", some(self.configured)),
            ("grants", list(&self.grants)),
            ("subject", some(self.subject.clone())),
        ])
    }
}

impl ToJson for admin::ListRolesResponse {
    fn to_json(&self) -> Value {
        object([("holders", list(&self.holders))])
    }
}

impl ToJson for admin::CanResponse {
    fn to_json(&self) -> Value {
        object([
            ("allowed", some(self.allowed)),
            ("as", some(self.r#as.clone())),
            ("explanation", some(self.explanation.clone())),
            ("grants", list(&self.grants)),
            ("method", some(self.method.clone())),
            ("reason", some(self.reason.clone())),
        ])
    }
}

impl ToJson for agent::ListAgentsResponse {
    fn to_json(&self) -> Value {
        object([("agents", list(&self.agents)), ("next_page_token", some(self.next_page_token.clone()))])
    }
}

impl ToJson for entry::ListEntriesResponse {
    fn to_json(&self) -> Value {
        object([("entries", list(&self.entries)), ("next_page_token", some(self.next_page_token.clone()))])
    }
}

macro_rules! entry_results {
    ($($response:ident in $module:ident),+) => {
        $(impl ToJson for entry::$module::Result {
            fn to_json(&self) -> Value {
                object([("entry", message(&self.entry)), ("status", message(&self.status))])
            }
        }

        impl ToJson for entry::$response {
            fn to_json(&self) -> Value {
                object([("results", list(&self.results))])
            }
        })+
    };
}
entry_results!(
    BatchCreateEntryResponse in batch_create_entry_response,
    BatchUpdateEntryResponse in batch_update_entry_response
);

impl ToJson for entry::batch_delete_entry_response::Result {
    fn to_json(&self) -> Value {
        object([("id", some(self.id.clone())), ("status", message(&self.status))])
    }
}

impl ToJson for entry::BatchDeleteEntryResponse {
    fn to_json(&self) -> Value {
        object([("results", list(&self.results))])
    }
}

impl ToJson for bundle::ListFederatedBundlesResponse {
    fn to_json(&self) -> Value {
        object([("bundles", list(&self.bundles)), ("next_page_token", some(self.next_page_token.clone()))])
    }
}

impl ToJson for trustdomain::ListFederationRelationshipsResponse {
    fn to_json(&self) -> Value {
        object([
            ("federation_relationships", list(&self.federation_relationships)),
            ("next_page_token", some(self.next_page_token.clone())),
        ])
    }
}

/// Answers to batches whose results hold a status and one other message.
macro_rules! message_results {
    ($($package:ident::$module:ident, $response:ident: $field:ident;)+) => {
        $(impl ToJson for $package::$module::Result {
            fn to_json(&self) -> Value {
                object([(stringify!($field), message(&self.$field)), ("status", message(&self.status))])
            }
        }

        impl ToJson for $package::$response {
            fn to_json(&self) -> Value {
                object([("results", list(&self.results))])
            }
        })+
    };
}
message_results! {
    bundle::batch_set_federated_bundle_response, BatchSetFederatedBundleResponse: bundle;
    trustdomain::batch_create_federation_relationship_response, BatchCreateFederationRelationshipResponse:
        federation_relationship;
}

/// Answers to batches whose results hold a status and the name of a trust domain.
macro_rules! named_results {
    ($($package:ident::$module:ident, $response:ident;)+) => {
        $(impl ToJson for $package::$module::Result {
            fn to_json(&self) -> Value {
                object([("status", message(&self.status)), ("trust_domain", some(self.trust_domain.clone()))])
            }
        }

        impl ToJson for $package::$response {
            fn to_json(&self) -> Value {
                object([("results", list(&self.results))])
            }
        })+
    };
}
named_results! {
    bundle::batch_delete_federated_bundle_response, BatchDeleteFederatedBundleResponse;
    trustdomain::batch_delete_federation_relationship_response, BatchDeleteFederationRelationshipResponse;
}

impl ToJson for workload::X509svid {
    fn to_json(&self) -> Value {
        object([
            ("bundle", Some(base64(&self.bundle))),
            ("hint", some(self.hint.clone())),
            ("spiffe_id", some(self.spiffe_id.clone())),
            ("x509_svid", Some(base64(&self.x509_svid))),
            ("x509_svid_key", Some(base64(&self.x509_svid_key))),
        ])
    }
}

impl ToJson for workload::X509svidResponse {
    fn to_json(&self) -> Value {
        let federated = self.federated_bundles.iter().map(|(id, der)| (id.clone(), base64(der)));
        object([
            ("crl", some(self.crl.iter().map(|der| base64(der)).collect::<Vec<_>>())),
            ("federated_bundles", Some(Value::Object(federated.collect()))),
            ("svids", list(&self.svids)),
        ])
    }
}
