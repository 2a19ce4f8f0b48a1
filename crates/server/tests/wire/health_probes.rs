//! Health probes as supervisors send them: plain HTTP.

use std::net::{Ipv4Addr, SocketAddr};

use spindle_server::HealthListener;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{TestServer, in_time};

async fn probed() -> TestServer {
    TestServer::start_with(|config| {
        config.operations.health_checks = Some(HealthListener {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            live_path: "/live".into(),
            ready_path: "/well/ready".into(),
        });
    })
    .await
}

/// What is answered to these bytes, until the server closes the connection.
async fn send(server: &TestServer, bytes: &[u8]) -> String {
    in_time(async {
        let mut stream = TcpStream::connect(server.health_addr()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    })
    .await
}

async fn get(server: &TestServer, path: &str) -> String {
    send(server, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await
}

const WELL: &str = "{\"catalog.datastore\":{},\"server\":{},\"server.ca\":{},\"server.ca.rotator\":{}}\n";

#[tokio::test]
async fn a_server_that_is_well_says_so_on_both_paths() {
    let server = probed().await;
    for path in ["/live", "/well/ready", "/live?verbose=1"] {
        let answer = get(&server, path).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("content-type: application/json\r\n") && answer.ends_with(WELL), "{answer}");
    }
    let head = send(&server, b"HEAD /live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
}

#[tokio::test]
async fn a_server_whose_socket_is_gone_answers_500_and_says_what_is_wrong() {
    let server = probed().await;
    std::fs::remove_file(server.socket_path()).unwrap();
    let answer = get(&server, "/live").await;
    assert!(answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{answer}");
    assert!(answer.contains("\"server\":{\"get_bundle_err\":\"cannot reach the admin socket"), "{answer}");
    assert!(answer.contains("\"server.ca\":{}"), "{answer}");
}

#[tokio::test]
async fn nothing_else_is_answered() {
    let server = probed().await;
    for path in ["/", "/ready", "/livez", "/live/", "//live"] {
        let answer = get(&server, path).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
    let posted = send(&server, b"POST /live HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
    let nonsense = send(&server, b"\x16\x03\x01 hello\r\n\r\n").await;
    assert!(nonsense.is_empty() || nonsense.starts_with("HTTP/1.1 400 "), "{nonsense}");
}

#[tokio::test]
async fn callers_who_say_nothing_do_not_keep_the_server_from_ending() {
    let mut server = probed().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(server.health_addr()).await.unwrap());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_a_clear_error() {
    let server = probed().await;
    let address = server.health_addr();
    let error = TestServer::try_start_with(|config| {
        config.operations.health_checks =
            Some(HealthListener { address, live_path: "/live".into(), ready_path: "/ready".into() });
    })
    .await
    .err()
    .expect("the port is taken");
    assert!(error.to_string().contains(&format!("health probes on {address}")), "{error}");
}
