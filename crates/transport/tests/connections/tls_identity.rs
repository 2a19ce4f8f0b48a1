//! Who is let in, who is refused, and why.

use std::sync::Arc;

use spindle_spiffe_core::Reason;
use spindle_transport::{
    ExpectedServer, HandshakeError, IdentityError, LiveBundles, LiveIdentity, Peer, TlsDialer, Trust,
};

use crate::support::{AGENT_ID, Authority, LATER, ManualClock, SERVER_ID, TlsServer, call};

/// Connects, calls, and expects the server to refuse the certificate, which only shows after the handshake.
async fn refused(server: &TlsServer, dialer: &TlsDialer) -> Reason {
    let calls = server.served.calls();
    match dialer.connect().await {
        Ok(channel) => {
            call(&channel).await.unwrap_err();
        }
        // The alert can arrive while HTTP/2 starts.
        Err(error) => assert_eq!(error.reason(), Reason::Unreachable, "{error:?}"),
    }
    assert_eq!(server.served.calls(), calls, "no call gets through");
    dialer.last_fault().expect("the cause is kept").reason()
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    let dialer = server.dialer(&authority).with_identity(authority.identity(AGENT_ID));
    let (channel, presented) = dialer.connect_presented().await.unwrap();
    call(&channel).await.unwrap();
    assert_eq!(presented.spiffe_id().as_str(), SERVER_ID);
    let Peer::Tls { addr, identity: Some(peer) } = server.served.last_peer() else { panic!("no identity") };
    let svid = dialer.identity.as_ref().unwrap().svid().unwrap();
    assert_eq!(peer.spiffe_id().as_str(), AGENT_ID);
    assert_eq!(peer.serial(), svid.serial());
    assert_eq!(peer.chain(), svid.chain());
    assert_eq!(peer.not_after(), svid.validity().not_after);
    assert!(peer.is_expired(LATER));
    assert!(addr.ip().is_loopback());
    assert!(dialer.last_fault().is_none());
}

#[tokio::test]
async fn a_client_without_a_certificate_is_let_in_without_an_identity() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    call(&server.dialer(&authority).connect().await.unwrap()).await.unwrap();
    assert_eq!(server.served.last_id(), None);
    let unset = server.dialer(&authority).with_identity(LiveIdentity::new());
    call(&unset.connect().await.unwrap()).await.unwrap();
    assert_eq!(server.served.last_id(), None);
}

#[tokio::test]
async fn a_new_server_identity_is_presented_without_a_restart() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    let (old_channel, old) = server.dialer(&authority).connect_presented().await.unwrap();
    authority.rotate(&server.identity, SERVER_ID);
    let (new_channel, new) = server.dialer(&authority).connect_presented().await.unwrap();
    assert_ne!(old.serial(), new.serial());
    assert_eq!(Some(new), server.identity.svid());
    call(&old_channel).await.unwrap();
    call(&new_channel).await.unwrap();
}

#[tokio::test]
async fn a_new_client_identity_is_presented_by_the_next_connection() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    let identity = authority.identity(AGENT_ID);
    let dialer = server.dialer(&authority).with_identity(identity.clone());
    for _ in 0..2 {
        authority.rotate(&identity, AGENT_ID);
        call(&dialer.connect().await.unwrap()).await.unwrap();
        let Peer::Tls { identity: Some(peer), .. } = server.served.last_peer() else { panic!("no identity") };
        assert_eq!(*peer.svid(), identity.svid().unwrap());
    }
}

#[tokio::test]
async fn an_expired_client_is_refused_and_told_so() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    server.clock.set(LATER);
    let dialer = server.dialer(&authority).with_identity(authority.identity(AGENT_ID));
    assert_eq!(refused(&server, &dialer).await, Reason::PeerExpired);
}

#[tokio::test]
async fn a_client_of_a_foreign_authority_is_refused() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    let foreign = Authority::new();
    for id in [AGENT_ID, "spiffe://two.example/x"] {
        let dialer = server.dialer(&authority).with_identity(foreign.identity(id));
        assert_eq!(refused(&server, &dialer).await, Reason::PeerNotTrusted, "{id}");
    }
}

