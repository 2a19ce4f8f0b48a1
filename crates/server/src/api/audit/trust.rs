//! Fields of what changes trust: authorities, bundles, relationships, roles, and what is issued besides X509-SVIDs.
//!
//! SPIRE's names. Of roles, which SPIRE does not have, the record says what was asked for.

use spindle_proto::admin::v1 as admin;
use spindle_proto::spire::api::server::{
    bundle::v1 as bundle, localauthority::v1 as authority, svid::v1 as svid, trustdomain::v1 as trustdomain,
};
use spindle_proto::spire::api::types;
use spindle_spiffe_core::SpiffeId;
use types::federation_relationship::BundleEndpointProfile;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Fields;
use super::fields::{id, put, put_set, put_text, sha256};
use super::records::first;

/// Authorities of one bundle that are told one by one. A message has room for a million empty ones.
const AUTHORITIES_MAX: usize = 100;

/// Adds the fields of a call that has one record, if it is one of these.
pub(super) fn of_call(fields: &mut Fields, method: &str, sent: &[u8], answer: &[u8], caller_id: &str) {
    match method.split_once('/') {
        Some(("svid.v1.SVID", call)) => issued(fields, call, sent, answer, caller_id),
        Some(("bundle.v1.Bundle", call)) => appended(fields, call, sent),
        Some(("trustdomain.v1.TrustDomain", "GetFederationRelationship")) => {
            let request = first::<trustdomain::GetFederationRelationshipRequest>(sent);
            put_text(fields, "trust_domain_id", &request.trust_domain);
        }
        Some(("trustdomain.v1.TrustDomain", "RefreshBundle")) => {
            let request = first::<trustdomain::RefreshBundleRequest>(sent);
            put_text(fields, "trust_domain_id", &request.trust_domain);
        }
        Some(("localauthority.v1.LocalAuthority", call)) => ordered(fields, call, sent),
        _ if method == "/spindle.admin.v1.Roles/GrantRole" => granted(fields, sent),
        _ if method == "/spindle.admin.v1.Roles/RevokeRole" => {
            let request = first::<admin::RevokeRoleRequest>(sent);
            put_text(fields, "spiffe_id", &request.spiffe_id);
            put_text(fields, "role", &request.role);
        }
        _ => {}
    }
}

/// The fields of each item of a batch; none for other batches.
pub(super) fn of_items(method: &str, sent: &[u8]) -> Vec<Fields> {
    match method {
        "bundle.v1.Bundle/BatchCreateFederatedBundle" => {
            let request = first::<bundle::BatchCreateFederatedBundleRequest>(sent);
            request.bundle.iter().map(|bundle| bundle_fields(bundle, None)).collect()
        }
        "bundle.v1.Bundle/BatchUpdateFederatedBundle" => {
            let request = first::<bundle::BatchUpdateFederatedBundleRequest>(sent);
            let mask = request.input_mask.as_ref();
            request.bundle.iter().map(|bundle| bundle_fields(bundle, mask)).collect()
        }
        "bundle.v1.Bundle/BatchSetFederatedBundle" => {
            let request = first::<bundle::BatchSetFederatedBundleRequest>(sent);
            request.bundle.iter().map(|bundle| bundle_fields(bundle, None)).collect()
        }
        "bundle.v1.Bundle/BatchDeleteFederatedBundle" => {
            let request = first::<bundle::BatchDeleteFederatedBundleRequest>(sent);
            let mode = request.mode().as_str_name();
            let one = |name: &String| {
                let mut fields = trust_domain(name);
                put(&mut fields, "mode", mode);
                fields
            };
            request.trust_domains.iter().map(one).collect()
        }
        "trustdomain.v1.TrustDomain/BatchCreateFederationRelationship" => {
            let request = first::<trustdomain::BatchCreateFederationRelationshipRequest>(sent);
            request.federation_relationships.iter().map(|one| relationship_fields(one, None)).collect()
        }
        "trustdomain.v1.TrustDomain/BatchUpdateFederationRelationship" => {
            let request = first::<trustdomain::BatchUpdateFederationRelationshipRequest>(sent);
            let mask = request.input_mask.as_ref();
            request.federation_relationships.iter().map(|one| relationship_fields(one, mask)).collect()
        }
        "trustdomain.v1.TrustDomain/BatchDeleteFederationRelationship" => {
            let request = first::<trustdomain::BatchDeleteFederationRelationshipRequest>(sent);
            request.trust_domains.iter().map(|name| trust_domain(name)).collect()
        }
        _ => Vec::new(),
    }
}

