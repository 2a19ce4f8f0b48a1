//! What the SPIFFE standards ask of a client, of ours against an agent that is away, refuses, or sends what it should not.

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::Ordering;

use spindle_proto::workload::{
    JwtBundlesResponse, Jwtsvid, JwtsvidResponse, X509BundlesResponse, X509svidResponse,
};
use spindle_runtime::SystemClock;
use spindle_spiffe_core::{Clock, X509Bundle, verify_x509_svid};
use spindle_testkit::TestAuthority;
use tokio::sync::watch;
use tonic::{Code, Status};

use crate::fake::{Fake, Script, authority, ended, held, message, pushed, svid};
use crate::program::{Program, agent, files, generation, scratch, wait_for};

fn once(fake: &Fake, dir: &Path, more: &[&str]) -> Output {
    files(&fake.socket, dir, &[&["-once", "-timeout", "60s"], more].concat()).output().unwrap()
}

fn refusing(socket: &Path, code: Code) -> Fake {
    Fake::start(socket, Script::x509(move |_| Err(Status::new(code, "as the test wants"))))
}

fn keep(fake: &Fake, temp: &Path, more: &[&str]) -> Program {
    Program::start(files(&fake.socket, &temp.join("svid"), more), &temp.join("log"))
}

/// A server to which a test pushes messages, newest last.
fn pushing(socket: &Path, first: X509svidResponse) -> (Fake, watch::Sender<Result<X509svidResponse, Code>>) {
    let (push, newest) = watch::channel(Ok(first));
    (Fake::start(socket, Script::x509(move |_| pushed(&newest))), push)
}

#[test]
fn wep_12_the_tools_find_the_endpoint_by_the_standards_variable() {
    let temp = scratch();
    let first = message(&authority());
    let fake = Fake::start(&temp.path().join("sock"), Script::x509(move |_| held(vec![first.clone()])));
    let address = format!("unix://{}", fake.socket.display());
    let run = |endpoint: &str| {
        let mut command = agent();
        command.env_remove("SPIRE_AGENT_PUBLIC_SOCKET").env("SPIFFE_ENDPOINT_SOCKET", endpoint);
        command.args(["files", "-once", "-dir"]).arg(temp.path().join("svid"));
        command.output().unwrap()
    };
    assert!(run(&address).status.success());
    let refused = run("http://127.0.0.1:1");
    let err = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && err.contains("SPIFFE_ENDPOINT_SOCKET"), "{err}");
}

#[test]
fn wep_19_a_refusal_of_the_call_itself_is_told_and_not_tried_again() {
    let temp = scratch();
    let fake = refusing(&temp.path().join("sock"), Code::InvalidArgument);
    let output = once(&fake, &temp.path().join("svid"), &[]);
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("InvalidArgument: as the test wants"), "{err}");
    assert_eq!(fake.x509_calls(), 1);
}

#[test]
fn wep_24_wap_63_a_profile_that_is_not_there_is_told_and_not_tried_again() {
    let temp = scratch();
    let fake = refusing(&temp.path().join("sock"), Code::Unimplemented);
    let output = once(&fake, &temp.path().join("svid"), &[]);
    assert_eq!((output.status.code(), fake.x509_calls()), (Some(1), 1));
    let output = agent().args(["api", "fetch", "wit", "-socketPath"]).arg(&fake.socket).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("Unimplemented"), "{err}");
    assert_eq!(fake.calls.wit.load(Ordering::SeqCst), 1);
}

#[test]
fn wep_21_wep_28_wap_31_an_agent_that_comes_later_is_found_without_reflection() {
    let temp = scratch();
    let (socket, dir) = (temp.path().join("sock"), temp.path().join("svid"));
    let mut keeper = Program::start(files(&socket, &dir, &[""; 0]), &temp.path().join("log"));
    keeper.says("the Workload API is not there: trying again");
    let first = message(&authority());
    let _fake = Fake::start(&socket, Script::x509(move |_| held(vec![first.clone()])));
    wait_for("the files", || generation(&dir));
}

#[test]
fn wep_23_an_identity_that_is_issued_later_is_waited_for() {
    let temp = scratch();
    let first = message(&authority());
    let script = Script::x509(move |call| match call {
        0..3 => Err(Status::permission_denied("no identity issued")),
        _ => held(vec![first.clone()]),
    });
    let fake = Fake::start(&temp.path().join("sock"), script);
    let mut keeper = keep(&fake, temp.path(), &[]);
    keeper.says("no identity has been issued yet: waiting");
    wait_for("the files", || generation(&temp.path().join("svid")));
    assert_eq!(fake.x509_calls(), 4);
}

