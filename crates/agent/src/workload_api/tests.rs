use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use prost::Message;
use spindle_attest::{ProcRoot, UnixAttestor, UnixConfig, WorkloadAttestor};
use spindle_proto::refusal::reason_of;
use spindle_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spindle_proto::workload::{self, X509BundlesRequest, X509svidRequest, X509svidResponse};
use spindle_runtime::{Shutdown, TaskSet};
use spindle_spiffe_core::RegistrationEntry;
use spindle_testkit::TestFolder;
use spindle_transport::{Notes, connect_unix};
use tokio::time::timeout;
use tonic::Streaming;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_prost::ProstCodec;

use super::*;
use crate::cache::{Cache, Change};
use crate::callers::Callers;
use crate::fixtures::{
    Authority, FakeIssuer, FakeWitIssuer, ManualClock, entry, signing, trust_domain, workload_api,
    workload_api_with,
};
use crate::frames::Messages as _;

mod jwt;
mod limits;
mod wit;

const LONG: Duration = Duration::from_secs(60);

/// A served socket over a cache that the test fills.
struct Rig {
    cache: Arc<Cache>,
    ca: Authority,
    issuer: Arc<FakeIssuer>,
    wit_issuer: Arc<FakeWitIssuer>,
    channel: Channel,
    shutdown: Shutdown,
    tasks: TaskSet,
    folder: TestFolder,
}

async fn rig() -> Rig {
    rig_with(false, vec![unix()]).await
}

async fn rig_with(allow_unauthenticated: bool, attestors: Vec<Box<dyn WorkloadAttestor>>) -> Rig {
    let (folder, shutdown, mut tasks) = (TestFolder::new(), Shutdown::new(), TaskSet::new());
    let cache = Arc::new(Cache::new(trust_domain()));
    let issuer = Arc::new(FakeIssuer::default());
    let gate = gate(&cache, attestors, &shutdown);
    let wit_issuer = Arc::new(FakeWitIssuer::default());
    let (wits, keeper) = wit_issuer.source(&cache, &ManualClock::default());
    tasks.spawn_infallible("wits", keeper.run(shutdown.clone()));
    let api = workload_api_with(gate.clone(), &cache, &issuer, wits, allow_unauthenticated);
    let path = folder.socket("api.sock");
    let socket = Socket::bind(&path).unwrap();
    let checks = crate::health::checks(Some(path.clone()), None, cache.synced());
    let health = crate::health::HealthService::server(checks, cache.synced());
    tasks.spawn("api", socket.serve(gate, Services { api: Some(api), sds: None, health }, shutdown.clone()));
    let channel = connect_unix(&path).await.unwrap();
    Rig { cache, ca: Authority::new(&trust_domain()), issuer, wit_issuer, channel, shutdown, tasks, folder }
}

fn unix() -> Box<dyn WorkloadAttestor> {
    Box::new(UnixAttestor::new(UnixConfig::default()))
}

fn gate(cache: &Arc<Cache>, attestors: Vec<Box<dyn WorkloadAttestor>>, shutdown: &Shutdown) -> Arc<Gate> {
    Gate::new(cache.clone(), Callers::new(attestors, ProcRoot::default()), shutdown.clone())
}

impl Rig {
    /// Completes the first sync with these entries signed.
    fn publish(&self, entries: Vec<RegistrationEntry>) {
        let put = entries.into_iter().map(|entry| self.ca.identity(&self.cache, entry)).collect();
        self.cache.publish(Change {
            put,
            own_bundle: Some(self.ca.whole()),
            synced: true,
            ..Change::default()
        });
    }

    fn remove(&self, id: &str) {
        self.cache.publish(Change { removed: vec![id.parse().unwrap()], ..Change::default() });
    }

    async fn svids(&self) -> Result<Streaming<X509svidResponse>, Status> {
        let mut client = SpiffeWorkloadApiClient::new(self.channel.clone());
        client.fetch_x509svid(with_header(X509svidRequest {})).await.map(tonic::Response::into_inner)
    }

