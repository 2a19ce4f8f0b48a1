//! The workload and the tool flavour of the Unix listener, with gRPC calls of tonic and of a hand-made client.

use std::path::Path;

use spindle_transport::{Peer, UnixClients, UnixListener, UnixSocketConfig, connect_unix, connect_unix_lazy};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::metadata::MetadataValue;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Served, call};

fn serve(path: &Path, clients: UnixClients) -> Served {
    let config = UnixSocketConfig { path: path.to_owned(), mode: 0o777, parent_mode: 0o755, clients };
    Served::start(UnixListener::bind(&config).unwrap().incoming())
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = payload.len() as u32;
    [&len.to_be_bytes()[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0x00, name.len() as u8], name, &[value.len() as u8], value].concat()
}

/// A health check with this `:authority`, as the C++ core writes it.
fn health_call(stream: u32, authority: &[u8]) -> Vec<u8> {
    let block = [
        vec![0x83, 0x86],
        field(b":path", b"/grpc.health.v1.Health/Check"),
        field(b":authority", authority),
        field(b"content-type", b"application/grpc"),
        field(b"te", b"trailers"),
    ]
    .concat();
    [frame(1, 4, stream, &block), frame(0, 1, stream, &[0; 5])].concat()
}

/// Sends raw calls and tells the types of the frames that come back on each stream, up to the end of the last one.
async fn raw_calls(path: &Path, authorities: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut socket = UnixStream::connect(path).await.unwrap();
    socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    socket.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let mut answers = Vec::new();
    for (index, authority) in authorities.iter().enumerate() {
        let stream = 2 * index as u32 + 1;
        for chunk in health_call(stream, authority).chunks(11) {
            socket.write_all(chunk).await.unwrap();
        }
        answers.push(answer(&mut socket, stream).await);
    }
    answers
}

/// Frame types on one stream until it ends; a reset counts as its type, 3.
async fn answer(socket: &mut UnixStream, stream: u32) -> Vec<u8> {
    let mut kinds = Vec::new();
    loop {
        let mut header = [0; 9];
        socket.read_exact(&mut header).await.unwrap();
        let len = u32::from_be_bytes([0, header[0], header[1], header[2]]);
        let mut payload = vec![0; len as usize];
        socket.read_exact(&mut payload).await.unwrap();
        let (kind, flags) = (header[3], header[4]);
        if header[5..] != stream.to_be_bytes() {
            continue;
        }
        kinds.push(kind);
        if kind == 3 || flags & 1 != 0 && kind <= 1 {
            return kinds;
        }
    }
}

#[tokio::test]
async fn clients_that_send_the_socket_path_as_authority_are_served() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    let served = serve(&path, UnixClients::Workloads);
    let authorities: [&[u8]; 4] = [b"tmp%2F..%2Ft.sock", b"/tmp/../t.sock", b"localhost", b"a b\\c\xff"];
    for kinds in raw_calls(&path, &authorities).await {
        assert_eq!(kinds, [1, 0, 1], "headers, message, trailers");
    }
    assert_eq!(served.calls(), 4);
}

#[tokio::test]
async fn without_the_filter_the_library_resets_such_calls() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    let served = serve(&path, UnixClients::Tools);
    assert_eq!(raw_calls(&path, &[b"localhost", b"tmp%2F..%2Ft.sock"]).await, [vec![1, 0, 1], vec![3]]);
    assert_eq!(served.calls(), 1);
}

#[tokio::test]
async fn our_own_dialer_reaches_both_flavours_and_is_known_by_its_process() {
    let dir = TempDir::new().unwrap();
    for (name, clients) in [("w.sock", UnixClients::Workloads), ("t.sock", UnixClients::Tools)] {
        let path = dir.path().join(name);
        let served = serve(&path, clients);
        call(&connect_unix(&path).await.unwrap()).await.unwrap();
        let Peer::Local(peer) = served.last_peer() else { panic!("not local") };
        assert_eq!(peer.pid as u32, std::process::id());
    }
}

#[tokio::test]
async fn a_lazy_channel_waits_for_a_server_and_finds_a_new_one() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    let channel = connect_unix_lazy(&path);
    call(&channel).await.unwrap_err();
    for _ in 0..2 {
        let served = serve(&path, UnixClients::Workloads);
        while call(&channel).await.is_err() {}
        served.stop().await;
        call(&channel).await.unwrap_err();
    }
}

#[tokio::test]
async fn changing_headers_on_one_connection_pass_the_filter() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("api.sock");
    let served = serve(&path, UnixClients::Workloads);
    let mut client = HealthClient::new(connect_unix(&path).await.unwrap());
    for round in 0..500_usize {
        let mut request = tonic::Request::new(HealthCheckRequest { service: String::new() });
        // Long values make the dynamic table evict all the time; every third goes out in a second frame.
        let bytes = if round % 3 == 0 { 15_000 } else { round * 7 % 900 };
        let value = MetadataValue::try_from(format!("{round}-{}", "v".repeat(bytes))).unwrap();
        request.metadata_mut().insert("x-churn", value);
        client.check(request).await.unwrap();
    }
    assert_eq!(served.calls(), 500);
}
