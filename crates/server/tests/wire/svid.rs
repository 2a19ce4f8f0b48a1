//! Signing: batches for agents, minting for administrators, and what is refused.

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use spindle_keys::{Key, KeyType, certificate_request};
use spindle_proto::refusal::{item_ok, reason_of, retry_after_of};
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::server::svid::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{Reason, X509Svid};
use spindle_testkit::NOW;
use tonic::{Code, Status};
use wire::batch_new_x509svid_response::Result as Item;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::support::{
    CA_TTL_SECS, SVID_TTL_SECS, TestAgent, TestServer, code_of, csr, csr_of, entry, expect_refusal, id,
    in_time,
};

/// A certificate request with these alternative names and this subject.
fn request(uris: &[&str], dns_names: &[&str], subject: &[(DnType, &str)]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    let uris = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
    let names = dns_names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap()));
    params.subject_alt_names = uris.chain(names).collect();
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

async fn mint(server: &TestServer, csr: Vec<u8>, ttl: i32) -> Result<X509Svid, Status> {
    let request = wire::MintX509svidRequest { csr: csr.into(), ttl };
    let answer = in_time(server.svids().await.mint_x509svid(request)).await?.into_inner();
    Ok(server.verified(&answer.svid.unwrap()).await)
}

/// Subject and DNS names of a leaf.
fn names(svid: &X509Svid) -> (String, Vec<String>) {
    let (_, leaf) = X509Certificate::from_der(svid.leaf()).unwrap();
    let names = leaf.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let dns = names.flatten().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    (leaf.subject().to_string(), dns.collect())
}

fn param(entry_id: &str, csr: Vec<u8>) -> wire::NewX509svidParams {
    wire::NewX509svidParams { entry_id: entry_id.into(), csr: csr.into() }
}

async fn batch(agent: &TestAgent, params: Vec<wire::NewX509svidParams>) -> Result<Vec<Item>, Status> {
    let request = wire::BatchNewX509svidRequest { params };
    Ok(in_time(agent.svids().batch_new_x509svid(request)).await?.into_inner().results)
}

#[tokio::test]
async fn a_minted_svid_has_the_identity_and_the_names_of_the_request() {
    let server = TestServer::start().await;
    let csr = request(&["spiffe://example.org/web"], &["b.example.org", "a.example.org"], &[]);
    let svid = mint(&server, csr, 60).await.unwrap();
    assert_eq!(*svid.spiffe_id(), id("/web"));
    assert_eq!(svid.validity().not_before, NOW - 10);
    assert_eq!(svid.expires_at(), NOW + 60);
    let (subject, dns_names) = names(&svid);
    assert_eq!(dns_names, ["b.example.org", "a.example.org"]);
    assert_eq!(subject, "C=US, O=SPIRE, CN=b.example.org");
}

#[tokio::test]
async fn minting_needs_no_entry_and_copies_the_subject() {
    let server = TestServer::start().await;
    let subject = [(DnType::OrganizationName, "ACME"), (DnType::CommonName, "web")];
    let without_names = mint(&server, request(&["spiffe://example.org/a"], &[], &subject), 0).await.unwrap();
    assert_eq!(names(&without_names).0, "O=ACME, CN=web");
    let named = request(&["spiffe://example.org/a"], &["a.example.org"], &subject);
    let named = names(&mint(&server, named, 0).await.unwrap()).0;
    assert!(named.contains("CN=a.example.org") && !named.contains("CN=web"), "{named}");
    let bare = mint(&server, request(&["spiffe://example.org/a"], &[], &[]), 0).await.unwrap();
    assert_eq!(names(&bare).0, "C=US, O=SPIRE");
}

#[tokio::test]
async fn a_ttl_is_the_default_when_absent_and_never_outlives_the_authority() {
    let server = TestServer::start().await;
    let csr = || request(&["spiffe://example.org/web"], &[], &[]);
    for ttl in [0, -1] {
        assert_eq!(mint(&server, csr(), ttl).await.unwrap().expires_at(), NOW + SVID_TTL_SECS, "{ttl}");
    }
    assert_eq!(mint(&server, csr(), 1).await.unwrap().expires_at(), NOW + 1);
    assert_eq!(mint(&server, csr(), i32::MAX).await.unwrap().expires_at(), NOW + CA_TTL_SECS);
}