    async fn bundles(&self) -> Result<Streaming<workload::X509BundlesResponse>, Status> {
        let mut client = SpiffeWorkloadApiClient::new(self.channel.clone());
        client.fetch_x509_bundles(with_header(X509BundlesRequest {})).await.map(tonic::Response::into_inner)
    }
}

fn with_header<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    request
}

/// An entry for whoever runs the tests.
fn mine(id: &str) -> RegistrationEntry {
    let uid = std::fs::metadata("/proc/self").unwrap().uid();
    entry(id, &[&format!("unix:uid:{uid}")])
}

fn nobodys(id: &str) -> RegistrationEntry {
    entry(id, &["unix:uid:4000000"])
}

fn ids(answer: &X509svidResponse) -> Vec<&str> {
    answer.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect()
}

fn check_refused<T>(answer: Result<T, Status>, code: Code, reason: Reason, text: &str) {
    let Err(status) = answer else { panic!("must be refused") };
    let found = (status.code(), reason_of(&status), status.message());
    assert_eq!(found, (code, Some(reason.code().to_owned()), text));
}

#[tokio::test]
async fn wap_01_wap_11_a_registered_caller_gets_all_his_identities_at_every_change() {
    let rig = rig().await;
    rig.publish(vec![mine("a"), nobodys("b")]);
    let mut stream = rig.svids().await.unwrap();
    assert_eq!(ids(&stream.message().await.unwrap().unwrap()), ["spiffe://prod.example/a"]);
    rig.publish(vec![mine("c")]);
    let all = ["spiffe://prod.example/a", "spiffe://prod.example/c"];
    assert_eq!(ids(&stream.message().await.unwrap().unwrap()), all);
}

#[tokio::test]
async fn wap_12_nothing_is_sent_when_nothing_changed_for_the_caller() {
    let rig = rig().await;
    rig.publish(vec![mine("a")]);
    let mut stream = rig.svids().await.unwrap();
    stream.message().await.unwrap().unwrap();
    rig.publish(vec![nobodys("b")]);
    rig.publish(vec![mine("c")]);
    assert_eq!(stream.message().await.unwrap().unwrap().svids.len(), 2);
}