#[test]
fn wap_08_wap_09_one_stream_stays_open_and_a_new_one_follows_its_end() {
    let (temp, authority) = (scratch(), authority());
    let (fake, push) = pushing(&temp.path().join("sock"), message(&authority));
    let dir = temp.path().join("svid");
    let _keeper = keep(&fake, temp.path(), &[]);
    for number in 1..5 {
        wait_for("a generation", || generation(&dir).filter(|shown| *shown == number));
        push.send_modify(|next| *next = Ok(message(&authority)));
    }
    // Nothing is under way any more that could be taken for what comes from the next one.
    wait_for("the last generation", || generation(&dir).filter(|shown| *shown == 5));
    assert_eq!(fake.x509_calls(), 1);
    // The agent is killed; the next one has another SVID.
    let socket = fake.socket.clone();
    drop(fake);
    let before = generation(&dir);
    let next = message(&authority);
    let fake = Fake::start(&socket, Script::x509(move |_| held(vec![next.clone()])));
    wait_for("a new generation", || (generation(&dir) > before).then_some(()));
    assert_eq!(fake.x509_calls(), 1);
}

fn with_federated(authority: &TestAuthority) -> X509svidResponse {
    let other = TestAuthority::new("other.org", SystemClock.now()).x509_bundle().to_der();
    X509svidResponse {
        federated_bundles: [("spiffe://other.org".into(), other.into())].into(),
        ..message(authority)
    }
}

#[test]
fn wap_15_wap_16_wap_38_a_bundle_that_is_missing_in_a_message_is_forgotten() {
    let (temp, authority) = (scratch(), authority());
    let (fake, push) = pushing(&temp.path().join("sock"), with_federated(&authority));
    let dir = temp.path().join("svid");
    let _keeper = keep(&fake, temp.path(), &["-federatedBundles"]);
    wait_for("the first files", || generation(&dir));
    assert!(fs::read_to_string(dir.join("current/federated.other.org.pem")).unwrap().contains("CERTIFICATE"));
    push.send_modify(|next| *next = Ok(message(&authority)));
    wait_for("the next files", || generation(&dir).filter(|number| *number == 2));
    assert!(!dir.join("current/federated.other.org.pem").exists());
    wait_for("no link", || dir.join("federated.other.org.pem").symlink_metadata().is_err().then_some(()));
}

#[test]
fn wap_18_a_message_without_a_key_is_told_and_changes_nothing() {
    let (temp, authority) = (scratch(), authority());
    let (fake, push) = pushing(&temp.path().join("sock"), message(&authority));
    let dir = temp.path().join("svid");
    let mut keeper = keep(&fake, temp.path(), &[]);
    wait_for("the first files", || generation(&dir));
    let before = fs::read(dir.join("tls.pem")).unwrap();
    let mut faulty = message(&authority);
    faulty.svids[0].x509_svid_key.clear();
    push.send_modify(|next| *next = Ok(faulty));
    keeper.says("a message of the agent is not valid: what was there before stays");
    assert_eq!((generation(&dir), fs::read(dir.join("tls.pem")).unwrap()), (Some(1), before));
    push.send_modify(|next| *next = Ok(message(&authority)));
    wait_for("the next files", || generation(&dir).filter(|number| *number == 2));
}

#[test]
fn wap_32_an_identity_that_is_taken_back_leaves_no_key_behind_and_may_come_again() {
    let (temp, authority) = (scratch(), authority());
    let two = || {
        let (mut both, bundle) = (message(&authority), authority.x509_bundle());
        both.svids.push(svid(&bundle, &authority.issue("/db", SystemClock.now()), "db"));
        both
    };
    let (fake, push) = pushing(&temp.path().join("sock"), two());
    let dir = temp.path().join("svid");
    let mut keeper = keep(&fake, temp.path(), &["-hint", "db"]);
    let there = |wanted: bool| wait_for("the key", || (dir.join("tls.key").exists() == wanted).then_some(()));
    there(true);
    // Fewer of them, and none of this hint.
    push.send_modify(|next| *next = Ok(message(&authority)));
    there(false);
    keeper.says("the identity is withdrawn: removing the files");
    wait_for("no past keys", || (fs::read_dir(&dir).unwrap().count() == 3).then_some(()));
    push.send_modify(|next| *next = Ok(two()));
    there(true);
    // None at all.
    push.send_modify(|next| *next = Err(Code::PermissionDenied));
    there(false);
}

#[test]
fn files_of_a_withdrawn_identity_stay_where_that_is_asked_for() {
    let (temp, authority) = (scratch(), authority());
    let (fake, push) = pushing(&temp.path().join("sock"), message(&authority));
    let mut keeper = keep(&fake, temp.path(), &["-onWithdrawal", "keep"]);
    wait_for("the files", || generation(&temp.path().join("svid")));
    push.send_modify(|next| *next = Err(Code::PermissionDenied));
    keeper.says("the identity is withdrawn: the files stay");
    assert!(temp.path().join("svid/tls.key").exists());
}

