use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use spindle_attest::{ProcRoot, UnixAttestor, UnixConfig, WorkloadAttestor};
use spindle_proto::refusal::reason_of;
use spindle_proto::spire::agent::debug::v1::GetInfoRequest;
use spindle_proto::spire::agent::debug::v1::debug_client::DebugClient;
use spindle_proto::spire::api::agent::logger::v1::logger_client::LoggerClient;
use spindle_proto::spire::api::agent::logger::v1::{
    GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest,
};
use spindle_proto::spire::api::types;
use spindle_runtime::{Logs, Shutdown, TaskSet};
use spindle_spiffe_core::{Bundle, RegistrationEntry, X509Bundle};
use spindle_telemetry::RpcMeter;
use spindle_testkit::TestFolder;
use spindle_transport::{LiveIdentity, connect_unix};
use tokio::time::timeout;
use tonic::Streaming;
use tonic::transport::Channel;
use wire::delegated_identity_client::DelegatedIdentityClient;

use super::*;
use crate::admin::{AdminSocket, DebugService, Services};
use crate::cache::{Cache, Change};
use crate::callers::Callers;
use crate::fixtures::{Authority, FakeIssuer, ManualClock, NOW, entry, trust_domain};
use crate::in_step::InStep;
use crate::trust::OwnTrust;

const LONG: Duration = Duration::from_secs(60);

/// A served admin socket over a cache that the test fills; the test itself calls it.
struct Rig {
    cache: Arc<Cache>,
    ca: Authority,
    issuer: Arc<FakeIssuer>,
    client: DelegatedIdentityClient<Channel>,
    channel: Channel,
    in_step: InStep,
    shutdown: Shutdown,
    tasks: TaskSet,
    folder: TestFolder,
}

async fn rig() -> Rig {
    let (folder, shutdown, mut tasks) = (TestFolder::new(), Shutdown::new(), TaskSet::new());
    let (cache, clock) = (Arc::new(Cache::new(trust_domain())), ManualClock::default());
    let issuer = Arc::new(FakeIssuer::default());
    let tokens = issuer.source(&cache, &clock);
    let unix = UnixAttestor::new(UnixConfig { discover_workload_path: true, workload_size_limit: -1 });
    let attestors: Vec<Box<dyn WorkloadAttestor>> = vec![Box::new(unix)];
    let gate = Gate::new(cache.clone(), Callers::new(attestors, ProcRoot::default()), shutdown.clone());
    let delegates = [trust_domain().member("/delegate").unwrap()];
    let in_step = InStep::default();
    let debug = DebugService {
        cache: cache.clone(),
        identity: LiveIdentity::new(),
        trust: OwnTrust::new(X509Bundle::empty(trust_domain())),
        in_step: in_step.clone(),
        tokens: tokens.clone(),
        clock: clock.shared(),
        started_at: NOW - 61,
    };
    let delegated = DelegatedIdentity::new(gate, delegates, tokens);
    let path = folder.socket("admin.sock");
    let socket = AdminSocket::bind(&path).unwrap();
    let services = Services { debug, logs: Logs::default(), delegated, meter: RpcMeter::default() };
    tasks.spawn("admin", socket.serve(services, shutdown.clone()));
    let channel = connect_unix(&path).await.unwrap();
    let client = DelegatedIdentityClient::new(channel.clone());
    let ca = Authority::new(&trust_domain());
    Rig { cache, ca, issuer, client, channel, in_step, shutdown, tasks, folder }
}

/// What this test shows of itself.
fn mine() -> String {
    format!("unix:uid:{}", std::fs::metadata("/proc/self").unwrap().uid())
}

/// What this test alone shows, and no process that it starts.
fn only_me() -> String {
    format!("unix:path:{}", std::env::current_exe().unwrap().display())
}