#[tokio::test]
async fn an_authority_cannot_speak_for_another_trust_domain() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    let foreign = Authority::new();
    let mut both = authority.bundles("one.example");
    both.insert(foreign.bundles("two.example").iter().next().unwrap().clone());
    server.bundles.set(both);
    let dialer = |id| server.dialer(&authority).with_identity(foreign.identity(id));
    assert_eq!(refused(&server, &dialer(AGENT_ID)).await, Reason::PeerNotTrusted);
    let own = dialer("spiffe://two.example/x");
    call(&own.connect().await.unwrap()).await.unwrap();
    assert_eq!(server.served.last_id().as_deref(), Some("spiffe://two.example/x"));
}

#[tokio::test]
async fn a_new_bundle_counts_for_the_next_connection() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = TlsServer::start(&old).await;
    let dialer = server.dialer(&old).with_identity(new.identity(AGENT_ID));
    assert_eq!(refused(&server, &dialer).await, Reason::PeerNotTrusted);
    server.bundles.set(new.bundles("one.example"));
    call(&dialer.connect().await.unwrap()).await.unwrap();
    assert!(dialer.last_fault().is_none(), "a handshake that works clears the fault");
    let of_old = server.dialer(&old).with_identity(old.identity(AGENT_ID));
    assert_eq!(refused(&server, &of_old).await, Reason::PeerNotTrusted);
}

#[tokio::test]
async fn a_server_of_a_foreign_authority_is_not_trusted() {
    let server = TlsServer::start(&Authority::new()).await;
    let error = server.dialer(&Authority::new()).connect().await.unwrap_err();
    assert_eq!(error.reason(), Reason::PeerNotTrusted, "{error:?}");
}

#[tokio::test]
async fn an_expired_server_is_refused_as_expired() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    let mut dialer = server.dialer(&authority);
    let clock = ManualClock::new();
    clock.set(LATER);
    dialer.clock = clock;
    assert_eq!(dialer.connect().await.unwrap_err().reason(), Reason::PeerExpired);
}

#[tokio::test]
async fn a_server_with_another_id_is_refused_by_name() {
    let authority = Authority::new();
    let server = TlsServer::presenting(authority.identity("spiffe://one.example/web"), &authority).await;
    let error = server.dialer(&authority).connect().await.unwrap_err();
    assert_eq!(error.reason(), Reason::PeerWrongId, "{error:?}");
    let mut any_member = server.dialer(&authority);
    any_member.expected = ExpectedServer::MemberOf("one.example".parse().unwrap());
    call(&any_member.connect().await.unwrap()).await.unwrap();
    any_member.expected = ExpectedServer::MemberOf("two.example".parse().unwrap());
    assert_eq!(any_member.connect().await.unwrap_err().reason(), Reason::PeerWrongId);
}

#[tokio::test]
async fn bep_16_any_agent_of_a_trust_domain_can_be_expected_and_nobody_else_is_taken_for_one() {
    let authority = Authority::new();
    for (id, trust_domain, is_good) in [
        (AGENT_ID, "one.example", true),
        (AGENT_ID, "two.example", false),
        (SERVER_ID, "one.example", false),
        ("spiffe://one.example/web", "one.example", false),
        ("spiffe://one.example/spire/agents/a", "one.example", false),
    ] {
        let server = TlsServer::presenting(authority.identity(id), &authority).await;
        let mut dialer = server.dialer(&authority);
        dialer.expected = ExpectedServer::AgentOf(trust_domain.parse().unwrap());
        match dialer.connect().await {
            Ok(channel) => {
                assert!(is_good, "{id}");
                call(&channel).await.unwrap();
            }
            Err(error) => assert!(!is_good && error.reason() == Reason::PeerWrongId, "{id}: {error:?}"),
        }
    }
}

#[tokio::test]
async fn an_unverified_server_must_still_have_the_expected_id() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    let mut dialer = server.dialer(&Authority::new());
    dialer.trust = Trust::InsecureOnce;
    let (channel, presented) = dialer.connect_presented().await.unwrap();
    call(&channel).await.unwrap();
    assert_eq!(Some(presented), server.identity.svid());
    dialer.expected = ExpectedServer::Id("spiffe://one.example/other".parse().unwrap());
    assert_eq!(dialer.connect().await.unwrap_err().reason(), Reason::PeerWrongId);
}

