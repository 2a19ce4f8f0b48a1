//! What servers below this one ask for: an authority of their own, and room for their JWT keys.

use rustls_pki_types::CertificateDer;
use spindle_ca::{SvidRequest, SvidSubject, X509Ca};
use spindle_keys::{Key, KeyType};
use spindle_proto::spire::api::server::bundle::v1 as bundle_api;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::spire::api::server::svid::v1 as wire;
use spindle_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use spindle_proto::spire::api::types;
use spindle_server::{DiskUpstreamSettings, UpstreamSettings};
use spindle_spiffe_core::{Reason, Validity, X509Bundle, X509Bundles, verify_x509_svid};
use spindle_testkit::{NOW, TestFolder, UpstreamFiles};
use tonic::transport::Channel;
use tonic::{Code, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::support::{CA_TTL_SECS, TestServer, csr_of, entry, expect_refusal, id, in_time, trust_domain};

/// A connection as a server below.
pub(crate) async fn dial_below(server: &TestServer) -> Channel {
    let mut below = entry(&id("/node"), "/below", &["unix:uid:0"]);
    below.downstream = true;
    server.create_one(below).await;
    server.dial_as("/below").await
}

async fn ask(
    channel: &Channel,
    csr: Vec<u8>,
    preferred_ttl: i32,
) -> Result<wire::NewDownstreamX509caResponse, Status> {
    let request = wire::NewDownstreamX509caRequest { csr: csr.into(), preferred_ttl };
    Ok(in_time(SvidClient::new(channel.clone()).new_downstream_x509ca(request)).await?.into_inner())
}

/// The authority in an answer, which signs for `key`.
fn authority(answer: &wire::NewDownstreamX509caResponse, key: &Key) -> X509Ca {
    let chain: Vec<CertificateDer<'static>> =
        answer.ca_cert_chain.iter().map(|der| der.to_vec().into()).collect();
    X509Ca::from_parts(&trust_domain(), chain[0].clone(), key.clone(), chain).unwrap()
}

/// Checks that an SVID signed below is trusted by whoever holds the roots of the answer.
fn check_chain(answer: &wire::NewDownstreamX509caResponse, ca: &X509Ca) {
    let key = Key::generate(KeyType::EcP256).unwrap();
    let request = SvidRequest {
        spiffe_id: id("/web"),
        spki_der: key.spki_der(),
        subject: SvidSubject::default(),
        dns_names: &[],
        validity: Validity { not_before: NOW, not_after: NOW + 60 },
        serial: [9; 16],
    };
    let svid = ca.sign_x509_svid(&request).unwrap();
    let roots = answer.x509_authorities.iter().map(|der| der.to_vec().into());
    let bundle = X509Bundle::from_certificates(trust_domain(), roots).unwrap();
    verify_x509_svid(&svid.chain, &X509Bundles::from(bundle), NOW).unwrap();
}

fn subject(der: &[u8]) -> String {
    X509Certificate::from_der(der).unwrap().1.subject().to_string()
}

#[tokio::test]
async fn a_server_below_gets_an_authority_of_its_own() {
    let server = TestServer::start().await;
    let channel = dial_below(&server).await;
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let key = Key::generate(key_type).unwrap();
        let answer = ask(&channel, csr_of(&key), 0).await.unwrap();
        assert_eq!((answer.ca_cert_chain.len(), answer.x509_authorities.len()), (1, 1), "the root is apart");
        let ca = authority(&answer, &key);
        assert_eq!(ca.validity(), Validity { not_before: NOW - 10, not_after: NOW + CA_TTL_SECS });
        let subject = subject(&answer.ca_cert_chain[0]);
        assert!(subject.starts_with("C=US, O=SPIFFE, OU=DOWNSTREAM-1, serialNumber="), "{subject}");
        check_chain(&answer, &ca);
    }
}

#[tokio::test]
async fn the_lifetime_is_as_wished_and_never_longer_than_the_authority_above() {
    let server = TestServer::start().await;
    let channel = dial_below(&server).await;
    let key = Key::generate(KeyType::EcP256).unwrap();
    let ends = async |ttl| {
        let answer = ask(&channel, csr_of(&key), ttl).await.unwrap();
        authority(&answer, &key).validity().not_after
    };
    assert_eq!(ends(600).await, NOW + 600);
    assert_eq!(ends(i32::MAX).await, NOW + CA_TTL_SECS);
    server.clock.advance(3000);
    assert_eq!(ends(0).await, NOW + CA_TTL_SECS, "the authority above ends then");
}

#[tokio::test]
async fn below_an_upstream_authority_the_whole_chain_comes_along() {
    let folder = TestFolder::new();
    let files = UpstreamFiles::with_intermediate("one", NOW);
    let [cert_file_path, key_file_path, bundle] = files.write(&folder);
    let server = TestServer::start_with(|config| {
        let bundle_file_path = Some(bundle);
        let disk = DiskUpstreamSettings { cert_file_path, key_file_path, bundle_file_path };
        config.upstream = Some(UpstreamSettings::Disk(disk));
    })
    .await;
    let channel = dial_below(&server).await;
    let key = Key::generate(KeyType::EcP256).unwrap();
    let answer = ask(&channel, csr_of(&key), 0).await.unwrap();
    assert_eq!(answer.ca_cert_chain.len(), 3);
    assert!(subject(&answer.ca_cert_chain[0]).contains("OU=DOWNSTREAM-2"));
    assert_eq!(answer.x509_authorities[0].to_vec(), files.root().to_vec());
    check_chain(&answer, &authority(&answer, &key));
}

