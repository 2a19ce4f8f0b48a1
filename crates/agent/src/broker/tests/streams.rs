//! What streams carry, and when they end.

use spindle_spiffe_core::{X509Bundle, verify_x509_svid};

use super::*;

#[tokio::test]
async fn bap_01_bap_36_bap_37_bap_38_bap_56_the_first_message_comes_at_once_and_each_one_is_the_full_set() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let client = rig.client(ANYHOW).await;
    let mut stream = svids(&client, me()).await.unwrap();
    let first = next(&mut stream).await.unwrap();
    assert_eq!(ids(&first), ["spiffe://prod.example/a"]);
    let one = &first.svids[0];
    let chain = vec![one.x509_svid.to_vec().into()];
    let verified = verify_x509_svid(&chain, &rig.ca.bundle.clone().into(), NOW).unwrap();
    assert_eq!(verified.spiffe_id().as_str(), one.spiffe_id);
    assert!(!one.x509_svid_key.is_empty() && one.hint.is_empty());
    assert_eq!(X509Bundle::from_der(trust_domain(), &one.bundle).unwrap(), rig.ca.bundle);
    rig.publish(vec![nobodys("x")]);
    rig.publish(vec![mine("b")]);
    let second = next(&mut stream).await.unwrap();
    assert_eq!(ids(&second), ["spiffe://prod.example/a", "spiffe://prod.example/b"], "no message in between");
    assert_eq!(second.svids[0], *one);
}

#[tokio::test]
async fn bap_35_bap_51_bap_52_bap_53_when_a_workload_ends_its_stream_does_and_no_other() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let client = rig.client(ANYHOW).await;
    let (mut ending, staying) = (Running::start(), Running::start());
    let mut streams = Vec::new();
    for pid in [ending.pid(), staying.pid()] {
        let mut stream = svids(&client, by_pid(pid)).await.unwrap();
        next(&mut stream).await.unwrap();
        streams.push(stream);
    }
    ending.end();
    let gone = expected(Code::NotFound, "WORKLOAD_NOT_FOUND", Reason::WorkloadNotFound);
    assert_eq!(refusal_of(&next(&mut streams[0]).await.unwrap_err()), gone);
    rig.publish(vec![mine("b")]);
    assert!(streams[0].message().await.unwrap().is_none(), "not even when identities change");
    assert_eq!(ids(&next(&mut streams[1]).await.unwrap()).len(), 2);
}

#[tokio::test]
async fn bap_32_bap_55_bap_61_a_workload_that_loses_its_last_entry_is_denied_and_others_are_not() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let client = rig.client(ANYHOW).await;
    let mut stream = svids(&client, me()).await.unwrap();
    next(&mut stream).await.unwrap();
    rig.remove("a");
    let denied = expected(Code::PermissionDenied, "WORKLOAD_NOT_ENTITLED", Reason::NoMatchingEntry);
    assert_eq!(refusal_of(&next(&mut stream).await.unwrap_err()), denied);
    rig.publish(vec![mine("b")]);
    assert!(svids(&client, me()).await.is_ok());
}

#[tokio::test]
async fn identities_of_administrators_and_downstream_servers_stay_with_their_workloads() {
    let rig = rig();
    let admin = RegistrationEntry { admin: true, ..mine("admin") };
    rig.publish(vec![admin, RegistrationEntry { downstream: true, ..mine("down") }]);
    let client = rig.client(ANYHOW).await;
    let denied = expected(Code::PermissionDenied, "WORKLOAD_NOT_ENTITLED", Reason::NoMatchingEntry);
    assert_eq!(refusal_of(&svids(&client, me()).await.unwrap_err()), denied);
    rig.publish(vec![mine("a")]);
    let first = next(&mut svids(&client, me()).await.unwrap()).await.unwrap();
    assert_eq!(ids(&first), ["spiffe://prod.example/a"]);
}

#[tokio::test]
async fn bap_57_bap_58_bap_68_hints_are_unique_and_the_default_identity_is_the_first() {
    let rig = rig();
    let hinted = |id: &str, hint: &str| RegistrationEntry { hint: hint.parse().unwrap(), ..mine(id) };
    rig.publish(vec![hinted("b", "web"), hinted("a", "web"), hinted("c", "db")]);
    let first = next(&mut svids(&rig.client(ANYHOW).await, me()).await.unwrap()).await.unwrap();
    let hints: Vec<_> = first.svids.iter().map(|one| one.hint.as_str()).collect();
    assert_eq!((ids(&first)[0], hints), ("spiffe://prod.example/a", vec!["web", "", "db"]));
}

#[tokio::test]
async fn bap_43_bap_62_bap_63_bap_79_bap_80_bundles_are_the_own_one_and_those_the_workload_federates_with() {
    let rig = rig();
    let federated: spindle_spiffe_core::TrustDomain = "other.example".parse().unwrap();
    let unasked = Authority::new(&"third.example".parse().unwrap());
    rig.publish(vec![RegistrationEntry { federates_with: vec![federated], ..mine("a") }]);
    let bundles = vec![rig.foreign.whole(), unasked.whole()];
    rig.cache.publish(Change { federated: bundles, ..Change::default() });
    let mut client = rig.client(ANYHOW).await;
    let asked = with_header(SubscribeToX509BundlesRequest { reference: me() });
    let mut stream = client.subscribe_to_x509_bundles(asked).await.unwrap().into_inner();
    let names = ["spiffe://other.example", "spiffe://prod.example"];
    let told = next(&mut stream).await.unwrap().bundles;
    assert_eq!(told.keys().collect::<Vec<_>>(), names);
    assert_eq!(told[names[1]], rig.ca.bundle.to_der());
    let asked = with_header(SubscribeToJwtBundlesRequest { reference: me() });
    let mut stream = client.subscribe_to_jwt_bundles(asked).await.unwrap().into_inner();
    let told = next(&mut stream).await.unwrap().bundles;
    assert_eq!(told.keys().collect::<Vec<_>>(), names);
    let own: serde_json::Value = serde_json::from_slice(&told[names[1]]).unwrap();
    let keys = own["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1, "{own}");
    assert_eq!(keys[0]["kid"], "k1");
    let svids = next(&mut svids(&client, me()).await.unwrap()).await.unwrap();
    assert_eq!(svids.federated_bundles.keys().collect::<Vec<_>>(), [names[0]]);
}

#[tokio::test]
async fn open_streams_end_when_the_agent_stops() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let mut stream = svids(&rig.client(ANYHOW).await, me()).await.unwrap();
    next(&mut stream).await.unwrap();
    rig.shutdown.begin();
    assert_eq!(next(&mut stream).await.unwrap_err().code(), Code::Unavailable);
}