#[tokio::test]
async fn minting_refuses_what_is_no_one_workload_of_the_trust_domain() {
    let server = TestServer::start().await;
    let of = |uris: &[&str], dns_names: &[&str]| request(uris, dns_names, &[]);
    let web = "spiffe://example.org/web";
    let cases = [
        (of(&[], &[]), "exactly one URI SAN is required, found 0"),
        (of(&[], &["web.example.org"]), "exactly one URI SAN is required, found 0"),
        (of(&[web, "spiffe://example.org/db"], &[]), "exactly one URI SAN is required, found 2"),
        (of(&[web, "https://example.org/web"], &[]), "exactly one URI SAN is required, found 2"),
        (of(&["https://example.org/web"], &[]), "not a SPIFFE ID"),
        (of(&["spiffe://example.org/web/"], &[]), "not a SPIFFE ID"),
        (of(&["spiffe://Example.org/web"], &[]), "not a SPIFFE ID"),
        (of(&["spiffe://example.org"], &[]), "path"),
        (of(&["spiffe://example.org/spire/server"], &[]), "reserved"),
        (of(&["spiffe://example.org/spire/agent/join_token/x"], &[]), "reserved"),
        (of(&[web], &["-a.example.org"]), "-a.example.org"),
        (of(&[web], &["a..org"]), "DNS name"),
        (of(&[web], &["*.example.org", "a.example.org"]), "name overlap"),
        (of(&[web], &["a.example.org", "*.EXAMPLE.org"]), "name overlap"),
    ];
    for (csr, says) in cases {
        let answer = mint(&server, csr, 0).await;
        let message = expect_refusal(answer, Code::InvalidArgument, Reason::BadRequest);
        assert!(message.contains(says), "{says:?} is not in {message:?}");
    }
    let foreign = mint(&server, of(&["spiffe://other.example/web"], &[]), 0).await;
    let message = expect_refusal(foreign, Code::InvalidArgument, Reason::WrongTrustDomain);
    assert!(message.contains("other.example"), "{message}");
    let deeper = of(&[web], &["*.example.org", "a.b.example.org", "example.org"]);
    mint(&server, deeper, 0).await.expect("a wildcard stands for one label");
}

#[tokio::test]
async fn minting_leaves_out_what_it_does_not_know_of_a_subject() {
    let server = TestServer::start().await;
    let email = DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]);
    let subject = [(DnType::OrganizationName, "ACME"), (email, "web@example.org")];
    let svid = mint(&server, request(&["spiffe://example.org/web"], &[], &subject), 0).await.unwrap();
    assert_eq!(names(&svid).0, "O=ACME");
}

#[tokio::test]
async fn minting_refuses_what_is_no_sound_request() {
    let server = TestServer::start().await;
    let good = request(&["spiffe://example.org/web"], &[], &[]);
    let (mut forged, mut longer) = (good.clone(), good.clone());
    *forged.last_mut().unwrap() ^= 1;
    longer.push(0);
    let weak = include_bytes!("../../../ca/tests/vectors/rsa1024-sha256.der").to_vec();
    let large = vec![0x30; 64 * 1024 + 1];
    let cases = [
        (Vec::new(), Reason::BadRequest, "missing CSR"),
        (b"garbage".to_vec(), Reason::BadCsr, "malformed CSR"),
        (good[..good.len() - 1].to_vec(), Reason::BadCsr, "malformed CSR"),
        (longer, Reason::BadCsr, "bytes after"),
        (forged, Reason::BadCsr, "signature"),
        (large, Reason::BadCsr, "at most"),
        (weak, Reason::BadKey, "key"),
    ];
    for (csr, reason, says) in cases {
        let message = expect_refusal(mint(&server, csr, 0).await, Code::InvalidArgument, reason);
        assert!(message.contains(says), "{says:?} is not in {message:?}");
    }
    mint(&server, good, 0).await.unwrap();
}

#[tokio::test]
async fn a_batch_signs_each_entry_with_what_the_entry_says() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let rich = types::Entry {
        x509_svid_ttl: 120,
        dns_names: vec!["web.example.org".into(), "alt.example.org".into()],
        hint: "internal".into(),
        ..entry(&agent.id, "/web", &["a:1"])
    };
    let created = server.create(vec![rich, entry(&id("/web"), "/nested", &["a:1"])]).await;
    // Of the request only the key counts.
    let key = Key::generate(KeyType::EcP256).unwrap();
    let names_asked = ["evil.example.org".parse().unwrap()];
    let loud = certificate_request(&key, Some(&id("/admin")), &names_asked).unwrap();
    let results =
        batch(&agent, vec![param(&created[0].id, loud), param(&created[1].id, csr())]).await.unwrap();
    assert_eq!(results[0].status, Some(item_ok()));
    let web = results[0].svid.as_ref().unwrap();
    assert_eq!(web.hint, "internal");
    let web = server.verified(web).await;
    assert_eq!((web.spiffe_id(), web.spki_der()), (&id("/web"), key.spki_der()));
    assert_eq!(web.expires_at(), NOW + 120);
    let expected = vec!["web.example.org".to_owned(), "alt.example.org".to_owned()];
    assert_eq!(names(&web), ("C=US, O=SPIRE, CN=web.example.org".into(), expected));
    let nested = server.verified(results[1].svid.as_ref().unwrap()).await;
    assert_eq!((nested.spiffe_id(), nested.expires_at()), (&id("/nested"), NOW + SVID_TTL_SECS));
    assert_ne!(web.serial(), nested.serial());
}

