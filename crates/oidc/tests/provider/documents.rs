//! The documents over each kind of listener, and the provider's life around them.

use spindle_oidc::Listener;
use spindle_testkit::TestFolder;

use crate::help::{ask, bundle_file, config, local, serving, start, try_start};

const DISCOVERY: &str = "/.well-known/openid-configuration";

#[tokio::test]
async fn both_documents_come_over_http_and_on_one_connection() {
    let folder = TestFolder::new();
    let running = serving(&folder, "first").await;
    assert_eq!(running.get("/keys").await.kids(), ["first"]);
    let discovery = running.get(DISCOVERY).await;
    assert_eq!(discovery.status, 200);
    assert!(discovery.body.contains("\"jwks_uri\": \"https://oidc.test/keys\""), "{}", discovery.body);
    assert!(discovery.head.contains("access-control-allow-origin: *"));
    let foreign = ask(running.connect().await, DISCOVERY, "evil.test").await.unwrap();
    assert_eq!(foreign.status, 400);
}

#[tokio::test]
async fn a_proxy_finds_the_documents_on_a_unix_socket_that_everybody_may_open() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TestFolder::new();
    let path = folder.socket("oidc.sock");
    let listener = Listener::Unix(path.clone());
    let running = start(config(listener.clone(), bundle_file(&folder, &["k"]))).await;
    running.wait_for_keys(&["k"]).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
    assert!(try_start(config(listener, bundle_file(&folder, &["k"]))).await.is_err(), "the socket is in use");
    assert_eq!(running.get("/keys").await.status, 200);
}

#[tokio::test]
async fn the_prefix_moves_both_documents() {
    let folder = TestFolder::new();
    let mut config = config(Listener::Insecure(local()), bundle_file(&folder, &["k"]));
    config.site.path_prefix = "/td/one".parse().unwrap();
    let running = start(config).await;
    assert_eq!(running.get("/td/one/.well-known/openid-configuration").await.status, 200);
    assert_eq!((running.get("/keys").await.status, running.get(DISCOVERY).await.status), (404, 404));
}

#[tokio::test]
async fn a_stop_lets_the_answer_under_way_end_and_takes_no_new_clients() {
    let folder = TestFolder::new();
    let mut running = serving(&folder, "k").await;
    let waiting = running.connect().await;
    running.shutdown.begin();
    (&mut running.ended).await.unwrap().expect("an orderly end");
    assert!(tokio::net::TcpStream::connect(running.tcp()).await.is_err());
    assert!(ask(waiting, "/keys", "oidc.test").await.map_or(true, |answer| answer.status == 0));
}

#[tokio::test]
async fn probes_tell_when_keys_are_there() {
    let folder = TestFolder::new();
    let missing = folder.path().join("bundle.json");
    let running = start(config(Listener::Insecure(local()), missing)).await;
    assert_eq!((running.health("/ready").await, running.health("/live").await), (500, 200));
    assert_eq!(running.get("/keys").await.status, 500);
    bundle_file(&folder, &["k"]);
    running.wait_for_keys(&["k"]).await;
    assert_eq!((running.health("/ready").await, running.health("/live").await), (200, 200));
    assert_eq!(running.health("/keys").await, 404);
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let folder = TestFolder::new();
    let running = serving(&folder, "k").await;
    let taken = Listener::Insecure(running.tcp().to_string().parse().unwrap());
    let Err(error) = try_start(config(taken, bundle_file(&folder, &["k"]))).await else {
        panic!("it started")
    };
    assert_eq!(error.to_string(), format!("cannot listen on {}", running.tcp()));
}