#[tokio::test]
async fn wap_21_wap_30_wap_82_a_message_has_every_identity_and_the_last_entry_that_goes_ends_the_stream() {
    let rig = rig().await;
    rig.publish(vec![mine("a"), mine("b")]);
    let mut stream = rig.svids().await.unwrap();
    stream.message().await.unwrap();
    rig.remove("a");
    assert_eq!(ids(&stream.message().await.unwrap().unwrap()), ["spiffe://prod.example/b"]);
    rig.remove("b");
    let end = stream.message().await;
    check_refused(end, Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
}

#[tokio::test]
async fn wep_22_wap_36_an_unregistered_caller_is_refused_and_learns_of_nobody_else() {
    let rig = rig().await;
    rig.publish(vec![nobodys("secret")]);
    let status = rig.svids().await.unwrap_err();
    assert!(!format!("{status:?}").contains("secret"));
    check_refused::<()>(Err(status), Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
    let bundles = rig.bundles().await;
    check_refused(bundles, Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
}

#[tokio::test]
async fn wep_20_before_the_first_sync_both_methods_are_unavailable() {
    let rig = rig().await;
    let text = "the agent has not reached its server yet";
    check_refused(rig.svids().await, Code::Unavailable, Reason::AgentStarting, text);
    check_refused(rig.bundles().await, Code::Unavailable, Reason::AgentStarting, text);
    rig.publish(vec![mine("a")]);
    assert!(rig.svids().await.is_ok());
}

#[tokio::test]
async fn a_caller_nobody_can_attest_is_told_to_come_back() {
    let rig = rig_with(false, vec![]).await;
    rig.publish(vec![mine("a")]);
    let text = "workload attestation failed";
    check_refused(rig.svids().await, Code::Unavailable, Reason::AttestationFailed, text);
}

#[tokio::test]
async fn an_svid_that_is_being_signed_is_waited_for() {
    let rig = rig().await;
    rig.publish(vec![]);
    rig.cache.publish(Change { put: vec![signing(mine("a"))], ..Change::default() });
    let (answer, ()) = tokio::join!(rig.svids(), async {
        tokio::task::yield_now().await;
        rig.publish(vec![mine("a")]);
    });
    assert_eq!(answer.unwrap().message().await.unwrap().unwrap().svids.len(), 1);
}

#[tokio::test]
async fn a_caller_that_ends_while_its_first_answer_is_waited_for_gets_none() {
    let rig = rig().await;
    rig.publish(vec![]);
    rig.cache.publish(Change { put: vec![signing(mine("a"))], ..Change::default() });
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let facts = std::fs::metadata("/proc/self").unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let peer = LocalPeer { pid, uid: facts.uid(), gid: facts.gid(), pidfd: None, notes: Notes::default() };
    let gate = gate(&rig.cache, vec![unix()], &rig.shutdown);
    let mut session = Session::new(gate.admit(peer).await.unwrap(), Method::X509Svids, false);
    let (answer, ()) = tokio::join!(session.next(), async {
        tokio::task::yield_now().await;
        child.kill().unwrap();
        child.wait().unwrap();
        rig.publish(vec![mine("a")]);
    });
    check_refused(answer, Code::Unavailable, Reason::CallerGone, "workload attestation failed");
}

#[tokio::test]
async fn bundles_are_sent_again_only_when_they_changed() {
    let rig = rig().await;
    rig.publish(vec![mine("a")]);
    let mut stream = rig.bundles().await.unwrap();
    let first = stream.message().await.unwrap().unwrap();
    assert_eq!(first.bundles["spiffe://prod.example"], rig.ca.bundle.to_der());
    // A rotated SVID changes no bundle; a new foreign one does.
    rig.publish(vec![mine("a")]);
    let foreign = Authority::new(&"partner.example".parse().unwrap());
    let mut federated = mine("b");
    federated.federates_with = vec!["partner.example".parse().unwrap()];
    rig.cache.publish(Change { federated: vec![foreign.whole()], ..Change::default() });
    rig.publish(vec![federated]);
    let second = stream.message().await.unwrap().unwrap();
    assert_eq!(second.bundles["spiffe://partner.example"], foreign.bundle.to_der());
}

#[tokio::test]
async fn a_verifier_without_identity_gets_the_own_bundle_only_if_that_is_allowed() {
    let rig = rig_with(true, vec![unix()]).await;
    rig.publish(vec![]);
    let foreign = Authority::new(&"partner.example".parse().unwrap());
    rig.cache.publish(Change { federated: vec![foreign.whole()], ..Change::default() });
    let answer = rig.bundles().await.unwrap().message().await.unwrap().unwrap();
    assert_eq!(answer.bundles.keys().collect::<Vec<_>>(), ["spiffe://prod.example"]);
    check_refused(rig.svids().await, Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
}

/// Calls a method by its path with these header values.
async fn call_with_header(rig: &Rig, method: &str, values: &[&str]) -> Status {
    let mut request = tonic::Request::new(X509svidRequest {});
    for value in values {
        request.metadata_mut().append("workload.spiffe.io", value.parse().unwrap());
    }
    let mut grpc = tonic::client::Grpc::new(rig.channel.clone());
    grpc.ready().await.unwrap();
    let path = format!("/SpiffeWorkloadAPI/{method}").parse().unwrap();
    let codec = ProstCodec::<X509svidRequest, X509svidResponse>::default();
    grpc.server_streaming(request, path, codec).await.expect_err("must be refused")
}

#[tokio::test]
async fn wep_08_wep_09_without_the_exact_security_header_every_method_is_refused_before_anything_else() {
    let rig = rig().await;
    let methods = [
        "FetchX509SVID",
        "FetchX509Bundles",
        "FetchJWTSVID",
        "FetchJWTBundles",
        "ValidateJWTSVID",
        "FetchWITSVID",
        "FetchWITBundles",
        "Unknown",
    ];
    let bad: [&[&str]; 8] =
        [&[], &["True"], &["TRUE"], &["1"], &[""], &["true", "true"], &["true,true"], &["false"]];
    for method in methods {
        for values in bad {
            let status = call_with_header(&rig, method, values).await;
            let text = "security header missing from request";
            check_refused::<()>(Err(status), Code::InvalidArgument, Reason::SecurityHeaderMissing, text);
        }
    }
}

/// Sends one frame as the request.
async fn call_with_frame(rig: &Rig, compressed: u8, message: &[u8]) -> Status {
    let mut frame = vec![compressed];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    let mut request = Request::new(Body::new(http_body_util::Full::new(Bytes::from(frame))));
    let facts = std::fs::metadata("/proc/self").unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    let peer = LocalPeer { pid, uid: facts.uid(), gid: facts.gid(), pidfd: None, notes: Notes::default() };
    request.extensions_mut().insert(Peer::Local(peer));
    request.headers_mut().insert(SECURITY_HEADER, HeaderValue::from_static("true"));
    *request.uri_mut() = "/SpiffeWorkloadAPI/FetchX509SVID".parse().unwrap();
    let api = workload_api(gate(&rig.cache, vec![], &rig.shutdown), &rig.cache, &rig.issuer, false);
    api.answer(request).await.expect_err("must be refused")
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_refused_with_a_reason() {
    let rig = rig().await;
    rig.publish(vec![mine("a")]);
    let reason = |status: &Status| reason_of(status).unwrap();
    let too_large = call_with_frame(&rig, 0, &[0; EMPTY_BYTES_MAX + 1]).await;
    assert_eq!((too_large.code(), reason(&too_large)), (Code::OutOfRange, "message_too_large".into()));
    for (compressed, message) in [(0, &[0xff; 3][..]), (1, b""), (9, b"")] {
        assert_eq!(reason(&call_with_frame(&rig, compressed, message).await), "bad_request");
    }
}

#[tokio::test]
async fn profiles_that_are_not_here_answer_unimplemented() {
    let rig = rig().await;
    rig.publish(vec![]);
    for method in ["FetchWITSVID", "FetchWITBundles"] {
        let status = call_with_header(&rig, method, &["true"]).await;
        let text = "this profile of the Workload API is not supported";
        check_refused::<()>(Err(status), Code::Unimplemented, Reason::NotSupported, text);
    }
}

#[tokio::test]
async fn wep_10_health_serves_without_a_header_once_the_agent_is_in_step() {
    let rig = rig().await;
    let mut health = HealthClient::new(rig.channel.clone());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        tonic_health::pb::health_check_response::ServingStatus::NotServing
    );
    rig.publish(vec![]);
    assert_eq!(
        watch.message().await.unwrap().unwrap().status(),
        tonic_health::pb::health_check_response::ServingStatus::Serving
    );
}

#[tokio::test]
async fn a_health_check_asks_the_workload_api_itself_and_takes_a_refusal_for_health() {
    use tonic_health::pb::health_check_response::ServingStatus;
    let rig = rig().await;
    let mut health = HealthClient::new(rig.channel.clone());
    let mut check = async || {
        let answer = health.check(HealthCheckRequest::default()).await.unwrap();
        answer.into_inner().status()
    };
    assert_eq!(check().await, ServingStatus::NotServing);
    rig.publish(vec![nobodys("a")]);
    check_refused(rig.bundles().await, Code::PermissionDenied, Reason::NoMatchingEntry, "no identity issued");
    assert_eq!(check().await, ServingStatus::Serving);
}

#[tokio::test]
async fn an_agent_whose_attestation_fails_is_not_healthy() {
    let rig = rig_with(false, vec![]).await;
    rig.publish(vec![mine("a")]);
    let mut health = HealthClient::new(rig.channel.clone());
    let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::NotServing);
}

#[tokio::test]
async fn health_is_that_of_the_whole_agent() {
    let rig = rig().await;
    let mut health = HealthClient::new(rig.channel.clone());
    let request = || HealthCheckRequest { service: "SpiffeWorkloadAPI".into() };
    let text = "per-service health is not supported";
    for answer in [health.check(request()).await.map(drop), health.watch(request()).await.map(drop)] {
        check_refused(answer, Code::InvalidArgument, Reason::BadRequest, text);
    }
}

#[tokio::test]
async fn wep_26_wep_27_reflection_names_the_workload_api_without_a_header() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let rig = rig().await;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut client = ServerReflectionClient::new(rig.channel.clone());
    let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("no list of services")
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"SpiffeWorkloadAPI") && names.contains(&"grpc.health.v1.Health"), "{names:?}");
}

