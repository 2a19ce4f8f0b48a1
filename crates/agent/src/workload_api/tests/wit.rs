//! The WIT profile over a real socket, row by row.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64_URL;
use serde_json::Value;
use spindle_proto::workload::{WitBundlesRequest, WitBundlesResponse, WitsvidRequest, WitsvidResponse};
use spindle_spiffe_core::Hint;
use spindle_testkit::TestWitAuthority;

use super::*;
use crate::fixtures::NOW;

const OFF: &str = "this profile of the Workload API is not supported";

impl Rig {
    /// Completes a sync with these entries signed, in a trust domain that has WIT-SVIDs.
    fn publish_wit(&self, entries: Vec<RegistrationEntry>) {
        let put = entries.into_iter().map(|entry| self.ca.identity(&self.cache, entry)).collect();
        let mut own = self.ca.whole();
        self.wit_issuer.add_to(&mut own);
        self.cache.publish(Change { put, own_bundle: Some(own), synced: true, ..Change::default() });
    }

    async fn wits_of(&self, spiffe_id: &str) -> Result<Streaming<WitsvidResponse>, Status> {
        let mut client = SpiffeWorkloadApiClient::new(self.channel.clone());
        let request = with_header(WitsvidRequest { spiffe_id: spiffe_id.into() });
        client.fetch_witsvid(request).await.map(tonic::Response::into_inner)
    }

    async fn wits(&self) -> Result<Streaming<WitsvidResponse>, Status> {
        self.wits_of("").await
    }

    async fn wit_bundles(&self) -> Result<Streaming<WitBundlesResponse>, Status> {
        let mut client = SpiffeWorkloadApiClient::new(self.channel.clone());
        client.fetch_wit_bundles(with_header(WitBundlesRequest {})).await.map(tonic::Response::into_inner)
    }
}

async fn next(stream: &mut Streaming<WitsvidResponse>) -> WitsvidResponse {
    stream.message().await.unwrap().unwrap()
}

fn wit_ids(answer: &WitsvidResponse) -> Vec<&str> {
    answer.svids.iter().map(|svid| svid.spiffe_id.rsplit_once('/').unwrap().1).collect()
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&BASE64_URL.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn wap_62_wit_47_both_methods_are_unimplemented_when_the_own_bundle_has_no_wit_keys() {
    let rig = rig().await;
    rig.publish(vec![mine("a")]);
    check_refused(rig.wits().await, Code::Unimplemented, Reason::NotSupported, OFF);
    check_refused(rig.wit_bundles().await, Code::Unimplemented, Reason::NotSupported, OFF);
    assert!(rig.wit_issuer.asked.borrow().is_empty(), "nobody was asked");
    rig.publish_wit(vec![mine("a")]);
    assert_eq!(wit_ids(&next(&mut rig.wits().await.unwrap()).await), ["a"], "the server has them now");
    assert!(rig.wit_bundles().await.is_ok());
}

#[tokio::test]
async fn wap_62_a_server_that_says_it_has_no_wit_svids_is_believed_and_not_asked_for_each_caller() {
    let rig = rig().await;
    rig.publish_wit(vec![mine("a")]);
    rig.wit_issuer.failures.lock().unwrap().push_back(Status::unimplemented("WIT functionality is disabled"));
    for _ in 0..2 {
        check_refused(rig.wits().await, Code::Unimplemented, Reason::NotSupported, OFF);
        check_refused(rig.wit_bundles().await, Code::Unimplemented, Reason::NotSupported, OFF);
    }
    assert_eq!(*rig.wit_issuer.asked.borrow(), ["a"]);
}

#[tokio::test]
async fn before_the_first_sync_nobody_knows_whether_there_are_wit_svids() {
    let rig = rig().await;
    let text = "the agent has not reached its server yet";
    check_refused(rig.wits().await, Code::Unavailable, Reason::AgentStarting, text);
    check_refused(rig.wit_bundles().await, Code::Unavailable, Reason::AgentStarting, text);
}

#[tokio::test]
async fn wap_64_wap_66_every_identity_comes_with_a_token_and_the_private_key_it_is_bound_to() {
    let rig = rig().await;
    rig.publish_wit(vec![mine("a"), mine("b"), mine("c"), nobodys("d")]);
    let answer = next(&mut rig.wits().await.unwrap()).await;
    assert_eq!(wit_ids(&answer), ["a", "b", "c"]);
    let mut keys = BTreeSet::new();
    for svid in &answer.svids {
        let claims = claims(&svid.wit_svid);
        assert_eq!(claims["sub"], svid.spiffe_id.as_str());
        let key: Value = serde_json::from_str(&svid.wit_svid_key).unwrap();
        let names: Vec<_> = key.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["alg", "crv", "d", "kty", "x", "y"]);
        for member in ["alg", "crv", "kty", "x", "y"] {
            assert_eq!(key[member], claims["cnf"]["jwk"][member], "{member}");
        }
        assert!(claims["cnf"]["jwk"]["d"].is_null());
        keys.insert(key["d"].to_string());
    }
    assert_eq!(keys.len(), 3, "each identity has a key of its own");
    let mut asked = rig.wit_issuer.asked.borrow().clone();
    asked.sort();
    assert_eq!(asked, ["a", "b", "c"], "nobody's entry is not signed");
}

