use spindle_spiffe_core::{Reason, Validity};
use spindle_testkit::{NOW, NodeCertificate, NodeKeyKind, NodePki, NodeRequest, TestAuthority};

use super::*;
use crate::x509pop::NodeKey;
use crate::x509pop::message::Challenge;
use crate::x509pop::roots::fingerprint;

const TRUST_DOMAIN: &str = "example.org";
const NONCE: Nonce = [5; 32];

fn roots(pkis: &[&NodePki]) -> Roots {
    let pem: String = pkis.iter().map(|pki| pki.pem()).collect();
    Roots::from_pem(pem.as_bytes()).unwrap()
}

fn external(pkis: &[&NodePki]) -> Settings {
    Settings::new(Mode::ExternalPki(roots(pkis)))
}

/// An attestor and what holds around it.
struct Rig {
    settings: Settings,
    authority: TestAuthority,
    client_ip: Option<IpAddr>,
}

impl Rig {
    fn new(settings: Settings) -> Self {
        Self { settings, authority: TestAuthority::new(TRUST_DOMAIN, NOW), client_ip: None }
    }

    fn begin(&self, certificates: Vec<CertificateDer<'static>>) -> Result<Pending, NodeFault> {
        self.begin_with(&Payload { certificates }.to_json())
    }

    fn begin_with(&self, payload: &[u8]) -> Result<Pending, NodeFault> {
        let trust_domain = TRUST_DOMAIN.parse().unwrap();
        let circumstances = Circumstances {
            trust_domain: &trust_domain,
            own_bundle: &self.authority.x509_bundle(),
            client_ip: self.client_ip,
            now: NOW,
            nonce: NONCE,
        };
        Verifier::new(self.settings.clone()).begin(payload, &circumstances)
    }

    fn attest(&self, node: &NodeCertificate, above: &[&NodePki]) -> Result<AttestedNode, NodeFault> {
        let pending = self.begin(chain(node, above))?;
        let answer = answer(&NodeKey::from_der(&node.key_der()).unwrap(), &pending);
        pending.finish(&answer)
    }

    #[track_caller]
    fn refuses(&self, node: &NodeCertificate, above: &[&NodePki], reason: Reason, says: &str) {
        let fault = self.attest(node, above).expect_err(says);
        assert_eq!(fault.reason(), reason, "{fault}");
        assert!(fault.to_string().contains(says), "{fault}");
    }
}

fn chain(node: &NodeCertificate, above: &[&NodePki]) -> Vec<CertificateDer<'static>> {
    [&node.der].into_iter().chain(above.iter().map(|pki| pki.certificate())).cloned().collect()
}

fn answer(key: &NodeKey, pending: &Pending) -> Vec<u8> {
    let challenge = Challenge::parse(&pending.challenge()).unwrap();
    key.answer(&challenge, &[6; 32]).unwrap().to_json()
}

fn texts(selectors: &Selectors) -> Vec<&str> {
    selectors.iter().map(Selector::as_str).collect()
}

#[test]
fn a_node_is_named_by_its_certificate_and_shows_what_stands_in_it() {
    let root = NodePki::root("root", NOW);
    let between = root.intermediate("between");
    let node = between.node_with(|request| {
        request.common_name = Some("node.example.org".into());
        let uris = [
            "x509pop://example.org/rack/a%207/b",
            "x509pop://example.org/rack/last",
            "x509pop://other.example/rack/foreign",
            "x509pop://example.org/lonely",
            "https://example.org/rack/x",
        ];
        request.uris = uris.map(str::to_owned).into();
    });
    let attested = Rig::new(external(&[&root])).attest(&node, &[&between]).unwrap();
    let name = fingerprint(&node.der);
    assert_eq!(attested.spiffe_id.path(), format!("/spire/agent/x509pop/{name}"));
    let serial = Leaf::parse(&node.der).unwrap().serial_hex;
    let mut expected = vec![
        format!("x509pop:ca:fingerprint:{}", fingerprint(root.certificate())),
        format!("x509pop:ca:fingerprint:{}", fingerprint(between.certificate())),
        "x509pop:san:rack:last".to_owned(),
        format!("x509pop:serialnumber:{serial}"),
        "x509pop:subject:cn:node.example.org".to_owned(),
    ];
    expected.sort();
    assert_eq!(texts(&attested.selectors), expected);
}

#[test]
fn everybody_on_any_path_vouches() {
    let (old, new) = (NodePki::root("old", NOW), NodePki::root("new", NOW));
    let between = old.intermediate("between");
    let crossed = new.cross_sign(&between);
    let node = between.node("node");
    let rig = Rig::new(external(&[&old, &new]));
    let certificates = vec![node.der.clone(), between.certificate().clone(), crossed.clone()];
    let pending = rig.begin(certificates).unwrap();
    let above = [old.certificate(), new.certificate(), between.certificate(), &crossed];
    assert_eq!(pending.vouching, above.map(|one| fingerprint(one)).into());
    // A root that nobody trusts vouches for nothing, and so does not the way to it.
    let pending = Rig::new(external(&[&new]))
        .begin(vec![node.der.clone(), between.certificate().clone(), crossed.clone()])
        .unwrap();
    assert_eq!(pending.vouching, [new.certificate(), &crossed].map(|one| fingerprint(one)).into());
}

