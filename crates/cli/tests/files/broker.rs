//! What the SPIFFE standards ask of a broker, of ours against an endpoint that is away, refuses, or sends what it should not.

use std::fs;
use std::path::Path;

use spindle_proto::broker::{
    FetchJwtsvidResponse, Jwtsvid, SubscribeToJwtBundlesResponse, SubscribeToX509BundlesResponse,
    SubscribeToX509svidResponse, X509svid,
};
use spindle_proto::workload::X509svidResponse;
use spindle_runtime::SystemClock;
use spindle_spiffe_core::Clock;
use spindle_testkit::TestAuthority;
use tempfile::TempDir;
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::fake::{self, Fake, Script, authority, ended, held, pushed};
use crate::fake_broker::{BrokerScript, FakeBroker};
use crate::program::{Program, agent, generation, scratch, wait_for};

/// The pod that is asked for: its end is told by the endpoint alone.
const POD: [&str; 2] = ["-podUID", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"];

const AGENT: &str = "/spire/agent/a";

/// A broker's surroundings: its Workload API, and the endpoint that it asks.
struct Rig {
    temp: TempDir,
    authority: TestAuthority,
    workload_api: Fake,
    own: watch::Sender<Result<X509svidResponse, Code>>,
    endpoint: FakeBroker,
}

impl Rig {
    fn new(authority: TestAuthority, script: BrokerScript) -> Self {
        Self::with_agent(authority, AGENT, script)
    }

    fn with_agent(authority: TestAuthority, path: &str, script: BrokerScript) -> Self {
        let temp = scratch();
        let (own, newest) = watch::channel(Ok(fake::message(&authority)));
        let script_of_own = Script::x509(move |_| pushed(&newest));
        let workload_api = Fake::start(&temp.path().join("api.sock"), script_of_own);
        let endpoint = FakeBroker::start(&temp.path().join("broker.sock"), &authority, path, script);
        Self { temp, authority, workload_api, own, endpoint }
    }

    fn command(&self, words: &[&str], more: &[&str]) -> std::process::Command {
        let mut command = agent();
        command.arg("broker").args(words).arg("-socketPath").arg(&self.workload_api.socket);
        command.env("SPIFFE_BROKER_SOCKET", format!("unix://{}", self.endpoint.socket.display())).args(more);
        command
    }

    fn dir(&self) -> std::path::PathBuf {
        self.temp.path().join("svid")
    }

    /// Keeps the pod's files.
    fn keep(&self, more: &[&str]) -> Program {
        let dir = self.dir();
        let more = [&["-dir", dir.to_str().unwrap()], &POD[..], more].concat();
        Program::start(self.command(&["files"], &more), &self.temp.path().join("log"))
    }

    fn fetch(&self, words: &[&str]) -> std::process::Output {
        self.command(&[&["fetch"], words].concat(), &POD).output().unwrap()
    }
}

fn svid(authority: &TestAuthority, path: &str, hint: &str) -> X509svid {
    let identity = authority.issue(path, SystemClock.now());
    X509svid {
        spiffe_id: identity.svid.spiffe_id().to_string(),
        x509_svid: identity.svid.to_der().into(),
        x509_svid_key: identity.key.pkcs8_der().to_vec().into(),
        bundle: authority.x509_bundle().to_der().into(),
        hint: hint.into(),
    }
}

fn message(svids: Vec<X509svid>) -> SubscribeToX509svidResponse {
    SubscribeToX509svidResponse { svids, ..Default::default() }
}

fn one(authority: &TestAuthority) -> SubscribeToX509svidResponse {
    message(vec![svid(authority, "/pod", "")])
}

/// All files below a directory that hold something of a workload, at any depth.
fn kept(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        let name = entry.file_name().into_string().unwrap();
        if kind.is_dir() {
            found.extend(kept(&entry.path()));
        } else if kind.is_file() && name != ".spindle-files" {
            found.push(name);
        }
    }
    found
}

