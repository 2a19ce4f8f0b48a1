//! A server that speaks the real API over real TLS, keeps everything in memory, and does as the test tells it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{Stream, StreamExt};
use spindle_keys::{Key, KeyType};
use spindle_proto::convert::{bundle_to_proto, entry_to_proto, spiffe_id_to_proto};
use spindle_proto::refusal::{agent_refusal, item_ok, item_refusal, refusal};
use spindle_proto::spire::api::server::{
    agent::v1 as agent, bundle::v1 as bundle, entry::v1 as entry, svid::v1 as svid,
};
use spindle_proto::spire::api::types;
use spindle_proto::sync::v1 as sync;
use spindle_runtime::SystemClock;
use spindle_spiffe_core::{
    Bundle, Clock, Reason, RegistrationEntry, SpiffeId, Timestamp, Validity, X509Bundles, X509Svid,
};
use spindle_testkit::{NodePki, TestAuthority};
use spindle_transport::{LiveBundles, LiveIdentity, Peer, ServerTls, TlsListener, VerifiedPeer, grpc_server};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::wrappers::{ReceiverStream, WatchStream};
use tonic::{Code, Request, Response, Status, Streaming};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

mod agents;
mod bundles;
mod entries;
mod following;
mod nodes;
mod svids;
mod tokens;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What there is at one revision.
#[derive(Clone, Default)]
pub(crate) struct Content {
    pub(crate) number: u64,
    pub(crate) entries: BTreeMap<String, RegistrationEntry>,
}

/// The knobs and the notes of the fake.
pub(crate) struct Fake {
    pub(crate) ca: TestAuthority,
    /// Signs agents' SVIDs instead of `ca` from when a test sets it; `ca` is then trusted by agents alone.
    next_ca: Mutex<Option<TestAuthority>>,
    /// Whose certificates the server takes.
    clients: LiveBundles,
    /// Vouches for nodes.
    pub(crate) node_root: NodePki,
    /// Whether nodes are refused as banned.
    pub(crate) banned: AtomicBool,
    /// How often a node has proved its certificate.
    pub(crate) proofs: watch::Sender<u32>,
    /// How often one was turned away as banned.
    pub(crate) turned_away: watch::Sender<u32>,
    pub(crate) tokens: Mutex<Vec<String>>,
    /// Calls of agents are refused for this reason.
    pub(crate) refuse: watch::Sender<Option<Reason>>,
    pub(crate) content: watch::Sender<Content>,
    /// The history id shown, sixteen times this byte.
    pub(crate) history: Mutex<u8>,
    pub(crate) push: bool,
    pub(crate) agent_ttl_secs: AtomicI64,
    /// What each stream said in its hello.
    pub(crate) hellos: Mutex<Vec<sync::Hello>>,
    pub(crate) acknowledged: watch::Sender<u64>,
    /// Serial numbers of agents in the order of their first authenticated call.
    pub(crate) serials: watch::Sender<Vec<String>>,
    /// How many more times GetBundle fails.
    pub(crate) bundle_failures: AtomicI64,
    pub(crate) versions: Mutex<Vec<String>>,
    /// Ids asked for in full by polling agents.
    pub(crate) asked: Mutex<Vec<String>>,
    /// What signs JWT-SVIDs; nothing at first.
    pub(crate) jwt: tokens::Tokens,
}

/// A fake that listens, on a runtime of its own that can be torn down with all its connections.
pub(crate) struct Listening {
    pub(crate) addr: SocketAddr,
    runtime: Runtime,
}

impl Fake {
    pub(crate) fn new(push: bool, agent_ttl_secs: i64) -> Arc<Self> {
        let ca = TestAuthority::with_validity("prod.example", long_valid());
        Arc::new(Self {
            next_ca: Mutex::default(),
            clients: LiveBundles::new(X509Bundles::from(ca.x509_bundle())),
            ca,
            node_root: NodePki::root("operator's root", SystemClock.now()),
            banned: AtomicBool::new(false),
            proofs: watch::Sender::new(0),
            turned_away: watch::Sender::new(0),
            tokens: Mutex::new(vec!["good".into()]),
            refuse: watch::Sender::new(None),
            content: watch::Sender::new(Content { number: 1, ..Content::default() }),
            history: Mutex::new(1),
            push,
            agent_ttl_secs: AtomicI64::new(agent_ttl_secs),
            hellos: Mutex::default(),
            acknowledged: watch::Sender::new(0),
            serials: watch::Sender::default(),
            bundle_failures: AtomicI64::new(0),
            versions: Mutex::default(),
            asked: Mutex::default(),
            jwt: tokens::Tokens::default(),
        })
    }