#[test]
fn a_certificate_that_is_trusted_itself_needs_nobody() {
    let root = NodePki::root("root", NOW);
    let node = root.node("node");
    let itself = Roots::from_pem(node.pem(&[]).as_bytes()).unwrap();
    let rig = Rig::new(Settings::new(Mode::ExternalPki(itself)));
    let attested = rig.attest(&node, &[]).unwrap();
    assert!(texts(&attested.selectors).iter().all(|one| !one.contains("fingerprint")), "{attested:?}");
    rig.refuses(&root.node("other"), &[], Reason::NodeNotTrusted, "certificate verification failed");
}

#[test]
fn a_chain_that_nobody_vouches_for_now_is_refused() {
    let (root, other) = (NodePki::root("root", NOW), NodePki::root("root", NOW));
    let between = root.intermediate("between");
    let rig = Rig::new(external(&[&root]));
    let refused = |node: &NodeCertificate, above: &[&NodePki], says: &str| {
        let says = format!("certificate verification failed: {says}");
        rig.refuses(node, above, Reason::NodeNotTrusted, &says);
    };
    let unknown = "certificate signed by unknown authority";
    // Of the same name as the trusted one, so its signature is what is looked at.
    refused(&other.node("node"), &[], "InvalidSignatureForPublicKey");
    refused(&other.node("node"), &[&other], "InvalidSignatureForPublicKey");
    refused(&NodePki::root("stranger", NOW).node("node"), &[], unknown);
    refused(&between.node("node"), &[], unknown);
    let over =
        |request: &mut NodeRequest| request.validity = Validity { not_before: NOW - 60, not_after: NOW - 1 };
    let early =
        |request: &mut NodeRequest| request.validity = Validity { not_before: NOW + 1, not_after: NOW + 60 };
    refused(&root.node_with(over), &[], "a certificate has expired");
    refused(&root.node_with(early), &[], "a certificate is not valid yet");
    // Roots have dates too.
    let ended = NodePki::root_with("root", Validity { not_before: NOW - 60, not_after: NOW - 1 }, NOW);
    let rig = Rig::new(external(&[&ended]));
    rig.refuses(&ended.node("node"), &[], Reason::NodeNotTrusted, "certificate verification failed");
    let nobody = Rig::new(Settings::new(Mode::ExternalPki(Roots::default())));
    nobody.refuses(&root.node("node"), &[], Reason::NodeNotTrusted, "certificate verification failed");
}

#[test]
fn chains_and_keys_past_their_bounds_are_refused_before_anything_is_computed() {
    let root = NodePki::root("root", NOW);
    let mut rig = Rig::new(external(&[&root]));
    let node = root.node("node");
    let many = vec![node.der.clone(); 6];
    assert!(matches!(rig.begin(many), Err(NodeFault::TooMany { max: 4, found: 5 })));
    rig.settings.max_intermediates = 1;
    rig.refuses(
        &node,
        &[&root, &root],
        Reason::NodeCertificateUnusable,
        "too many intermediate certificates",
    );
    rig.settings.max_rsa_bits = 2048;
    let large = root.node_with(|request| request.key = NodeKeyKind::Rsa3072);
    rig.refuses(&large, &[], Reason::NodeCertificateUnusable, "leaf certificate key size too large");
    let between = root.intermediate_with("between", NodeKeyKind::Rsa3072);
    let says = "intermediate certificate 0 key size too large";
    rig.refuses(&between.node("node"), &[&between], Reason::NodeCertificateUnusable, says);
    rig.settings.max_rsa_bits = 3072;
    rig.attest(&large, &[]).unwrap();
    rig.attest(&between.node("node"), &[&between]).unwrap();
}

#[test]
fn certificates_that_are_none_are_refused() {
    let root = NodePki::root("root", NOW);
    let rig = Rig::new(external(&[&root]));
    let node = root.node("node");
    let trailing = CertificateDer::from([&node.der[..], &[0]].concat());
    for (certificates, place) in [
        (vec![vec![0x30, 0].into()], Place::Leaf),
        (vec![vec![].into()], Place::Leaf),
        (vec![trailing], Place::Leaf),
        (vec![node.der.clone(), vec![1, 2].into()], Place::Intermediate(0)),
    ] {
        let fault = rig.begin(certificates).err().unwrap();
        assert!(matches!(fault, NodeFault::Unreadable(found) if found == place), "{fault}");
    }
    assert!(matches!(rig.begin(vec![]), Err(NodeFault::NoCertificate)));
    assert!(matches!(rig.begin_with(b"{}"), Err(NodeFault::NoCertificate)));
    let fault = rig.begin_with(b"not json").err().unwrap();
    assert_eq!(fault.reason(), Reason::BadRequest, "{fault}");
}