fn refuses(output: &std::process::Output, words: &str) {
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && err.contains(words), "{err}");
}

#[test]
fn bep_10_bep_11_bep_12_bep_13_the_endpoint_is_found_by_the_standards_variable_which_is_checked() {
    let authority = authority();
    let first = one(&authority);
    let rig = Rig::new(authority, BrokerScript::x509(move |_| held(vec![first.clone()])));
    let output = rig.fetch(&[]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains("spiffe://example.org/pod"), "{out}");
    for (address, why) in [
        ("http://127.0.0.1:1", "neither unix: nor tcp:"),
        ("unix://host/b.sock", "absolute path"),
        ("unix:///b.sock?x=1", "'?' has no place in it"),
        ("tcp://h:1/foo", "the port is none"),
        ("tcp://u@h:1", "neither an IP address nor a DNS name"),
    ] {
        let mut command = rig.command(&["fetch"], &POD);
        let output = command.env("SPIFFE_BROKER_SOCKET", address).output().unwrap();
        refuses(&output, why);
        assert!(String::from_utf8_lossy(&output.stderr).contains("SPIFFE_BROKER_SOCKET"), "{address}");
    }
    let mut command = rig.command(&["fetch"], &POD);
    refuses(
        &command.env_remove("SPIFFE_BROKER_SOCKET").output().unwrap(),
        "not said where the broker endpoint is",
    );
    // The flag wins over the variable.
    let socket = rig.endpoint.socket.to_str().unwrap();
    let mut command = rig.command(&["fetch", "-brokerSocket", socket], &POD);
    assert!(command.env("SPIFFE_BROKER_SOCKET", "no address").output().unwrap().status.success());
    assert_eq!(rig.endpoint.calls("x509").len(), 2);
}

#[test]
fn bep_16_a_broker_leaves_whoever_is_not_the_agent_it_expects() {
    let own = authority();
    let first = one(&own);
    let rig = Rig::with_agent(own, "/web", BrokerScript::x509(move |_| held(vec![first.clone()])));
    refuses(&rig.fetch(&[]), "cannot reach the broker endpoint");
    refuses(&rig.fetch(&["-agentID", "spiffe://example.org/spire/agent/a"]), "spiffe://example.org/web");
    assert!(rig.fetch(&["-agentID", "spiffe://example.org/web"]).status.success());
    assert_eq!(rig.endpoint.calls("x509").len(), 1);
}

#[test]
fn bep_17_bep_27_a_refusal_of_the_call_itself_is_told_and_not_tried_again() {
    let refusing = BrokerScript::x509(|_| Err(Status::invalid_argument("as the test wants")));
    let rig = Rig::new(authority(), refusing);
    let mut keeper = rig.keep(&[]);
    assert_eq!(keeper.end().code(), Some(1));
    assert!(keeper.log().contains("InvalidArgument: as the test wants"), "{}", keeper.log());
    assert_eq!(rig.endpoint.calls("x509").len(), 1);
}

#[test]
fn bep_19_bep_23_bap_34_bap_60_an_endpoint_that_is_not_ready_is_asked_again_and_a_stream_that_ends_opened_again()
 {
    let authority = authority();
    let messages = [one(&authority), one(&authority)];
    let script = BrokerScript::x509(move |call| match call {
        0 => Err(Status::unavailable("starting")),
        1 => Err(Status::permission_denied("not yet")),
        2 => ended(vec![messages[0].clone()], None),
        _ => held(vec![messages[1].clone()]),
    });
    let rig = Rig::new(authority, script);
    let mut keeper = rig.keep(&[]);
    keeper.says("the Broker API is not there: trying again");
    keeper.says("no identity has been issued yet: waiting");
    // The first generation is the empty one that clears the directory.
    wait_for("both messages", || generation(&rig.dir()).filter(|number| *number == 3));
    assert_eq!(rig.endpoint.calls("x509").len(), 4);
}

