//! An authority is replaced and distrusted while two workloads do mutual TLS: every process real, no handshake lost.

use std::fs;
use std::path::Path;
use std::process::Command;

use rustls_pki_types::CertificateDer;
use serde_json::Value;
use spindle_runtime::SystemClock;
use spindle_spiffe_core::X509Svid;
use spindle_spiffe_core::pem::certificates_from_pem;
use spindle_testkit::{TestFolder, UpstreamFiles, left_out};

use crate::domain::{Domain, entry_id};
use crate::process::Process;

/// Each takes some milliseconds: far more of them than a taint needs to be followed.
const LOOKS_MAX: usize = 10_000;

/// Handshakes that must go well before something is taken to be as it should.
const HANDSHAKES: u64 = 10;

/// Two workloads of one identity: one answers, one calls it again and again, each time with a new handshake.
struct Pair {
    answers: Process,
    calls: Process,
}

/// Good handshakes so far, if the line tells them; a failed one ends the test.
fn handshakes(line: &str) -> Option<u64> {
    assert!(!line.starts_with("fault") && !line.starts_with("ended"), "{line}");
    let (good, failed) = line.strip_prefix("handshakes ")?.split_once(' ')?;
    assert_eq!(failed, "0", "{line}");
    good.parse().ok()
}

/// The serial number of a new SVID, if the line tells one; a failed handshake ends the test.
fn serial(line: &str) -> Option<String> {
    handshakes(line);
    line.strip_prefix("svid ").map(str::to_owned)
}

impl Pair {
    fn start(domain: &Domain) -> Self {
        let (agent, id) = (domain.text("agent.sock"), entry_id(1));
        let common = ["-agent", &agent, "-peer", &id];
        let mut answers = Process::start("spindle", &[&["demo-workload", "serve"], &common[..]].concat());
        let addr =
            answers.wait_for(|line| line.strip_prefix("listening ").map(str::to_owned)).expect("an address");
        let call = [&["demo-workload", "call"], &common[..], &["-server", &addr]].concat();
        let mut pair = Self { answers, calls: Process::start("spindle", &call) };
        pair.calls.wait_for(serial).expect("a first SVID");
        pair.talk();
        pair
    }

    /// Waits for some more good handshakes.
    fn talk(&mut self) {
        let begun = self.calls.wait_for(handshakes).expect("it goes on");
        self.calls
            .wait_for(|line| handshakes(line).filter(|good| *good >= begun + HANDSHAKES))
            .expect("it goes on");
    }

    /// Waits until both hold an SVID that `authority` has signed.
    fn wait_until_replaced(&mut self, domain: &Domain, authority: &str) {
        let wanted = domain.served_by(authority);
        for workload in [&mut self.answers, &mut self.calls] {
            workload.wait_for(|line| serial(line).filter(|serial| *serial == wanted)).expect("the new SVID");
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Domain {
    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.server_done(&[words, &["-output", "json"]].concat())).unwrap()
    }

    fn authorities(&self) -> Value {
        self.json(&["localauthority", "x509", "show"])
    }

    /// Makes an authority and lets it sign; returns its id.
    fn rotate(&self) -> String {
        let prepared = self.json(&["localauthority", "x509", "prepare"]);
        let id = prepared["prepared_authority"]["authority_id"].as_str().unwrap().to_owned();
        let activated = self.json(&["localauthority", "x509", "activate", "-authorityID", &id]);
        assert_eq!(activated["activated_authority"]["authority_id"], id.as_str());
        id
    }

    /// What the agent serves this process: the chain as the files hold it.
    fn fetch(&self) -> Vec<CertificateDer<'static>> {
        let (socket, out) = (self.text("agent.sock"), self.text("out"));
        fs::create_dir_all(&out).unwrap();
        crate::process::done(
            "spindle-agent",
            &["api", "fetch", "x509", "-socketPath", &socket, "-write", &out],
        );
        certificates_from_pem(&fs::read(Path::new(&out).join("svid.0.pem")).unwrap()).unwrap()
    }

