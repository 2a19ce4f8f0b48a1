//! Clients that are slow, greedy or talk nonsense.

use spindle_testkit::TestFolder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::help::{serving, wait};

/// What [`spindle_oidc`] lets one address have at once.
const PER_ADDRESS: usize = 128;

#[tokio::test]
async fn clients_that_never_finish_their_requests_hold_nobody_else_up() {
    let folder = TestFolder::new();
    let running = serving(&folder, "k").await;
    let mut slow = Vec::new();
    for _ in 0..PER_ADDRESS - 1 {
        let mut stream = running.connect().await;
        stream.write_all(b"GET /keys HTT").await.unwrap();
        slow.push(stream);
    }
    assert_eq!(running.get("/keys").await.status, 200);
}

#[tokio::test]
async fn one_address_cannot_take_all_places() {
    let folder = TestFolder::new();
    let running = serving(&folder, "k").await;
    let mut open = Vec::new();
    for _ in 0..PER_ADDRESS {
        open.push(running.connect().await);
    }
    let mut further = running.connect().await;
    // Closed without an answer; a write may come before or after that.
    let _ = further.write_all(b"GET /keys HTTP/1.1\r\nhost: oidc.test\r\nconnection: close\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = further.read_to_end(&mut answer).await;
    assert_eq!(answer.len(), 0);
    open.clear();
    wait(async || {
        let mut stream = running.connect().await;
        let _ = stream.write_all(b"GET /keys HTTP/1.1\r\nconnection: close\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer.starts_with(b"HTTP/1.1 200 ")
    })
    .await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let folder = TestFolder::new();
    let running = serving(&folder, "k").await;
    let mut stream = running.connect().await;
    let request = format!("GET /keys HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(40_000));
    // The provider may close before it has read all.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(running.get("/keys").await.status, 200);
}

#[tokio::test]
async fn a_body_is_not_read_and_nonsense_is_refused() {
    let folder = TestFolder::new();
    let running = serving(&folder, "k").await;
    for (request, status) in [
        (&b"GET /keys HTTP/1.1\r\nhost: oidc.test\r\ncontent-length: 1000000000\r\n\r\nabc"[..], "200"),
        (b"POST /keys HTTP/1.1\r\nhost: oidc.test\r\ntransfer-encoding: chunked\r\n\r\n", "405"),
        (b"\x16\x03\x01\x00\x05hello\r\n\r\n", "400"),
        (b"GET /keys HTTP/1.1\r\nhost : x\r\n\r\n", "400"),
    ] {
        let mut stream = running.connect().await;
        stream.write_all(request).await.unwrap();
        let mut head = vec![0; 12];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(head, format!("HTTP/1.1 {status}").as_bytes(), "{}", String::from_utf8_lossy(request));
    }
}