#[test]
fn bep_21_after_unauthenticated_a_broker_comes_back_with_another_certificate_and_not_before() {
    let authority = authority();
    let first = one(&authority);
    let script = BrokerScript::x509(move |call| match call {
        0 => Err(Status::unauthenticated("who are you?")),
        _ => held(vec![first.clone()]),
    });
    let rig = Rig::new(authority, script);
    let mut keeper = rig.keep(&[]);
    keeper.says("the agent does not know this broker: waiting for a new X509-SVID");
    rig.own.send_modify(|next| *next = Ok(fake::message(&rig.authority)));
    wait_for("the files", || rig.dir().join("tls.key").exists().then_some(()));
    let serials: Vec<_> = rig.endpoint.calls("x509").into_iter().map(|call| call.serial).collect();
    assert!(serials.len() == 2 && serials[0] != serials[1], "{serials:?}");
}

#[test]
fn bep_21_a_stream_that_ends_with_unauthenticated_is_opened_with_another_certificate() {
    let authority = authority();
    let messages = [one(&authority), one(&authority)];
    let script = BrokerScript::x509(move |call| match call {
        0 => ended(vec![messages[0].clone()], Some(Status::unauthenticated("it has run out"))),
        _ => held(vec![messages[1].clone()]),
    });
    let rig = Rig::new(authority, script);
    let mut keeper = rig.keep(&[]);
    keeper.says("the agent does not know this broker: waiting for a new X509-SVID");
    wait_for("what came before the end", || rig.dir().join("tls.key").exists().then_some(()));
    rig.own.send_modify(|next| *next = Ok(fake::message(&rig.authority)));
    wait_for("the second message", || generation(&rig.dir()).filter(|number| *number == 3));
    let serials: Vec<_> = rig.endpoint.calls("x509").into_iter().map(|call| call.serial).collect();
    assert!(serials.len() == 2 && serials[0] != serials[1], "{serials:?}");
}

#[test]
fn bap_10_each_request_names_the_workload() {
    let authority = authority();
    let first = one(&authority);
    let script = BrokerScript {
        x509_bundles: Box::new(|_| held(vec![SubscribeToX509BundlesResponse::default()])),
        jwt_bundles: Box::new(|_| held(vec![SubscribeToJwtBundlesResponse::default()])),
        jwt: Box::new(|_| Ok(FetchJwtsvidResponse::default())),
        ..BrokerScript::x509(move |_| held(vec![first.clone()]))
    };
    let rig = Rig::new(authority, script);
    for words in [&["x509"][..], &["x509bundles"], &["jwt", "-audience", "a"]] {
        let _ = rig.fetch(words);
    }
    let mut seen = Vec::new();
    for method in ["x509", "x509_bundles", "jwt", "jwt_bundles"] {
        let calls = rig.endpoint.calls(method);
        assert_eq!(calls.len(), 1, "{method}");
        seen.push(calls[0].reference.clone());
    }
    let named = seen[0].reference.as_ref().unwrap();
    assert_eq!(named.type_url, "type.googleapis.com/spiffe.broker.KubernetesObjectReference");
    assert!(String::from_utf8_lossy(&named.value).contains(POD[1]));
    assert!(seen.iter().all(|one| *one == seen[0]));
    let mut nobody = rig.command(&["fetch"], &[]);
    refuses(&nobody.output().unwrap(), "not said for which workload");
}

#[test]
fn bap_42_a_message_without_a_key_is_told_and_changes_nothing() {
    let authority = authority();
    let (push, newest) = watch::channel(Ok(one(&authority)));
    let rig = Rig::new(authority, BrokerScript::x509(move |_| pushed(&newest)));
    let mut keeper = rig.keep(&[]);
    wait_for("the first files", || generation(&rig.dir()).filter(|number| *number == 2));
    let before = fs::read(rig.dir().join("tls.pem")).unwrap();
    let mut faulty = one(&rig.authority);
    faulty.svids[0].x509_svid_key.clear();
    push.send_modify(|next| *next = Ok(faulty));
    keeper.says("a message of the agent is not valid: what was there before stays");
    assert_eq!(fs::read(rig.dir().join("tls.pem")).unwrap(), before);
}

