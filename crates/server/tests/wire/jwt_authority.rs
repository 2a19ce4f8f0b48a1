//! JWT authorities by hand, over the wire: every RPC, its refusals, and what becomes of tokens.

use jsonwebtoken::decode_header;
use spindle_keys::{Key, KeyType};
use spindle_proto::spire::api::server::bundle::v1 as bundle_api;
use spindle_proto::spire::api::server::svid::v1 as svid_api;
use spindle_proto::spire::api::types;
use spindle_server::StoreKind;
use spindle_spiffe_core::Reason;
use tonic::{Code, Status};

use crate::by_hand::JwtHand;
use crate::following::Following;
use crate::support::{TestServer, expect_refusal, in_time, wire_id};

/// The ID of the key that signs tokens now.
async fn signer(server: &TestServer) -> String {
    let request =
        svid_api::MintJwtsvidRequest { id: Some(wire_id("/web")), audience: vec!["db".into()], ttl: 0 };
    let answer = in_time(server.svids().await.mint_jwtsvid(request)).await.unwrap().into_inner();
    decode_header(&answer.svid.unwrap().token).unwrap().kid.unwrap()
}

/// Key IDs of the bundle and whether they are tainted, oldest first.
async fn published(server: &TestServer) -> Vec<(String, bool)> {
    let bundle = server.bundle().await;
    bundle.jwt_authorities.iter().map(|one| (one.kid().to_owned(), one.is_tainted())).collect()
}

#[tokio::test]
async fn a_key_is_replaced_step_by_step_and_each_step_is_pushed() {
    let server = TestServer::start().await;
    let hand = JwtHand(&server);
    let agent = server.attest().await;
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    let first = hand.show().await.unwrap().active.unwrap();
    assert_eq!(signer(&server).await, first.authority_id);

    let prepared = hand.prepare().await.unwrap();
    assert_eq!(stream.next().await.bundle.unwrap().jwt_authorities.len(), 2);
    let shown = hand.show().await.unwrap();
    let expected = (Some(first.clone()), Some(prepared.clone()), None);
    assert_eq!((shown.active, shown.prepared, shown.old), expected);
    assert_eq!(signer(&server).await, first.authority_id, "prepared does not sign");

    assert_eq!(hand.activate(&prepared.authority_id).await.unwrap(), prepared);
    let shown = hand.show().await.unwrap();
    let expected = (Some(prepared.clone()), None, Some(first.clone()));
    assert_eq!((shown.active, shown.prepared, shown.old), expected);
    assert_eq!(signer(&server).await, prepared.authority_id);

    assert_eq!(hand.taint(&first.authority_id).await.unwrap(), first, "with its end");
    let news = stream.next().await.bundle.unwrap();
    let taints: Vec<bool> = news.jwt_authorities.iter().map(|key| key.tainted).collect();
    assert_eq!(taints, [true, false]);

    assert_eq!(hand.revoke(&first.authority_id).await.unwrap(), first, "with its end");
    let news = stream.next().await.bundle.unwrap();
    assert_eq!(news.jwt_authorities.len(), 1);
    assert_eq!(news.jwt_authorities[0].key_id, prepared.authority_id);
    assert_eq!(news.x509_authorities.len(), 1, "the other family is left alone");
    assert_eq!(hand.show().await.unwrap().old, Some(first), "as SPIRE shows it");
}

#[tokio::test]
async fn orders_out_of_turn_are_refused_with_a_code_and_a_reason() {
    let server = TestServer::start().await;
    let hand = JwtHand(&server);
    let first = hand.active().await;
    let (argument, internal) = (Code::InvalidArgument, Code::Internal);
    let (unknown, state) = (Reason::AuthorityNotFound, Reason::AuthorityState);
    for outcome in [hand.activate("").await, hand.taint("").await, hand.revoke("").await] {
        expect_refusal(outcome, argument, Reason::BadRequest);
    }
    for id in ["abcd", "spiffe://example.org", &"f".repeat(100_000)] {
        expect_refusal(hand.activate(id).await, argument, unknown);
        expect_refusal(hand.taint(id).await, argument, unknown);
        expect_refusal(hand.revoke(id).await, argument, unknown);
    }
    expect_refusal(hand.activate(&first).await, argument, unknown);
    expect_refusal(hand.taint(&first).await, argument, state);
    expect_refusal(hand.revoke(&first).await, argument, state);
    let next = hand.prepare().await.unwrap().authority_id;
    expect_refusal(hand.taint(&next).await, argument, state);
    expect_refusal(hand.revoke(&next).await, argument, state);
    hand.activate(&next).await.unwrap();
    expect_refusal(hand.activate(&first).await, internal, state);
    let early = expect_refusal(hand.revoke(&first).await, internal, state);
    assert!(early.contains("not possible to revoke an untainted key"), "{early}");
    hand.taint(&first).await.unwrap();
    let twice = expect_refusal(hand.taint(&first).await, internal, state);
    assert_eq!(twice, "failed to taint JWT authority: key is already tainted");
    hand.revoke(&first).await.unwrap();
    expect_refusal(hand.revoke(&first).await, argument, unknown);
    assert_eq!(published(&server).await, [(next, false)]);
}

