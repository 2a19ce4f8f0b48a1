//! `api watch` as a process: each update is printed, and an agent that went away is found again.

use std::sync::atomic::Ordering;

use spindle_keys::{Key, KeyType};
use spindle_proto::workload::{WitBundlesResponse, Witsvid, WitsvidResponse};
use spindle_runtime::SystemClock;
use spindle_spiffe_core::{Bundle, Clock, SignatureAlgorithm, Validity};
use spindle_testkit::TestWitAuthority;
use tonic::Status;

use crate::fake::{Fake, Script, ended, held, pushed};
use crate::program::{Program, agent, scratch};

/// A WIT-SVID for `/web` with that hint, and its private member.
fn wit(authority: &TestWitAuthority, hint: &str) -> (WitsvidResponse, String) {
    let (key, now) = (Key::generate(KeyType::EcP256).unwrap(), SystemClock.now());
    let spiffe_id = "spiffe://example.org/web";
    let life = Validity { not_before: now - 10, not_after: now + 600 };
    let token = authority.sign(&spiffe_id.parse().unwrap(), key.spki_der(), "ES256", life, 1).token;
    let key = key.private_jwk(SignatureAlgorithm::Es256).unwrap().to_string();
    let members: serde_json::Value = serde_json::from_str(&key).unwrap();
    let svid = Witsvid { spiffe_id: spiffe_id.into(), wit_svid: token, wit_svid_key: key, hint: hint.into() };
    (WitsvidResponse { svids: vec![svid] }, members["d"].as_str().unwrap().to_owned())
}

fn bundles(authority: &TestWitAuthority) -> WitBundlesResponse {
    let mut bundle = Bundle::new("example.org".parse().unwrap());
    bundle.wit_authorities = vec![authority.authority()];
    WitBundlesResponse { bundles: [("spiffe://example.org".to_owned(), bundle.wit_key_set())].into() }
}

#[test]
fn wit_svids_are_watched_and_their_keys_are_not_shown() {
    let temp = scratch();
    let authority = TestWitAuthority::new("example.org", "w1", SystemClock.now());
    let (first, first_key) = wit(&authority, "one");
    let (push, newest) = tokio::sync::watch::channel(Ok(first));
    let answer = bundles(&authority);
    let script = Script {
        wit: Box::new(move |_| pushed(&newest)),
        wit_bundles: Box::new(move || held(vec![answer.clone()])),
        ..Script::x509(|_| Err(Status::permission_denied("none")))
    };
    let fake = Fake::start(&temp.path().join("sock"), script);
    let mut command = agent();
    command.args(["api", "watch", "wit", "-socketPath"]).arg(&fake.socket);
    let mut watch = Program::start(command, &temp.path().join("log"));
    watch.says("Received 1 WIT-SVID after ");
    watch.says("Hint:\t\t\tone\n");
    let (second, second_key) = wit(&authority, "two");
    push.send_modify(|newest| *newest = Ok(second));
    watch.says("Hint:\t\t\ttwo\n");
    assert!(![first_key, second_key].iter().any(|key| watch.log().contains(key)));
    assert_eq!((fake.x509_calls(), fake.calls.wit.load(Ordering::SeqCst)), (0, 1));
}

#[test]
fn wap_70_wit_svids_are_watched_again_when_a_stream_has_ended() {
    let temp = scratch();
    let authority = TestWitAuthority::new("example.org", "w1", SystemClock.now());
    let (answer, messages) = (bundles(&authority), ["one", "two"].map(|hint| wit(&authority, hint).0));
    let script = Script {
        wit: Box::new(move |call| match call {
            0 => ended(vec![messages[0].clone()], Some(Status::unavailable("the agent is stopping"))),
            _ => held(vec![messages[1].clone()]),
        }),
        wit_bundles: Box::new(move || held(vec![answer.clone()])),
        ..Script::x509(|_| Err(Status::permission_denied("none")))
    };
    let fake = Fake::start(&temp.path().join("sock"), script);
    let mut command = agent();
    command.args(["api", "watch", "wit", "-socketPath"]).arg(&fake.socket);
    let mut watch = Program::start(command, &temp.path().join("log"));
    watch.says("Hint:\t\t\tone\n");
    watch.says("cannot fetch WIT-SVIDs: Unavailable: the agent is stopping");
    watch.says("Hint:\t\t\ttwo\n");
}