    pub(crate) async fn listen(self: &Arc<Self>) -> Listening {
        let identity = LiveIdentity::new();
        let key = Key::generate(KeyType::EcP256).unwrap();
        let server = self.ca.issue_with(&self.ca.id("/spire/server"), key, long_valid());
        identity.set(server.svid.chain().to_vec(), &server.key.pkcs8_der()).unwrap();
        let tls = ServerTls { identity, bundles: self.clients.clone(), clock: SystemClock::shared() };
        let runtime = Runtime::new().unwrap();
        let listener =
            runtime.spawn(async move { TlsListener::bind(([127, 0, 0, 1], 0).into(), tls).await.unwrap() });
        let listener = listener.await.unwrap();
        let addr = listener.local_addr();
        let service = || Service(self.clone());
        let mut builder = grpc_server();
        let mut router = builder
            .add_service(agent::agent_server::AgentServer::new(service()))
            .add_service(bundle::bundle_server::BundleServer::new(service()))
            .add_service(entry::entry_server::EntryServer::new(service()))
            .add_service(svid::svid_server::SvidServer::new(service()));
        if self.push {
            router = router.add_service(sync::sync_server::SyncServer::new(service()));
        }
        runtime.spawn(async move { router.serve_with_incoming(listener.incoming()).await });
        Listening { addr, runtime }
    }

    pub(crate) fn put(&self, entries: impl IntoIterator<Item = RegistrationEntry>) -> u64 {
        self.content.send_modify(|content| {
            content.number += 1;
            content.entries.extend(entries.into_iter().map(|entry| (entry.id.to_string(), entry)));
        });
        self.content.borrow().number
    }

    pub(crate) fn remove(&self, id: &str) {
        self.content.send_modify(|content| {
            content.number += 1;
            content.entries.remove(id);
        });
    }

    /// From now on another authority signs, and agents of the old one are not let in.
    pub(crate) fn distrust_agents(&self) {
        let next = TestAuthority::with_validity("prod.example", long_valid());
        self.clients.set(X509Bundles::from(next.x509_bundle()));
        *self.next_ca.lock().unwrap() = Some(next);
    }

    fn bundle(&self) -> Bundle {
        let mut bundle = self.ca.bundle();
        bundle
            .x509_authorities
            .extend(self.next_ca.lock().unwrap().iter().map(TestAuthority::x509_authority));
        bundle.jwt_authorities = self.jwt.authorities();
        bundle
    }

    fn agent_ttl_secs(&self) -> i64 {
        self.agent_ttl_secs.load(Ordering::SeqCst)
    }

    fn sign(&self, id: &SpiffeId, csr: &[u8], ttl_secs: i64) -> Result<X509Svid, Status> {
        let (_, csr) = X509CertificationRequest::from_der(csr)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        csr.verify_signature().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let now = SystemClock.now();
        let validity = Validity { not_before: now - 10, not_after: now + ttl_secs };
        let (next, spki) = (self.next_ca.lock().unwrap(), csr.certification_request_info.subject_pki.raw);
        Ok(next.as_ref().unwrap_or(&self.ca).sign(id, spki, &[], validity))
    }

    /// The agent behind a call, unless the test wants it refused.
    fn agent<T>(&self, request: &Request<T>, method: &str) -> Result<VerifiedPeer, Status> {
        let Some(Peer::Tls { identity: Some(peer), .. }) = spindle_transport::peer_of(request) else {
            return Err(Status::unauthenticated("no certificate"));
        };
        if let Some(reason) = *self.refuse.borrow() {
            return Err(agent_refusal(method, reason));
        }
        let serial = peer.serial().to_string();
        self.serials.send_if_modified(|serials| {
            let is_new = !serials.contains(&serial);
            if is_new {
                serials.push(serial);
            }
            is_new
        });
        Ok(peer.clone())
    }

    fn revision(&self, number: u64) -> Option<sync::Revision> {
        Some(sync::Revision { history: vec![*self.history.lock().unwrap(); 16].into(), number })
    }

    /// The update that leads from `old` to `new`; from nothing it is a snapshot.
    fn update(&self, old: Option<&Content>, new: &Content) -> sync::FollowResponse {
        let is_new = |entry: &&RegistrationEntry| {
            old.is_none_or(|old| old.entries.get(entry.id.as_str()) != Some(*entry))
        };
        let gone = |id: &&String| !new.entries.contains_key(*id);
        sync::FollowResponse {
            revision: self.revision(new.number),
            snapshot: old.is_none(),
            last: true,
            entries: new.entries.values().filter(is_new).map(entry_to_proto).collect(),
            removed_entry_ids: old.iter().flat_map(|old| old.entries.keys().filter(gone).cloned()).collect(),
            bundle: old.is_none().then(|| bundle_to_proto(&self.bundle())),
            ..Default::default()
        }
    }
}

impl Listening {
    /// Gone at once, as if killed.
    pub(crate) fn kill(self) {
        self.runtime.shutdown_background();
    }
}

/// Of a server that has been up for an hour, so that agents with a wrong clock can talk to it.
fn long_valid() -> Validity {
    let now = SystemClock.now();
    Validity { not_before: now - 3600, not_after: now + 7200 }
}

struct Service(Arc<Fake>);

fn x509(svid: &X509Svid) -> types::X509svid {
    types::X509svid {
        cert_chain: svid.chain().iter().map(|der| der.to_vec().into()).collect(),
        id: Some(spiffe_id_to_proto(svid.spiffe_id())),
        expires_at: svid.validity().not_after.unix_secs(),
        ..Default::default()
    }
}

fn not_faked() -> Status {
    Status::unimplemented("the fake has no such method")
}
