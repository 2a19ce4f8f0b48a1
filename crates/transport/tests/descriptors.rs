//! Listeners while the process has no file descriptor left. Alone in its program: the limit is for all of it.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use spindle_spiffe_core::{Clock, Timestamp};
use spindle_transport::{
    LiveBundles, LiveIdentity, ServerTls, TlsListener, UnixClients, UnixListener, UnixSocketConfig,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixSocket};
use tokio_stream::StreamExt;

struct Epoch;

impl Clock for Epoch {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_secs(0)
    }
}

/// Opens files until no more can be opened.
fn use_up_descriptors() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn listeners_that_run_out_of_descriptors_go_on_when_there_are_some_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let config = UnixSocketConfig {
        path: path.clone(),
        mode: 0o777,
        parent_mode: 0o755,
        clients: UnixClients::Workloads,
    };
    let mut unix = UnixListener::bind(&config).unwrap().incoming();
    let tls =
        ServerTls { identity: LiveIdentity::new(), bundles: LiveBundles::default(), clock: Arc::new(Epoch) };
    let listener = TlsListener::bind(([127, 0, 0, 1], 0).into(), tls).await.unwrap();
    let addr = listener.local_addr();
    let mut tls = listener.incoming();

    let (unix_client, tls_client) = (UnixSocket::new_stream().unwrap(), TcpSocket::new_v4().unwrap());
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let highest = u64::try_from(File::open("/dev/null").unwrap().as_raw_fd()).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, highest + 4, hard).unwrap();
    let hogs = use_up_descriptors();
    let _unix_client = unix_client.connect(&path).await.unwrap();
    let mut tls_client = tls_client.connect(addr).await.unwrap();
    tls_client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();

    // Several rests long, in which both are asked again and again.
    let mut hogs = Some(hogs);
    let mut rounds = tokio::time::interval(std::time::Duration::from_millis(250));
    let (mut has_unix, mut tls_end) = (false, [1]);
    let mut is_tls_served = false;
    for round in 0.. {
        tokio::select! {
            accepted = unix.next(), if !has_unix => {
                assert!(hogs.is_none() && accepted.unwrap().is_ok());
                has_unix = true;
            }
            _ = tls.next() => panic!("nobody shakes hands here"),
            // An alert: it was accepted.
            end = tls_client.read(&mut tls_end), if !is_tls_served && hogs.is_none() => {
                is_tls_served = end.is_ok();
            }
            _ = rounds.tick() => {}
        }
        if round == 2 {
            hogs = None;
        }
        if has_unix && is_tls_served {
            return;
        }
    }
}