/// Authorities of this trust domain and another, and what the other's SVIDs are signed with.
fn x509_bundles(own: &TestAuthority, other: &TestAuthority) -> X509BundlesResponse {
    let bundles = [own, other].map(|one| {
        let bundle = one.x509_bundle();
        (bundle.trust_domain().id().to_string(), bundle.to_der().into())
    });
    X509BundlesResponse { bundles: bundles.into(), ..Default::default() }
}

/// Whether what stands in `file` vouches for an SVID of `authority`.
fn vouches(file: &Path, authority: &TestAuthority) -> bool {
    let name = authority.trust_domain().clone();
    let bundle = X509Bundle::from_pem(name, &fs::read(file).unwrap()).unwrap();
    let svid = authority.issue("/web", SystemClock.now()).svid;
    verify_x509_svid(svid.chain(), &bundle.into(), SystemClock.now()).is_ok()
}

#[test]
fn wap_33_wap_38_wap_48_a_verifier_without_identity_has_each_kind_of_bundle_in_files_of_its_own() {
    let (temp, own) = (scratch(), authority());
    let other = TestAuthority::new("other.org", SystemClock.now());
    let (push, newest) = watch::channel(Ok(x509_bundles(&own, &other)));
    let keys = jwt_bundles(&["spiffe://example.org"]);
    let script = Script {
        x509_bundles: Box::new(move |_| pushed(&newest)),
        jwt_bundles: Box::new(move |_| held(vec![keys.clone()])),
        // No identity for this caller, and none is asked for.
        ..Script::x509(|_| Err(Status::permission_denied("no identity issued")))
    };
    let fake = Fake::start(&temp.path().join("sock"), script);
    let dir = temp.path().join("svid");
    let mut keeper = keep(&fake, temp.path(), &["-bundlesOnly", "-jwtBundlesFile", "jwt.json"]);
    wait_for("the files", || generation(&dir));
    assert!(vouches(&dir.join("bundle.example.org.pem"), &own));
    assert!(vouches(&dir.join("bundle.other.org.pem"), &other));
    assert!(!vouches(
        &dir.join("bundle.example.org.pem"),
        &TestAuthority::new("example.org", SystemClock.now())
    ));
    // One trust domain's file says nothing of another's, and neither holds what checks tokens, or a key.
    let shown = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(shown("bundle.example.org.pem"), own.x509_bundle().to_pem());
    assert_eq!(shown("bundle.other.org.pem"), other.x509_bundle().to_pem());
    assert_eq!(shown("jwt.json"), "{\"spiffe://example.org\":{\"keys\":[]}}\n");
    assert_eq!(fs::read_dir(dir.join("current")).unwrap().count(), 3);
    // Keys for tokens are no X.509 bundle, wherever they come from.
    let mut mixed = x509_bundles(&own, &other);
    mixed.bundles.insert("spiffe://other.org".into(), "{\"keys\":[]}".into());
    push.send_modify(|next| *next = Ok(mixed));
    keeper.says("a message of the agent is not valid: what was there before stays");
    assert_eq!(generation(&dir), Some(1));
    // What is left out of the next message is used no more.
    let mut fewer = x509_bundles(&own, &other);
    fewer.bundles.remove("spiffe://other.org");
    push.send_modify(|next| *next = Ok(fewer));
    wait_for("the next files", || generation(&dir).filter(|number| *number == 2));
    assert!(!dir.join("bundle.other.org.pem").exists() && vouches(&dir.join("bundle.example.org.pem"), &own));
    assert_eq!(fake.x509_calls(), 0);
}

#[test]
fn wap_33_x509_bundles_are_shown_by_trust_domain_and_keys_for_tokens_are_refused() {
    let (temp, own) = (scratch(), authority());
    let other = TestAuthority::new("other.org", SystemClock.now());
    let good = x509_bundles(&own, &other);
    let mut mixed = good.clone();
    mixed.bundles.insert("spiffe://other.org".into(), "{\"keys\":[]}".into());
    let script = Script {
        x509_bundles: Box::new(move |call| held(vec![if call == 0 { good.clone() } else { mixed.clone() }])),
        ..Script::x509(|_| Err(Status::permission_denied("no identity issued")))
    };
    let fake = Fake::start(&temp.path().join("sock"), script);
    let fetch = || {
        let mut command = agent();
        command.args(["api", "fetch", "x509bundles", "-socketPath"]).arg(&fake.socket);
        command.arg("-write").arg(temp.path()).output().unwrap()
    };
    let shown = fetch();
    let out = String::from_utf8(shown.stdout).unwrap();
    assert!(
        shown.status.success() && out.contains("Trust domain:\t\tother.org\nCA #1 Valid After:"),
        "{out}"
    );
    assert!(vouches(&temp.path().join("bundle.other.org.pem"), &other));
    let refused = fetch();
    let err = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && err.contains("the bundle of spiffe://other.org"), "{err}");
}

