use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::Frame;
use spindle_attest::{ProcRoot, UnixAttestor, UnixConfig, WorkloadAttestor};
use spindle_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use spindle_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use spindle_proto::refusal::{reason_of, retry_after_of};
use spindle_runtime::{Shutdown, TaskSet};
use spindle_spiffe_core::Reason;
use spindle_testkit::TestFolder;
use spindle_transport::connect_unix;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::super::Sds;
use super::super::sotw::Sotw;
use super::super::stream::Stream;
use super::super::validation::Validation;
use super::*;
use crate::callers::Callers;
use crate::config::RateLimits;
use crate::fixtures::{calling_as, process};
use crate::gate::{Gate, GateSettings};
use crate::health::{self, HealthService};
use crate::workload_api::{Services, Socket};

/// A served socket over a cache that the test fills.
struct Rig {
    cache: Arc<Cache>,
    ca: Authority,
    gate: Arc<Gate>,
    client: SecretDiscoveryServiceClient<Channel>,
    shutdown: Shutdown,
    _tasks: TaskSet,
    _folder: TestFolder,
}

fn unix() -> Vec<Box<dyn WorkloadAttestor>> {
    vec![Box::new(UnixAttestor::new(UnixConfig::default()))]
}

async fn rig() -> Rig {
    rig_with(unix(), true).await
}

async fn rig_with(attestors: Vec<Box<dyn WorkloadAttestor>>, has_sds: bool) -> Rig {
    let (folder, shutdown, mut tasks) = (TestFolder::new(), Shutdown::new(), TaskSet::new());
    let cache = Arc::new(Cache::new(trust_domain()));
    let gate = Gate::new(cache.clone(), Callers::new(attestors, ProcRoot::default()), shutdown.clone());
    let sds = has_sds.then(|| Sds::new(gate.clone(), SdsConfig::default()));
    let path = folder.socket("api.sock");
    let socket = Socket::bind(&path).unwrap();
    let checks = health::checks(None, None, cache.synced());
    let health = HealthService::server(checks, cache.synced());
    tasks.spawn("api", socket.serve(gate.clone(), Services { api: None, sds, health }, shutdown.clone()));
    let client = SecretDiscoveryServiceClient::new(connect_unix(&path).await.unwrap());
    let ca = Authority::new(&trust_domain());
    Rig { cache, ca, gate, client, shutdown, _tasks: tasks, _folder: folder }
}

impl Rig {
    /// Completes the first sync with these entries signed, for whoever runs the tests.
    fn publish(&self, ids: &[&str]) {
        let uid = std::fs::metadata("/proc/self").unwrap().uid();
        let put =
            ids.iter().map(|id| self.ca.identity(&self.cache, entry(id, &[&format!("unix:uid:{uid}")])));
        self.cache.publish(Change {
            put: put.collect(),
            own_bundle: Some(self.ca.whole()),
            synced: true,
            ..Change::default()
        });
    }

    fn remove(&self, id: &str) {
        self.cache.publish(Change { removed: vec![id.parse().unwrap()], ..Change::default() });
    }

    /// Opens a stream with a first request; further ones go through the sender.
    async fn stream(
        &self,
        first: DiscoveryRequest,
    ) -> (mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>) {
        let (sender, requests) = mpsc::channel(8);
        sender.send(first).await.unwrap();
        let answers = self.client.clone().stream_secrets(ReceiverStream::new(requests)).await.unwrap();
        (sender, answers.into_inner())
    }

    async fn delta(
        &self,
        names: &[&str],
    ) -> (mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>) {
        let (sender, requests) = mpsc::channel(8);
        let first = DeltaDiscoveryRequest {
            resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
            ..DeltaDiscoveryRequest::default()
        };
        sender.send(first).await.unwrap();
        let answers = self.client.clone().delta_secrets(ReceiverStream::new(requests)).await.unwrap();
        (sender, answers.into_inner())
    }

    async fn fetch(&self, wanted: &[&str]) -> Result<DiscoveryResponse, Status> {
        Ok(self.client.clone().fetch_secrets(names(wanted)).await?.into_inner())
    }
}

fn names(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(ToString::to_string).collect(),
        ..DiscoveryRequest::default()
    }
}

async fn next<T>(answers: &mut Streaming<T>) -> T {
    answers.message().await.unwrap().unwrap()
}

fn serial(any: &Any) -> String {
    match told(any) {
        Told::Certificate(_, serial) => serial,
        other => panic!("{other:?} is no certificate"),
    }
}

fn check_refused(status: &Status, code: Code, reason: Reason, text: &str) {
    let found = (status.code(), reason_of(status), status.message());
    assert_eq!(found, (code, Some(reason.code().to_owned()), text));
}

