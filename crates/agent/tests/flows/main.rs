//! The whole agent against a fake server: joining, following, serving, renewing, losing its standing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod broker;
mod clocks;
mod fake_server;
mod gate;
mod rebootstrap;
mod sockets;
mod telemetry;
mod tokens;
mod x509pop;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use spindle_agent::{
    Agent, AgentConfig, AgentError, Bootstrap, BundleFormat, JoinToken, KeyStorage, RunningAgent,
};
use spindle_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spindle_proto::workload::{X509svidRequest, X509svidResponse};
use spindle_runtime::{Shutdown, SystemClock, SystemEntropy};
use spindle_spiffe_core::{Clock, Hint, Reason, RegistrationEntry, Selector, Selectors, X509Svid};
use spindle_testkit::TestFolder;
use spindle_transport::connect_unix;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use fake_server::{Fake, Listening};
use gate::Gate;

const LONG: Duration = Duration::from_secs(60);

/// A fake server, a folder for the agent, and what the agent is to be told.
struct Rig {
    fake: Arc<Fake>,
    folder: TestFolder,
    server: Option<Listening>,
    gate: Gate,
}

/// An agent that can be stopped.
struct Started {
    agent: RunningAgent,
    shutdown: Shutdown,
}

impl Rig {
    async fn new(fake: Arc<Fake>) -> Self {
        let folder = TestFolder::new();
        folder.file("bundle.pem", fake.ca.x509_bundle().to_pem());
        let mut rig = Self { fake, folder, server: None, gate: Gate::open().await };
        rig.start_server().await;
        rig
    }

    fn config(&self, token: Option<&str>) -> AgentConfig {
        let bootstrap = Bootstrap::File { path: self.folder.join("bundle.pem"), format: BundleFormat::Pem };
        let (data, socket) = (self.folder.join("data"), self.folder.socket("api.sock"));
        let trust_domain = "prod.example".parse().unwrap();
        let mut config =
            AgentConfig::new(trust_domain, "127.0.0.1", self.gate.addr.port(), data, socket, bootstrap);
        config.join_token = token.map(JoinToken::new);
        config.sync_interval = Duration::from_millis(50);
        config
    }

    fn start(&self, token: Option<&str>) -> Started {
        start(self.config(token))
    }

    /// An agent that has joined and finished its first sync.
    async fn joined(&self) -> Started {
        let started = self.start(Some("good"));
        started.is_ready().await;
        started
    }

    fn kill_server(&mut self) {
        self.gate.lead_to(None);
        self.server.take().unwrap().kill();
    }

    async fn start_server(&mut self) {
        let server = self.fake.listen().await;
        self.gate.lead_to(Some(server.addr));
        self.server = Some(server);
    }
}

fn start(config: AgentConfig) -> Started {
    start_with(config, SystemClock::shared())
}

fn start_with(config: AgentConfig, clock: Arc<dyn Clock>) -> Started {
    let shutdown = Shutdown::new();
    let agent = Agent::start(config, clock, Arc::new(SystemEntropy), shutdown.clone()).unwrap();
    Started { agent, shutdown }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // A runtime must not be dropped within another.
        self.server.take().into_iter().for_each(Listening::kill);
    }
}

impl Started {
    async fn is_ready(&self) {
        let mut ready = self.agent.ready();
        timeout(LONG, ready.wait_for(|ready| *ready)).await.expect("the agent becomes ready").unwrap();
    }

    async fn fetch(&self) -> Result<Streaming<X509svidResponse>, Status> {
        fetch(self.agent.socket_path()).await
    }

    async fn stop(self) {
        self.shutdown.begin();
        self.agent.wait().await.expect("it was told to stop");
    }

    async fn ends(self) -> AgentError {
        timeout(LONG, self.agent.wait()).await.expect("the agent ends").expect_err("with an error")
    }
}

async fn fetch(socket: &Path) -> Result<Streaming<X509svidResponse>, Status> {
    let channel = connect_unix(socket).await.unwrap();
    let mut request = tonic::Request::new(X509svidRequest {});
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    SpiffeWorkloadApiClient::new(channel).fetch_x509svid(request).await.map(tonic::Response::into_inner)
}

async fn next(stream: &mut Streaming<X509svidResponse>) -> Result<X509svidResponse, Status> {
    let message = timeout(LONG, stream.message()).await.expect("a message comes")?;
    message.ok_or_else(|| Status::internal("the stream ended without a status"))
}

