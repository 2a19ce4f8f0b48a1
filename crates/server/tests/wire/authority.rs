//! The X.509 authority as callers see it: rotation with agents connected, restarts, the bundle, Debug and Health.

use spindle_keys::{Key, KeyType, certificate_request};
use spindle_proto::spire::api::server::bundle::v1 as bundle_api;
use spindle_proto::spire::api::server::debug::v1::GetInfoRequest;
use spindle_proto::spire::api::server::debug::v1::debug_client::DebugClient;
use spindle_proto::spire::api::server::svid::v1 as svid_api;
use spindle_proto::spire::api::types;
use spindle_server::{KeySettings, StoreKind};
use spindle_spiffe_core::{Reason, X509Svid};
use spindle_testkit::NOW;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::following::Following;
use crate::support::{CA_TTL_SECS, SVID_TTL_SECS, TestServer, entry, expect_refusal, id, in_time, wire_id};

/// Mints an SVID; which authority signed it shows in its key identifiers.
async fn mint(server: &TestServer) -> X509Svid {
    let key = Key::generate(KeyType::EcP256).unwrap();
    let csr = certificate_request(&key, Some(&id("/web")), &[]).unwrap();
    let request = svid_api::MintX509svidRequest { csr: csr.into(), ttl: 0 };
    let answer = server.svids().await.mint_x509svid(request).await.unwrap().into_inner();
    server.verified(&answer.svid.unwrap()).await
}

/// Ids of the authorities in the bundle, oldest first.
async fn trusted(server: &TestServer) -> Vec<String> {
    let authorities = server.bundle().await.x509_authorities;
    authorities.iter().map(|authority| authority.subject_key_id().to_owned()).collect()
}

/// The id of the authority that signed.
fn signer(svid: &X509Svid) -> String {
    svid.authority_key_id().unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_new_authority_signs_once_the_connected_agent_has_acknowledged_it() {
    let server = TestServer::start_with(|config| config.agent_ttl_secs = CA_TTL_SECS).await;
    let agent = server.attest().await;
    let first = signer(&mint(&server).await);
    let mut stream = Following::open(&agent).await;
    stream.next().await;
    // So late that the next authority is due to sign as soon as it is made.
    server.clock.set(NOW + CA_TTL_SECS * 5 / 6 + 1);
    // The next JWT authority comes at the same time, before or after it.
    let news = loop {
        let news = stream.next().await;
        if news.bundle.as_ref().is_some_and(|bundle| bundle.x509_authorities.len() == 2) {
            break news;
        }
    };
    let both = trusted(&server).await;
    assert_eq!((both.len(), signer(&mint(&server).await)), (2, first));
    stream.acknowledge(&news.revision).await;
    // Agents that only poll have had a round, too.
    server.clock.advance(10);
    let activated = async { while signer(&mint(&server).await) != both[1] {} };
    in_time(activated).await;
    // Who connects now meets a server whose SVID the new bundle vouches for.
    in_time(server.dial(None)).await;
    assert_eq!(trusted(&server).await, both);
}

#[tokio::test]
async fn a_restart_with_keys_on_disk_goes_on_with_the_same_authority() {
    let mut server = TestServer::start_with(|config| config.store.kind = StoreKind::Sled).await;
    let (before, bundle) = (mint(&server).await, server.bundle().await);
    server.restart().await;
    assert_eq!(signer(&mint(&server).await), signer(&before));
    assert_eq!(server.bundle().await, bundle);
}

#[tokio::test]
async fn a_restart_with_keys_in_memory_makes_a_new_authority_and_keeps_trusting_the_old_one() {
    let mut server = TestServer::start_with(|config| {
        config.store.kind = StoreKind::Sled;
        config.keys = KeySettings::Memory;
    })
    .await;
    let (before, sequence) = (mint(&server).await, server.bundle().await.sequence);
    let agent = server.attest().await;
    server.restart().await;
    let after = mint(&server).await;
    assert_eq!(trusted(&server).await, [signer(&before), signer(&after)]);
    assert_eq!(server.bundle().await.sequence, sequence + 2, "a JWT authority came too");
    server.reconnect(agent).await.knock().await.expect("what the old authority signed is good");
}

#[tokio::test]
async fn a_server_whose_port_is_taken_leaves_no_authority_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut server = TestServer::start_with(|config| {
        config.store.kind = StoreKind::Sled;
        config.keys = KeySettings::Memory;
    })
    .await;
    server.stop().await;
    for _ in 0..3 {
        let error = server.try_boot_on(taken.local_addr().unwrap().port()).await.expect_err("it is taken");
        assert!(error.to_string().contains("cannot listen"), "{error}");
    }
    server.restart_stopped().await;
    assert_eq!(trusted(&server).await.len(), 2, "one of the first start, one of this");
}

