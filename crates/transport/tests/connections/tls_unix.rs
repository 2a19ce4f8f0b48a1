//! TLS over a Unix socket.

use spindle_spiffe_core::Reason;
use spindle_transport::{
    DialError, LiveBundles, LiveIdentity, ServerTls, TlsDialer, TlsIncoming, UnixClients, UnixListener,
    UnixSocketConfig, connect_unix,
};
use tempfile::TempDir;

use crate::support::{AGENT_ID, Authority, ManualClock, SERVER_ID, Served, call, dialer};

struct Rig {
    served: Served,
    socket: std::path::PathBuf,
    ours: Authority,
    _folder: TempDir,
}

fn rig(identity: impl FnOnce(&Authority) -> LiveIdentity) -> Rig {
    let (folder, ours) = (TempDir::new().unwrap(), Authority::new());
    let socket = folder.path().join("s");
    let config = UnixSocketConfig {
        path: socket.clone(),
        mode: 0o700,
        parent_mode: 0o700,
        clients: UnixClients::Tools,
    };
    let bundles = LiveBundles::new(ours.bundles("one.example"));
    let tls = ServerTls { identity: identity(&ours), bundles, clock: ManualClock::new() };
    let incoming = TlsIncoming::over_unix(UnixListener::bind(&config).unwrap(), tls).of_identified_clients();
    Rig { served: Served::start(incoming), socket, ours, _folder: folder }
}

/// The address is not used.
fn dialer_of(rig: &Rig) -> TlsDialer {
    dialer(([127, 0, 0, 1], 1).into(), &rig.ours)
}

#[tokio::test]
async fn both_sides_are_named_by_their_spiffe_ids() {
    let rig = rig(|ours| ours.identity(SERVER_ID));
    let dialer = dialer_of(&rig).with_identity(rig.ours.identity(AGENT_ID));
    call(&dialer.connect_unix(&rig.socket).await.unwrap()).await.unwrap();
    assert_eq!(rig.served.last_id().as_deref(), Some(AGENT_ID));
    rig.served.stop().await;
}

#[tokio::test]
async fn a_client_without_a_certificate_and_one_of_a_stranger_get_nowhere() {
    let rig = rig(|ours| ours.identity(SERVER_ID));
    let strange = dialer_of(&rig).with_identity(Authority::new().identity(AGENT_ID));
    for dialer in [dialer_of(&rig), strange] {
        // In TLS 1.3 a client learns of its refusal when it uses the connection.
        match dialer.connect_unix(&rig.socket).await {
            Err(_) => {}
            Ok(channel) => drop(call(&channel).await.unwrap_err()),
        }
    }
    assert_eq!(rig.served.calls(), 0);
    rig.served.stop().await;
}

#[tokio::test]
async fn nobody_is_answered_in_plain_text_or_before_there_is_an_identity() {
    let with = rig(|ours| ours.identity(SERVER_ID));
    assert!(match connect_unix(&with.socket).await {
        Err(_) => true,
        Ok(channel) => call(&channel).await.is_err(),
    });
    assert_eq!(with.served.calls(), 0);
    let without = rig(|_| LiveIdentity::new());
    let dialer = dialer_of(&without).with_identity(without.ours.identity(AGENT_ID));
    let refused: DialError = dialer.connect_unix(&without.socket).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::Unreachable);
    with.served.stop().await;
    without.served.stop().await;
}