#[tokio::test]
async fn a_bad_item_does_not_touch_its_neighbours() {
    let server = TestServer::start().await;
    let (agent, other) = (server.attest().await, server.attest().await);
    let mine = server.create_one(entry(&agent.id, "/mine", &["a:1"])).await;
    let theirs = server.create_one(entry(&other.id, "/theirs", &["a:1"])).await;
    let mut forged = csr();
    *forged.last_mut().unwrap() ^= 1;
    let unauthorized = "entry not found or not authorized";
    let cases = [
        (param(&mine, csr()), Code::Ok, "OK"),
        (param(&theirs, csr()), Code::NotFound, unauthorized),
        (param("none", csr()), Code::NotFound, unauthorized),
        (param("a/b", csr()), Code::NotFound, unauthorized),
        (param("", csr()), Code::InvalidArgument, "missing entry ID"),
        (param(&mine, Vec::new()), Code::InvalidArgument, "missing CSR"),
        (param(&mine, b"garbage".to_vec()), Code::InvalidArgument, "failed to parse CSR"),
        (param(&mine, forged), Code::InvalidArgument, "signature"),
        (param(&mine, csr()), Code::Ok, "OK"),
    ];
    let results = batch(&agent, cases.iter().map(|(param, _, _)| param.clone()).collect()).await.unwrap();
    assert_eq!(results.len(), cases.len());
    for (result, (param, code, says)) in results.iter().zip(cases) {
        let message = &result.status.as_ref().unwrap().message;
        assert_eq!(code_of(&result.status), code, "{param:?}: {message}");
        assert!(message.contains(says), "{says:?} is not in {message:?}");
        assert_eq!(result.svid.is_some(), code == Code::Ok);
    }
    for result in [&results[0], &results[8]] {
        assert_eq!(*server.verified(result.svid.as_ref().unwrap()).await.spiffe_id(), id("/mine"));
    }
}

#[tokio::test]
async fn an_empty_batch_and_one_beyond_the_bound_are_refused() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let message = expect_refusal(batch(&agent, Vec::new()).await, Code::InvalidArgument, Reason::BadRequest);
    assert_eq!(message, "missing parameters");
    let many = vec![param("none", vec![1]); 1001];
    let message = expect_refusal(batch(&agent, many).await, Code::InvalidArgument, Reason::MessageTooLarge);
    assert!(message.contains("1000"), "{message}");
    assert_eq!(batch(&agent, vec![param("none", vec![1]); 1000]).await.unwrap().len(), 1000);
}

#[tokio::test]
async fn a_batch_beyond_what_one_caller_may_have_signed_in_a_second_is_refused() {
    let server = TestServer::start_with(|config| config.rate_limits.signing = true).await;
    let agent = server.attest().await;
    let answer = batch(&agent, vec![param("none", vec![1]); 501]).await;
    let message = expect_refusal(answer, Code::ResourceExhausted, Reason::Overloaded);
    assert_eq!(message, "rate (501) exceeds burst size (500)");
    assert_eq!(batch(&agent, vec![param("none", vec![1]); 500]).await.unwrap().len(), 500);
}

#[tokio::test]
async fn an_agent_that_asks_for_too_much_keeps_no_other_behind_the_same_address_waiting() {
    let server = TestServer::start_with(|config| config.rate_limits.signing = true).await;
    let (greedy, other) = (server.attest().await, server.attest().await);
    let full = || vec![param("none", vec![1]); 500];
    batch(&greedy, full()).await.unwrap();
    // Twenty seconds' worth, which the other one would have to sit out if it were counted with this one.
    let flood = futures_util::future::join_all((0..20).map(|_| batch(&greedy, full())));
    tokio::select! {
        _ = flood => panic!("the flood is over first"),
        answer = batch(&other, full()) => assert_eq!(answer.unwrap().len(), 500),
    }
}

