use std::sync::Arc;

use http::Request;
use http_body_util::BodyExt;
use spindle_testkit::ManualClock;

use super::*;
use crate::keys::WebKey;
use crate::keys::tests::web_key;
use crate::published::{Heard, Publisher, channel};
use crate::site::PathPrefix;

/// A provider of `oidc.test`, and the half that publishes keys.
fn provider() -> (Publisher, SiteAnswers) {
    let clock = Arc::new(ManualClock::at(Timestamp::from_unix_secs(784_111_777)));
    let (publisher, reader) = channel(false, clock);
    let site = Site {
        domains: vec!["oidc.test".parse().unwrap()],
        jwt_issuer: None,
        jwks_uri: None,
        path_prefix: PathPrefix::default(),
        allow_insecure_scheme: false,
    };
    (publisher, SiteAnswers { site, reader, log_requests: true })
}

fn with_keys(keys: Vec<WebKey>) -> SiteAnswers {
    let (mut publisher, provider) = provider();
    publisher.publish(keys, Heard::Now);
    provider
}

fn ask(provider: &SiteAnswers, method: Method, path: &str, header: Option<(&str, &str)>) -> Response {
    let mut request = Request::builder().method(method).uri(path).header("host", "oidc.test");
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    provider.answer(&request.body(()).unwrap().into_parts().0, &From::default())
}

fn get(provider: &SiteAnswers, path: &str) -> Response {
    ask(provider, Method::GET, path, None)
}

async fn text(response: Response) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

const DISCOVERY: &str = "/.well-known/openid-configuration";

#[tokio::test]
async fn keys_are_served_for_every_origin_and_for_no_cache() {
    let response = get(&with_keys(vec![web_key("k")]), "/keys");
    assert_eq!(response.status(), StatusCode::OK);
    for (name, value) in [
        ("content-type", "application/json"),
        ("access-control-allow-origin", "*"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
        ("expires", "0"),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ] {
        assert_eq!(header(&response, name), Some(value), "{name}");
    }
    assert!(text(response).await.contains("\"kid\": \"k\""));
}

#[tokio::test]
async fn the_discovery_document_is_served_before_there_are_keys() {
    let (_publisher, provider) = provider();
    let response = get(&provider, DISCOVERY);
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(header(&response, "content-type"), Some("application/json"));
    assert_eq!(header(&response, "access-control-allow-origin"), Some("*"));
    assert!(text(response).await.contains("\"issuer\": \"https://oidc.test\""));
}

#[tokio::test]
async fn without_keys_clients_are_told_why() {
    let (_publisher, early) = provider();
    let response = get(&early, "/keys");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(text(response).await, "document not available (reason: server_starting)\n");
    let response = get(&with_keys(vec![]), "/keys");
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    assert_eq!(
        text(response).await,
        "jwt not supported/enabled in this service (reason: jwt_svids_disabled)\n"
    );
}

#[tokio::test]
async fn a_foreign_host_is_refused_for_the_discovery_document_alone() {
    let provider = with_keys(vec![web_key("k")]);
    let foreign = Some(("x-forwarded-host", "evil.test"));
    let response = ask(&provider, Method::GET, DISCOVERY, foreign);
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"));
    assert_eq!(text(response).await, "domain \"evil.test\" is not allowed (reason: bad_request)\n");
    assert_eq!(ask(&provider, Method::GET, "/keys", foreign).status(), StatusCode::OK);
}

#[test]
fn other_methods_and_paths_are_refused() {
    let provider = with_keys(vec![web_key("k")]);
    for path in ["/keys", DISCOVERY] {
        for method in [Method::POST, Method::HEAD, Method::OPTIONS, Method::DELETE] {
            let response = ask(&provider, method.clone(), path, None);
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
            assert_eq!(header(&response, "allow"), Some("GET"));
        }
    }
    for path in ["/", "/keys/", "/Keys", "/.well-known/", "//keys", "/ready"] {
        assert_eq!(get(&provider, path).status(), StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(get(&provider, "/keys?x=y").status(), StatusCode::OK);
}

#[tokio::test]
async fn keys_that_a_client_has_seen_are_not_sent_again() {
    let provider = with_keys(vec![web_key("k")]);
    for (since, status) in [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 304),
        ("Sun, 06 Nov 1994 08:49:38 GMT", 304),
        ("Sun, 06 Nov 1994 08:49:36 GMT", 200),
        ("yesterday", 200),
    ] {
        let response = ask(&provider, Method::GET, "/keys", Some(("if-modified-since", since)));
        assert_eq!(response.status().as_u16(), status, "{since}");
        assert_eq!(text(response).await.is_empty(), status == 304);
    }
}
