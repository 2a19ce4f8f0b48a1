//! Nodes that prove a certificate of the operator's own authority, or an SVID: who is admitted, as whom, and who is not.

use spindle_keys::{Key, KeyType, certificate_request};
use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::refusal::permission_denied_details_of;
use spindle_proto::spire::api::server::agent::v1 as wire;
use spindle_proto::spire::api::server::entry::v1 as entry_api;
use spindle_proto::spire::api::server::svid::v1 as svid_api;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::permission_denied_details::Reason as Standing;
use spindle_server::ServerConfig;
use spindle_server::x509pop::{
    Challenge, Mode, NodeKey, PathTemplate, Payload, Response as Proof, Roots, Settings,
};
use spindle_spiffe_core::{Reason, SpiffeId, Validity, X509Svid};
use spindle_testkit::{NOW, NodeCertificate, NodeKeyKind, NodePki};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use wire::attest_agent_request::{Params, Step};
use wire::attest_agent_response::Step as Answer;

use crate::support::{
    TestAgent, TestServer, csr, csr_of, entry, expect_refusal, id, in_time, parse_svid, selector, wire_id,
};

/// A nonce of the node's own.
const OWN: [u8; 32] = [3; 32];

/// A server that trusts one authority for nodes.
struct Rig {
    server: TestServer,
    root: NodePki,
}

/// An attestation under way, from the node's side.
struct Talk {
    sender: mpsc::Sender<wire::AttestAgentRequest>,
    answers: Streaming<wire::AttestAgentResponse>,
}

impl Rig {
    async fn new() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::with_server(change, |_| ()).await
    }

    async fn with_server(
        change: impl FnOnce(&mut Settings),
        change_server: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let root = NodePki::root("operator's root", NOW);
        let roots = Roots::from_pem(root.pem().as_bytes()).unwrap();
        let mut settings = Settings::new(Mode::ExternalPki(roots));
        change(&mut settings);
        let server = TestServer::start_with(|config| {
            config.node_attestors.x509pop = Some(settings);
            change_server(config);
        });
        Self { server: server.await, root }
    }

    /// Opens an attestation that shows `payload`.
    async fn open(&self, payload: Vec<u8>, csr: &[u8]) -> Result<Talk, Status> {
        open(self.server.dial(None).await, payload, csr).await
    }

    /// Attests with a certificate and the key that belongs to it.
    async fn attest(
        &self,
        node: &NodeCertificate,
        above: &[&NodePki],
        csr: &[u8],
    ) -> Result<wire::attest_agent_response::Result, Status> {
        let mut talk = self.open(payload(node, above), csr).await?;
        let challenge = talk.challenge().await?;
        talk.answer(proof(node, &challenge)).await
    }

    /// Attests, and connects as the agent.
    async fn agent(&self, node: &NodeCertificate) -> TestAgent {
        let key = Key::generate(KeyType::EcP256).unwrap();
        let result = self.attest(node, &[], &csr_of(&key)).await.unwrap();
        assert!(result.reattestable);
        self.server.connect(key, &result.svid.unwrap()).await
    }

    async fn refuses(
        &self,
        node: &NodeCertificate,
        above: &[&NodePki],
        code: Code,
        reason: Reason,
    ) -> String {
        expect_refusal(self.attest(node, above, &csr()).await, code, reason)
    }

    async fn get(&self, id: &SpiffeId) -> types::Agent {
        let request = wire::GetAgentRequest { id: Some(spiffe_id_to_proto(id)), output_mask: None };
        self.server.agents().await.get_agent(request).await.unwrap().into_inner()
    }
}

