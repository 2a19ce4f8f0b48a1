//! Authorities by hand, over the wire: every RPC, its refusals, and what agents see of it.

use spindle_proto::spire::api::server::localauthority::v1 as wire;
use spindle_server::StoreKind;
use spindle_spiffe_core::Reason;
use tonic::Code;

use crate::by_hand::X509Hand;
use crate::following::Following;
use crate::support::{CA_TTL_SECS, TestServer, expect_refusal};

#[tokio::test]
async fn a_followed_change_of_the_authority_is_pushed_step_by_step_and_locks_out_who_did_not_follow() {
    let server = TestServer::start_with(|config| config.agent_ttl_secs = CA_TTL_SECS).await;
    let hand = X509Hand(&server);
    let (agent, late) = (server.attest().await, server.attest().await);
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    let first = hand.show().await.unwrap().active.unwrap();

    let prepared = hand.prepare().await.unwrap();
    assert_eq!(stream.next().await.bundle.unwrap().x509_authorities.len(), 2);
    let shown = hand.show().await.unwrap();
    assert_eq!(
        (shown.active, shown.prepared, shown.old),
        (Some(first.clone()), Some(prepared.clone()), None)
    );
    assert_eq!(prepared.upstream_authority_subject_key_id, "");

    assert_eq!(hand.activate(&prepared.authority_id).await.unwrap(), prepared);
    let shown = hand.show().await.unwrap();
    assert_eq!(
        (shown.active, shown.prepared, shown.old),
        (Some(prepared.clone()), None, Some(first.clone()))
    );

    assert_eq!(hand.taint(&first.authority_id).await.unwrap(), first);
    let mut news = stream.next().await.bundle.unwrap();
    let taints: Vec<bool> = news.x509_authorities.iter().map(|authority| authority.tainted).collect();
    assert_eq!((taints, news.sequence_number), (vec![true, false], 4));
    late.knock().await.expect("tainted is still trusted");
    let (key, svid) = agent.renew().await;
    let renewed = server.connect(key, &svid).await;
    let issuer: String =
        renewed.svid.authority_key_id().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(issuer, prepared.authority_id, "what is made now hangs from the new authority");
    // The first use of the renewed SVID takes the place of the old one, which ends the stream opened with that.
    let mut stream = Following::open(&renewed).await;
    stream.next().await;

    assert_eq!(hand.revoke(&first.authority_id).await.unwrap(), first);
    news = stream.next().await.bundle.unwrap();
    assert_eq!((news.x509_authorities.len(), news.sequence_number), (1, 5));
    renewed.knock().await.expect("it has followed");
    server.try_dial(&late.svid, &late.key).await.expect_err("it has not, and nobody vouches for it any more");
}

#[tokio::test]
async fn orders_out_of_turn_are_refused_with_a_code_and_a_reason() {
    let server = TestServer::start().await;
    let hand = X509Hand(&server);
    let first = hand.active().await;
    let (argument, unknown, state) =
        (Code::InvalidArgument, Reason::AuthorityNotFound, Reason::AuthorityState);
    for id in ["", "abcd", &first, "spiffe://example.org", &"f".repeat(100_000)] {
        expect_refusal(hand.activate(id).await, argument, unknown);
        let tainting = if id == first { state } else { unknown };
        expect_refusal(hand.taint(id).await, argument, tainting);
        expect_refusal(hand.revoke(id).await, argument, tainting);
    }
    let next = hand.prepare().await.unwrap().authority_id;
    expect_refusal(hand.taint(&next).await, argument, state);
    expect_refusal(hand.revoke(&next).await, argument, state);
    hand.activate(&next).await.unwrap();
    expect_refusal(hand.activate(&first).await, Code::Internal, state);
    let early = expect_refusal(hand.revoke(&first).await, Code::Internal, state);
    assert!(early.contains("not possible to revoke an untainted root CA"), "{early}");
    hand.taint(&first).await.unwrap();
    let twice = expect_refusal(hand.taint(&first).await, Code::Internal, state);
    assert_eq!(twice, "failed to taint X.509 authority: root CA is already tainted");
    hand.revoke(&first).await.unwrap();
    expect_refusal(hand.revoke(&first).await, Code::Internal, state);
}

#[tokio::test]
async fn upstream_orders_need_an_upstream_authority() {
    let server = TestServer::start().await;
    let mut client = server.local_authorities().await;
    let taint = wire::TaintX509UpstreamAuthorityRequest { subject_key_id: "abcd".into() };
    let tainted = client.taint_x509_upstream_authority(taint).await;
    let text = expect_refusal(tainted, Code::FailedPrecondition, Reason::NoUpstreamAuthority);
    assert_eq!(text, "upstream authority is not configured");
    let revoke = wire::RevokeX509UpstreamAuthorityRequest { subject_key_id: String::new() };
    let revoked = client.revoke_x509_upstream_authority(revoke).await;
    expect_refusal(revoked, Code::FailedPrecondition, Reason::NoUpstreamAuthority);
}

#[tokio::test]
async fn what_was_ordered_outlives_a_restart() {
    let mut server = TestServer::start_with(|config| config.store.kind = StoreKind::Sled).await;
    let first = X509Hand(&server).active().await;
    let next = X509Hand(&server).prepare().await.unwrap().authority_id;
    server.restart().await;
    let shown = X509Hand(&server).show().await.unwrap();
    assert_eq!(
        (shown.active.unwrap().authority_id, shown.prepared.unwrap().authority_id),
        (first.clone(), next.clone())
    );
    X509Hand(&server).activate(&next).await.unwrap();
    X509Hand(&server).taint(&first).await.unwrap();
    server.restart().await;
    X509Hand(&server).revoke(&first).await.unwrap();
    assert_eq!(server.bundle().await.x509_authorities.len(), 1);
    assert_eq!(X509Hand(&server).active().await, next);
}

#[tokio::test]
async fn many_operators_at_once_leave_one_prepared_authority() {
    let server = TestServer::start().await;
    let hand = X509Hand(&server);
    let prepared = futures_util::future::join_all((0..10).map(|_| hand.prepare())).await;
    assert!(prepared.iter().all(Result::is_ok), "{prepared:?}");
    let shown = hand.show().await.unwrap().prepared.unwrap();
    assert!(prepared.iter().any(|one| one.as_ref().unwrap() == &shown));
    assert_eq!(server.bundle().await.x509_authorities.len(), 2, "those that never signed are gone");
    let activated = futures_util::future::join_all((0..4).map(|_| hand.activate(&shown.authority_id))).await;
    assert_eq!(activated.iter().filter(|one| one.is_ok()).count(), 1, "{activated:?}");
}
