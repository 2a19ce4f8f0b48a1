//! The JWT profile over the socket.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use prost_types::value::Kind;
use serde_json::{Value, json};
use spindle_proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidRequest,
    ValidateJwtsvidResponse,
};
use spindle_spiffe_core::{Bundle, SpiffeId, Validity};
use spindle_testkit::{NOW, TestJwtAuthority};

use super::*;

/// A served socket whose bundle has the key of the issuer's tokens.
async fn jwt_rig(entries: impl IntoIterator<Item = RegistrationEntry>) -> Rig {
    let rig = rig().await;
    rig.publish(entries.into_iter().collect());
    set_bundle(&rig, rig.issuer.in_bundle(rig.ca.whole()));
    rig
}

fn set_bundle(rig: &Rig, bundle: Bundle) {
    rig.cache.publish(Change { own_bundle: Some(bundle), ..Change::default() });
}

impl Rig {
    async fn tokens(&self, audience: &[&str], spiffe_id: &str) -> Result<JwtsvidResponse, Status> {
        let audience = audience.iter().map(|one| (*one).to_owned()).collect();
        let request = with_header(JwtsvidRequest { audience, spiffe_id: spiffe_id.into() });
        let mut client = SpiffeWorkloadApiClient::new(self.channel.clone());
        client.fetch_jwtsvid(request).await.map(tonic::Response::into_inner)
    }

    async fn jwt_bundles(&self) -> Result<Streaming<JwtBundlesResponse>, Status> {
        let mut client = SpiffeWorkloadApiClient::new(self.channel.clone());
        client.fetch_jwt_bundles(with_header(JwtBundlesRequest {})).await.map(tonic::Response::into_inner)
    }

    async fn validate(&self, audience: &str, svid: &str) -> Result<ValidateJwtsvidResponse, Status> {
        let request = ValidateJwtsvidRequest { audience: audience.into(), svid: svid.into() };
        let mut client = SpiffeWorkloadApiClient::new(self.channel.clone());
        client.validate_jwtsvid(with_header(request)).await.map(tonic::Response::into_inner)
    }
}

/// Validates with these values of the metadata that asks for protection against replay.
async fn validate_once(
    rig: &Rig,
    audience: &str,
    svid: &str,
    values: &[&str],
) -> Result<ValidateJwtsvidResponse, Status> {
    let mut request = with_header(ValidateJwtsvidRequest { audience: audience.into(), svid: svid.into() });
    for value in values {
        request.metadata_mut().append("spindle-replay", value.parse().unwrap());
    }
    let mut client = SpiffeWorkloadApiClient::new(rig.channel.clone());
    client.validate_jwtsvid(request).await.map(tonic::Response::into_inner)
}

/// A token of `authority` for service x, good for five minutes.
fn token(authority: &TestJwtAuthority, id: &str) -> String {
    let id: SpiffeId = id.parse().unwrap();
    let validity = Validity { not_before: NOW, not_after: NOW + 300 };
    authority.sign(&id, &["x".to_owned()], validity, Some(7)).token
}

fn own_token(rig: &Rig, id: &str) -> String {
    token(&rig.issuer.authority.lock().unwrap(), id)
}

fn payload(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL.decode(part).unwrap()).unwrap()
}

fn keys(answer: &JwtBundlesResponse, id: &str) -> Value {
    serde_json::from_slice(&answer.bundles[id]).unwrap()
}

/// Federates with partner.example, whose key is returned.
async fn with_partner() -> (Rig, TestJwtAuthority) {
    let mut one = mine("a");
    one.federates_with = vec!["partner.example".parse().unwrap()];
    let rig = jwt_rig([one]).await;
    let partner = TestJwtAuthority::new("partner.example", "k1", NOW);
    let mut bundle = Authority::new(&"partner.example".parse().unwrap()).whole();
    bundle.jwt_authorities.push(partner.authority());
    rig.cache.publish(Change { federated: vec![bundle], ..Change::default() });
    (rig, partner)
}