/// An entry for whoever runs the tests.
fn mine(id: &str) -> RegistrationEntry {
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    let selector: Selector = format!("unix:uid:{uid}").parse().unwrap();
    RegistrationEntry {
        id: id.parse().unwrap(),
        spiffe_id: format!("spiffe://prod.example/{id}").parse().unwrap(),
        parent_id: "spiffe://prod.example/spire/agent/join_token/good".parse().unwrap(),
        selectors: Selectors::new([selector]).unwrap(),
        x509_svid_ttl_secs: 0,
        jwt_svid_ttl_secs: 0,
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: None,
        dns_names: Vec::new(),
        revision_number: 0,
        store_svid: false,
        hint: Hint::default(),
        created_at: SystemClock.now(),
        disable_x509_svid_prefetch: false,
        jwt_svid_include_jti: false,
    }
}

/// An entry for nobody.
fn others(id: &str) -> RegistrationEntry {
    let selector: Selector = "unix:uid:4000000".parse().unwrap();
    RegistrationEntry { selectors: Selectors::new([selector]).unwrap(), ..mine(id) }
}

fn ids(answer: &X509svidResponse) -> Vec<&str> {
    answer.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_joins_and_serves_each_change_on_an_open_stream() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let agent = rig.joined().await;
    let mut stream = agent.fetch().await.unwrap();
    let first = next(&mut stream).await.unwrap();
    assert_eq!(ids(&first), ["spiffe://prod.example/a"]);
    let svid = X509Svid::from_der(&first.svids[0].x509_svid).unwrap();
    assert_eq!(svid.spiffe_id().as_str(), "spiffe://prod.example/a");
    assert_eq!(first.svids[0].bundle, rig.fake.ca.x509_bundle().to_der());

    let number = rig.fake.put([mine("b")]);
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 2);
    let mut acknowledged = rig.fake.acknowledged.subscribe();
    timeout(LONG, acknowledged.wait_for(|seen| *seen == number)).await.unwrap().unwrap();
    assert_eq!(*rig.fake.versions.lock().unwrap(), [env!("CARGO_PKG_VERSION")]);

    rig.fake.remove("b");
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 1);
    rig.fake.remove("a");
    let end = next(&mut stream).await.unwrap_err();
    assert_eq!((end.code(), end.message()), (Code::PermissionDenied, "no identity issued"));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_agent_goes_on_with_its_identity_and_needs_no_token() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    rig.joined().await.stop().await;
    let agent = rig.start(None);
    agent.is_ready().await;
    assert_eq!(next(&mut agent.fetch().await.unwrap()).await.unwrap().svids.len(), 1);
    assert_eq!(rig.fake.serials.borrow().len(), 1, "the same SVID");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_an_identity_waits_for_a_server_that_is_away() {
    let mut rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    rig.joined().await.stop().await;
    rig.kill_server();
    let agent = rig.start(None);
    let status = agent.fetch().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    rig.start_server().await;
    agent.is_ready().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_waits_for_a_server_that_is_away() {
    let mut rig = Rig::new(Fake::new(true, 3600)).await;
    rig.kill_server();
    let agent = rig.start(Some("good"));
    assert_eq!(agent.fetch().await.unwrap_err().code(), Code::Unavailable);
    rig.start_server().await;
    agent.is_ready().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_while_the_server_is_away_and_follow_when_it_is_back() {
    let mut rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let agent = rig.joined().await;
    let mut stream = agent.fetch().await.unwrap();
    next(&mut stream).await.unwrap();
    rig.kill_server();
    let number = rig.fake.put([mine("b")]);
    assert_eq!(next(&mut agent.fetch().await.unwrap()).await.unwrap().svids.len(), 1);
    rig.start_server().await;
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 2);
    let held = rig.fake.hellos.lock().unwrap().last().unwrap().clone();
    assert!(held.holds_state && held.held.unwrap().number == number - 1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fell_back_to_an_older_store_is_followed_and_so_is_another_history() {
    let mut rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    rig.fake.put([mine("b")]);
    let agent = rig.joined().await;
    let mut stream = agent.fetch().await.unwrap();
    while next(&mut stream).await.unwrap().svids.len() < 2 {}
    rig.kill_server();
    // The server comes back with an older store: the same history, with one entry. It is the same entry: one made anew would
    // be another second's, be signed again, and reach the stream once more.
    let kept = rig.fake.content.borrow().entries["a"].clone();
    let entries = [("a".to_owned(), kept)].into();
    rig.fake.content.send_replace(fake_server::Content { number: 2, entries });
    rig.start_server().await;
    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["spiffe://prod.example/a"]);
    assert_eq!(rig.fake.hellos.lock().unwrap().last().unwrap().held.as_ref().unwrap().number, 3);
    // It goes on from there.
    rig.fake.put([mine("c")]);
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 2);
    // Restored on purpose, with a new history.
    rig.kill_server();
    *rig.fake.history.lock().unwrap() = 2;
    rig.fake.content.send_replace(fake_server::Content { number: 1, ..Default::default() });
    rig.start_server().await;
    let end = next(&mut stream).await.unwrap_err();
    assert_eq!(end.code(), Code::PermissionDenied);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_own_svid_is_renewed_and_the_old_one_no_longer_shown() {
    let rig = Rig::new(Fake::new(true, 6)).await;
    rig.fake.put([mine("a")]);
    let agent = rig.joined().await;
    let mut serials = rig.fake.serials.subscribe();
    timeout(LONG, serials.wait_for(|seen| seen.len() >= 3)).await.expect("two renewals").unwrap();
    // The stream was opened anew each time, from the state held.
    let mut stream = agent.fetch().await.unwrap();
    next(&mut stream).await.unwrap();
    rig.fake.put([mine("b")]);
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 2);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_write_renews_all_the_same_and_writes_when_it_can() {
    let rig = Rig::new(Fake::new(true, 6)).await;
    let agent = rig.joined().await;
    let kept = || std::fs::read(rig.folder.join("data/agent-data.json")).unwrap();
    let at_first = kept();
    // Directories in the way of its files, which stop the superuser too.
    let in_the_way = ["data/keys.json.tmp", "data/agent-data.json.new"].map(|path| rig.folder.join(path));
    in_the_way.iter().for_each(|path| std::fs::create_dir(path).unwrap());
    let mut serials = rig.fake.serials.subscribe();
    timeout(LONG, serials.wait_for(|seen| seen.len() >= 3)).await.expect("two renewals").unwrap();
    assert!(kept() == at_first, "nothing could be written");
    rig.fake.agent_ttl_secs.store(3600, Ordering::SeqCst);
    in_the_way.iter().for_each(|path| std::fs::remove_dir(path).unwrap());
    let before = rig.fake.serials.borrow().len();
    timeout(LONG, serials.wait_for(|seen| seen.len() > before)).await.expect("renewed").unwrap();
    timeout(LONG, async {
        while kept() == at_first {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is written");
    agent.stop().await;
    let agent = rig.start(None);
    agent.is_ready().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workload_svids_rotate_by_themselves() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([RegistrationEntry { x509_svid_ttl_secs: 4, ..mine("a") }]);
    let agent = rig.joined().await;
    let mut stream = agent.fetch().await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let answer = next(&mut stream).await.unwrap();
        seen.push((answer.svids[0].x509_svid.clone(), answer.svids[0].x509_svid_key.clone()));
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0].1 != seen[1].1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_token_ends_the_agent_at_once_with_the_reason() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    let error = rig.start(Some("bad")).ends().await;
    assert!(matches!(error, AgentError::AttestationRefused { .. }), "{error:?}");
    assert_eq!(error.reason_code(), Some("join_token_unknown"));
    assert!(error.to_string().contains("already been used") && error.remedy().contains("token generate"));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_identity_and_token_the_agent_says_what_it_needs() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    assert!(matches!(rig.start(None).ends().await, AgentError::JoinTokenNeeded { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_agent_deletes_its_identity_and_ends() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    let agent = rig.joined().await;
    rig.fake.refuse.send_replace(Some(Reason::AgentBanned));
    let error = agent.ends().await;
    assert!(matches!(error, AgentError::StandingLost { reason: Reason::AgentBanned }), "{error:?}");
    rig.fake.refuse.send_replace(None);
    assert!(matches!(rig.start(None).ends().await, AgentError::JoinTokenNeeded { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_agent_that_may_not_attest_again_ends_and_a_new_token_lets_it_back() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    let agent = rig.joined().await;
    rig.fake.refuse.send_replace(Some(Reason::AgentNotAttested));
    let error = agent.ends().await;
    assert!(matches!(error, AgentError::StandingLost { reason: Reason::AgentNotAttested }), "{error:?}");
    rig.fake.refuse.send_replace(None);
    rig.fake.tokens.lock().unwrap().push("second".into());
    let agent = rig.start(Some("second"));
    agent.is_ready().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_can_be_believed_once_without_a_bundle() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let mut config = rig.config(Some("good"));
    config.bootstrap = Bootstrap::Insecure;
    // The token is spent by then, and no other server would be believed.
    rig.fake.bundle_failures.store(2, Ordering::SeqCst);
    let agent = start(config);
    agent.is_ready().await;
    assert_eq!(next(&mut agent.fetch().await.unwrap()).await.unwrap().svids.len(), 1);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_service_that_is_not_there_yet_is_asked_again_and_told_so() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    let mut config = rig.config(Some("good"));
    let socket = rig.folder.socket("bundle.sock");
    let url = "http://local/bundle".to_owned();
    config.bootstrap = Bootstrap::Url { url, unix_socket: Some(socket.clone()), format: BundleFormat::Pem };
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let agent = start(config);
    // The first try finds a service that hangs up.
    drop(listener.accept().await.unwrap());
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut asked = vec![0; 4096];
    let bytes = stream.read(&mut asked).await.unwrap();
    assert!(String::from_utf8_lossy(&asked[..bytes]).contains("spire-connection-attempts=2&"));
    let pem = rig.fake.ca.x509_bundle().to_pem();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", pem.len());
    stream.write_all(format!("{head}{pem}").as_bytes()).await.unwrap();
    agent.is_ready().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_the_push_stream_is_polled() {
    let rig = Rig::new(Fake::new(false, 3600)).await;
    let federated = RegistrationEntry {
        federates_with: vec!["partner.example".parse().unwrap(), "unknown.example".parse().unwrap()],
        ..mine("a")
    };
    rig.fake.put([federated]);
    let agent = rig.joined().await;
    let mut stream = agent.fetch().await.unwrap();
    let first = next(&mut stream).await.unwrap();
    assert_eq!(first.federated_bundles.keys().collect::<Vec<_>>(), ["spiffe://partner.example"]);
    rig.fake.put([mine("b")]);
    while next(&mut stream).await.unwrap().svids.len() < 2 {}
    rig.fake.remove("b");
    while next(&mut stream).await.unwrap().svids.len() > 1 {}
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_set_is_polled_by_revisions_and_only_what_changed_is_asked_for() {
    let rig = Rig::new(Fake::new(false, 3600)).await;
    rig.fake.put((0..600).map(|number| others(&format!("e{number}"))));
    rig.fake.put([mine("a")]);
    let agent = rig.joined().await;
    let mut stream = agent.fetch().await.unwrap();
    next(&mut stream).await.unwrap();
    assert_eq!(rig.fake.asked.lock().unwrap().len(), 601);
    rig.fake.put([RegistrationEntry { revision_number: 1, ..others("e7") }]);
    rig.fake.put([mine("b")]);
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 2);
    let asked = rig.fake.asked.lock().unwrap()[601..].to_vec();
    assert!(!asked.is_empty() && asked.iter().all(|id| id == "b" || id == "e7"), "{asked:?}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_knows_no_differences_is_polled_for_everything() {
    let rig = Rig::new(Fake::new(false, 3600)).await;
    rig.fake.put([mine("a")]);
    let config = AgentConfig { use_sync_authorized_entries: false, ..rig.config(Some("good")) };
    let agent = start(config);
    agent.is_ready().await;
    let mut stream = agent.fetch().await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 1);
    rig.fake.put([mine("b")]);
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 2);
    assert!(rig.fake.asked.lock().unwrap().iter().all(|asked| asked == "everything"));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_in_the_same_directory_or_on_the_same_socket_is_refused() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    let first = rig.joined().await;
    let second =
        |config| Agent::start(config, SystemClock::shared(), Arc::new(SystemEntropy), Shutdown::new());
    let same_directory = AgentConfig { socket_path: rig.folder.socket("other.sock"), ..rig.config(None) };
    assert!(matches!(second(same_directory), Err(AgentError::DataDir(_))));
    let same_keys = AgentConfig { data_dir: rig.folder.join("other"), ..rig.config(None) };
    assert!(matches!(second(same_keys), Err(AgentError::DataDir(_))));
    let same_socket = AgentConfig {
        data_dir: rig.folder.join("other"),
        keys: KeyStorage::Disk { directory: rig.folder.join("other") },
        ..rig.config(None)
    };
    assert!(matches!(second(same_socket), Err(AgentError::Socket(_))));
    first.stop().await;
}
