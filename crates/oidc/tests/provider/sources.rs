//! Sources that change, break and come back: a file, a server's socket, an agent's stream.

use std::time::Duration;

use spindle_oidc::{Listener, ProviderConfig, SourceKind};
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{Bundle, JwtAuthority};
use spindle_testkit::TestFolder;
use tonic::Status;

use crate::fake::{Fake, bundle_of, jwt_bundles_of};
use crate::help::{Running, authority, bundle_file, config, local, serving, start, wait};

#[tokio::test]
async fn a_changed_file_is_shown_and_a_broken_one_changes_nothing() {
    let folder = TestFolder::new();
    let running = serving(&folder, "old").await;
    bundle_file(&folder, &["new", "next"]);
    running.wait_for_keys(&["new", "next"]).await;
    folder.file("bundle.json", "{");
    running.refresh.now();
    assert_eq!(running.get("/keys").await.kids(), ["new", "next"]);
    bundle_file(&folder, &[]);
    wait(async || {
        running.refresh.now();
        running.get("/keys").await.status == 501
    })
    .await;
}

#[tokio::test]
async fn a_file_is_read_again_by_itself() {
    let folder = TestFolder::new();
    let mut config = config(Listener::Insecure(local()), bundle_file(&folder, &["old"]));
    config.source.poll_interval = Duration::from_millis(20);
    let running = start(config).await;
    wait(async || running.get("/keys").await.kids() == ["old"]).await;
    bundle_file(&folder, &["new"]);
    wait(async || running.get("/keys").await.kids() == ["new"]).await;
}

fn jwt_key(authority: &JwtAuthority) -> types::JwtKey {
    types::JwtKey {
        public_key: authority.spki_der().to_vec().into(),
        key_id: authority.kid().to_owned(),
        ..types::JwtKey::default()
    }
}

/// A provider with a quick pace whose source is at the socket `api.sock` of the folder.
async fn start_with(folder: &TestFolder, kind: SourceKind) -> Running {
    let mut config: ProviderConfig = config(Listener::Insecure(local()), folder.path().join("none"));
    config.source.kind = kind;
    config.source.poll_interval = Duration::from_millis(50);
    start(config).await
}

#[tokio::test]
async fn the_keys_of_a_server_are_followed_through_changes_failures_and_restarts() {
    let folder = TestFolder::new();
    let path = folder.socket("api.sock");
    let bundle = |kids: &[&str]| types::Bundle {
        trust_domain: "example.test".into(),
        jwt_authorities: kids.iter().map(|kid| jwt_key(&authority(kid))).collect(),
        ..types::Bundle::default()
    };
    let running = start_with(&folder, SourceKind::ServerApi(path.clone())).await;
    assert_eq!(running.get("/keys").await.status, 500);
    let server = Fake::serve(&path, bundle_of(Ok(bundle(&["a"])))).await;
    wait(async || running.get("/keys").await.kids() == ["a"]).await;
    assert_eq!(running.health("/ready").await, 200);
    server.answer(bundle_of(Ok(bundle(&["a", "b"]))));
    wait(async || running.get("/keys").await.kids() == ["a", "b"]).await;
    let asked = server.answer(bundle_of(Err(Status::unavailable("not now"))));
    server.wait_until_asked_after(asked).await;
    assert_eq!(running.get("/keys").await.kids(), ["a", "b"]);
    drop(server);
    assert_eq!(running.get("/keys").await.kids(), ["a", "b"]);
    let _server = Fake::serve(&path, bundle_of(Ok(bundle(&["c"])))).await;
    wait(async || running.get("/keys").await.kids() == ["c"]).await;
}

#[tokio::test]
async fn a_malformed_key_of_a_server_is_left_out_alone() {
    let folder = TestFolder::new();
    let path = folder.socket("api.sock");
    let broken = types::JwtKey {
        key_id: "broken".into(),
        public_key: vec![1, 2, 3].into(),
        ..types::JwtKey::default()
    };
    let nameless = types::JwtKey { key_id: String::new(), ..jwt_key(&authority("x")) };
    let jwt_authorities = vec![broken, nameless, jwt_key(&authority("good"))];
    let bundle = types::Bundle { jwt_authorities, ..types::Bundle::default() };
    let _server = Fake::serve(&path, bundle_of(Ok(bundle))).await;
    let running = start_with(&folder, SourceKind::ServerApi(path)).await;
    wait(async || running.get("/keys").await.kids() == ["good"]).await;
}

/// The document that an agent pushes for these keys.
fn jwks(kids: &[&str]) -> String {
    let mut bundle = Bundle::new("example.test".parse().unwrap());
    bundle.jwt_authorities = kids.iter().map(|kid| authority(kid)).collect();
    bundle.to_json()
}

const ID: &str = "spiffe://example.test";

#[tokio::test]
async fn wap_53_wap_54_an_agents_stream_is_followed_and_opened_anew_when_it_breaks() {
    let folder = TestFolder::new();
    let path = folder.socket("api.sock");
    let kind = SourceKind::WorkloadApi(path.clone(), "example.test".parse().unwrap());
    let mut config = config(Listener::Insecure(local()), folder.path().join("none"));
    // Pushed keys do not wait for it.
    (config.source.kind, config.source.poll_interval) = (kind, Duration::from_secs(3600));
    let agent =
        Fake::serve(&path, jwt_bundles_of(Ok(&[(ID, &jwks(&["a"])), ("spiffe://other.test", "{}")]))).await;
    let running = start(config).await;
    wait(async || running.get("/keys").await.kids() == ["a"]).await;
    assert_eq!(agent.security_header(), Some("true".into()));
    agent.answer(jwt_bundles_of(Ok(&[(ID, &jwks(&["a", "b"]))])));
    wait(async || running.get("/keys").await.kids() == ["a", "b"]).await;
    drop(agent);
    assert_eq!((running.get("/keys").await.kids().len(), running.health("/ready").await), (2, 200));
    let agent =
        Fake::serve(&path, jwt_bundles_of(Err(Status::permission_denied("no identity issued")))).await;
    agent.wait_until_asked_after(0).await;
    agent.answer(jwt_bundles_of(Ok(&[(ID, &jwks(&["c"]))])));
    running.wait_for_keys(&["c"]).await;
}

#[tokio::test]
async fn an_answer_without_the_trust_domain_or_with_nonsense_changes_nothing() {
    let folder = TestFolder::new();
    let path = folder.socket("api.sock");
    let agent = Fake::serve(&path, jwt_bundles_of(Ok(&[(ID, &jwks(&["a"]))]))).await;
    let kind = SourceKind::WorkloadApi(path.clone(), "example.test".parse().unwrap());
    let running = start_with(&folder, kind).await;
    wait(async || running.get("/keys").await.kids() == ["a"]).await;
    for other in
        [jwt_bundles_of(Ok(&[("spiffe://other.test", &jwks(&["x"]))])), jwt_bundles_of(Ok(&[(ID, "{")]))]
    {
        let asked = agent.answer(other);
        agent.wait_until_sent_after(asked).await;
        assert_eq!(running.get("/keys").await.kids(), ["a"]);
    }
    agent.answer(jwt_bundles_of(Ok(&[(ID, &jwks(&["b"]))])));
    wait(async || running.get("/keys").await.kids() == ["b"]).await;
}
