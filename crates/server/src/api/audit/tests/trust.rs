use spindle_proto::admin::v1 as admin;
use spindle_proto::spire::api::server::{
    bundle::v1 as bundle, localauthority::v1 as authority, trustdomain::v1 as trustdomain,
};
use types::federation_relationship::BundleEndpointProfile;

use super::super::records::of_items_sent;
use super::*;

/// The hash of "abc".
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn key(key_id: &str) -> types::JwtKey {
    types::JwtKey { key_id: key_id.into(), expires_at: 9, public_key: b"abc"[..].into(), tainted: false }
}

fn wire_bundle() -> types::Bundle {
    types::Bundle {
        trust_domain: "other.org".into(),
        x509_authorities: vec![types::X509Certificate { asn1: b"abc"[..].into(), tainted: false }],
        jwt_authorities: vec![key("k")],
        refresh_hint: 60,
        sequence_number: 3,
        wit_authorities: Vec::new(),
    }
}

#[test]
fn tokens_are_told_by_identity_and_audience_and_never_by_themselves() {
    let web = Some(types::Spiffeid { trust_domain: "example.org".into(), path: "/web".into() });
    let audience = vec!["a".to_owned(), "b".to_owned()];
    let mint = svid::MintJwtsvidRequest { id: web.clone(), audience: audience.clone(), ttl: 60 };
    check(
        &of_call("/spire.api.server.svid.v1.SVID/MintJWTSVID", &framed(&mint), &[], ""),
        r#"{"audience":"a,b","spiffe_id":"spiffe://example.org/web","ttl":60}"#,
    );
    let new = svid::NewJwtsvidRequest { entry_id: "one".into(), audience };
    let token = types::Jwtsvid { id: web, token: "secret".into(), ..Default::default() };
    let answer = framed(&svid::NewJwtsvidResponse { svid: Some(token) });
    check(
        &of_call("/spire.api.server.svid.v1.SVID/NewJWTSVID", &framed(&new), &answer, ""),
        r#"{"audience":"a,b","entry_id":"one","spiffe_id":"spiffe://example.org/web"}"#,
    );
    let key = b"abc"[..].into();
    let id = Some(types::Spiffeid { trust_domain: "example.org".into(), path: "/web".into() });
    let mint = svid::MintWitsvidRequest { id, public_key: key, ttl: 60, signing_algorithm: "ES256".into() };
    check(
        &of_call("/spire.api.server.svid.v1.SVID/MintWITSVID", &framed(&mint), &[], ""),
        &format!(r#"{{"public_key_sha256":"{ABC}","spiffe_id":"spiffe://example.org/web","ttl":60}}"#),
    );
    let below = svid::NewDownstreamX509caRequest { csr: b"abc"[..].into(), preferred_ttl: 0 };
    check(
        &of_call(
            "/spire.api.server.svid.v1.SVID/NewDownstreamX509CA",
            &framed(&below),
            &[],
            "spiffe://example.org/below",
        ),
        &format!(r#"{{"csr":"{ABC}","trust_domain_id":"spiffe://example.org"}}"#),
    );
}

#[test]
fn authorities_are_told_by_their_hashes_and_only_so_many_of_them() {
    let x509_authorities = wire_bundle().x509_authorities;
    let jwt_authorities = vec![key("k")];
    let append = bundle::AppendBundleRequest { x509_authorities, jwt_authorities, ..Default::default() };
    let method = "/spire.api.server.bundle.v1.Bundle/AppendBundle";
    check(
        &of_call(method, &framed(&append), &[], ""),
        &format!(
            concat!(
                r#"{{"jwt_authority_expires_at.0":9,"jwt_authority_key_id.0":"k","#,
                r#""jwt_authority_public_key_sha256.0":"{0}","x509_authorities_asn1_sha256.0":"{0}"}}"#
            ),
            ABC
        ),
    );
    let many = bundle::AppendBundleRequest {
        x509_authorities: vec![types::X509Certificate::default(); 100_000],
        ..Default::default()
    };
    assert_eq!(of_call(method, &framed(&many), &[], "").len(), 100);
    let types::JwtKey { public_key, key_id, expires_at, tainted } = key("k");
    let wit = types::WitKey { public_key, key_id, expires_at, tainted };
    let publish = bundle::PublishWitAuthorityRequest { wit_authority: Some(wit) };
    check(
        &of_call("/spire.api.server.bundle.v1.Bundle/PublishWITAuthority", &framed(&publish), &[], ""),
        &format!(
            concat!(
                r#"{{"wit_authority_expires_at":9,"wit_authority_key_id":"k","#,
                r#""wit_authority_public_key_sha256":"{}"}}"#
            ),
            ABC
        ),
    );
    let publish = bundle::PublishJwtAuthorityRequest { jwt_authority: Some(key("k")) };
    check(
        &of_call("/spire.api.server.bundle.v1.Bundle/PublishJWTAuthority", &framed(&publish), &[], ""),
        &format!(
            concat!(
                r#"{{"jwt_authority_expires_at":9,"jwt_authority_key_id":"k","#,
                r#""jwt_authority_public_key_sha256":"{}"}}"#
            ),
            ABC
        ),
    );
}

#[test]
fn orders_about_authorities_name_the_one_they_are_about() {
    let told = |call: &str, sent: Vec<u8>| {
        let method = format!("/spire.api.server.localauthority.v1.LocalAuthority/{call}");
        Value::Object(of_call(&method, &sent, &[], "")).to_string()
    };
    // All of them have their one text in the same place.
    let sent = framed(&authority::ActivateX509AuthorityRequest { authority_id: "id".into() });
    for call in ["Activate", "Taint", "Revoke"]
        .iter()
        .flat_map(|verb| ["X509", "JWT", "WIT"].map(|of| format!("{verb}{of}")))
    {
        assert_eq!(
            told(&format!("{call}Authority"), sent.clone()),
            r#"{"local_authority_id":"id"}"#,
            "{call}"
        );
    }
    for call in ["TaintX509UpstreamAuthority", "RevokeX509UpstreamAuthority"] {
        assert_eq!(told(call, sent.clone()), r#"{"subject_key_id":"id"}"#, "{call}");
    }
    assert_eq!(told("PrepareX509Authority", framed(&authority::PrepareX509AuthorityRequest {})), "{}");
}

#[test]
fn roles_are_told_with_their_limits() {
    let grant = admin::Grant {
        role: "registrar".into(),
        path_prefix: "/ci/".into(),
        verbs: vec!["create".into(), "delete".into()],
        max_x509_svid_ttl: 60,
        allow_admin: true,
        ..Default::default()
    };
    let sent =
        framed(&admin::GrantRoleRequest { spiffe_id: "spiffe://other.org/ci".into(), grant: Some(grant) });
    check(
        &of_call("/spindle.admin.v1.Roles/GrantRole", &sent, &[], ""),
        concat!(
            r#"{"allow_admin":true,"max_x509_svid_ttl":60,"path_prefix":"/ci/","role":"registrar","#,
            r#""spiffe_id":"spiffe://other.org/ci","verbs":"create,delete"}"#
        ),
    );
    let sent = framed(&admin::RevokeRoleRequest { spiffe_id: "x".into(), role: String::new() });
    check(&of_call("/spindle.admin.v1.Roles/RevokeRole", &sent, &[], ""), r#"{"spiffe_id":"x"}"#);
}

#[test]
fn bundles_of_a_batch_are_told_as_far_as_the_mask_names_them() {
    let mask = types::BundleMask { refresh_hint: true, x509_authorities: true, ..Default::default() };
    let sent = framed(&bundle::BatchUpdateFederatedBundleRequest {
        bundle: vec![wire_bundle()],
        input_mask: Some(mask),
        output_mask: None,
    });
    let told = of_items_sent("/spire.api.server.bundle.v1.Bundle/BatchUpdateFederatedBundle", &sent);
    check(
        &told[0],
        &format!(
            r#"{{"refresh_hint":60,"trust_domain_id":"other.org","x509_authorities_asn1_sha256.0":"{ABC}"}}"#
        ),
    );
    let whole =
        framed(&bundle::BatchSetFederatedBundleRequest { bundle: vec![wire_bundle()], output_mask: None });
    for call in ["BatchCreateFederatedBundle", "BatchSetFederatedBundle"] {
        let told = of_items_sent(&format!("/spire.api.server.bundle.v1.Bundle/{call}"), &whole);
        assert_eq!((told[0].len(), &told[0]["sequence_number"]), (7, &Value::from(3)), "{call}: {told:?}");
    }
    let sent = framed(&bundle::BatchDeleteFederatedBundleRequest {
        trust_domains: vec!["a.org".into(), "b.org".into()],
        mode: bundle::batch_delete_federated_bundle_request::Mode::Dissociate.into(),
    });
    let told = of_items_sent("/spire.api.server.bundle.v1.Bundle/BatchDeleteFederatedBundle", &sent);
    check(&told[1], r#"{"mode":"DISSOCIATE","trust_domain_id":"b.org"}"#);
}

#[test]
fn relationships_of_a_batch_are_told_with_profile_and_bundle() {
    let profile = types::HttpsspiffeProfile { endpoint_spiffe_id: "spiffe://other.org/server".into() };
    let relationship = types::FederationRelationship {
        trust_domain: "other.org".into(),
        bundle_endpoint_url: "https://other.org/b".into(),
        trust_domain_bundle: Some(types::Bundle { trust_domain: "other.org".into(), ..Default::default() }),
        bundle_endpoint_profile: Some(BundleEndpointProfile::HttpsSpiffe(profile)),
    };
    let sent = framed(&trustdomain::BatchCreateFederationRelationshipRequest {
        federation_relationships: vec![relationship.clone()],
        output_mask: None,
    });
    let told = of_items_sent(
        "/spire.api.server.trustdomain.v1.TrustDomain/BatchCreateFederationRelationship",
        &sent,
    );
    check(
        &told[0],
        concat!(
            r#"{"bundle_endpoint_profile":"https_spiffe","bundle_endpoint_url":"https://other.org/b","#,
            r#""bundle_refresh_hint":0,"bundle_sequence_number":0,"bundle_trust_domain_id":"other.org","#,
            r#""endpoint_spiffe_id":"spiffe://other.org/server","trust_domain_id":"other.org"}"#
        ),
    );
    let mask = types::FederationRelationshipMask { bundle_endpoint_url: true, ..Default::default() };
    let sent = framed(&trustdomain::BatchUpdateFederationRelationshipRequest {
        federation_relationships: vec![relationship],
        input_mask: Some(mask),
        output_mask: None,
    });
    let told = of_items_sent(
        "/spire.api.server.trustdomain.v1.TrustDomain/BatchUpdateFederationRelationship",
        &sent,
    );
    check(&told[0], r#"{"bundle_endpoint_url":"https://other.org/b","trust_domain_id":"other.org"}"#);
    let sent = framed(&trustdomain::BatchDeleteFederationRelationshipRequest {
        trust_domains: vec!["a.org".into()],
    });
    let told = of_items_sent(
        "/spire.api.server.trustdomain.v1.TrustDomain/BatchDeleteFederationRelationship",
        &sent,
    );
    check(&told[0], r#"{"trust_domain_id":"a.org"}"#);
}