#[tokio::test]
async fn wap_02_wap_40_wap_44_a_caller_gets_a_token_for_exactly_the_audiences_asked_for() {
    let rig = jwt_rig([mine("a"), nobodys("b")]).await;
    for audience in [&["x", "y"][..], &["x"], &["x", "y"]] {
        let answer = rig.tokens(audience, "").await.unwrap();
        assert_eq!(answer.svids.len(), 1);
        let svid = &answer.svids[0];
        assert_eq!((svid.spiffe_id.as_str(), svid.hint.as_str()), ("spiffe://prod.example/a", ""));
        let claims = payload(&svid.svid);
        assert_eq!((&claims["aud"], &claims["sub"]), (&json!(audience), &json!(svid.spiffe_id)));
    }
}

#[tokio::test]
async fn wap_17_wap_39_a_request_without_an_audience_is_refused_before_the_caller_is_looked_at() {
    let rig = rig_with(false, vec![]).await;
    for audience in [&[][..], &["", ""]] {
        let text = "audience must be specified";
        check_refused(rig.tokens(audience, "").await, Code::InvalidArgument, Reason::BadRequest, text);
    }
    let many = ["x"; spindle_spiffe_core::audience::AUDIENCES_MAX + 1];
    let status = rig.tokens(&many, "").await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().contains("at most 100 audiences"), "{status:?}");
}

#[tokio::test]
async fn wap_42_wap_47_a_malformed_id_is_an_invalid_argument_and_somebody_elses_is_denied() {
    let rig = jwt_rig([mine("a"), mine("c"), nobodys("b")]).await;
    for bad in ["x", "https://prod.example/a", "spiffe://prod.example/a/", "spiffe://PROD.example/a"] {
        let status = rig.tokens(&["x"], bad).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bad}");
        assert!(status.message().starts_with("invalid requested SPIFFE ID: "), "{status:?}");
    }
    let answer = rig.tokens(&["x"], "spiffe://prod.example/c").await.unwrap();
    assert_eq!((answer.svids.len(), answer.svids[0].spiffe_id.as_str()), (1, "spiffe://prod.example/c"));
    for others in ["spiffe://prod.example/b", "spiffe://prod.example/none", "spiffe://else.example/a"] {
        let answer = rig.tokens(&["x"], others).await;
        check_refused(answer, Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
    }
}

#[tokio::test]
async fn wap_41_wap_45_wap_79_all_identities_come_in_one_order_and_one_alone_has_a_shared_hint() {
    let hinted = |id: &str, age_secs: i64| RegistrationEntry {
        hint: "web".parse().unwrap(),
        created_at: NOW - age_secs,
        ..mine(id)
    };
    let rig = jwt_rig([hinted("c", 9), hinted("a", 1), mine("b")]).await;
    for _ in 0..2 {
        let answer = rig.tokens(&["x"], "").await.unwrap();
        let shown: Vec<_> =
            answer.svids.iter().map(|one| (one.spiffe_id.as_str(), one.hint.as_str())).collect();
        let expected = ["a", "b", "c"].map(|id| format!("spiffe://prod.example/{id}"));
        assert_eq!(shown, [(&*expected[0], ""), (&*expected[1], ""), (&*expected[2], "web")]);
    }
}