#[tokio::test]
async fn a_large_batch_is_answered_in_order() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let wanted = (0..100).map(|n| entry(&agent.id, &format!("/w{n}"), &["a:1"])).collect();
    let created = server.create(wanted).await;
    let keys: Vec<Key> = (0..100).map(|_| Key::generate(KeyType::EcP256).unwrap()).collect();
    let params = created.iter().zip(&keys).map(|(entry, key)| param(&entry.id, csr_of(key))).collect();
    let results = batch(&agent, params).await.unwrap();
    for (n, (result, key)) in results.iter().zip(&keys).enumerate() {
        let svid = crate::support::parse_svid(result.svid.as_ref().unwrap());
        assert_eq!((svid.spiffe_id(), svid.spki_der()), (&id(&format!("/w{n}")), key.spki_der()));
    }
}

#[tokio::test]
async fn a_message_beyond_four_mebibytes_is_refused_and_the_next_call_works() {
    let server = TestServer::start().await;
    let agent = server.attest().await;
    let mine = server.create_one(entry(&agent.id, "/mine", &["a:1"])).await;
    let status = batch(&agent, vec![param(&mine, vec![0; 5 * 1024 * 1024])]).await.expect_err("too large");
    assert!(matches!(status.code(), Code::ResourceExhausted | Code::OutOfRange), "{status:?}");
    let results = batch(&agent, vec![param(&mine, csr())]).await.unwrap();
    assert_eq!(code_of(&results[0].status), Code::Ok);
}

#[tokio::test]
async fn what_an_agent_may_sign_changes_with_the_entries() {
    let server = TestServer::start().await;
    let (agent, other) = (server.attest().await, server.attest().await);
    let mine =
        server.create_one(types::Entry { id: "mine".into(), ..entry(&agent.id, "/mine", &["a:1"]) }).await;
    let code =
        async |agent: &TestAgent| code_of(&batch(agent, vec![param(&mine, csr())]).await.unwrap()[0].status);
    assert_eq!((code(&agent).await, code(&other).await), (Code::Ok, Code::NotFound));
    let moved = entry_api::BatchUpdateEntryRequest {
        entries: vec![types::Entry { id: mine.clone(), ..entry(&other.id, "/mine", &["a:1"]) }],
        ..Default::default()
    };
    server.entries().await.batch_update_entry(moved).await.unwrap();
    assert_eq!((code(&agent).await, code(&other).await), (Code::NotFound, Code::Ok));
    server.delete(&mine).await;
    assert_eq!((code(&agent).await, code(&other).await), (Code::NotFound, Code::NotFound));
}

#[tokio::test]
async fn every_kind_of_authority_key_signs() {
    for ca_key_type in [KeyType::EcP384, KeyType::Rsa2048] {
        let server = TestServer::start_with(|config| config.ca_key_type = ca_key_type).await;
        let agent = server.attest().await;
        let mine = server.create_one(entry(&agent.id, "/mine", &["a:1"])).await;
        let results = batch(&agent, vec![param(&mine, csr())]).await.unwrap();
        server.verified(results[0].svid.as_ref().unwrap()).await;
    }
}

#[tokio::test]
async fn calls_beyond_what_can_wait_to_be_signed_are_turned_away_as_a_whole_and_told_when_to_come_back() {
    let server = TestServer::start_with(|config| config.signing_queue_max = 100).await;
    let agent = server.attest().await;
    let mine = server.create_one(entry(&agent.id, "/mine", &["a:1"])).await;
    let csr = csr();
    let params = || vec![param(&mine, csr.clone()); 100];
    let (mut served, mut turned_away) = (0, Vec::new());
    // At once they are more than fit; how many the server gets done in between is its own matter, so until both were seen.
    while served == 0 || turned_away.is_empty() {
        for answer in futures_util::future::join_all((0..20).map(|_| batch(&agent, params()))).await {
            match answer {
                Ok(results) => {
                    assert!(results.iter().all(|result| code_of(&result.status) == Code::Ok));
                    assert_eq!(results.len(), 100);
                    served += 1;
                }
                Err(status) => turned_away.push(status),
            }
        }
    }
    for status in turned_away {
        assert_eq!(
            (status.code(), reason_of(&status).as_deref()),
            (Code::ResourceExhausted, Some("overloaded"))
        );
        let after = retry_after_of(&status).expect("when to come back").as_millis();
        assert!(after >= 50 && status.message().ends_with(&format!("come back in {after} ms")), "{status:?}");
    }
    // The line is empty again: nothing that was turned away has kept its room.
    assert_eq!(batch(&agent, params()).await.unwrap().len(), 100);
}