#[tokio::test]
async fn open_streams_end_when_the_agent_stops() {
    let rig = rig().await;
    rig.publish(vec![mine("a")]);
    let mut stream = rig.svids().await.unwrap();
    stream.message().await.unwrap();
    let Rig { tasks, shutdown, channel, folder, .. } = rig;
    shutdown.begin();
    let end = stream.message().await;
    check_refused(end, Code::Unavailable, Reason::AgentStopping, "the agent is stopping");
    drop((stream, channel));
    assert!(tasks.run(&shutdown, Duration::from_secs(20)).await.is_none());
    assert!(!folder.join("api.sock").exists());
}

#[tokio::test]
async fn streams_of_health_and_reflection_end_when_the_agent_stops() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    let rig = rig().await;
    let mut health = HealthClient::new(rig.channel.clone());
    let mut watch = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let mut reflection = ServerReflectionClient::new(rig.channel.clone());
    let open = tokio_stream::pending::<ServerReflectionRequest>();
    let mut answers = reflection.server_reflection_info(open).await.unwrap().into_inner();
    rig.shutdown.begin();
    for end in [
        timeout(LONG, watch.message()).await.unwrap().map(drop),
        timeout(LONG, answers.message()).await.unwrap().map(drop),
    ] {
        check_refused(end, Code::Unavailable, Reason::AgentStopping, "the agent is stopping");
    }
}