#[test]
fn bap_50_bap_52_a_workload_that_is_gone_leaves_nothing_behind_though_the_code_alone_says_so() {
    let authority = authority();
    let (push, newest) = watch::channel(Ok(one(&authority)));
    let rig = Rig::new(authority, BrokerScript::x509(move |_| pushed(&newest)));
    let mut keeper = rig.keep(&["-grace", "1h"]);
    wait_for("the first files", || generation(&rig.dir()).filter(|number| *number == 2));
    push.send_modify(|next| *next = Ok(one(&rig.authority)));
    wait_for("the next files", || generation(&rig.dir()).filter(|number| *number == 3));
    assert_eq!(kept(&rig.dir()).len(), 8, "two generations");
    push.send_modify(|next| *next = Err(Code::NotFound));
    assert_eq!(keeper.end().code(), Some(0));
    assert_eq!(kept(&rig.dir()), [""; 0]);
    assert!(keeper.log().contains("the workload has ended: its files are removed"), "{}", keeper.log());
}

#[test]
fn bap_32_bap_52_nothing_of_one_workload_is_shown_as_anothers_and_nothing_outlives_the_watch() {
    let authority = authority();
    let first = one(&authority);
    // The second run is not served: all that could be seen is what the first has left.
    let script = BrokerScript::x509(move |call| match call {
        0 => held(vec![first.clone()]),
        _ => Err(Status::permission_denied("not entitled")),
    });
    let rig = Rig::new(authority, script);
    let mut killed = rig.keep(&[]);
    wait_for("the files", || rig.dir().join("tls.key").exists().then_some(()));
    killed.kill();
    assert!(!kept(&rig.dir()).is_empty(), "nobody was left to remove them");
    let mut next = rig.keep(&[]);
    next.says("no identity has been issued yet: waiting");
    assert_eq!(kept(&rig.dir()), [""; 0]);
    next.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(next.end().code(), Some(0));
}

#[test]
fn bap_52_the_files_go_when_the_broker_is_stopped_and_may_not_be_kept_by_a_flag() {
    let authority = authority();
    let first = one(&authority);
    let rig = Rig::new(authority, BrokerScript::x509(move |_| held(vec![first.clone()])));
    let mut keeper = rig.keep(&[]);
    wait_for("the files", || rig.dir().join("tls.key").exists().then_some(()));
    keeper.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(keeper.end().code(), Some(0));
    assert_eq!(kept(&rig.dir()), [""; 0]);
    for (flags, why) in [(&["-once"][..], "-once cannot be"), (&["-onWithdrawal", "keep"], "cannot be kept")]
    {
        let dir = rig.dir();
        let more = [&["-dir", dir.to_str().unwrap()], &POD[..], flags].concat();
        refuses(&rig.command(&["files"], &more).output().unwrap(), why);
    }
}

/// {"exp":4000000000} in two spellings.
const TOKENS: [&str; 2] = ["e30.eyJleHAiOjQwMDAwMDAwMDB9.c2ln", "e30.eyJleHAiOjQwMDAwMDAwMDAgfQ.c2ln"];