fn issued(fields: &mut Fields, call: &str, sent: &[u8], answer: &[u8], caller_id: &str) {
    match call {
        "MintJWTSVID" => {
            let request = first::<svid::MintJwtsvidRequest>(sent);
            put(fields, "ttl", request.ttl);
            put_set(fields, "spiffe_id", id(&request.id));
            put_text(fields, "audience", &request.audience.join(","));
        }
        "MintWITSVID" => {
            let request = first::<svid::MintWitsvidRequest>(sent);
            put(fields, "ttl", request.ttl);
            put_set(fields, "spiffe_id", id(&request.id));
            put(fields, "public_key_sha256", sha256(&request.public_key));
        }
        // SPIRE tells the lifetime of the entry, too, which no message holds.
        "NewJWTSVID" => {
            let request = first::<svid::NewJwtsvidRequest>(sent);
            put(fields, "entry_id", request.entry_id);
            put(fields, "audience", request.audience.join(","));
            let svid = first::<svid::NewJwtsvidResponse>(answer).svid;
            put_set(fields, "spiffe_id", svid.and_then(|svid| id(&svid.id)));
        }
        "NewDownstreamX509CA" => {
            put(fields, "csr", sha256(&first::<svid::NewDownstreamX509caRequest>(sent).csr));
            // It calls with an identity of the trust domain that it gets an authority of.
            let caller = caller_id.parse::<SpiffeId>().ok();
            put_set(fields, "trust_domain_id", caller.map(|id| id.trust_domain().id().to_string()));
            let chain = first::<svid::NewDownstreamX509caResponse>(answer).ca_cert_chain;
            let authority = chain.first().and_then(|der| X509Certificate::from_der(der).ok());
            put_set(fields, "expires_at", authority.map(|(_, one)| one.validity().not_after.timestamp()));
        }
        _ => {}
    }
}

fn appended(fields: &mut Fields, call: &str, sent: &[u8]) {
    match call {
        "AppendBundle" => {
            let request = first::<bundle::AppendBundleRequest>(sent);
            put_x509_authorities(fields, &request.x509_authorities);
            put_jwt_authorities(fields, &request.jwt_authorities);
            put_wit_authorities(fields, &request.wit_authorities);
        }
        "PublishJWTAuthority" => {
            let authority = first::<bundle::PublishJwtAuthorityRequest>(sent).jwt_authority;
            authority
                .iter()
                .for_each(|key| put_key(fields, "jwt", &key.key_id, key.expires_at, &key.public_key, ""));
        }
        "PublishWITAuthority" => {
            let authority = first::<bundle::PublishWitAuthorityRequest>(sent).wit_authority;
            authority.iter().for_each(|key| {
                put_key(fields, "wit", &key.key_id, key.expires_at, &key.public_key, "");
            });
        }
        _ => {}
    }
}

fn ordered(fields: &mut Fields, call: &str, sent: &[u8]) {
    let (name, value) = match call {
        "ActivateX509Authority" => {
            ("local_authority_id", first::<authority::ActivateX509AuthorityRequest>(sent).authority_id)
        }
        "TaintX509Authority" => {
            ("local_authority_id", first::<authority::TaintX509AuthorityRequest>(sent).authority_id)
        }
        "RevokeX509Authority" => {
            ("local_authority_id", first::<authority::RevokeX509AuthorityRequest>(sent).authority_id)
        }
        "TaintX509UpstreamAuthority" => {
            ("subject_key_id", first::<authority::TaintX509UpstreamAuthorityRequest>(sent).subject_key_id)
        }
        "RevokeX509UpstreamAuthority" => {
            ("subject_key_id", first::<authority::RevokeX509UpstreamAuthorityRequest>(sent).subject_key_id)
        }
        "ActivateJWTAuthority" => {
            ("local_authority_id", first::<authority::ActivateJwtAuthorityRequest>(sent).authority_id)
        }
        "TaintJWTAuthority" => {
            ("local_authority_id", first::<authority::TaintJwtAuthorityRequest>(sent).authority_id)
        }
        "RevokeJWTAuthority" => {
            ("local_authority_id", first::<authority::RevokeJwtAuthorityRequest>(sent).authority_id)
        }
        "ActivateWITAuthority" => {
            ("local_authority_id", first::<authority::ActivateWitAuthorityRequest>(sent).authority_id)
        }
        "TaintWITAuthority" => {
            ("local_authority_id", first::<authority::TaintWitAuthorityRequest>(sent).authority_id)
        }
        "RevokeWITAuthority" => {
            ("local_authority_id", first::<authority::RevokeWitAuthorityRequest>(sent).authority_id)
        }
        // As with SPIRE, preparing names no authority.
        _ => return,
    };
    put_text(fields, name, &value);
}