fn jwt_bundles(names: &[&str]) -> JwtBundlesResponse {
    let keys = |name: &&str| ((*name).to_owned(), "{\"keys\":[]}".to_owned().into());
    JwtBundlesResponse { bundles: names.iter().map(keys).collect() }
}

#[test]
fn wap_20_wap_46_wap_53_wap_54_jwt_bundles_and_tokens_have_files_of_their_own_and_follow_their_stream() {
    let (temp, authority) = (scratch(), authority());
    let (push, newest) = watch::channel(Ok(jwt_bundles(&["spiffe://example.org", "spiffe://other.org"])));
    let first = message(&authority);
    let token = |hint: &str, claims: &str| Jwtsvid {
        spiffe_id: "spiffe://example.org/web".into(),
        svid: format!("e30.{claims}.c2ln"),
        hint: hint.into(),
    };
    let script = Script {
        jwt_bundles: Box::new(move |call| match call {
            // Not there at first.
            0 => Err(Status::unavailable("starting")),
            _ => pushed(&newest),
        }),
        jwt: Box::new(move |request| {
            assert_eq!(request.audience, ["billing", "ledger"]);
            // {"exp":4000000000} twice, under one hint: the first is taken.
            let (first, second) =
                (token("", "eyJleHAiOjQwMDAwMDAwMDB9"), token("", "eyJleHAiOjQwMDAwMDAwMDAgfQ"));
            Ok(JwtsvidResponse { svids: vec![first, second] })
        }),
        ..Script::x509(move |_| held(vec![first.clone()]))
    };
    let fake = Fake::start(&temp.path().join("sock"), script);
    let dir = temp.path().join("svid");
    let _keeper =
        keep(&fake, temp.path(), &["-jwtBundlesFile", "jwt.json", "-jwtSVID", "api.token=billing,ledger"]);
    wait_for("the files", || generation(&dir));
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(
        read("jwt.json"),
        "{\"spiffe://example.org\":{\"keys\":[]},\"spiffe://other.org\":{\"keys\":[]}}\n"
    );
    assert_eq!(read("api.token"), "e30.eyJleHAiOjQwMDAwMDAwMDB9.c2ln");
    assert_eq!(read("ca.crt"), authority.x509_bundle().to_pem(), "X.509 authorities alone");
    push.send_modify(|next| *next = Ok(jwt_bundles(&["spiffe://example.org"])));
    wait_for("the next files", || generation(&dir).filter(|number| *number == 2));
    assert_eq!(read("jwt.json"), "{\"spiffe://example.org\":{\"keys\":[]}}\n");
}

#[test]
fn wap_59_a_token_is_judged_by_the_agent() {
    let temp = scratch();
    let fake = refusing(&temp.path().join("sock"), Code::PermissionDenied);
    let validate = |token: &str| {
        let mut command = agent();
        command.args(["api", "validate", "jwt", "-audience", "billing", "-svid", token, "-socketPath"]);
        command.arg(&fake.socket).output().unwrap()
    };
    assert!(validate("good").stdout.starts_with(b"SVID is valid."));
    assert_eq!(validate("bad").status.code(), Some(1));
    assert_eq!(fake.calls.validate.load(Ordering::SeqCst), 2);
}

#[test]
fn wap_09_a_stream_that_ends_in_order_is_opened_again() {
    let temp = scratch();
    let authority = authority();
    let messages = [message(&authority), message(&authority)];
    let script = Script::x509(move |call| match call {
        0 => ended(vec![messages[0].clone()], None),
        _ => held(vec![messages[1].clone()]),
    });
    let fake = Fake::start(&temp.path().join("sock"), script);
    let _keeper = keep(&fake, temp.path(), &[]);
    wait_for("the second SVID", || generation(&temp.path().join("svid")).filter(|number| *number == 2));
    assert_eq!(fake.x509_calls(), 2);
}

#[test]
fn once_ends_when_the_files_are_there_and_gives_up_when_told_to() {
    let (temp, authority) = (scratch(), authority());
    let (fake, push) = pushing(&temp.path().join("sock"), message(&authority));
    let dir = temp.path().join("svid");
    assert!(once(&fake, &dir, &[]).status.success());
    assert!(dir.join("tls.key").exists());
    push.send_modify(|next| *next = Err(Code::PermissionDenied));
    let output =
        files(&fake.socket, &temp.path().join("other"), &["-once", "-timeout", "1s"]).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("no identity came within 1s"), "{err}");
}
