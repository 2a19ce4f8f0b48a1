use std::time::Duration;

use spindle_keys::{KeyType, MemoryKeys};
use spindle_runtime::SystemEntropy;
use spindle_spiffe_core::{X509Authority, X509Bundle, X509Bundles};
use spindle_testkit::TestFolder;
use spindle_transport::{ExpectedServer, LiveBundles, TlsDialer, Trust};
use tokio::time::{sleep, timeout};

use super::*;
use crate::fixtures::{Authority, ManualClock, NOW, config, trust_domain};
use crate::plugins::PluginSettings;

const TTL_SECS: i64 = 3600;

/// Virtual time: tests wait for conditions, and this long at most.
const LONG: Duration = Duration::from_secs(600);

/// An agent with a stored identity whose server does not answer.
struct Rig {
    folder: TestFolder,
    clock: ManualClock,
    keys: Arc<MemoryKeys>,
    authority: Authority,
}

impl Rig {
    fn new() -> Self {
        let rig = Self {
            folder: TestFolder::new(),
            clock: ManualClock::default(),
            keys: Arc::new(MemoryKeys::new()),
            authority: Authority::new(&trust_domain()),
        };
        let key = rig.keys.generate("agent-svid-A", KeyType::EcP256).unwrap();
        let id = trust_domain().member("/spire/agent/join_token/t").unwrap();
        let svid = rig.authority.sign(&id, key.spki_der(), NOW, TTL_SECS);
        let bundle = Some(rig.authority.bundle.clone());
        let state = State { svid: Some(svid), bundle, ..State::default() };
        rig.file().store(&state).unwrap();
        rig
    }

    fn file(&self) -> StateFile {
        StateFile::open(&self.folder.join("data"), trust_domain()).unwrap()
    }

    async fn established(&self) -> NodeIdentity {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dialer = TlsDialer::new(
            "127.0.0.1",
            closed.port(),
            Trust::Bundles(LiveBundles::new(X509Bundles::default())),
            ExpectedServer::Id(trust_domain().server_id()),
            self.clock.shared(),
        );
        let (link, heard) = ServerLink::new(dialer);
        let config = Arc::new(config(&self.folder.join("data")));
        let parts = Parts {
            plugins: LivePlugins::new(PluginSettings::from(config.as_ref())),
            config,
            keys: self.keys.clone(),
            file: self.file(),
            identity: LiveIdentity::new(),
            trust: OwnTrust::new(X509Bundle::empty(trust_domain())),
            link,
            heard,
            clock: self.clock.shared(),
            entropy: Arc::new(SystemEntropy),
            metrics: Arc::default(),
        };
        NodeIdentity::establish(parts).await.unwrap()
    }

    /// A renewal was tried: the key for it is there.
    async fn renewal_is_tried(&self) {
        while self.keys.get("agent-svid-B").is_none() {
            sleep(Duration::from_secs(1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_during_a_wait_makes_the_agent_renew_soon() {
    let rig = Rig::new();
    let node = rig.established().await;
    assert!(matches!(node.renewal.step(rig.clock.now()), Step::Wait(_)));
    let run = async {
        tokio::select! {
            ended = node.run() => panic!("it goes on: {ended:?}"),
            () = rig.renewal_is_tried() => {}
        }
    };
    let set_back = async {
        sleep(Duration::from_secs(1)).await;
        rig.clock.advance(-100_000);
    };
    timeout(LONG, async { tokio::join!(run, set_back) }).await.expect("it is renewed");
}

/// How long it takes until the SVID is renewed, after the bundle has changed to `change` of ours and another authority.
async fn renewed_after(change: impl Fn(X509Authority, X509Authority) -> Vec<X509Authority>) -> Duration {
    let rig = Rig::new();
    let node = rig.established().await;
    let trust = node.parts.trust.clone();
    let run = async {
        tokio::select! {
            ended = node.run() => panic!("it goes on: {ended:?}"),
            () = rig.renewal_is_tried() => {}
        }
    };
    let next = Authority::new(&trust_domain()).bundle.authorities()[0].clone();
    let ours = rig.authority.bundle.authorities()[0].clone();
    let changing = async {
        sleep(Duration::from_secs(1)).await;
        trust.set(X509Bundle::new(trust_domain(), change(ours, next)).unwrap());
        Instant::now()
    };
    let ((), changed_at) = timeout(LONG, async { tokio::join!(run, changing) }).await.expect("it is renewed");
    changed_at.elapsed()
}

#[tokio::test(start_paused = true)]
async fn an_agent_svid_whose_authority_is_tainted_is_renewed_within_the_spread_of_a_fleet() {
    let took = renewed_after(|ours, next| vec![next, ours.with_taint(true)]).await;
    assert!(took <= pace::START_MAX + Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_svid_whose_authority_leaves_the_bundle_is_renewed_at_once() {
    let took = renewed_after(|_, next| vec![next]).await;
    assert!(took <= Duration::from_secs(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_svid_that_is_over_is_renewed_once_and_kept_when_that_fails() {
    let rig = Rig::new();
    let node = rig.established().await;
    let set_forward = async {
        sleep(Duration::from_secs(1)).await;
        rig.clock.advance(TTL_SECS + 1);
    };
    let (ended, ()) = timeout(LONG, async { tokio::join!(node.run(), set_forward) }).await.expect("it ends");
    assert!(matches!(ended, Err(AgentError::SvidExpired)), "{ended:?}");
    assert!(rig.keys.get("agent-svid-B").is_some(), "a renewal was tried");
    assert!(rig.file().load().unwrap().svid.is_some(), "the clock may have been wrong");
    rig.clock.advance(-TTL_SECS);
    rig.established().await;
}