#[tokio::test]
async fn an_identity_is_pushed_each_time_it_changes() {
    let rig = rig().await;
    rig.publish(&["a"]);
    let (requests, mut answers) = rig.stream(names(&["default"])).await;
    let mut last = String::new();
    for version in 1..=3 {
        let answer = next(&mut answers).await;
        assert_eq!(answer.version_info, version.to_string());
        let now = serial(&answer.resources[0]);
        assert_ne!(std::mem::replace(&mut last, now.clone()), now);
        let nonce = answer.nonce.clone();
        let ack = DiscoveryRequest {
            version_info: answer.version_info,
            response_nonce: nonce,
            ..names(&["default"])
        };
        requests.send(ack).await.unwrap();
        rig.publish(&["a"]);
    }
}

#[tokio::test]
async fn the_incremental_variant_pushes_only_what_changed() {
    let rig = rig().await;
    rig.publish(&["a"]);
    let (requests, mut answers) = rig.delta(&["default", "ROOTCA"]).await;
    let first = next(&mut answers).await;
    assert_eq!(first.resources.len(), 2);
    let ack = DeltaDiscoveryRequest { response_nonce: first.nonce, ..DeltaDiscoveryRequest::default() };
    requests.send(ack).await.unwrap();
    rig.publish(&["a"]);
    let second = next(&mut answers).await;
    assert_eq!(second.resources.len(), 1);
    let before = serial(first.resources[1].resource.as_ref().unwrap());
    assert_ne!(before, serial(second.resources[0].resource.as_ref().unwrap()));
}

#[tokio::test]
async fn a_single_question_is_answered_at_once() {
    let rig = rig().await;
    rig.publish(&["a"]);
    let answer = rig.fetch(&["default", "ROOTCA"]).await.unwrap();
    assert_eq!((answer.resources.len(), &*answer.version_info, &*answer.nonce), (2, "", ""));
}