#[tokio::test]
async fn one_identity_can_be_asked_for_and_one_that_is_not_the_callers_is_refused() {
    let rig = rig().await;
    rig.publish_wit(vec![mine("a"), mine("b"), nobodys("c")]);
    let answer = next(&mut rig.wits_of("spiffe://prod.example/b").await.unwrap()).await;
    assert_eq!(wit_ids(&answer), ["b"]);
    for foreign in ["spiffe://prod.example/c", "spiffe://other.example/a"] {
        let refused = rig.wits_of(foreign).await;
        check_refused(refused, Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
    }
    for malformed in ["a", "spiffe://", "spiffe://Prod.example/b", &"x".repeat(3000)] {
        let Err(status) = rig.wits_of(malformed).await else { panic!("{malformed} must be refused") };
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("invalid requested SPIFFE ID"), "{status:?}");
    }
    assert_eq!(*rig.wit_issuer.asked.borrow(), ["b"], "what was not asked for is not signed");
}

#[tokio::test]
async fn wap_69_wap_76_a_caller_without_an_entry_is_refused() {
    let rig = rig().await;
    rig.publish_wit(vec![nobodys("secret")]);
    let denied = "no identity issued";
    check_refused(rig.wits().await, Code::PermissionDenied, Reason::NoMatchingEntry, denied);
    check_refused(rig.wit_bundles().await, Code::PermissionDenied, Reason::NoMatchingEntry, denied);
}

#[tokio::test]
async fn wap_67_wap_79_hints_are_unique_and_the_order_is_that_of_the_other_profiles() {
    let rig = rig().await;
    let hinted = |id: &str, age_secs: i64| RegistrationEntry {
        hint: "web".parse::<Hint>().unwrap(),
        created_at: NOW - age_secs,
        ..mine(id)
    };
    rig.publish_wit(vec![mine("c"), hinted("b", 1), hinted("a", 9)]);
    let mut stream = rig.wits().await.unwrap();
    let answer = next(&mut stream).await;
    assert_eq!(wit_ids(&answer), ["a", "b", "c"]);
    assert_eq!(answer.svids.iter().map(|svid| svid.hint.as_str()).collect::<Vec<_>>(), ["web", "", ""]);
    let x509 = rig.svids().await.unwrap().message().await.unwrap().unwrap();
    let both = x509.svids.iter().zip(&answer.svids);
    assert!(both.into_iter().all(|(x509, wit)| x509.spiffe_id == wit.spiffe_id && x509.hint == wit.hint));
}

#[tokio::test]
async fn wit_17_wit_35_two_callers_of_one_entry_get_the_same_token_and_key() {
    let rig = rig().await;
    rig.publish_wit(vec![mine("a")]);
    let (mut one, mut two) = (rig.wits().await.unwrap(), rig.wits().await.unwrap());
    assert_eq!(next(&mut one).await, next(&mut two).await);
    drop((one, two));
    rig.wits().await.unwrap();
    assert_eq!(rig.wit_issuer.asked.borrow().len(), 1, "it is kept for callers that come back");
}