#[tokio::test]
async fn wap_43_an_unregistered_caller_is_denied_and_the_server_is_not_asked() {
    let rig = jwt_rig([nobodys("b")]).await;
    let answer = rig.tokens(&["x"], "").await;
    check_refused(answer, Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
    assert_eq!(rig.issuer.calls(), 0);
}

#[tokio::test]
async fn an_entry_whose_x509_svid_is_late_has_its_token_all_the_same() {
    let rig = jwt_rig([]).await;
    rig.cache.publish(Change { put: vec![signing(mine("a"))], ..Change::default() });
    assert_eq!(rig.tokens(&["x"], "").await.unwrap().svids.len(), 1);
}

#[tokio::test]
async fn a_failure_of_the_server_is_unavailable_with_the_servers_reason() {
    let rig = jwt_rig([mine("a")]).await;
    let refused = refusal(Code::NotFound, Reason::EntryNotAuthorized, "entry not found or not authorized");
    rig.issuer.failures.lock().unwrap().push_back(refused);
    let text = "could not fetch JWT-SVID: entry not found or not authorized";
    check_refused(rig.tokens(&["x"], "").await, Code::Unavailable, Reason::EntryNotAuthorized, text);
}

#[tokio::test]
async fn a_caller_of_the_jwt_profile_is_told_that_the_agent_starts_or_stops() {
    let starting = rig().await;
    let text = "the agent has not reached its server yet";
    check_refused(starting.tokens(&["x"], "").await, Code::Unavailable, Reason::AgentStarting, text);
    check_refused(starting.validate("x", "t").await, Code::Unavailable, Reason::AgentStarting, text);
    check_refused(starting.jwt_bundles().await, Code::Unavailable, Reason::AgentStarting, text);

    let rig = jwt_rig([mine("a")]).await;
    rig.issuer.open.send_replace(false);
    let (answer, ()) = tokio::join!(rig.tokens(&["x"], ""), async {
        rig.issuer.asked.subscribe().wait_for(|asked| !asked.is_empty()).await.unwrap();
        rig.shutdown.begin();
    });
    check_refused(answer, Code::Unavailable, Reason::AgentStopping, "the agent is stopping");
}

#[tokio::test]
async fn wap_49_the_own_trust_domain_is_always_there_with_a_list_that_may_be_empty() {
    let rig = rig().await;
    rig.publish(vec![mine("a")]);
    let mut stream = rig.jwt_bundles().await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.bundles.keys().collect::<Vec<_>>(), ["spiffe://prod.example"]);
    assert_eq!(keys(&first, "spiffe://prod.example"), json!({"keys": []}));
}

#[tokio::test]
async fn wap_50_wap_51_bundles_are_plain_key_sets_of_jwt_keys_alone_by_spiffe_id() {
    let (rig, _) = with_partner().await;
    let answer = rig.jwt_bundles().await.unwrap().message().await.unwrap().unwrap();
    assert_eq!(
        answer.bundles.keys().collect::<Vec<_>>(),
        ["spiffe://partner.example", "spiffe://prod.example"]
    );
    for id in answer.bundles.keys() {
        let set = keys(&answer, id);
        assert_eq!(set.as_object().unwrap().keys().collect::<Vec<_>>(), ["keys"], "no members of SPIFFE");
        let [key] = set["keys"].as_array().unwrap().as_slice() else { panic!("one key, not {set}") };
        let names: Vec<&String> = key.as_object().unwrap().keys().collect();
        assert_eq!(names, ["crv", "kid", "kty", "x", "y"]);
        assert_eq!(key["kid"], "k1");
    }
}

#[tokio::test]
async fn wap_12_wap_13_jwt_bundles_come_at_once_and_again_only_when_they_changed() {
    let rig = jwt_rig([mine("a")]).await;
    let mut stream = rig.jwt_bundles().await.unwrap();
    stream.message().await.unwrap().unwrap();
    // A rotated SVID and a new X.509 authority are no news here; a new JWT authority is.
    rig.publish(vec![mine("a")]);
    let mut bundle = rig.issuer.in_bundle(rig.ca.whole());
    bundle.x509_authorities.extend(Authority::new(&trust_domain()).whole().x509_authorities);
    set_bundle(&rig, bundle.clone());
    bundle.jwt_authorities.push(TestJwtAuthority::new("prod.example", "k2", NOW).authority());
    set_bundle(&rig, bundle);
    let set = loop {
        let set = keys(&stream.message().await.unwrap().unwrap(), "spiffe://prod.example");
        // Between the two, publishing the plain bundle took the first key away.
        if set["keys"].as_array().unwrap().len() == 2 {
            break set;
        }
    };
    assert_eq!((&set["keys"][0]["kid"], &set["keys"][1]["kid"]), (&json!("k1"), &json!("k2")));
}