    /// Fetches until what is served was signed by `authority`; returns its serial number.
    fn served_by(&self, authority: &str) -> String {
        let served = (0..LOOKS_MAX).map(|_| X509Svid::parse(self.fetch()).unwrap());
        let new =
            served.into_iter().find(|svid| svid.authority_key_id().map(hex).as_deref() == Some(authority));
        new.expect("it is replaced").serial_decimal()
    }

    /// The serial number of the one agent's own SVID.
    fn agent_serial(&self) -> String {
        let agents = self.json(&["agent", "list"]);
        agents["agents"][0]["x509svid_serial_number"].as_str().unwrap().to_owned()
    }

    /// Looks until the agent uses another SVID than that of `before`.
    fn wait_until_agent_renewed(&self, before: &str) {
        assert!(
            (0..LOOKS_MAX).any(|_| self.agent_serial() != before),
            "the agent's own SVID is not replaced"
        );
    }

    /// Whether each root of the bundle is tainted.
    fn taints(&self) -> Vec<bool> {
        let bundle = self.json(&["bundle", "show"]);
        let roots = bundle["x509_authorities"].as_array().unwrap();
        roots.iter().map(|root| root["tainted"].as_bool().unwrap()).collect()
    }
}

/// A served domain: server, agent and an entry of this process.
fn served(mut domain: Domain) -> (Domain, Process, Process) {
    let server = domain.start_server();
    let mut agent = domain.first_agent();
    assert!(domain.create_entry(1).ok);
    domain.wait_until_served(&mut agent, &[entry_id(1)]);
    (domain, server, agent)
}

#[test]
fn an_authority_is_replaced_tainted_and_revoked_and_no_handshake_fails() {
    let (domain, mut server, mut agent) = served(Domain::new("sled"));
    let mut pair = Pair::start(&domain);
    let first = domain.authorities()["active"]["authority_id"].as_str().unwrap().to_owned();
    let agent_serial = domain.agent_serial();

    let second = domain.rotate();
    assert_eq!(
        (domain.authorities()["old"]["authority_id"].as_str(), domain.taints().len()),
        (Some(first.as_str()), 2)
    );
    pair.talk();

    let early = domain.server(&["localauthority", "x509", "revoke", "-authorityID", &first]);
    assert!(!early.ok && early.err.contains("not possible to revoke an untainted root CA"), "{}", early.err);
    let tainted = domain.server_done(&["localauthority", "x509", "taint", "-authorityID", &first]);
    assert!(
        tainted.starts_with(&format!("Tainted X.509 authority:\n  Authority ID: {first}\n")),
        "{tainted}"
    );
    assert_eq!(domain.taints(), [true, false]);
    pair.wait_until_replaced(&domain, &second);
    domain.wait_until_agent_renewed(&agent_serial);
    pair.talk();

    domain.server_done(&["localauthority", "x509", "revoke", "-authorityID", &first]);
    assert_eq!(domain.taints(), [false]);
    pair.talk();
    // A newcomer is served by what is left.
    assert!(domain.create_entry(2).ok);
    domain.wait_until_served(&mut agent, &[entry_id(1), entry_id(2)]);
    let revoked = |line: &str| line.contains("X.509 authority revoked successfully").then_some(());
    server.wait_for(revoked).expect("the log tells");
}