async fn open(channel: Channel, payload: Vec<u8>, csr: &[u8]) -> Result<Talk, Status> {
    let (sender, requests) = mpsc::channel(2);
    let data = Some(types::AttestationData { r#type: "x509pop".into(), payload: payload.into() });
    let params = Some(wire::AgentX509svidParams { csr: csr.to_vec().into() });
    let step = Some(Step::Params(Params { data, params }));
    sender.send(wire::AttestAgentRequest { step }).await.unwrap();
    let mut client = wire::agent_client::AgentClient::new(channel);
    let answers = in_time(client.attest_agent(ReceiverStream::new(requests))).await?.into_inner();
    Ok(Talk { sender, answers })
}

impl Talk {
    async fn challenge(&mut self) -> Result<Vec<u8>, Status> {
        match in_time(self.answers.message()).await?.and_then(|answer| answer.step) {
            Some(Answer::Challenge(bytes)) => Ok(bytes.to_vec()),
            other => panic!("a challenge is due: {other:?}"),
        }
    }

    async fn answer(&mut self, response: Vec<u8>) -> Result<wire::attest_agent_response::Result, Status> {
        self.send(Step::ChallengeResponse(response.into())).await
    }

    async fn send(&mut self, step: Step) -> Result<wire::attest_agent_response::Result, Status> {
        self.sender.send(wire::AttestAgentRequest { step: Some(step) }).await.unwrap();
        self.result().await
    }

    async fn result(&mut self) -> Result<wire::attest_agent_response::Result, Status> {
        let result = match in_time(self.answers.message()).await?.and_then(|answer| answer.step) {
            Some(Answer::Result(result)) => result,
            other => panic!("a result is due: {other:?}"),
        };
        assert!(in_time(self.answers.message()).await?.is_none(), "nothing follows a result");
        Ok(result)
    }
}

fn payload(node: &NodeCertificate, above: &[&NodePki]) -> Vec<u8> {
    let above = above.iter().map(|pki| pki.certificate());
    Payload { certificates: [&node.der].into_iter().chain(above).cloned().collect() }.to_json()
}

fn proof(node: &NodeCertificate, challenge: &[u8]) -> Vec<u8> {
    let key = NodeKey::from_der(&node.key_der()).unwrap();
    key.answer(&Challenge::parse(challenge).unwrap(), &OWN).unwrap().to_json()
}

fn texts(agent: &types::Agent) -> Vec<String> {
    agent.selectors.iter().map(|one| format!("{}:{}", one.r#type, one.value)).collect()
}

#[tokio::test]
async fn a_node_with_a_certificate_is_admitted_whatever_kind_of_key_it_has() {
    let rig = Rig::new().await;
    for kind in [NodeKeyKind::P256, NodeKeyKind::P384, NodeKeyKind::P521, NodeKeyKind::Rsa2048] {
        let node = rig.root.node_with(|request| request.key = kind);
        let key = Key::generate(KeyType::EcP256).unwrap();
        let result = rig.attest(&node, &[], &csr_of(&key)).await.unwrap();
        assert!(result.reattestable);
        let svid = rig.server.verified(&result.svid.unwrap()).await;
        assert_eq!(svid.spki_der(), key.spki_der());
        assert!(svid.spiffe_id().path().starts_with("/spire/agent/x509pop/"), "{:?}", svid.spiffe_id());
    }
    let count = rig.server.agents().await.count_agents(wire::CountAgentsRequest::default()).await.unwrap();
    assert_eq!(count.into_inner().count, 4, "each certificate is an agent of its own");
}

#[tokio::test]
async fn an_agent_shows_what_its_certificate_says() {
    let rig = Rig::new().await;
    let between = rig.root.intermediate("between");
    let node = between.node_with(|request| {
        request.common_name = Some("node-1".into());
        request.uris = vec!["x509pop://example.org/rack/a7".into()];
    });
    let result = rig.attest(&node, &[&between], &csr()).await.unwrap();
    let svid = parse_svid(&result.svid.unwrap());
    let agent = rig.get(svid.spiffe_id()).await;
    assert_eq!((agent.attestation_type.as_str(), agent.can_reattest, agent.banned), ("x509pop", true, false));
    assert_eq!(agent.x509svid_serial_number, svid.serial_decimal());
    let shown = texts(&agent);
    assert_eq!(shown.len(), 5, "{shown:?}");
    assert_eq!(shown.iter().filter(|text| text.starts_with("x509pop:ca:fingerprint:")).count(), 2);
    for text in ["x509pop:san:rack:a7", "x509pop:subject:cn:node-1"] {
        assert!(shown.iter().any(|one| one == text), "{shown:?}");
    }
    assert!(shown.iter().any(|text| text.starts_with("x509pop:serialnumber:")), "{shown:?}");
}

#[tokio::test]
async fn a_node_alias_of_these_selectors_gives_the_agent_its_entries() {
    let rig = Rig::new().await;
    let selectors = ["x509pop:subject:cn:node-1"];
    let alias = entry(&id("/spire/server"), "/rack", &selectors);
    rig.server.create(vec![alias, entry(&id("/rack"), "/web", &["unix:uid:7"])]).await;
    let authorized = async |agent: &TestAgent| {
        let request = entry_api::GetAuthorizedEntriesRequest::default();
        let answer = in_time(agent.entries().get_authorized_entries(request)).await.unwrap();
        answer.into_inner().entries.into_iter().map(|entry| entry.spiffe_id).collect::<Vec<_>>()
    };
    let (member, other) =
        (rig.agent(&rig.root.node("node-1")).await, rig.agent(&rig.root.node("node-2")).await);
    assert_eq!(authorized(&member).await, [Some(wire_id("/web"))]);
    assert_eq!(authorized(&other).await, []);
}

#[tokio::test]
async fn attesting_again_replaces_serial_and_selectors_and_is_no_renewal() {
    let template = PathTemplate::parse("/cn/{{ .Subject.CommonName }}").unwrap();
    let rig = Rig::with(|settings| settings.path_template = template).await;
    let on_rack = |rack: &str| {
        let uri = format!("x509pop://example.org/rack/{rack}");
        rig.root.node_with(|request| request.uris = vec![uri])
    };
    let first = rig.agent(&on_rack("one")).await;
    assert_eq!(first.id, id("/spire/agent/cn/node"));
    first
        .agents()
        .post_status(wire::PostStatusRequest { agent_version: "1.2.3".into(), ..Default::default() })
        .await
        .unwrap();
    let params = Some(wire::AgentX509svidParams { csr: csr().into() });
    let renewal = in_time(first.agents().renew_agent(wire::RenewAgentRequest { params })).await;
    let status = renewal.expect_err("it must attest again");
    assert_eq!(permission_denied_details_of(&status), Some(Standing::AgentMustReattest));
    let second = rig.agent(&on_rack("two")).await;
    assert_eq!(second.id, first.id);
    let agent = rig.get(&second.id).await;
    assert_eq!(agent.x509svid_serial_number, second.svid.serial_decimal());
    assert_eq!(agent.agent_version, "1.2.3", "the version stays");
    let shown = texts(&agent);
    assert!(shown.contains(&"x509pop:san:rack:two".to_owned()), "{shown:?}");
    assert!(!shown.contains(&"x509pop:san:rack:one".to_owned()), "{shown:?}");
    second.knock().await.unwrap();
    let status = first.knock().await.expect_err("replaced");
    assert_eq!(permission_denied_details_of(&status), Some(Standing::AgentNotActive));
}

#[tokio::test]
async fn a_banned_node_is_refused_and_an_evicted_one_comes_back() {
    let rig = Rig::new().await;
    let node = rig.root.node("node-1");
    let agent = rig.agent(&node).await;
    rig.server.ban(&agent.id).await;
    let status = rig.attest(&node, &[], &csr()).await.expect_err("banned");
    assert_eq!(permission_denied_details_of(&status), None, "only agents are told their standing");
    let message = expect_refusal::<()>(Err(status), Code::PermissionDenied, Reason::AgentBanned);
    assert_eq!(message, "failed to attest: agent is banned");
    assert!(rig.get(&agent.id).await.banned);
    rig.server.evict(&agent.id).await;
    rig.agent(&node).await.knock().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_refused() {
    let rig = Rig::new().await;
    let stranger = NodePki::root("operator's root", NOW);
    let between = rig.root.intermediate("between");
    let ended = rig.root.node_with(|request| {
        request.validity = Validity { not_before: NOW - 100, not_after: NOW - 1 };
    });
    let early = rig.root.node_with(|request| {
        request.validity = Validity { not_before: NOW + 1, not_after: NOW + 100 };
    });
    let without_its_ca = between.node("node");
    for (node, above) in [
        (&stranger.node("node"), vec![]),
        (&stranger.node("node"), vec![&stranger]),
        (&without_its_ca, vec![]),
        (&ended, vec![]),
        (&early, vec![]),
    ] {
        let message = rig.refuses(node, &above, Code::PermissionDenied, Reason::NodeNotTrusted).await;
        assert!(message.starts_with("nodeattestor(x509pop): certificate verification failed: "), "{message}");
    }
    // The dates are those of the moment.
    let node = rig.root.node_with(|request| {
        request.validity = Validity { not_before: NOW - 100, not_after: NOW + 100 };
    });
    rig.attest(&node, &[], &csr()).await.unwrap();
    rig.server.clock.advance(101);
    rig.refuses(&node, &[], Code::PermissionDenied, Reason::NodeNotTrusted).await;
}

#[tokio::test]
async fn a_certificate_that_is_too_much_or_of_no_use_is_refused() {
    let rig = Rig::with(|settings| (settings.max_intermediates, settings.max_rsa_bits) = (1, 2048)).await;
    let between = rig.root.intermediate("between");
    let (node, root) = (between.node("node"), &rig.root);
    let large = root.node_with(|request| request.key = NodeKeyKind::Rsa3072);
    let ed25519 = root.node_with(|request| request.key = NodeKeyKind::Ed25519);
    let other_use = root.node_with(|request| request.may_sign = false);
    rig.attest(&node, &[&between], &csr()).await.unwrap();
    for (answer, says) in [
        (rig.attest(&node, &[&between, root], &csr()).await, "too many intermediate certificates"),
        (rig.attest(&large, &[], &csr()).await, "leaf certificate key size too large"),
        (
            rig.open(payload(&ed25519, &[]), &csr()).await.map(|_| panic!("it was asked")),
            "only RSA and EC keys",
        ),
        (rig.attest(&other_use, &[], &csr()).await, "not intended for digital signature use"),
    ] {
        let message = expect_refusal(answer, Code::InvalidArgument, Reason::NodeCertificateUnusable);
        assert!(message.contains(says), "{message}");
    }
}

#[tokio::test]
async fn messages_that_are_none_are_refused() {
    let rig = Rig::new().await;
    let node = rig.root.node("node");
    for payload in [&b"not json"[..], b"{}", br#"{"certificates":["%"]}"#, br#"{"certificates":7}"#] {
        let refused = rig.open(payload.to_vec(), &csr()).await.map(|_| ());
        expect_refusal(refused, Code::InvalidArgument, Reason::BadRequest);
    }
    let certificates = vec![vec![0x30, 0].into()];
    let refused = rig.open(Payload { certificates }.to_json(), &csr()).await.map(|_| ());
    expect_refusal(refused, Code::InvalidArgument, Reason::NodeCertificateUnusable);
    let oversize = [&payload(&node, &[])[..], &vec![b' '; 64 * 1024]].concat();
    let message = expect_refusal(
        rig.open(oversize, &csr()).await.map(|_| ()),
        Code::InvalidArgument,
        Reason::BadRequest,
    );
    assert!(message.contains("payload has 1 to 65536 bytes"), "{message}");
    for response in [&b"not json"[..], b"", b"[", br#"{"ecdsa_signature":"x"}"#] {
        let mut talk = rig.open(payload(&node, &[]), &csr()).await.unwrap();
        talk.challenge().await.unwrap();
        let message =
            expect_refusal(talk.answer(response.to_vec()).await, Code::InvalidArgument, Reason::BadRequest);
        assert!(message.contains("unable to unmarshal challenge response"), "{message}");
    }
    let mut talk = rig.open(payload(&node, &[]), &csr()).await.unwrap();
    let challenge = talk.challenge().await.unwrap();
    let oversize = [proof(&node, &challenge), vec![b' '; 64 * 1024]].concat();
    let message = expect_refusal(talk.answer(oversize).await, Code::InvalidArgument, Reason::BadRequest);
    assert!(message.contains("at most 65536 bytes"), "{message}");
}

#[tokio::test]
async fn a_proof_by_another_key_or_for_another_challenge_is_refused() {
    let rig = Rig::new().await;
    for kind in [NodeKeyKind::P256, NodeKeyKind::Rsa2048] {
        let node = rig.root.node_with(|request| request.key = kind);
        let other = rig.root.node_with(|request| request.key = kind);
        let open = async || {
            let mut talk = rig.open(payload(&node, &[]), &csr()).await.unwrap();
            let challenge = talk.challenge().await.unwrap();
            (talk, challenge)
        };
        let refused = |answer| {
            let message = expect_refusal(answer, Code::PermissionDenied, Reason::NodeProofFailed);
            assert!(message.contains("challenge response verification failed"), "{message}");
        };
        let (mut talk, challenge) = open().await;
        refused(talk.answer(proof(&other, &challenge)).await);
        // An answer that was good once, and to another challenge.
        let (mut talk, challenge) = open().await;
        let old = proof(&node, &challenge);
        talk.answer(old.clone()).await.unwrap();
        let (mut talk, again) = open().await;
        assert_ne!(again, challenge, "each challenge is new");
        refused(talk.answer(old).await);
        // A good signature, said to be over another nonce.
        let (mut talk, challenge) = open().await;
        let mut changed = Proof::parse(&proof(&node, &challenge)).unwrap();
        changed.rsa_signature.iter_mut().for_each(|proof| proof.nonce[31] ^= 1);
        changed.ecdsa_signature.iter_mut().for_each(|proof| proof.nonce[31] ^= 1);
        refused(talk.answer(changed.to_json()).await);
        let (mut talk, _) = open().await;
        refused(talk.answer(b"{}".to_vec()).await);
    }
}

#[tokio::test]
async fn a_stream_that_goes_another_way_is_refused_and_admits_nobody() {
    let rig = Rig::new().await;
    let node = rig.root.node("node");
    let mut ends_early = rig.open(payload(&node, &[]), &csr()).await.unwrap();
    ends_early.challenge().await.unwrap();
    drop(std::mem::replace(&mut ends_early.sender, mpsc::channel(1).0));
    let message = expect_refusal(ends_early.result().await, Code::InvalidArgument, Reason::BadRequest);
    assert!(message.contains("ended before the challenge was answered"), "{message}");
    let mut repeats = rig.open(payload(&node, &[]), &csr()).await.unwrap();
    repeats.challenge().await.unwrap();
    let data = types::AttestationData { r#type: "x509pop".into(), payload: payload(&node, &[]).into() };
    let again = Params { data: Some(data), params: None };
    let refused = repeats.send(Step::Params(again)).await;
    let message = expect_refusal(refused, Code::InvalidArgument, Reason::BadRequest);
    assert!(message.contains("where a challenge response is due"), "{message}");
    // The request is looked at last, as it costs most.
    let answer = rig.attest(&node, &[], b"garbage").await;
    expect_refusal(answer, Code::InvalidArgument, Reason::BadCsr);
    let count = rig.server.agents().await.count_agents(wire::CountAgentsRequest::default()).await.unwrap();
    assert_eq!(count.into_inner().count, 0);
}

#[tokio::test]
async fn a_node_calls_from_an_address_of_its_certificate_where_that_is_asked_for() {
    let rig = Rig::with(|settings| settings.verify_client_ip = true).await;
    let at = |address: &str| {
        let address = address.parse().unwrap();
        rig.root.node_with(|request| request.addresses = vec![address])
    };
    rig.attest(&at("127.0.0.1"), &[], &csr()).await.unwrap();
    for node in [at("127.0.0.2"), at("::1"), rig.root.node("nowhere")] {
        let message = rig.refuses(&node, &[], Code::PermissionDenied, Reason::NodeAddressMismatch).await;
        assert!(message.contains("client IP 127.0.0.1 does not match any certificate IP SAN"), "{message}");
    }
    let node = at("127.0.0.1");
    let local = open(rig.server.admin().await, payload(&node, &[]), &csr()).await.map(|_| ());
    let message = expect_refusal(local, Code::PermissionDenied, Reason::NodeAddressMismatch);
    assert!(message.contains("client IP not available"), "{message}");
}

#[tokio::test]
async fn a_name_that_the_template_cannot_make_is_refused() {
    let template = PathTemplate::parse("/rack/{{ .URISanSelectors.rack }}").unwrap();
    let rig = Rig::with(|settings| settings.path_template = template).await;
    let message = rig.refuses(&rig.root.node("n"), &[], Code::InvalidArgument, Reason::NodeNotNamed).await;
    assert!(message.contains("x509pop://example.org/rack/"), "{message}");
}

#[tokio::test]
async fn join_tokens_are_taken_beside_it_and_agents_show_their_own_id_where_that_is_asked_for() {
    let rig = Rig::with_server(|_| (), |config| config.agent_spiffe_id_as_selector = true).await;
    let (joined, proved) = (rig.server.attest().await, rig.agent(&rig.root.node("node")).await);
    for agent in [&joined, &proved] {
        let own = selector(&format!("spiffe_id:{}", agent.id));
        assert!(rig.get(&agent.id).await.selectors.contains(&own));
    }
    assert_eq!(rig.get(&joined.id).await.selectors.len(), 1);
    let plain = Rig::new().await;
    let agent = plain.server.attest().await;
    assert_eq!(plain.get(&agent.id).await.selectors, []);
}

/// An SVID of the server's own trust domain, minted for `path`, with its key.
async fn minted(server: &TestServer, path: &str) -> (X509Svid, NodeKey) {
    let key = Key::generate(KeyType::EcP256).unwrap();
    let csr = certificate_request(&key, Some(&id(path)), &[]).unwrap();
    let request = svid_api::MintX509svidRequest { csr: csr.into(), ttl: 0 };
    let minted = server.svids().await.mint_x509svid(request).await.unwrap().into_inner().svid.unwrap();
    let pkcs8 = rustls_pki_types::PrivatePkcs8KeyDer::from(key.pkcs8_der().to_vec());
    (parse_svid(&minted), NodeKey::from_der(&pkcs8.into()).unwrap())
}

#[tokio::test]
async fn an_svid_is_exchanged_for_an_agents_where_its_path_allows_it() {
    let settings = Settings::new(Mode::Spiffe { prefix: "/spire-exchange/".into() });
    let server = TestServer::start_with(|config| config.node_attestors.x509pop = Some(settings)).await;
    let exchange = async |svid: &X509Svid, key: &NodeKey| {
        let payload = Payload { certificates: svid.chain().to_vec() }.to_json();
        let mut talk = open(server.dial(None).await, payload, &csr()).await?;
        let challenge = Challenge::parse(&talk.challenge().await?).unwrap();
        talk.answer(key.answer(&challenge, &OWN).unwrap().to_json()).await
    };
    let (svid, key) = minted(&server, "/spire-exchange/host-7").await;
    let agent = server.verified(&exchange(&svid, &key).await.unwrap().svid.unwrap()).await;
    assert_eq!(*agent.spiffe_id(), id("/spire/agent/x509pop/host-7"));
    let (svid, key) = minted(&server, "/web").await;
    let message = expect_refusal(exchange(&svid, &key).await, Code::PermissionDenied, Reason::NodeNotTrusted);
    assert!(message.contains("x509 cert doesnt match SVID prefix"), "{message}");
    let elsewhere = TestServer::start().await;
    let (svid, key) = minted(&elsewhere, "/spire-exchange/host-7").await;
    expect_refusal(exchange(&svid, &key).await, Code::PermissionDenied, Reason::NodeNotTrusted);
    let foreign = NodePki::root("operator's root", NOW);
    let node = foreign.node("node");
    let refused = open(server.dial(None).await, payload(&node, &[]), &csr()).await.map(|_| ());
    expect_refusal(refused, Code::PermissionDenied, Reason::NodeNotTrusted);
}