#[tokio::test]
async fn who_has_no_entry_gets_the_own_bundle_and_nothing_else() {
    let rig = rig().await;
    rig.publish(&[]);
    assert_eq!(rig.fetch(&["ROOTCA"]).await.unwrap().resources.len(), 1);
    let status = rig.fetch(&["default", A]).await.unwrap_err();
    let text = format!(r#"workload is not authorized for the requested identities ["default" "{A}"]"#);
    check_refused(&status, Code::InvalidArgument, Reason::NoMatchingEntry, &text);
}

#[tokio::test]
async fn who_has_an_entry_gets_no_other_identity() {
    let rig = rig().await;
    rig.publish(&["a"]);
    let (_requests, mut answers) = rig.stream(names(&[B])).await;
    let status = answers.message().await.unwrap_err();
    let text = format!(r#"workload is not authorized for the requested identities ["{B}"]"#);
    check_refused(&status, Code::InvalidArgument, Reason::SecretNotFound, &text);
}

#[tokio::test]
async fn an_identity_that_goes_ends_the_stream_but_not_the_incremental_one() {
    let rig = rig().await;
    rig.publish(&["a"]);
    let (_requests, mut answers) = rig.stream(names(&["default"])).await;
    let (_changes, mut differences) = rig.delta(&["default"]).await;
    next(&mut answers).await;
    next(&mut differences).await;
    rig.remove("a");
    let status = answers.message().await.unwrap_err();
    let text = r#"workload is not authorized for the requested identities ["default"]"#;
    check_refused(&status, Code::InvalidArgument, Reason::NoMatchingEntry, text);
    assert_eq!(next(&mut differences).await.removed_resources, ["default"]);
    rig.publish(&["a"]);
    assert_eq!(next(&mut differences).await.resources.len(), 1);
}

#[tokio::test]
async fn before_the_first_sync_nobody_is_answered() {
    let rig = rig().await;
    let status = rig.fetch(&["ROOTCA"]).await.unwrap_err();
    let text = "the agent has not reached its server yet";
    check_refused(&status, Code::Unavailable, Reason::AgentStarting, text);
}

#[tokio::test]
async fn a_caller_nobody_can_attest_gets_not_even_a_bundle() {
    let rig = rig_with(vec![], true).await;
    rig.publish(&["a"]);
    let status = rig.fetch(&["ROOTCA"]).await.unwrap_err();
    check_refused(&status, Code::Unavailable, Reason::AttestationFailed, "workload attestation failed");
}

#[tokio::test]
async fn a_stream_ends_in_order_when_the_proxy_ends_it() {
    let rig = rig().await;
    rig.publish(&["a"]);
    let (requests, mut answers) = rig.stream(names(&[])).await;
    next(&mut answers).await;
    drop(requests);
    assert!(answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn open_streams_end_when_the_agent_stops() {
    let rig = rig().await;
    rig.publish(&["a"]);
    let (_requests, mut answers) = rig.stream(names(&[])).await;
    let (_changes, mut differences) = rig.delta(&[]).await;
    next(&mut answers).await;
    next(&mut differences).await;
    rig.shutdown.begin();
    for end in [answers.message().await.map(drop), differences.message().await.map(drop)] {
        check_refused(&end.unwrap_err(), Code::Unavailable, Reason::AgentStopping, "the agent is stopping");
    }
}

#[tokio::test]
async fn requests_that_cannot_be_taken_are_refused_with_a_reason() {
    let rig = rig().await;
    rig.publish(&["a"]);
    let many: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let request = DiscoveryRequest { resource_names: many, ..DiscoveryRequest::default() };
    let status = rig.client.clone().fetch_secrets(request).await.unwrap_err();
    let text = "at most 256 resources can be asked for";
    check_refused(&status, Code::InvalidArgument, Reason::BadRequest, text);
    let request = DiscoveryRequest { version_info: "x".repeat(1024 * 1024), ..DiscoveryRequest::default() };
    let status = rig.client.clone().fetch_secrets(request).await.unwrap_err();
    assert_eq!((status.code(), reason_of(&status)), (Code::OutOfRange, Some("message_too_large".into())));
}

#[tokio::test]
async fn an_agent_without_sds_does_not_offer_it() {
    let rig = rig_with(unix(), false).await;
    rig.publish(&["a"]);
    assert_eq!(rig.fetch(&[]).await.unwrap_err().code(), Code::Unimplemented);
}

fn child() -> Child {
    Command::new("cat").stdin(Stdio::piped()).spawn().unwrap()
}

/// A body whose first frame is this request, and which stays open.
fn open_body(request: &DiscoveryRequest) -> Body {
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(request.encoded_len()).unwrap().to_be_bytes());
    request.encode(&mut frame).unwrap();
    let first = tokio_stream::once(Ok::<_, Status>(Frame::data(Bytes::from(frame))));
    Body::new(StreamBody::new(first.chain(tokio_stream::pending())))
}

#[tokio::test]
async fn a_caller_is_looked_at_again_before_a_later_answer() {
    let rig = rig().await;
    rig.publish(&["a"]);
    let mut child = child();
    let caller = rig.gate.clone().admit(process(child.id())).await.unwrap();
    let config = Arc::new(SdsConfig::default());
    let exchange = Sotw::new(Validation::Spiffe);
    let mut stream = Stream::new(caller, config, open_body(&names(&["default"])), exchange);
    assert!(stream.next().await.unwrap().is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    rig.publish(&["a"]);
    let status = stream.next().await.unwrap_err();
    check_refused(&status, Code::Unavailable, Reason::CallerGone, "workload attestation failed");
}

#[tokio::test]
async fn a_stream_on_which_nothing_is_asked_is_not_kept() {
    let rig = rig().await;
    rig.publish(&["a"]);
    let caller = rig.gate.clone().admit(process(std::process::id())).await.unwrap();
    let requests = tokio_stream::pending::<Result<Frame<Bytes>, Status>>();
    let body = Body::new(StreamBody::new(requests));
    let exchange = Sotw::new(Validation::Spiffe);
    let mut stream = Stream::new(caller, Arc::new(SdsConfig::default()), body, exchange);
    tokio::time::pause();
    let status = stream.next().await.unwrap_err();
    check_refused(&status, Code::DeadlineExceeded, Reason::TooSlow, "no request came");
}

#[tokio::test]
async fn both_forms_of_streams_count_together_and_beyond_their_limit_a_proxy_is_told_when_to_come_back() {
    let rig = rig().await;
    rig.publish(&["a"]);
    let rate_limits = RateLimits { stream_secrets: 1, ..RateLimits::default() };
    let settings = GateSettings { rate_limits, ..GateSettings::default() };
    let callers = Callers::new(unix(), ProcRoot::default());
    let sds = Sds::new(
        Gate::with(settings, rig.cache.clone(), callers, rig.shutdown.clone()),
        SdsConfig::default(),
    );
    let mut child = child();
    let client = |pid| SecretDiscoveryServiceClient::with_interceptor(sds.clone(), calling_as(pid));
    let opened = client(child.id()).stream_secrets(tokio_stream::once(names(&["default"]))).await;
    assert_eq!(next(&mut opened.unwrap().into_inner()).await.resources.len(), 1);
    let mut calls = 0;
    let refused = loop {
        calls += 1;
        match client(child.id()).delta_secrets(tokio_stream::empty()).await {
            Err(refused) => break refused,
            Ok(_) => assert!(calls < 100_000, "no limit"),
        }
    };
    let text = "rate limit exceeded for /envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets";
    check_refused(&refused, Code::Unavailable, Reason::Overloaded, text);
    assert!(retry_after_of(&refused).is_some());
    assert!(client(child.id()).fetch_secrets(names(&["default"])).await.is_ok(), "a method without a limit");
    for _ in 0..10 {
        let ours = client(std::process::id()).stream_secrets(tokio_stream::empty()).await;
        assert!(ours.is_ok(), "the agent itself");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