#[test]
fn bap_58_bap_69_bap_75_of_two_with_one_hint_the_first_is_used_and_hints_are_shown() {
    let authority = authority();
    let two = message(vec![
        svid(&authority, "/other", ""),
        svid(&authority, "/first", "web"),
        svid(&authority, "/second", "web"),
    ]);
    let script = BrokerScript {
        jwt: Box::new(|request| {
            assert_eq!(request.audience, ["billing"]);
            let token = |text: &str, path: &str| Jwtsvid {
                spiffe_id: format!("spiffe://example.org/{path}"),
                svid: text.into(),
                hint: "web".into(),
            };
            Ok(FetchJwtsvidResponse { svids: vec![token(TOKENS[0], "first"), token(TOKENS[1], "second")] })
        }),
        ..BrokerScript::x509(move |_| held(vec![two.clone()]))
    };
    let rig = Rig::new(authority, script);
    let _keeper = rig.keep(&["-hint", "web", "-jwtSVID", "api.token=billing"]);
    wait_for("the files", || rig.dir().join("api.token").exists().then_some(()));
    assert_eq!(fs::read_to_string(rig.dir().join("api.token")).unwrap(), TOKENS[0]);
    let output = rig.fetch(&[]);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("SPIFFE ID:\t\tspiffe://example.org/first\nHint:\t\t\tweb"), "{out}");
    assert!(out.contains("Received 2 svids") && !out.contains("spiffe://example.org/second"), "{out}");
}

#[test]
fn bap_62_bap_66_bap_78_bap_83_each_kind_of_bundle_has_files_of_its_own_and_follows_its_stream() {
    let own = authority();
    let other = TestAuthority::new("other.org", SystemClock.now());
    let ders = |all: &[&TestAuthority]| {
        let bundle = |one: &&TestAuthority| {
            (format!("spiffe://{}", one.trust_domain()), one.x509_bundle().to_der().into())
        };
        SubscribeToX509BundlesResponse { bundles: all.iter().map(bundle).collect(), ..Default::default() }
    };
    let keys = |names: &[&str]| SubscribeToJwtBundlesResponse {
        bundles: names.iter().map(|name| ((*name).to_owned(), "{\"keys\":[]}".into())).collect(),
    };
    let both = ["spiffe://example.org", "spiffe://other.org"];
    let (x509, newest_x509) = watch::channel(Ok(ders(&[&own, &other])));
    let (jwt, newest_jwt) = watch::channel(Ok(keys(&both)));
    let script = BrokerScript {
        x509_bundles: Box::new(move |_| pushed(&newest_x509)),
        jwt_bundles: Box::new(move |_| pushed(&newest_jwt)),
        ..BrokerScript::x509(|_| Err(Status::permission_denied("not asked for")))
    };
    let pem = own.x509_bundle().to_pem();
    let fewer = ders(&[&own]);
    let rig = Rig::new(own, script);
    let _keeper = rig.keep(&["-bundlesOnly", "-jwtBundlesFile", "jwt.json"]);
    let dir = rig.dir();
    wait_for("the files", || dir.join("jwt.json").exists().then_some(()));
    let shown = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(shown("bundle.example.org.pem"), pem);
    assert_eq!(shown("bundle.other.org.pem"), other.x509_bundle().to_pem());
    assert_eq!(
        shown("jwt.json"),
        "{\"spiffe://example.org\":{\"keys\":[]},\"spiffe://other.org\":{\"keys\":[]}}\n"
    );
    jwt.send_modify(|next| *next = Ok(keys(&both[..1])));
    wait_for("fewer keys", || {
        (shown("jwt.json") == "{\"spiffe://example.org\":{\"keys\":[]}}\n").then_some(())
    });
    assert!(dir.join("bundle.other.org.pem").exists(), "the other kind is not touched");
    x509.send_modify(|next| *next = Ok(fewer));
    wait_for("fewer bundles", || (!dir.join("bundle.other.org.pem").exists()).then_some(()));
    assert_eq!(shown("bundle.example.org.pem"), pem);
    // Denied: all that was there for the workload is dropped.
    x509.send_modify(|next| *next = Err(Code::PermissionDenied));
    wait_for("no files", || kept(&dir).is_empty().then_some(()));
    assert_eq!(rig.endpoint.calls("x509").len(), 0);
}