#[tokio::test]
async fn wap_82_a_stream_follows_the_callers_entries_and_ends_with_the_last() {
    let rig = rig().await;
    rig.publish_wit(vec![mine("a")]);
    let mut stream = rig.wits().await.unwrap();
    assert_eq!(wit_ids(&next(&mut stream).await), ["a"]);
    rig.publish_wit(vec![nobodys("x"), mine("b")]);
    // An answer goes out as soon as something is ready.
    while wit_ids(&next(&mut stream).await) != ["a", "b"] {}
    rig.remove("a");
    assert_eq!(wit_ids(&next(&mut stream).await), ["b"]);
    rig.remove("b");
    let end = stream.message().await;
    check_refused(end, Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
}

#[tokio::test]
async fn an_identity_that_the_server_refuses_holds_up_no_other_and_is_told_alone() {
    let rig = rig().await;
    rig.wit_issuer.refused.lock().unwrap().insert("b".parse().unwrap(), "no".into());
    rig.publish_wit(vec![mine("a"), mine("b")]);
    assert_eq!(wit_ids(&next(&mut rig.wits().await.unwrap()).await), ["a"]);
    let alone = rig.wits_of("spiffe://prod.example/b").await;
    check_refused(alone, Code::Unavailable, Reason::SvidNotReady, "the identity is not ready yet");
}

#[tokio::test]
async fn a_tainted_authority_has_every_open_stream_get_a_new_token_and_key() {
    let rig = rig().await;
    rig.publish_wit(vec![mine("a")]);
    let mut stream = rig.wits().await.unwrap();
    let first = next(&mut stream).await;
    let old = std::mem::replace(
        &mut *rig.wit_issuer.authority.lock().unwrap(),
        TestWitAuthority::new("prod.example", "w2", NOW),
    );
    let mut own = rig.ca.whole();
    own.wit_authorities.push(old.authority().with_taint(true));
    rig.wit_issuer.add_to(&mut own);
    rig.cache.publish(Change { own_bundle: Some(own), ..Change::default() });
    let second = next(&mut stream).await;
    assert_ne!(first.svids[0].wit_svid_key, second.svids[0].wit_svid_key);
    let header = BASE64_URL.decode(second.svids[0].wit_svid.split('.').next().unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&header).unwrap()["kid"], "w2");
}

#[tokio::test]
async fn wap_73_wap_74_wap_75_wit_bundles_are_key_sets_by_trust_domain_with_the_own_one_among_them() {
    let rig = rig().await;
    let federated = RegistrationEntry { federates_with: vec!["other.example".parse().unwrap()], ..mine("a") };
    let mut other = spindle_spiffe_core::Bundle::new("other.example".parse().unwrap());
    other.x509_authorities = rig.ca.bundle.authorities().to_vec();
    other.wit_authorities = vec![TestWitAuthority::new("other.example", "o1", NOW).authority()];
    rig.cache.publish(Change { federated: vec![other], ..Change::default() });
    rig.publish_wit(vec![federated]);
    let mut stream = rig.wit_bundles().await.unwrap();
    let answer = stream.message().await.unwrap().unwrap();
    let kids = |id: &str| -> Vec<String> {
        let set: Value = serde_json::from_str(&answer.bundles[id]).unwrap();
        assert_eq!(set.as_object().unwrap().keys().collect::<Vec<_>>(), ["keys"]);
        let keys = set["keys"].as_array().unwrap().clone();
        assert!(keys.iter().all(|key| key["use"].is_null() && key["kty"] == "EC" && key["d"].is_null()));
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        answer.bundles.keys().collect::<Vec<_>>(),
        ["spiffe://other.example", "spiffe://prod.example"]
    );
    assert_eq!(
        (kids("spiffe://prod.example"), kids("spiffe://other.example")),
        (vec!["w1".into()], vec!["o1".into()])
    );
    let mut own = rig.ca.whole();
    rig.wit_issuer.add_to(&mut own);
    own.wit_authorities.push(TestWitAuthority::new("prod.example", "w2", NOW).authority());
    own.jwt_authorities.push(spindle_testkit::TestJwtAuthority::new("prod.example", "j1", NOW).authority());
    rig.cache.publish(Change { own_bundle: Some(own), ..Change::default() });
    let answer = stream.message().await.unwrap().unwrap();
    let set: Value = serde_json::from_str(&answer.bundles["spiffe://prod.example"]).unwrap();
    let kids: Vec<_> =
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect();
    assert_eq!(kids, ["w1", "w2"], "each once, and none of another SVID type");
}