#[tokio::test]
async fn a_message_can_be_read_by_the_generated_code_to_its_last_byte() {
    let rig = rig().await;
    rig.publish(vec![mine("a")]);
    let answer = rig.svids().await.unwrap().message().await.unwrap().unwrap();
    let sent = rig.cache.snapshot().identity(&"a".parse().unwrap()).unwrap().state.clone().unwrap();
    assert_eq!(answer.svids[0].x509_svid, sent.svid.to_der());
    assert_eq!(answer.svids[0].x509_svid_key[..], sent.key_pkcs8[..]);
    assert_eq!(answer.svids[0].bundle, rig.ca.bundle.to_der());
    assert!(answer.encoded_len() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_streams_opened_at_once_are_all_answered() {
    const STREAMS: usize = 2000;
    let rig = rig().await;
    rig.publish(vec![mine("a")]);
    let path = rig.folder.join("api.sock");
    let channels = futures_util::future::join_all((0..4).map(|_| connect_unix(&path))).await;
    let channels: Vec<Channel> = channels.into_iter().map(Result::unwrap).collect();
    let open = (0..STREAMS).map(|number| {
        let mut client = SpiffeWorkloadApiClient::new(channels[number % 4].clone());
        async move {
            let mut stream = client.fetch_x509svid(with_header(X509svidRequest {})).await?.into_inner();
            stream.message().await?;
            Ok::<_, Status>(stream)
        }
    });
    let streams = futures_util::future::join_all(open).await;
    assert_eq!(streams.iter().find_map(|stream| stream.as_ref().err()).map(ToString::to_string), None);
    rig.publish(vec![mine("b")]);
    for stream in streams {
        assert_eq!(stream.unwrap().message().await.unwrap().unwrap().svids.len(), 2);
    }
}