#[tokio::test]
async fn an_unverified_connection_is_not_made_again() {
    let authority = Authority::new();
    let server = TlsServer::start(&authority).await;
    let mut dialer = server.dialer(&authority);
    dialer.trust = Trust::InsecureOnce;
    let channel = dialer.connect().await.unwrap();
    call(&channel).await.unwrap();
    server.served.stop().await;
    while dialer.last_fault().is_none() {
        call(&channel).await.unwrap_err();
    }
    let fault = dialer.last_fault().unwrap();
    assert!(fault.to_string().contains("not made again"), "{fault}");
}

#[tokio::test]
async fn a_lost_connection_is_made_again_with_what_is_live_then() {
    let authority = Authority::new();
    let first = TlsServer::start(&authority).await;
    let bundles = LiveBundles::new(authority.bundles("one.example"));
    let mut dialer = first.dialer(&authority);
    dialer.trust = Trust::Bundles(bundles.clone());
    let channel = dialer.connect().await.unwrap();
    call(&channel).await.unwrap();
    bundles.set(Authority::new().bundles("one.example"));
    call(&channel).await.unwrap();
    let (addr, identity) = (first.addr, first.identity.clone());
    first.served.stop().await;
    while dialer.last_fault().is_none() {
        call(&channel).await.unwrap_err();
    }
    assert_eq!(dialer.last_fault().unwrap().reason(), Reason::Unreachable);
    let tls = spindle_transport::ServerTls {
        identity,
        bundles: LiveBundles::new(authority.bundles("one.example")),
        clock: ManualClock::new(),
    };
    let listener = spindle_transport::TlsListener::bind(addr, tls).await.unwrap();
    let _again = crate::support::Served::start(listener.incoming());
    while dialer.last_fault().unwrap().reason() == Reason::Unreachable {
        call(&channel).await.unwrap_err();
    }
    assert_eq!(dialer.last_fault().unwrap().reason(), Reason::PeerNotTrusted);
    bundles.set(authority.bundles("one.example"));
    while call(&channel).await.is_err() {}
    assert!(dialer.last_fault().is_none());
}

#[tokio::test]
async fn a_server_without_an_identity_is_unreachable_not_untrusted() {
    let authority = Authority::new();
    let server = TlsServer::presenting(LiveIdentity::new(), &authority).await;
    let error = server.dialer(&authority).connect().await.unwrap_err();
    assert_eq!(error.reason(), Reason::Unreachable, "{error:?}");
    authority.rotate(&server.identity, SERVER_ID);
    call(&server.dialer(&authority).connect().await.unwrap()).await.unwrap();
}

#[test]
fn a_chain_and_a_key_that_do_not_belong_together_are_refused_and_the_old_identity_stays() {
    let authority = Authority::new();
    let identity = authority.identity(AGENT_ID);
    let before = identity.svid();
    let (one, other) = (authority.issue(AGENT_ID), authority.issue(AGENT_ID));
    let error = identity.set(one.chain.clone(), &other.key.serialize_der()).unwrap_err();
    assert!(matches!(error, IdentityError::Mismatch { .. }), "{error}");
    let error = identity.set(one.chain, b"no key").unwrap_err();
    assert!(matches!(error, IdentityError::Key { .. }), "{error}");
    let error = identity.set(Vec::new(), &other.key.serialize_der()).unwrap_err();
    assert!(matches!(error, IdentityError::Svid(_)), "{error}");
    assert_eq!(identity.svid(), before);
    identity.clear();
    assert_eq!(identity.svid(), None);
}

#[test]
fn an_identity_prints_no_key() {
    let text = format!("{:?}", Authority::new().identity(AGENT_ID));
    assert!(
        text.starts_with("LiveIdentity(Some(X509Svid(spiffe://one.example/spire/agent/a, serial"),
        "{text}"
    );
}

#[test]
fn alerts_and_faults_have_the_reason_to_show() {
    use rustls::{AlertDescription, Error};
    let refused = |alert| HandshakeError::RefusedByPeer(alert).reason();
    assert_eq!(refused(AlertDescription::CertificateExpired), Reason::PeerExpired);
    assert_eq!(refused(AlertDescription::UnknownCA), Reason::PeerNotTrusted);
    assert_eq!(refused(AlertDescription::HandshakeFailure), Reason::Unreachable);
    assert_eq!(HandshakeError::Tls(Error::HandshakeNotComplete).reason(), Reason::Unreachable);
    let _: Arc<dyn std::error::Error + Send + Sync> = Arc::new(HandshakeError::NoCertificate);
}
