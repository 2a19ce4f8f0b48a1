//! A real client over mutual TLS against the endpoint, over a cache that the test fills.

mod door;
mod pods;
mod streams;
mod tokens;

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use spindle_attest::{ProcRoot, UnixAttestor, UnixConfig, WorkloadAttestor};
use spindle_keys::{Key, KeyType};
use spindle_proto::broker::api_client::ApiClient;
use spindle_proto::broker::{
    self as wire, KubernetesObjectKey, KubernetesObjectReference, KubernetesObjectType, WorkloadPidReference,
    WorkloadReference,
};
use spindle_proto::refusal::{reason_of, standard_reason_of};
use spindle_proto::workload_reference::{OBJECT, PID};
use spindle_runtime::{Shutdown, TaskSet};
use spindle_spiffe_core::{RegistrationEntry, SpiffeId, X509Bundle};
use spindle_testkit::TestFolder;
use spindle_transport::{ExpectedServer, LiveIdentity, TlsDialer, Trust};
use tokio::sync::watch;
use tonic::Streaming;
use tonic::transport::Channel;

use super::*;
use crate::cache::{Cache, Change};
use crate::callers::Callers;
use crate::config::{ANY_REFERENCE_TYPE, AllowedBroker, AllowedReferenceType, BrokerConfig};
use crate::fixtures::{Authority, FakeIssuer, ManualClock, NOW, entry, trust_domain};

const LONG: Duration = Duration::from_secs(60);

const AGENT: &str = "spiffe://prod.example/spire/agent/join_token/t";

/// May name workloads in every way, over TCP too.
const ANYHOW: &str = "spiffe://prod.example/anyhow";

/// May name processes, on this machine.
const BY_PID: &str = "spiffe://prod.example/by-pid";

/// Like the first, of another trust domain.
const FOREIGN: &str = "spiffe://other.example/broker";

struct Rig {
    cache: Arc<Cache>,
    ca: Authority,
    foreign: Authority,
    issuer: Arc<FakeIssuer>,
    clock: ManualClock,
    identity: LiveIdentity,
    socket: PathBuf,
    address: SocketAddr,
    shutdown: Shutdown,
    _own: watch::Sender<X509Bundle>,
    _tasks: TaskSet,
    _folder: TestFolder,
}

fn brokers() -> Vec<AllowedBroker> {
    let one = |id: &str, type_url: &str, allow_over_tcp| AllowedBroker {
        id: id.parse().unwrap(),
        allowed_reference_types: vec![AllowedReferenceType { type_url: type_url.into(), allow_over_tcp }],
    };
    vec![
        one(ANYHOW, ANY_REFERENCE_TYPE, true),
        one(BY_PID, PID, false),
        one(FOREIGN, ANY_REFERENCE_TYPE, true),
    ]
}

fn rig() -> Rig {
    rig_of(brokers())
}

fn rig_of(brokers: Vec<AllowedBroker>) -> Rig {
    rig_with(brokers, None)
}

fn rig_with(brokers: Vec<AllowedBroker>, kubelet: Option<Kubelet>) -> Rig {
    let (folder, shutdown, mut tasks) = (TestFolder::new(), Shutdown::new(), TaskSet::new());
    let (cache, clock) = (Arc::new(Cache::new(trust_domain())), ManualClock::default());
    let issuer = Arc::new(FakeIssuer::default());
    let attestors: Vec<Box<dyn WorkloadAttestor>> = vec![Box::new(UnixAttestor::new(UnixConfig::default()))];
    let gate = Gate::new(cache.clone(), Callers::new(attestors, ProcRoot::default()), shutdown.clone());
    let ca = Authority::new(&trust_domain());
    let identity = presenting(&ca, &AGENT.parse().unwrap());
    let (own, own_bundle) = watch::channel(ca.bundle.clone());
    let socket = folder.socket("broker.sock");
    let config = BrokerConfig {
        socket_path: Some(socket.clone()),
        bind_address: Some(([127, 0, 0, 1], 0).into()),
        brokers,
    };
    let sockets = BrokerSockets::bind(&config, None).unwrap();
    let address = sockets.address().unwrap();
    let tokens = issuer.source(&cache, &clock);
    let endpoint =
        Endpoint { gate, tokens, clock: clock.shared(), identity: identity.clone(), own_bundle, kubelet };
    let stop = shutdown.clone();
    tasks.spawn("broker", async move { sockets.serve(endpoint, &config, stop).await });
    let foreign = Authority::new(&"other.example".parse().unwrap());
    Rig {
        cache,
        ca,
        foreign,
        issuer,
        clock,
        identity,
        socket,
        address,
        shutdown,
        _own: own,
        _tasks: tasks,
        _folder: folder,
    }
}

/// An identity that ends an hour after [`NOW`].
fn presenting(ca: &Authority, id: &SpiffeId) -> LiveIdentity {
    let key = Key::generate(KeyType::EcP256).unwrap();
    let svid = ca.sign(id, key.spki_der(), NOW, 3600);
    let identity = LiveIdentity::new();
    identity.set(svid.chain().to_vec(), &key.pkcs8_der()).unwrap();
    identity
}