#[tokio::test]
async fn a_request_that_cannot_be_taken_is_refused() {
    let server = TestServer::start().await;
    let channel = dial_below(&server).await;
    let good = csr_of(&Key::generate(KeyType::EcP256).unwrap());
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let missing = expect_refusal(ask(&channel, vec![], 0).await, Code::InvalidArgument, Reason::BadCsr);
    assert_eq!(missing, "missing CSR");
    for csr in [b"no request".to_vec(), forged, good[..good.len() - 1].to_vec(), vec![0x30; 100_000]] {
        let text = expect_refusal(ask(&channel, csr, 0).await, Code::InvalidArgument, Reason::BadCsr);
        assert!(text.starts_with("malformed CSR: "), "{text}");
    }
    let negative = ask(&channel, good, -1).await;
    expect_refusal(negative, Code::InvalidArgument, Reason::BadRequest);
}

fn jwt_key(kid: &str, key: &Key) -> types::JwtKey {
    let public_key = key.spki_der().to_vec().into();
    types::JwtKey { public_key, key_id: kid.into(), expires_at: (NOW + 60).unix_secs(), tainted: true }
}

/// Publishes a key; returns those of the answer but for the server's own, which is the oldest.
async fn publish(channel: &Channel, key: Option<types::JwtKey>) -> Result<Vec<types::JwtKey>, Status> {
    let request = bundle_api::PublishJwtAuthorityRequest { jwt_authority: key };
    let answer = in_time(BundleClient::new(channel.clone()).publish_jwt_authority(request)).await?;
    Ok(answer.into_inner().jwt_authorities.split_off(1))
}

#[tokio::test]
async fn a_jwt_key_from_below_joins_the_bundle_once_and_untainted() {
    let server = TestServer::start().await;
    let channel = dial_below(&server).await;
    let (one, two) = (Key::generate(KeyType::EcP256).unwrap(), Key::generate(KeyType::Rsa2048).unwrap());
    let sequence = server.bundle().await.sequence;
    let untainted = |kid, key| types::JwtKey { tainted: false, ..jwt_key(kid, key) };
    assert_eq!(publish(&channel, Some(jwt_key("one", &one))).await.unwrap(), [untainted("one", &one)]);
    let both = [untainted("one", &one), untainted("two", &two)];
    assert_eq!(publish(&channel, Some(jwt_key("two", &two))).await.unwrap(), both);
    assert_eq!(publish(&channel, Some(jwt_key("one", &one))).await.unwrap(), both, "brought again");
    let bundle = server.bundle().await;
    assert_eq!((bundle.jwt_authorities.len(), bundle.sequence), (3, sequence + 2));
}

#[tokio::test]
async fn a_jwt_key_that_is_missing_malformed_or_anothers_is_refused_and_leaves_the_bundle() {
    let server = TestServer::start().await;
    let channel = dial_below(&server).await;
    let (one, two) = (Key::generate(KeyType::EcP256).unwrap(), Key::generate(KeyType::EcP256).unwrap());
    publish(&channel, Some(jwt_key("one", &one))).await.unwrap();
    let before = server.bundle().await;
    let argument = Code::InvalidArgument;
    let missing = expect_refusal(publish(&channel, None).await, argument, Reason::BadRequest);
    assert_eq!(missing, "missing JWT authority");
    let good = || jwt_key("two", &two);
    for key in [
        types::JwtKey { key_id: String::new(), ..good() },
        types::JwtKey { key_id: "k".repeat(2000), ..good() },
        types::JwtKey { public_key: b"no key"[..].into(), ..good() },
        types::JwtKey { public_key: Default::default(), ..good() },
        types::JwtKey { expires_at: -1, ..good() },
    ] {
        let text = expect_refusal(publish(&channel, Some(key)).await, argument, Reason::BadRequest);
        assert!(text.starts_with("invalid JWT authority: "), "{text}");
    }
    let taken = publish(&channel, Some(jwt_key("one", &two))).await;
    expect_refusal(taken, Code::AlreadyExists, Reason::AlreadyExists);
    assert_eq!(server.bundle().await, before);
}

#[tokio::test]
async fn servers_below_that_publish_at_once_lose_nothing() {
    let server = TestServer::start().await;
    let channel = dial_below(&server).await;
    let keys: Vec<_> =
        (0..6).map(|n| (format!("key-{n}"), Key::generate(KeyType::EcP256).unwrap())).collect();
    let published = keys.iter().map(|(kid, key)| publish(&channel, Some(jwt_key(kid, key))));
    let published = futures_util::future::join_all(published).await;
    assert!(published.iter().all(Result::is_ok), "{published:?}");
    assert_eq!(server.bundle().await.jwt_authorities.len(), 7, "with the server's own");
}