#[tokio::test]
async fn a_server_without_jwt_svids_has_no_jwt_authorities_to_handle() {
    let server = TestServer::start_with(|config| config.jwt.enabled = false).await;
    let hand = JwtHand(&server);
    let off = |outcome: Result<(), Status>| {
        let message = expect_refusal(outcome, Code::Unimplemented, Reason::JwtSvidsDisabled);
        assert_eq!(message, "JWT functionality is disabled");
    };
    off(hand.show().await.map(drop));
    off(hand.prepare().await.map(drop));
    for id in ["", "abcd"] {
        off(hand.activate(id).await.map(drop));
        off(hand.taint(id).await.map(drop));
        off(hand.revoke(id).await.map(drop));
    }
    assert!(published(&server).await.is_empty());
}

#[tokio::test]
async fn what_was_ordered_outlives_a_restart() {
    let mut server = TestServer::start_with(|config| config.store.kind = StoreKind::Sled).await;
    let first = JwtHand(&server).active().await;
    let next = JwtHand(&server).prepare().await.unwrap().authority_id;
    server.restart().await;
    let shown = JwtHand(&server).show().await.unwrap();
    let ids = (shown.active.unwrap().authority_id, shown.prepared.unwrap().authority_id);
    assert_eq!(ids, (first.clone(), next.clone()));
    JwtHand(&server).activate(&next).await.unwrap();
    JwtHand(&server).taint(&first).await.unwrap();
    server.restart().await;
    assert_eq!(signer(&server).await, next);
    JwtHand(&server).revoke(&first).await.unwrap();
    assert_eq!(published(&server).await, [(next, false)]);
}

#[tokio::test]
async fn many_operators_at_once_leave_one_prepared_authority() {
    let server = TestServer::start().await;
    let hand = JwtHand(&server);
    let prepared = futures_util::future::join_all((0..10).map(|_| hand.prepare())).await;
    assert!(prepared.iter().all(Result::is_ok), "{prepared:?}");
    let shown = hand.show().await.unwrap().prepared.unwrap();
    assert!(prepared.iter().any(|one| one.as_ref().unwrap() == &shown));
    assert_eq!(published(&server).await.len(), 2, "those that never signed are gone");
    let activated = futures_util::future::join_all((0..4).map(|_| hand.activate(&shown.authority_id))).await;
    assert_eq!(activated.iter().filter(|one| one.is_ok()).count(), 1, "{activated:?}");
}

#[tokio::test]
async fn a_key_that_somebody_else_has_published_is_not_ours_to_taint_and_untainted_it_stays() {
    let server = TestServer::start().await;
    let hand = JwtHand(&server);
    let public_key = Key::generate(KeyType::EcP256).unwrap().spki_der().to_vec().into();
    let key = types::JwtKey { public_key, key_id: "theirs".into(), expires_at: 0, tainted: false };
    let request = bundle_api::AppendBundleRequest { jwt_authorities: vec![key], ..Default::default() };
    in_time(server.bundles().await.append_bundle(request)).await.unwrap();
    let (argument, unknown) = (Code::InvalidArgument, Reason::AuthorityNotFound);
    expect_refusal(hand.activate("theirs").await, argument, unknown);
    expect_refusal(hand.taint("theirs").await, argument, unknown);
    expect_refusal(hand.revoke("theirs").await, Code::Internal, Reason::AuthorityState);
    let own = hand.active().await;
    assert_eq!(published(&server).await, [(own, false), ("theirs".into(), false)]);
}