impl Rig {
    fn dialer(&self, id: Option<&str>) -> TlsDialer {
        let trust = Trust::Bundles(LiveBundles::new(self.ca.bundle.clone().into()));
        let (host, port) = (self.address.ip().to_string(), self.address.port());
        let expected = ExpectedServer::Id(AGENT.parse().unwrap());
        let dialer = TlsDialer::new(host, port, trust, expected, self.clock.shared());
        match id.map(|id| id.parse::<SpiffeId>().unwrap()) {
            None => dialer,
            Some(id) => {
                let is_own = id.is_member_of(&trust_domain());
                dialer.with_identity(presenting(if is_own { &self.ca } else { &self.foreign }, &id))
            }
        }
    }

    async fn channel(&self, id: &str) -> Channel {
        self.dialer(Some(id)).connect_unix(&self.socket).await.unwrap()
    }

    async fn client(&self, id: &str) -> ApiClient<Channel> {
        ApiClient::new(self.channel(id).await)
    }

    /// Completes the first sync with these entries signed.
    fn publish(&self, entries: Vec<RegistrationEntry>) {
        let put = entries.into_iter().map(|entry| self.ca.identity(&self.cache, entry)).collect();
        let own_bundle = Some(self.issuer.in_bundle(self.ca.whole()));
        self.cache.publish(Change { put, own_bundle, synced: true, ..Change::default() });
    }

    fn remove(&self, id: &str) {
        self.cache.publish(Change { removed: vec![id.parse().unwrap()], ..Change::default() });
    }
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

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// An entry for whoever runs the tests.
fn mine(id: &str) -> RegistrationEntry {
    entry(id, &[&format!("unix:uid:{}", std::fs::metadata("/proc/self").unwrap().uid())])
}

fn nobodys(id: &str) -> RegistrationEntry {
    entry(id, &["unix:uid:4000000"])
}

fn reference(type_url: &str, value: Vec<u8>) -> Option<WorkloadReference> {
    Some(WorkloadReference { reference: Some(Any { type_url: type_url.into(), value }) })
}

fn by_pid(pid: i32) -> Option<WorkloadReference> {
    reference(PID, WorkloadPidReference { pid }.encode_to_vec())
}

/// This test's own process.
fn me() -> Option<WorkloadReference> {
    by_pid(i32::try_from(std::process::id()).unwrap())
}

fn pod(name: &str) -> Option<WorkloadReference> {
    let object = KubernetesObjectReference {
        r#type: Some(KubernetesObjectType { plural: "pods".into(), group: "core".into() }),
        key: Some(KubernetesObjectKey { namespace: "shop".into(), name: name.into() }),
        uid: String::new(),
    };
    reference(OBJECT, object.encode_to_vec())
}

fn with_header<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(super::door::SECURITY_HEADER, "true".parse().unwrap());
    request
}

type Refusal = (Code, Option<String>, Option<&'static str>);

/// Code, the standard's reason and ours.
fn refusal_of(status: &Status) -> Refusal {
    let ours = reason_of(status).unwrap_or_default();
    let ours = Reason::ALL.iter().find(|reason| reason.code() == ours).map(|reason| reason.code());
    (status.code(), standard_reason_of(status), ours)
}

fn expected(code: Code, standard: &str, ours: Reason) -> Refusal {
    (code, (!standard.is_empty()).then(|| standard.to_owned()), Some(ours.code()))
}

/// What each of the four methods says to a reference, when it refuses.
async fn all_four(
    client: &ApiClient<Channel>,
    reference: Option<WorkloadReference>,
) -> Vec<Result<(), Status>> {
    let mut client = client.clone();
    let svids = SubscribeToX509svidRequest { reference: reference.clone() };
    let bundles = SubscribeToX509BundlesRequest { reference: reference.clone() };
    let tokens = FetchJwtsvidRequest {
        reference: reference.clone(),
        audience: vec!["a".into()],
        spiffe_id: String::new(),
    };
    let keys = SubscribeToJwtBundlesRequest { reference };
    vec![
        client.subscribe_to_x509svid(with_header(svids)).await.map(drop),
        client.subscribe_to_x509_bundles(with_header(bundles)).await.map(drop),
        client.fetch_jwtsvid(with_header(tokens)).await.map(drop),
        client.subscribe_to_jwt_bundles(with_header(keys)).await.map(drop),
    ]
}

async fn check_all_four(
    client: &ApiClient<Channel>,
    reference: Option<WorkloadReference>,
    refusal: &Refusal,
) {
    for answer in all_four(client, reference).await {
        assert_eq!(&refusal_of(&answer.unwrap_err()), refusal);
    }
}

async fn svids(
    client: &ApiClient<Channel>,
    reference: Option<WorkloadReference>,
) -> Result<Streaming<wire::SubscribeToX509svidResponse>, Status> {
    let asked = with_header(SubscribeToX509svidRequest { reference });
    client.clone().subscribe_to_x509svid(asked).await.map(tonic::Response::into_inner)
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    let message = tokio::time::timeout(LONG, stream.message()).await.expect("an answer");
    message.map(|message| message.expect("no end without a status"))
}

fn ids(answer: &wire::SubscribeToX509svidResponse) -> Vec<&str> {
    answer.svids.iter().map(|one| one.spiffe_id.as_str()).collect()
}