#[tokio::test]
async fn a_bundle_mask_keeps_the_name_and_what_it_names() {
    let server = TestServer::start().await;
    let get = async |output_mask| {
        let request = bundle_api::GetBundleRequest { output_mask };
        server.bundles().await.get_bundle(request).await.unwrap().into_inner()
    };
    let whole = get(None).await;
    assert_eq!((whole.trust_domain.as_str(), whole.x509_authorities.len()), ("example.org", 1));
    assert!(whole.sequence_number == 2 && whole.refresh_hint == 300 && whole.jwt_authorities.len() == 1);
    let bare = types::Bundle { trust_domain: "example.org".into(), ..Default::default() };
    assert_eq!(get(Some(types::BundleMask::default())).await, bare);
    let mask = types::BundleMask { sequence_number: true, refresh_hint: true, ..Default::default() };
    assert_eq!(
        get(Some(mask)).await,
        types::Bundle { sequence_number: 2, refresh_hint: 300, ..bare.clone() }
    );
    let mask = types::BundleMask { x509_authorities: true, ..Default::default() };
    let x509 = types::Bundle { x509_authorities: whole.x509_authorities, ..bare.clone() };
    assert_eq!(get(Some(mask)).await, x509);
    let mask = types::BundleMask { jwt_authorities: true, ..Default::default() };
    assert_eq!(get(Some(mask)).await, types::Bundle { jwt_authorities: whole.jwt_authorities, ..bare });
}

async fn federated(server: &TestServer, name: &str) -> Result<types::Bundle, Status> {
    let request = bundle_api::GetFederatedBundleRequest { trust_domain: name.into(), output_mask: None };
    Ok(server.bundles().await.get_federated_bundle(request).await?.into_inner())
}

#[tokio::test]
async fn a_federated_bundle_is_anothers_and_must_be_known() {
    let server = TestServer::start_with_other_example().await;
    let own = federated(&server, "example.org").await;
    let own = expect_refusal(own, Code::InvalidArgument, Reason::OwnTrustDomain);
    assert!(own.contains("own trust domain"), "{own}");
    for name in ["", "Not A Name", "spiffe://"] {
        expect_refusal(federated(&server, name).await, Code::InvalidArgument, Reason::BadRequest);
    }
    let unknown = federated(&server, "unknown.example").await;
    assert_eq!(expect_refusal(unknown, Code::NotFound, Reason::BundleNotFound), "bundle not found");
    // As the user typed it, which SPIRE's command line passes on.
    assert!(federated(&server, "spiffe://other.example").await.is_ok());
    let bundle = federated(&server, "other.example").await.unwrap();
    assert_eq!((bundle.trust_domain.as_str(), bundle.sequence_number), ("other.example", 7));
    let count =
        server.bundles().await.count_bundles(bundle_api::CountBundlesRequest::default()).await.unwrap();
    assert_eq!(count.into_inner().count, 2, "the server's own is counted");
}

#[tokio::test]
async fn an_identity_of_another_trust_domain_is_a_stranger_here() {
    let server = TestServer::start_with_other_example().await;
    let foreign = spindle_testkit::TestAuthority::new("unknown.example", NOW).issue("/web", NOW);
    let dialed = server.try_dial(&foreign.svid, &foreign.key).await;
    dialed.expect_err("nobody vouches for it");
}

#[tokio::test]
async fn debug_counts_and_shows_the_servers_own_svid() {
    let server = TestServer::start_with_other_example().await;
    let agent = server.attest().await;
    server.create(vec![entry(&agent.id, "/web", &["a:1"]), entry(&agent.id, "/db", &["a:1"])]).await;
    server.clock.advance(90);
    let info = DebugClient::new(server.admin().await).get_info(GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.agents_count, info.entries_count, info.uptime), (1, 2, 90));
    assert_eq!(info.federated_bundles_count, 2, "all bundles, as SPIRE counts");
    assert_eq!(info.svid_chain[0].id, Some(wire_id("/spire/server")));
    assert_eq!(info.svid_chain[0].expires_at, (NOW + SVID_TTL_SECS).unix_secs());
    assert_eq!(info.svid_chain[0].subject, "O=SPIRE,C=US");
    assert_eq!(info.svid_chain[1].id, Some(wire_id("")));
    assert_eq!(info.svid_chain[1].expires_at, (NOW + CA_TTL_SECS).unix_secs());
    let subject = &info.svid_chain[1].subject;
    assert!(subject.starts_with("SERIALNUMBER=") && subject.ends_with(",O=SPIFFE,C=US"), "{subject}");
    assert_eq!(info.svid_chain.len(), 2);
}

#[tokio::test]
async fn health_is_served_for_the_whole_server_by_check_alone() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(server.admin().await);
    let whole = HealthCheckRequest { service: String::new() };
    assert_eq!(health.check(whole.clone()).await.unwrap().into_inner().status, 1, "SERVING");
    let one = HealthCheckRequest { service: "spire.api.server.agent.v1.Agent".into() };
    expect_refusal(health.check(one).await, Code::InvalidArgument, Reason::BadRequest);
    assert_eq!(health.watch(whole).await.expect_err("not served").code(), Code::Unimplemented);
}
