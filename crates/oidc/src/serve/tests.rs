use http::StatusCode;
use http::request::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use super::*;
use crate::answers::{self, Response};

/// Says 200 to everything.
struct Well;

impl Answer for Well {
    fn answer(&self, _: &Parts, _: &From) -> Response {
        answers::empty(StatusCode::OK)
    }
}

fn front() -> Front {
    Front {
        answers: Arc::new(Well),
        tls: None,
        connections_max: 1,
        per_address_max: 1,
        shutdown: Shutdown::new(),
    }
}

/// Lets a client talk on one connection; returns how long the connection lasted, on a clock that does not wait.
async fn lasts(front: Front, client: impl AsyncFnOnce(DuplexStream)) -> Duration {
    let (ours, theirs) = duplex(1024);
    let began = Instant::now();
    let served = async {
        front.converse(ours, From::default()).await;
        began.elapsed()
    };
    tokio::join!(served, client(theirs)).0
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// Reads until the server closes.
async fn read_out(mut stream: DuplexStream) -> String {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    text
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_is_not_waited_for() {
    for sent in [&b""[..], b"GET /", &GET[..GET.len() - 2]] {
        let lasted = lasts(front(), async |mut stream| {
            stream.write_all(sent).await.unwrap();
            read_out(stream).await;
        });
        assert_eq!(lasted.await, HEAD_WAIT, "{}", String::from_utf8_lossy(sent));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_trickles_its_head_gets_no_more_time() {
    let lasted = lasts(front(), async |mut stream| {
        for byte in GET {
            sleep(Duration::from_secs(1)).await;
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    });
    assert!(lasted.await <= HEAD_WAIT + Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_used_again_and_again_ends_all_the_same() {
    let lasted = lasts(front(), async |mut stream| {
        let mut answer = vec![0; 1024];
        while stream.write_all(GET).await.is_ok()
            && stream.read(&mut answer).await.is_ok_and(|bytes| bytes > 0)
        {
            sleep(Duration::from_secs(1)).await;
        }
    });
    let lasted = lasted.await;
    assert!((CONNECTION_AGE..=CONNECTION_AGE + LAST_ANSWER_WAIT).contains(&lasted), "{lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_answers_is_let_go() {
    let lasted = lasts(front(), async |mut stream| while stream.write_all(GET).await.is_ok() {});
    assert!(lasted.await <= CONNECTION_AGE + LAST_ANSWER_WAIT);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_an_idle_connection_at_once() {
    let front = front();
    let shutdown = front.shutdown.clone();
    let lasted = lasts(front, async |mut stream| {
        stream.write_all(GET).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, b"HTTP/1.1 200");
        shutdown.begin();
        read_out(stream).await;
    });
    assert_eq!(lasted.await, Duration::ZERO);
}