#[test]
fn a_jwt_authority_is_replaced_tainted_and_revoked_by_commands() {
    let mut domain = Domain::new("sled");
    let mut server = domain.start_server();
    let shown = |place: &str| {
        let all = domain.json(&["localauthority", "jwt", "show"]);
        all[place]["authority_id"].as_str().map(str::to_owned)
    };
    let first = shown("active").unwrap();
    let prepared = domain.json(&["localauthority", "jwt", "prepare"]);
    let second = prepared["prepared_authority"]["authority_id"].as_str().unwrap().to_owned();
    assert_eq!((shown("active"), shown("prepared")), (Some(first.clone()), Some(second.clone())));
    let activated = domain.server_done(&["localauthority", "jwt", "activate", "-authorityID", &second]);
    let expected = format!("Activated JWT authority:\n  Authority ID: {second}\n  Expires at: ");
    assert!(activated.starts_with(&expected), "{activated}");
    assert_eq!((shown("active"), shown("old")), (Some(second), Some(first.clone())));

    let early = domain.server(&["localauthority", "jwt", "revoke", "-authorityID", &first]);
    assert!(!early.ok && early.err.contains("not possible to revoke an untainted key"), "{}", early.err);
    domain.server_done(&["localauthority", "jwt", "taint", "-authorityID", &first]);
    let taints = || {
        let bundle = domain.json(&["bundle", "show"]);
        let keys = bundle["jwt_authorities"].as_array().unwrap();
        keys.iter().map(|key| key["tainted"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(taints(), [true, false]);
    domain.server_done(&["localauthority", "jwt", "revoke", "-authorityID", &first]);
    assert_eq!(taints(), [false]);
    let revoked = |line: &str| line.contains("JWT authority revoked successfully").then_some(());
    server.wait_for(revoked).expect("the log tells");
}

#[test]
fn an_upstream_root_is_swapped_tainted_and_revoked_and_no_handshake_fails() {
    let (folder, now) = (TestFolder::new(), SystemClock::shared().now());
    let (old, new) = (UpstreamFiles::self_signed("old", now), UpstreamFiles::self_signed("new", now));
    let (domain, _server, mut agent) = served(Domain::below("sled", old.write(&folder)));
    let mut pair = Pair::start(&domain);
    let agent_serial = domain.agent_serial();
    let root_of = |place: &str| {
        domain.authorities()[place]["upstream_authority_subject_key_id"].as_str().map(str::to_owned)
    };
    assert_eq!(root_of("active"), Some(old.root_key_id()));

    new.write(&folder);
    let second = domain.rotate();
    assert_eq!((root_of("active"), root_of("old")), (Some(new.root_key_id()), Some(old.root_key_id())));
    pair.talk();

    let local = domain.server(&["localauthority", "x509", "taint", "-authorityID", &second]);
    assert!(!local.ok && local.err.contains("if there is an upstream authority"), "{}", local.err);
    domain.server_done(&["upstreamauthority", "taint", "-subjectKeyID", &old.root_key_id()]);
    assert_eq!(domain.taints(), [true, false]);
    pair.wait_until_replaced(&domain, &second);
    domain.wait_until_agent_renewed(&agent_serial);
    pair.talk();

    let revoked = domain.server_done(&["upstreamauthority", "revoke", "-subjectKeyID", &old.root_key_id()]);
    assert_eq!(
        revoked,
        format!("Revoked X.509 upstream authority:\n  Subject Key ID: {}\n", old.root_key_id())
    );
    assert_eq!(domain.taints(), [false]);
    pair.talk();
    check_with_openssl(&domain, &folder, &new);
    assert!(domain.create_entry(2).ok);
    domain.wait_until_served(&mut agent, &[entry_id(1), entry_id(2)]);
}

/// The files that the agent wrote, as SPIRE's own suite looks at them.
fn check_with_openssl(domain: &Domain, folder: &TestFolder, upstream: &UpstreamFiles) {
    if Command::new("openssl").arg("version").output().is_err() {
        return left_out("OpenSSL on a served chain", "there is no openssl command");
    }
    assert_eq!(domain.fetch().len(), 2, "the leaf and the server's authority");
    let root = folder.file("root.pem", spindle_spiffe_core::pem::certificates_to_pem([upstream.root()]));
    let svid = domain.file("out").join("svid.0.pem");
    let mut command = Command::new("openssl");
    command.arg("verify").arg("-CAfile").arg(root).arg("-untrusted").args([&svid, &svid]);
    let verified = command.output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
}