fn selectors(texts: &[&str]) -> Vec<types::Selector> {
    let split = |text: &str| text.split_once(':').map(|(kind, value)| (kind.to_owned(), value.to_owned()));
    texts
        .iter()
        .map(|text| split(text).map(|(r#type, value)| types::Selector { r#type, value }).unwrap())
        .collect()
}

impl Rig {
    /// Completes the first sync with these entries signed.
    fn publish(&self, entries: Vec<RegistrationEntry>) {
        let put = entries.into_iter().map(|entry| self.ca.identity(&self.cache, entry)).collect();
        let own_bundle = Some(self.issuer.in_bundle(self.ca.whole()));
        self.cache.publish(Change { put, own_bundle, synced: true, ..Change::default() });
    }

    /// The same, with this test as a delegate.
    fn publish_with_delegate(&self, mut entries: Vec<RegistrationEntry>) {
        entries.push(entry("delegate", &[&only_me()]));
        self.publish(entries);
    }

    fn remove(&self, id: &str) {
        self.cache.publish(Change { removed: vec![id.parse().unwrap()], ..Change::default() });
    }

    async fn svids(
        &self,
        texts: &[&str],
        pid: i32,
    ) -> Result<Streaming<wire::SubscribeToX509sviDsResponse>, Status> {
        let request = wire::SubscribeToX509sviDsRequest { selectors: selectors(texts), pid };
        self.client.clone().subscribe_to_x509svi_ds(request).await.map(tonic::Response::into_inner)
    }

    async fn tokens(
        &self,
        audience: &[&str],
        texts: &[&str],
        pid: i32,
    ) -> Result<Vec<types::Jwtsvid>, Status> {
        let audience = audience.iter().map(ToString::to_string).collect();
        let request = wire::FetchJwtsviDsRequest { audience, selectors: selectors(texts), pid };
        self.client.clone().fetch_jwtsvi_ds(request).await.map(|answer| answer.into_inner().svids)
    }
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    let message = timeout(LONG, stream.message()).await.expect("a message or an end comes");
    message.map(|message| message.expect("a stream ends with a status"))
}

fn ids(answer: &wire::SubscribeToX509sviDsResponse) -> Vec<String> {
    let svids = answer.x509_svids.iter().filter_map(|one| one.x509_svid.as_ref());
    svids.filter_map(|svid| svid.id.as_ref()).map(|id| id.path.clone()).collect()
}

#[track_caller]
fn check_refused<T>(answer: Result<T, Status>, code: Code, reason: Reason, text: &str) {
    let Err(status) = answer else { panic!("must be refused") };
    let found = (status.code(), reason_of(&status), status.message());
    assert_eq!(found, (code, Some(reason.code().to_owned()), text));
}

/// A process that runs until it is told to end.
struct Running(Child);

impl Running {
    fn start() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    /// What it shows and this test does not.
    fn path(&self) -> String {
        // Until it has become its program it is still this test's.
        loop {
            let path = std::fs::read_link(format!("/proc/{}/exe", self.pid())).unwrap();
            if path != std::env::current_exe().unwrap() {
                return format!("unix:path:{}", path.display());
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn the_admin_socket_is_for_its_user_and_group_alone() {
    let rig = rig().await;
    let mode = std::fs::metadata(rig.folder.join("admin.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o770);
}

#[tokio::test]
async fn a_delegate_gets_the_identities_for_selectors_and_every_later_change() {
    let rig = rig().await;
    let federated = Authority::new(&"other.example".parse().unwrap());
    rig.cache.publish(Change { federated: vec![federated.whole()], ..Change::default() });
    let mut a = entry("a", &["k8s:ns:x"]);
    a.federates_with = vec!["other.example".parse().unwrap()];
    a.hint = "h".parse().unwrap();
    let mut twin = entry("twin", &["k8s:ns:x"]);
    twin.hint = "h".parse().unwrap();
    rig.publish_with_delegate(vec![a, twin, entry("b", &["k8s:ns:y"])]);
    let mut stream = rig.svids(&["k8s:ns:x", "k8s:sa:z"], 0).await.unwrap();
    let answer = next(&mut stream).await.unwrap();
    assert_eq!(ids(&answer), ["/a", "/twin"]);
    assert_eq!(answer.federates_with, ["spiffe://other.example"]);
    let sent = rig.cache.snapshot().identity(&"a".parse().unwrap()).unwrap().state.clone().unwrap();
    let first = &answer.x509_svids[0];
    assert_eq!(first.x509_svid_key[..], sent.key_pkcs8[..]);
    let svid = first.x509_svid.clone().unwrap();
    assert_eq!(svid.cert_chain.concat(), sent.svid.to_der());
    assert_eq!(svid.expires_at, sent.svid.validity().not_after.unix_secs());
    let hints: Vec<_> = answer.x509_svids.iter().map(|one| one.x509_svid.clone().unwrap().hint).collect();
    assert_eq!(hints, ["h", "h"], "hints are those of the entries");
    rig.publish(vec![entry("c", &["k8s:sa:z"])]);
    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["/a", "/c", "/twin"]);
}

#[tokio::test]
async fn identities_of_administrators_and_downstream_servers_are_withheld() {
    let rig = rig().await;
    let admin = RegistrationEntry { admin: true, ..entry("admin", &["k8s:ns:x"]) };
    let downstream = RegistrationEntry { downstream: true, ..entry("downstream", &["k8s:ns:x"]) };
    rig.publish_with_delegate(vec![admin, downstream, entry("plain", &["k8s:ns:x"])]);
    let mut stream = rig.svids(&["k8s:ns:x"], 0).await.unwrap();
    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["/plain"]);
    let issued = rig.tokens(&["db"], &["k8s:ns:x"], 0).await.unwrap();
    assert_eq!(issued.iter().map(|one| one.id.clone().unwrap().path).collect::<Vec<_>>(), ["/plain"]);
    assert_eq!(rig.issuer.calls(), 1, "what is withheld is not asked for");
    rig.remove("plain");
    assert!(ids(&next(&mut stream).await.unwrap()).is_empty());
    let refused = rig.tokens(&["db"], &["k8s:ns:x"], 0).await;
    check_refused(refused, Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
}

#[tokio::test]
async fn a_workload_without_an_identity_is_an_empty_list_and_no_refusal() {
    let rig = rig().await;
    rig.publish_with_delegate(vec![]);
    let mut stream = rig.svids(&["k8s:ns:x"], 0).await.unwrap();
    assert!(ids(&next(&mut stream).await.unwrap()).is_empty());
    rig.publish(vec![entry("a", &["k8s:ns:x"])]);
    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["/a"]);
    rig.remove("a");
    assert!(ids(&next(&mut stream).await.unwrap()).is_empty(), "nor later");
}

#[tokio::test]
async fn a_workload_is_named_in_exactly_one_way() {
    let rig = rig().await;
    rig.publish_with_delegate(vec![]);
    let text = "must provide either selectors or non-zero PID, but not both";
    for (texts, pid) in [(&[][..], 0), (&["k8s:ns:x"], 1), (&["k8s:ns:x"], -1)] {
        check_refused(rig.svids(texts, pid).await, Code::InvalidArgument, Reason::BadRequest, text);
        let tokens = rig.tokens(&["db"], texts, pid).await;
        check_refused(tokens, Code::InvalidArgument, Reason::BadRequest, text);
    }
    let bad = wire::SubscribeToX509sviDsRequest {
        selectors: vec![types::Selector { r#type: "a:b".into(), value: "x".into() }],
        pid: 0,
    };
    let status = rig.client.clone().subscribe_to_x509svi_ds(bad).await.expect_err("a bad selector");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("could not parse provided selectors"), "{status}");
}

/// The first answer of each method.
async fn all_methods(rig: &Rig) -> Vec<Result<(), Status>> {
    let mut client = rig.client.clone();
    vec![
        rig.svids(&["k8s:ns:x"], 0).await.map(drop),
        rig.tokens(&["db"], &["k8s:ns:x"], 0).await.map(drop),
        client.subscribe_to_x509_bundles(wire::SubscribeToX509BundlesRequest {}).await.map(drop),
        client.subscribe_to_jwt_bundles(wire::SubscribeToJwtBundlesRequest {}).await.map(drop),
    ]
}

#[tokio::test]
async fn who_is_no_delegate_is_refused_by_every_method() {
    let rig = rig().await;
    for answer in all_methods(&rig).await {
        let text = "the agent has not reached its server yet";
        check_refused(answer, Code::Unavailable, Reason::AgentStarting, text);
    }
    rig.publish(vec![entry("a", &["k8s:ns:x"])]);
    for answer in all_methods(&rig).await {
        check_refused(answer, Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
    }
    rig.publish(vec![entry("other", &[&mine()])]);
    for answer in all_methods(&rig).await {
        let text = "caller not configured as an authorized delegate";
        check_refused(answer, Code::PermissionDenied, Reason::NotADelegate, text);
    }
    rig.publish_with_delegate(vec![]);
    assert!(all_methods(&rig).await.iter().all(Result::is_ok), "one of its identities is enough");
}

#[tokio::test]
async fn streams_end_as_soon_as_their_caller_is_a_delegate_no_longer() {
    let rig = rig().await;
    rig.publish_with_delegate(vec![entry("a", &["k8s:ns:x"]), entry("other", &[&mine()])]);
    let mut client = rig.client.clone();
    let mut svids = rig.svids(&["k8s:ns:x"], 0).await.unwrap();
    let bundles = client.subscribe_to_x509_bundles(wire::SubscribeToX509BundlesRequest {}).await;
    let mut bundles = bundles.unwrap().into_inner();
    next(&mut svids).await.unwrap();
    next(&mut bundles).await.unwrap();
    rig.remove("delegate");
    let text = "caller not configured as an authorized delegate";
    check_refused(next(&mut svids).await, Code::PermissionDenied, Reason::NotADelegate, text);
    check_refused(next(&mut bundles).await, Code::PermissionDenied, Reason::NotADelegate, text);
}

#[tokio::test]
async fn a_process_is_attested_by_the_agent_and_its_end_ends_the_stream() {
    let rig = rig().await;
    let running = Running::start();
    rig.publish_with_delegate(vec![entry("cat", &[&running.path()])]);
    let mut stream = rig.svids(&[], running.pid()).await.unwrap();
    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["/cat"]);
    let issued = rig.tokens(&["db"], &[], running.pid()).await.unwrap();
    assert_eq!(issued[0].id.clone().unwrap().path, "/cat");
    rig.publish(vec![entry("also", &[&running.path()])]);
    assert_eq!(ids(&next(&mut stream).await.unwrap()), ["/also", "/cat"]);
    let pid = running.pid();
    drop(running);
    let end = next(&mut stream).await;
    check_refused(end, Code::NotFound, Reason::WorkloadGone, "the process has ended");
    let text = "workload attestation failed";
    for pid in [pid, -1] {
        check_refused(rig.svids(&[], pid).await, Code::Unavailable, Reason::CallerGone, text);
        check_refused(rig.tokens(&["db"], &[], pid).await, Code::Unavailable, Reason::CallerGone, text);
    }
}

#[tokio::test]
async fn tokens_are_for_the_audiences_asked_for() {
    let rig = rig().await;
    let mut a = entry("a", &["k8s:ns:x"]);
    a.hint = "h".parse().unwrap();
    rig.publish_with_delegate(vec![a]);
    let issued = rig.tokens(&["db", "cache"], &["k8s:ns:x"], 0).await.unwrap();
    let [one] = &issued[..] else { panic!("{issued:?}") };
    assert_eq!((one.hint.as_str(), one.expires_at - one.issued_at), ("h", 300));
    assert!(one.issued_at > 0 && one.token.split('.').count() == 3);
    let asked = rig.issuer.asked.borrow().clone();
    assert_eq!(asked, [("a".to_owned(), vec!["cache".to_owned(), "db".to_owned()])]);
    let none = rig.tokens(&[], &["k8s:ns:x"], 0).await;
    check_refused(none, Code::InvalidArgument, Reason::BadRequest, "audience must be specified");
    rig.issuer.failures.lock().unwrap().push_back(Status::invalid_argument("no"));
    let failed = rig.tokens(&["other"], &["k8s:ns:x"], 0).await.expect_err("the server refuses");
    assert_eq!(failed.code(), Code::Unavailable);
    assert!(failed.message().starts_with("could not fetch JWT-SVID"), "{failed}");
}

#[tokio::test]
async fn bundles_are_those_of_all_trust_domains_and_a_lost_one_is_gone() {
    let rig = rig().await;
    let other = Authority::new(&"other.example".parse().unwrap());
    rig.cache.publish(Change { federated: vec![other.whole()], ..Change::default() });
    rig.publish_with_delegate(vec![]);
    let mut client = rig.client.clone();
    let x509 = client.subscribe_to_x509_bundles(wire::SubscribeToX509BundlesRequest {}).await;
    let jwt = client.subscribe_to_jwt_bundles(wire::SubscribeToJwtBundlesRequest {}).await;
    let (mut x509, mut jwt) = (x509.unwrap().into_inner(), jwt.unwrap().into_inner());
    let (first, keys) = (next(&mut x509).await.unwrap(), next(&mut jwt).await.unwrap());
    assert_eq!(first.ca_certificates["spiffe://prod.example"], rig.ca.bundle.to_der());
    assert_eq!(first.ca_certificates["spiffe://other.example"], other.bundle.to_der());
    let kids = |bytes: &[u8]| -> Vec<String> {
        let document: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let keys = document["keys"].as_array().unwrap();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(kids(&keys.bundles["spiffe://prod.example"]), ["k1"]);
    assert!(kids(&keys.bundles["spiffe://other.example"]).is_empty());
    // A change of JWT keys alone: the certificates are told no second time.
    let mut changed: Bundle = rig.issuer.in_bundle(rig.ca.whole());
    changed.jwt_authorities.clear();
    rig.cache.publish(Change { own_bundle: Some(changed), ..Change::default() });
    assert!(kids(&next(&mut jwt).await.unwrap().bundles["spiffe://prod.example"]).is_empty());
    let removed_federated = vec!["other.example".parse().unwrap()];
    rig.cache.publish(Change { removed_federated, ..Change::default() });
    let names: Vec<_> = next(&mut x509).await.unwrap().ca_certificates.into_keys().collect();
    assert_eq!(names, ["spiffe://prod.example"]);
    let names: Vec<_> = next(&mut jwt).await.unwrap().bundles.into_keys().collect();
    assert_eq!(names, ["spiffe://prod.example"]);
}

#[tokio::test]
async fn the_log_level_is_changed_and_reset_while_the_agent_runs() {
    let rig = rig().await;
    let mut client = LoggerClient::new(rig.channel.clone());
    let levels = |logger: tonic::Response<types::Logger>| {
        let logger = logger.into_inner();
        (logger.current_level(), logger.launch_level())
    };
    use types::LogLevel::{Info, Trace};
    assert_eq!(levels(client.get_logger(GetLoggerRequest {}).await.unwrap()), (Info, Info));
    let set = |level: i32| SetLogLevelRequest { new_level: level };
    assert_eq!(levels(client.set_log_level(set(Trace.into())).await.unwrap()), (Trace, Info));
    assert_eq!(levels(client.get_logger(GetLoggerRequest {}).await.unwrap()), (Trace, Info));
    for (level, text) in [
        (0, "newLevel value cannot be LogLevel_UNSPECIFIED"),
        (8, "unsupported log level"),
        (-1, "unsupported log level"),
    ] {
        let refused = client.set_log_level(set(level)).await;
        check_refused(refused, Code::InvalidArgument, Reason::BadRequest, text);
    }
    assert_eq!(levels(client.reset_log_level(ResetLogLevelRequest {}).await.unwrap()), (Info, Info));
}

#[tokio::test]
#[allow(deprecated, reason = "old clients read the old field")]
async fn the_figures_of_an_agent_are_those_of_the_moment() {
    let rig = rig().await;
    let mut client = DebugClient::new(rig.channel.clone());
    let info = client.get_info(GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.uptime, info.last_sync_success, info.cached_x509_svids_count), (61, 0, 0));
    assert!(info.svid_chain.is_empty());
    rig.publish_with_delegate(vec![entry("a", &["k8s:ns:x"])]);
    rig.in_step.applied(NOW - 5);
    rig.tokens(&["db"], &["k8s:ns:x"], 0).await.unwrap();
    let info = client.get_info(GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.cached_x509_svids_count, info.svids_count, info.cached_jwt_svids_count), (2, 2, 1));
    assert_eq!((info.last_sync_success, info.cached_svidstore_x509_svids_count), (NOW.unix_secs() - 5, 0));
}

#[tokio::test]
async fn reflection_names_the_services_of_the_admin_socket() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let rig = rig().await;
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let mut client = ServerReflectionClient::new(rig.channel.clone());
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list of services")
    };
    let names: BTreeSet<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in [
        "spire.agent.debug.v1.Debug",
        "spire.api.agent.logger.v1.Logger",
        "spire.api.agent.delegatedidentity.v1.DelegatedIdentity",
    ] {
        assert!(names.contains(name), "{names:?}");
    }
}

#[tokio::test]
async fn open_streams_end_when_the_agent_stops() {
    let rig = rig().await;
    rig.publish_with_delegate(vec![]);
    let mut svids = rig.svids(&["k8s:ns:x"], 0).await.unwrap();
    let bundles = rig.client.clone().subscribe_to_jwt_bundles(wire::SubscribeToJwtBundlesRequest {}).await;
    let mut bundles = bundles.unwrap().into_inner();
    next(&mut svids).await.unwrap();
    next(&mut bundles).await.unwrap();
    let Rig { shutdown, tasks, client, channel, folder, .. } = rig;
    shutdown.begin();
    let text = "the agent is stopping";
    check_refused(next(&mut svids).await, Code::Unavailable, Reason::AgentStopping, text);
    check_refused(next(&mut bundles).await, Code::Unavailable, Reason::AgentStopping, text);
    drop((svids, bundles, client, channel));
    assert!(tasks.run(&shutdown, Duration::from_secs(20)).await.is_none());
    assert!(!folder.join("admin.sock").exists());
}