fn granted(fields: &mut Fields, sent: &[u8]) {
    let request = first::<admin::GrantRoleRequest>(sent);
    put_text(fields, "spiffe_id", &request.spiffe_id);
    let Some(grant) = request.grant else { return };
    put_text(fields, "role", &grant.role);
    put_text(fields, "path_prefix", &grant.path_prefix);
    put_text(fields, "parent_path_prefix", &grant.parent_path_prefix);
    put_text(fields, "verbs", &grant.verbs.join(","));
    put_set(fields, "max_x509_svid_ttl", Some(grant.max_x509_svid_ttl).filter(|secs| *secs > 0));
    put_set(fields, "max_jwt_svid_ttl", Some(grant.max_jwt_svid_ttl).filter(|secs| *secs > 0));
    put_set(fields, "allow_admin", Some(true).filter(|_| grant.allow_admin));
    put_set(fields, "allow_downstream", Some(true).filter(|_| grant.allow_downstream));
}

fn trust_domain(name: &str) -> Fields {
    let mut fields = Fields::new();
    put(&mut fields, "trust_domain_id", name);
    fields
}

fn bundle_fields(bundle: &types::Bundle, mask: Option<&types::BundleMask>) -> Fields {
    let has = |wanted: fn(&types::BundleMask) -> bool| mask.is_none_or(wanted);
    let mut fields = trust_domain(&bundle.trust_domain);
    if has(|mask| mask.refresh_hint) {
        put(&mut fields, "refresh_hint", bundle.refresh_hint);
    }
    if has(|mask| mask.sequence_number) {
        put(&mut fields, "sequence_number", bundle.sequence_number);
    }
    if has(|mask| mask.jwt_authorities) {
        put_jwt_authorities(&mut fields, &bundle.jwt_authorities);
    }
    if has(|mask| mask.wit_authorities) {
        put_wit_authorities(&mut fields, &bundle.wit_authorities);
    }
    if has(|mask| mask.x509_authorities) {
        put_x509_authorities(&mut fields, &bundle.x509_authorities);
    }
    fields
}

fn put_x509_authorities(fields: &mut Fields, authorities: &[types::X509Certificate]) {
    for (at, authority) in authorities.iter().take(AUTHORITIES_MAX).enumerate() {
        put(fields, &format!("x509_authorities_asn1_sha256.{at}"), sha256(&authority.asn1));
    }
}

fn put_jwt_authorities(fields: &mut Fields, authorities: &[types::JwtKey]) {
    for (at, key) in authorities.iter().take(AUTHORITIES_MAX).enumerate() {
        put_key(fields, "jwt", &key.key_id, key.expires_at, &key.public_key, &format!(".{at}"));
    }
}

fn put_wit_authorities(fields: &mut Fields, authorities: &[types::WitKey]) {
    for (at, key) in authorities.iter().take(AUTHORITIES_MAX).enumerate() {
        put_key(fields, "wit", &key.key_id, key.expires_at, &key.public_key, &format!(".{at}"));
    }
}

fn put_key(fields: &mut Fields, family: &str, key_id: &str, expires_at: i64, public_key: &[u8], at: &str) {
    put(fields, &format!("{family}_authority_expires_at{at}"), expires_at);
    put(fields, &format!("{family}_authority_key_id{at}"), key_id);
    put(fields, &format!("{family}_authority_public_key_sha256{at}"), sha256(public_key));
}

fn relationship_fields(
    wire: &types::FederationRelationship,
    mask: Option<&types::FederationRelationshipMask>,
) -> Fields {
    let has = |wanted: fn(&types::FederationRelationshipMask) -> bool| mask.is_none_or(wanted);
    let mut fields = Fields::new();
    put_text(&mut fields, "trust_domain_id", &wire.trust_domain);
    if has(|mask| mask.bundle_endpoint_url) {
        put(&mut fields, "bundle_endpoint_url", wire.bundle_endpoint_url.as_str());
    }
    if has(|mask| mask.bundle_endpoint_profile) {
        match &wire.bundle_endpoint_profile {
            Some(BundleEndpointProfile::HttpsWeb(_)) => {
                put(&mut fields, "bundle_endpoint_profile", "https_web");
            }
            Some(BundleEndpointProfile::HttpsSpiffe(profile)) => {
                put(&mut fields, "bundle_endpoint_profile", "https_spiffe");
                put(&mut fields, "endpoint_spiffe_id", profile.endpoint_spiffe_id.as_str());
            }
            None => {}
        }
    }
    if let Some(bundle) = wire.trust_domain_bundle.as_ref().filter(|_| has(|mask| mask.trust_domain_bundle)) {
        let told = bundle_fields(bundle, None).into_iter();
        fields.extend(told.map(|(name, value)| (format!("bundle_{name}"), value)));
    }
    fields
}