#[tokio::test]
async fn wap_52_wap_82_jwt_bundles_are_denied_without_an_entry_also_on_an_open_stream() {
    let rig = jwt_rig([mine("a")]).await;
    let mut stream = rig.jwt_bundles().await.unwrap();
    stream.message().await.unwrap().unwrap();
    rig.remove("a");
    let end = stream.message().await;
    check_refused(end, Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
    let bundles = rig.jwt_bundles().await;
    check_refused(bundles, Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
}

#[tokio::test]
async fn a_verifier_without_identity_gets_the_own_jwt_keys_only_if_that_is_allowed() {
    let rig = rig_with(true, vec![unix()]).await;
    rig.publish(vec![]);
    let answer = rig.jwt_bundles().await.unwrap().message().await.unwrap().unwrap();
    assert_eq!(answer.bundles.keys().collect::<Vec<_>>(), ["spiffe://prod.example"]);
}

#[tokio::test]
async fn wap_56_wap_58_a_valid_token_is_told_with_all_its_claims() {
    let rig = jwt_rig([mine("a")]).await;
    let answer = rig.validate("x", &own_token(&rig, "spiffe://prod.example/z")).await.unwrap();
    assert_eq!(answer.spiffe_id, "spiffe://prod.example/z");
    let claims = answer.claims.unwrap().fields;
    assert_eq!(claims.keys().collect::<Vec<_>>(), ["aud", "exp", "iat", "jti", "sub"]);
    let kind = |name: &str| claims[name].kind.clone().unwrap();
    assert_eq!(kind("exp"), Kind::NumberValue((NOW + 300).unix_secs() as f64));
    let Kind::ListValue(audience) = kind("aud") else { panic!("aud is always a list") };
    assert_eq!(audience.values[0].kind, Some(Kind::StringValue("x".into())));
}

#[tokio::test]
async fn wap_58_a_request_without_audience_or_token_is_refused() {
    let rig = jwt_rig([mine("a")]).await;
    let check = |answer, text| check_refused(answer, Code::InvalidArgument, Reason::BadRequest, text);
    check(rig.validate("", "t").await, "audience must be specified");
    check(rig.validate("x", "").await, "svid must be specified");
    check(rig.validate("", "").await, "audience must be specified");
}

#[tokio::test]
async fn a_caller_needs_no_identity_to_have_a_token_validated_but_must_be_attested() {
    let rig = jwt_rig([]).await;
    let token = own_token(&rig, "spiffe://prod.example/z");
    assert_eq!(rig.validate("x", &token).await.unwrap().spiffe_id, "spiffe://prod.example/z");
    let nobody = rig_with(true, vec![]).await;
    nobody.publish(vec![]);
    let text = "workload attestation failed";
    check_refused(nobody.validate("x", &token).await, Code::Unavailable, Reason::AttestationFailed, text);
}

#[tokio::test]
async fn wap_55_a_token_that_breaks_a_rule_is_an_invalid_argument_with_the_reason() {
    let rig = jwt_rig([mine("a")]).await;
    let good = own_token(&rig, "spiffe://prod.example/z");
    let parts: Vec<&str> = good.split('.').collect();
    let header = |json: &str| format!("{}.{}.{}", BASE64_URL.encode(json), parts[1], parts[2]);
    let old = Validity { not_before: NOW - 900, not_after: NOW - 600 };
    let id: SpiffeId = "spiffe://prod.example/z".parse().unwrap();
    let expired = rig.issuer.authority.lock().unwrap().sign(&id, &["x".to_owned()], old, None).token;
    let stranger = token(&TestJwtAuthority::new("prod.example", "k1", NOW), "spiffe://prod.example/z");
    let unknown = token(&TestJwtAuthority::new("prod.example", "k9", NOW), "spiffe://prod.example/z");
    let cases = [
        ("x", "a.b".to_owned(), Reason::TokenMalformed),
        ("x", header(r#"{"alg":"none","kid":"k1"}"#), Reason::TokenAlgorithm),
        ("x", header(r#"{"alg":"HS256","kid":"k1"}"#), Reason::TokenAlgorithm),
        ("x", header(r#"{"alg":"ES256","kid":"k1","typ":"wit+jwt"}"#), Reason::TokenMalformed),
        ("x", format!("{}.{}", parts[0], parts[1]), Reason::TokenMalformed),
        ("x", expired, Reason::TokenExpired),
        ("x", stranger, Reason::TokenNotTrusted),
        ("x", unknown, Reason::TokenNotTrusted),
        ("y", good.clone(), Reason::TokenAudience),
        ("X", good.clone(), Reason::TokenAudience),
    ];
    for (audience, token, reason) in cases {
        let status = rig.validate(audience, &token).await.expect_err("must be refused");
        let found = (status.code(), reason_of(&status).unwrap());
        assert_eq!(found, (Code::InvalidArgument, reason.code().to_owned()), "{status:?}");
        assert!(!status.message().contains(parts[2]), "a token is never repeated: {status:?}");
    }
    rig.validate("x", &good).await.unwrap();
}

#[tokio::test]
async fn wap_57_of_a_foreign_token_only_what_is_allowed_is_told() {
    let (rig, partner) = with_partner().await;
    let answer = rig.validate("x", &token(&partner, "spiffe://partner.example/z")).await.unwrap();
    assert_eq!(answer.spiffe_id, "spiffe://partner.example/z");
    assert_eq!(answer.claims.unwrap().fields.keys().collect::<Vec<_>>(), ["aud", "exp", "sub"]);
}

#[tokio::test]
async fn wap_54_wap_60_wap_61_a_token_is_judged_by_the_bundle_of_its_own_trust_domain() {
    let (rig, partner) = with_partner().await;
    let foreign = token(&partner, "spiffe://partner.example/z");
    rig.validate("x", &foreign).await.unwrap();
    // Same key ID, other trust domain.
    let (mut own, mut theirs) = (foreign.clone(), own_token(&rig, "spiffe://prod.example/z"));
    let part = |token: &str, at: usize| token.split('.').nth(at).unwrap().to_owned();
    (own, theirs) = (
        format!("{}.{}.{}", part(&own, 0), part(&theirs, 1), part(&own, 2)),
        format!("{}.{}.{}", part(&theirs, 0), part(&foreign, 1), part(&theirs, 2)),
    );
    for crossed in [own, theirs] {
        let status = rig.validate("x", &crossed).await.unwrap_err();
        assert_eq!(reason_of(&status).unwrap(), "token_not_trusted");
    }
    // The entry does not federate any more.
    rig.publish(vec![mine("a")]);
    set_bundle(&rig, rig.issuer.in_bundle(rig.ca.whole()));
    let status = rig.validate("x", &foreign).await.unwrap_err();
    assert_eq!(
        (status.code(), reason_of(&status).unwrap()),
        (Code::InvalidArgument, "token_not_trusted".into())
    );
}

#[tokio::test]
async fn jwt_30_a_token_may_be_shown_again_unless_the_caller_asks_that_it_is_not() {
    let rig = jwt_rig([mine("a")]).await;
    let token = own_token(&rig, "spiffe://prod.example/z");
    for _ in 0..2 {
        rig.validate("x", &token).await.unwrap();
    }
    validate_once(&rig, "x", &token, &["refuse"]).await.unwrap();
    let again = validate_once(&rig, "x", &token, &["refuse"]).await;
    let text = "the token was shown before, and each is accepted once";
    check_refused(again, Code::InvalidArgument, Reason::TokenReplayed, text);
    rig.validate("x", &token).await.unwrap();
}

#[tokio::test]
async fn a_token_is_remembered_by_audience_and_only_when_it_is_valid() {
    let rig = jwt_rig([mine("a")]).await;
    let id: SpiffeId = "spiffe://prod.example/z".parse().unwrap();
    let validity = Validity { not_before: NOW, not_after: NOW + 300 };
    let both = ["x".to_owned(), "y".to_owned()];
    let token = rig.issuer.authority.lock().unwrap().sign(&id, &both, validity, None).token;
    let status = validate_once(&rig, "z", &token, &["refuse"]).await.unwrap_err();
    assert_eq!(reason_of(&status).unwrap(), "token_audience");
    for audience in ["x", "y"] {
        validate_once(&rig, audience, &token, &["refuse"]).await.unwrap();
        let status = validate_once(&rig, audience, &token, &["refuse"]).await.unwrap_err();
        assert_eq!(reason_of(&status).unwrap(), "token_replayed", "{audience}, without a jti");
    }
}

#[tokio::test]
async fn a_caller_that_asks_for_another_protection_is_not_left_believing_that_it_has_one() {
    let rig = jwt_rig([mine("a")]).await;
    let token = own_token(&rig, "spiffe://prod.example/z");
    for values in [&["allow"][..], &[""], &["Refuse"], &["refuse", "refuse"]] {
        let text = "the metadata spindle-replay has the one value refuse";
        let answer = validate_once(&rig, "x", &token, values).await;
        check_refused(answer, Code::InvalidArgument, Reason::BadRequest, text);
    }
}