#[test]
fn a_key_that_cannot_or_may_not_sign_is_refused() {
    let root = NodePki::root("root", NOW);
    let rig = Rig::new(external(&[&root]));
    let other_use = root.node_with(|request| request.may_sign = false);
    rig.refuses(&other_use, &[], Reason::NodeCertificateUnusable, "not intended for digital signature use");
    let ed25519 = root.node_with(|request| request.key = NodeKeyKind::Ed25519);
    let fault = rig.begin(vec![ed25519.der]).err().unwrap();
    assert!(matches!(fault, NodeFault::KeyKind), "{fault}");
}

#[test]
fn the_address_counts_only_when_it_is_asked_for() {
    let root = NodePki::root("root", NOW);
    let mut rig = Rig::new(external(&[&root]));
    let node = root.node_with(|request| request.addresses = vec!["10.0.0.7".parse().unwrap()]);
    rig.client_ip = Some("10.0.0.8".parse().unwrap());
    rig.attest(&node, &[]).unwrap();
    rig.settings.verify_client_ip = true;
    rig.refuses(&node, &[], Reason::NodeAddressMismatch, "client IP 10.0.0.8 does not match any");
    rig.client_ip = None;
    rig.refuses(&node, &[], Reason::NodeAddressMismatch, "client IP not available");
    rig.client_ip = Some("::ffff:10.0.0.7".parse().unwrap());
    rig.attest(&node, &[]).unwrap();
    rig.refuses(&root.node("nowhere"), &[], Reason::NodeAddressMismatch, "does not match any");
}

#[test]
fn an_answer_that_proves_nothing_is_refused() {
    let root = NodePki::root("root", NOW);
    let rig = Rig::new(external(&[&root]));
    let (node, other) = (root.node("node"), root.node("other"));
    let begin = || rig.begin(vec![node.der.clone()]).unwrap();
    let fault = begin().finish(b"{").unwrap_err();
    assert_eq!(fault.reason(), Reason::BadRequest, "{fault}");
    let fault = begin().finish(b"{}").unwrap_err();
    assert_eq!(fault.to_string(), "challenge response verification failed: expecting ECDSA response");
    let pending = begin();
    let theirs = answer(&NodeKey::from_der(&other.key_der()).unwrap(), &pending);
    let fault = pending.finish(&theirs).unwrap_err();
    assert_eq!(fault.reason(), Reason::NodeProofFailed, "{fault}");
}

#[test]
fn a_template_names_agents_and_a_name_that_is_no_path_is_refused() {
    let root = NodePki::root("root", NOW);
    let mut rig = Rig::new(external(&[&root]));
    rig.settings.path_template = PathTemplate::parse("/cn/{{ .Subject.CommonName }}").unwrap();
    let attested = rig.attest(&root.node("node-7"), &[]).unwrap();
    assert_eq!(attested.spiffe_id.path(), "/spire/agent/cn/node-7");
    rig.refuses(&root.node("two words"), &[], Reason::NodeNotNamed, "failed to make spiffe id");
    rig.refuses(&root.node("../server"), &[], Reason::NodeNotNamed, "failed to make spiffe id");
    let unnamed = root.node_with(|request| request.common_name = None);
    rig.refuses(&unnamed, &[], Reason::NodeNotNamed, "failed to make spiffe id");
}

fn exchange() -> Rig {
    Rig::new(Settings::new(Mode::Spiffe { prefix: "/spire-exchange/".into() }))
}

fn exchanged(rig: &Rig, authority: &TestAuthority, path: &str) -> Result<AttestedNode, NodeFault> {
    let identity = authority.issue(path, NOW);
    let pending = rig.begin(identity.svid.chain().to_vec())?;
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(identity.key.pkcs8_der().to_vec());
    let answer = answer(&NodeKey::from_der(&key.into()).unwrap(), &pending);
    pending.finish(&answer)
}

#[test]
fn an_svid_below_the_prefix_is_exchanged_for_an_agents() {
    let rig = exchange();
    let attested = exchanged(&rig, &rig.authority, "/spire-exchange/host/one").unwrap();
    assert_eq!(attested.spiffe_id.path(), "/spire/agent/x509pop/host/one");
    let fault = exchanged(&rig, &rig.authority, "/other/host").unwrap_err();
    assert!(matches!(fault, NodeFault::Prefix { .. }), "{fault}");
    let fault = exchanged(&rig, &rig.authority, "/spire-exchange").unwrap_err();
    assert!(matches!(fault, NodeFault::Prefix { .. }), "{fault}");
}

#[test]
fn an_svid_of_somebody_else_is_not_exchanged() {
    let rig = exchange();
    for authority in [TestAuthority::new(TRUST_DOMAIN, NOW), TestAuthority::new("other.example", NOW)] {
        let fault = exchanged(&rig, &authority, "/spire-exchange/host").unwrap_err();
        assert!(matches!(fault, NodeFault::NotTrusted(_)), "{fault}");
    }
    let root = NodePki::root("root", NOW);
    rig.refuses(&root.node("node"), &[], Reason::NodeNotTrusted, "certificate verification failed");
}
