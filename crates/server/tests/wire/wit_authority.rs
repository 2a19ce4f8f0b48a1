//! WIT authorities by hand and by the clock, over the wire: the rules are those of JWT authorities, which `jwt_authority`
//! goes through one by one.

use jsonwebtoken::decode_header;
use spindle_keys::{Key, KeyType};
use spindle_proto::spire::api::server::svid::v1 as svid_api;
use spindle_server::StoreKind;
use spindle_spiffe_core::Reason;
use spindle_testkit::NOW;
use tonic::{Code, Status};

use crate::by_hand::WitHand;
use crate::following::Following;
use crate::support::{CA_TTL_SECS, TestServer, expect_refusal, in_time, wire_id};

async fn start() -> TestServer {
    TestServer::start_with(|config| config.wit.enabled = true).await
}

/// The ID of the key that signs WIT-SVIDs now.
async fn signer(server: &TestServer) -> String {
    let public_key = Key::generate(KeyType::EcP256).unwrap().spki_der().to_vec().into();
    let id = Some(wire_id("/web"));
    let request = svid_api::MintWitsvidRequest { id, public_key, ttl: 0, signing_algorithm: "ES256".into() };
    let answer = in_time(server.svids().await.mint_witsvid(request)).await.unwrap().into_inner();
    decode_header(&answer.svid.unwrap().token).unwrap().kid.unwrap()
}

#[tokio::test]
async fn wit_04_a_key_is_replaced_step_by_step_and_each_step_is_pushed() {
    let server = start().await;
    let hand = WitHand(&server);
    let agent = server.attest().await;
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    let first = hand.show().await.unwrap().active.unwrap();
    assert_eq!(signer(&server).await, first.authority_id);

    let prepared = hand.prepare().await.unwrap();
    assert_ne!(prepared.authority_id, first.authority_id);
    assert_eq!(stream.next().await.bundle.unwrap().wit_authorities.len(), 2);
    let shown = hand.show().await.unwrap();
    let expected = (Some(first.clone()), Some(prepared.clone()), None);
    assert_eq!((shown.active, shown.prepared, shown.old), expected);
    assert_eq!(signer(&server).await, first.authority_id, "prepared does not sign");

    assert_eq!(hand.activate(&prepared.authority_id).await.unwrap(), prepared);
    assert_eq!(signer(&server).await, prepared.authority_id);
    assert_eq!(hand.show().await.unwrap().old, Some(first.clone()));

    assert_eq!(hand.taint(&first.authority_id).await.unwrap(), first, "with its end");
    let news = stream.next().await.bundle.unwrap();
    assert_eq!(news.wit_authorities.iter().map(|key| key.tainted).collect::<Vec<_>>(), [true, false]);

    assert_eq!(hand.revoke(&first.authority_id).await.unwrap(), first, "with its end");
    let news = stream.next().await.bundle.unwrap();
    assert_eq!(news.wit_authorities.len(), 1);
    assert_eq!(news.wit_authorities[0].key_id, prepared.authority_id);
    assert_eq!(
        (news.x509_authorities.len(), news.jwt_authorities.len()),
        (1, 1),
        "the others are left alone"
    );
}

#[tokio::test]
async fn orders_out_of_turn_are_refused_by_the_name_of_the_family() {
    let server = start().await;
    let hand = WitHand(&server);
    let first = hand.active().await;
    let (argument, internal) = (Code::InvalidArgument, Code::Internal);
    let (unknown, state) = (Reason::AuthorityNotFound, Reason::AuthorityState);
    for outcome in [hand.activate("").await, hand.taint("").await, hand.revoke("").await] {
        expect_refusal(outcome, argument, Reason::BadRequest);
    }
    // The keys of the other family are not known here.
    let jwt = server.bundle().await.jwt_authorities[0].kid().to_owned();
    for id in ["abcd", &jwt] {
        expect_refusal(hand.activate(id).await, argument, unknown);
        expect_refusal(hand.taint(id).await, argument, unknown);
        let message = expect_refusal(hand.revoke(id).await, argument, unknown);
        assert!(message.contains("no WIT authority found"), "{message}");
    }
    expect_refusal(hand.taint(&first).await, argument, state);
    let next = hand.prepare().await.unwrap().authority_id;
    hand.activate(&next).await.unwrap();
    let early = expect_refusal(hand.revoke(&first).await, internal, state);
    assert!(early.starts_with("failed to revoke WIT authority"), "{early}");
    hand.taint(&first).await.unwrap();
    let twice = expect_refusal(hand.taint(&first).await, internal, state);
    assert_eq!(twice, "failed to taint WIT authority: key is already tainted");
}

#[tokio::test]
async fn a_server_without_wit_svids_has_no_wit_authorities_to_handle() {
    let server = TestServer::start().await;
    let hand = WitHand(&server);
    let off = |outcome: Result<(), Status>| {
        let message = expect_refusal(outcome, Code::Unimplemented, Reason::WitSvidsDisabled);
        assert_eq!(message, "WIT functionality is disabled");
    };
    off(hand.show().await.map(drop));
    off(hand.prepare().await.map(drop));
    for id in ["", "abcd"] {
        off(hand.activate(id).await.map(drop));
        off(hand.taint(id).await.map(drop));
        off(hand.revoke(id).await.map(drop));
    }
}

#[tokio::test]
async fn what_was_ordered_outlives_a_restart() {
    let mut server = TestServer::start_with(|config| {
        config.wit.enabled = true;
        config.store.kind = StoreKind::Sled;
    })
    .await;
    let first = WitHand(&server).active().await;
    let next = WitHand(&server).prepare().await.unwrap().authority_id;
    server.restart().await;
    let shown = WitHand(&server).show().await.unwrap();
    let ids = (shown.active.unwrap().authority_id, shown.prepared.unwrap().authority_id);
    assert_eq!(ids, (first.clone(), next.clone()));
    WitHand(&server).activate(&next).await.unwrap();
    WitHand(&server).taint(&first).await.unwrap();
    server.restart().await;
    assert_eq!(signer(&server).await, next);
    WitHand(&server).revoke(&first).await.unwrap();
}

#[tokio::test]
async fn a_new_key_signs_once_the_connected_agent_has_acknowledged_it() {
    let server = TestServer::start_with(|config| {
        config.wit.enabled = true;
        config.agent_ttl_secs = CA_TTL_SECS;
    })
    .await;
    let agent = server.attest().await;
    let first = signer(&server).await;
    let mut stream = Following::open(&agent).await;
    let bundle = stream.next().await.bundle.unwrap();
    assert_eq!(bundle.wit_authorities[0].key_id, first);
    assert_eq!(bundle.wit_authorities[0].expires_at, (NOW + CA_TTL_SECS).unix_secs());
    // So late that the next authorities of all families are due to sign as soon as they are made.
    server.clock.set(NOW + CA_TTL_SECS * 5 / 6 + 1);
    let (revision, second) = loop {
        let news = stream.next().await;
        let bundle = news.bundle.unwrap();
        let families =
            [bundle.x509_authorities.len(), bundle.jwt_authorities.len(), bundle.wit_authorities.len()];
        if families == [2, 2, 2] {
            break (news.revision, bundle.wit_authorities[1].key_id.clone());
        }
    };
    assert_eq!(signer(&server).await, first, "told before it signs");
    stream.acknowledge(&revision).await;
    server.clock.advance(10);
    in_time(async { while signer(&server).await != second {} }).await;
}
