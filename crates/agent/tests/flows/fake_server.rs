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

mod nodes;
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

#[tonic::async_trait]
impl agent::agent_server::Agent for Service {
    type AttestAgentStream = Answers<agent::AttestAgentResponse>;

    async fn attest_agent(
        &self,
        request: Request<Streaming<agent::AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.step);
        let Some(agent::attest_agent_request::Step::Params(params)) = first else {
            return Err(Status::invalid_argument("no params"));
        };
        let data = params.data.unwrap_or_default();
        if data.r#type == "x509pop" {
            let csr = params.params.unwrap_or_default().csr.to_vec();
            return Ok(Response::new(self.0.prove(&data.payload, csr, requests)?));
        }
        assert_eq!(data.r#type, "join_token");
        let token = String::from_utf8_lossy(&data.payload).into_owned();
        let mut tokens = self.0.tokens.lock().unwrap();
        let Some(at) = tokens.iter().position(|one| *one == token) else {
            let text = "failed to attest: join token does not exist or has already been used";
            return Err(refusal(Code::InvalidArgument, Reason::JoinTokenUnknown, text));
        };
        tokens.remove(at);
        let id = self.0.ca.id(&format!("/spire/agent/join_token/{token}"));
        let svid = self.0.sign(&id, &params.params.unwrap_or_default().csr, self.0.agent_ttl_secs())?;
        let result = agent::attest_agent_response::Result { svid: Some(x509(&svid)), reattestable: false };
        let step = Some(agent::attest_agent_response::Step::Result(result));
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(agent::AttestAgentResponse { step })))))
    }

    async fn renew_agent(
        &self,
        request: Request<agent::RenewAgentRequest>,
    ) -> Result<Response<agent::RenewAgentResponse>, Status> {
        let peer = self.0.agent(&request, "RenewAgent")?;
        let csr = request.into_inner().params.unwrap_or_default().csr;
        let svid = self.0.sign(peer.spiffe_id(), &csr, self.0.agent_ttl_secs())?;
        Ok(Response::new(agent::RenewAgentResponse { svid: Some(x509(&svid)) }))
    }

    async fn post_status(
        &self,
        request: Request<agent::PostStatusRequest>,
    ) -> Result<Response<agent::PostStatusResponse>, Status> {
        self.0.agent(&request, "PostStatus")?;
        self.0.versions.lock().unwrap().push(request.into_inner().agent_version);
        Ok(Response::new(agent::PostStatusResponse::default()))
    }

    async fn count_agents(
        &self,
        _: Request<agent::CountAgentsRequest>,
    ) -> Result<Response<agent::CountAgentsResponse>, Status> {
        Err(not_faked())
    }

    async fn list_agents(
        &self,
        _: Request<agent::ListAgentsRequest>,
    ) -> Result<Response<agent::ListAgentsResponse>, Status> {
        Err(not_faked())
    }

    async fn get_agent(&self, _: Request<agent::GetAgentRequest>) -> Result<Response<types::Agent>, Status> {
        Err(not_faked())
    }

    async fn delete_agent(&self, _: Request<agent::DeleteAgentRequest>) -> Result<Response<()>, Status> {
        Err(not_faked())
    }

    async fn ban_agent(&self, _: Request<agent::BanAgentRequest>) -> Result<Response<()>, Status> {
        Err(not_faked())
    }

    async fn create_join_token(
        &self,
        _: Request<agent::CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        Err(not_faked())
    }
}

#[tonic::async_trait]
impl bundle::bundle_server::Bundle for Service {
    async fn get_bundle(
        &self,
        _: Request<bundle::GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        if self.0.bundle_failures.fetch_sub(1, Ordering::SeqCst) > 0 {
            return Err(Status::unavailable("not now"));
        }
        Ok(Response::new(bundle_to_proto(&self.0.bundle())))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<bundle::GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        self.0.agent(&request, "GetFederatedBundle")?;
        match request.into_inner().trust_domain.as_str() {
            "partner.example" => {
                let partner = TestAuthority::new("partner.example", SystemClock.now());
                Ok(Response::new(bundle_to_proto(&partner.bundle())))
            }
            _ => Err(Status::not_found("bundle not found")),
        }
    }

    async fn publish_jwt_authority(
        &self,
        _: Request<bundle::PublishJwtAuthorityRequest>,
    ) -> Result<Response<bundle::PublishJwtAuthorityResponse>, Status> {
        Err(not_faked())
    }

    async fn publish_wit_authority(
        &self,
        _: Request<bundle::PublishWitAuthorityRequest>,
    ) -> Result<Response<bundle::PublishWitAuthorityResponse>, Status> {
        Err(not_faked())
    }

    async fn count_bundles(
        &self,
        _: Request<bundle::CountBundlesRequest>,
    ) -> Result<Response<bundle::CountBundlesResponse>, Status> {
        Err(not_faked())
    }

    async fn append_bundle(
        &self,
        _: Request<bundle::AppendBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        Err(not_faked())
    }

    async fn list_federated_bundles(
        &self,
        _: Request<bundle::ListFederatedBundlesRequest>,
    ) -> Result<Response<bundle::ListFederatedBundlesResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_create_federated_bundle(
        &self,
        _: Request<bundle::BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<bundle::BatchCreateFederatedBundleResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_update_federated_bundle(
        &self,
        _: Request<bundle::BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<bundle::BatchUpdateFederatedBundleResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_set_federated_bundle(
        &self,
        _: Request<bundle::BatchSetFederatedBundleRequest>,
    ) -> Result<Response<bundle::BatchSetFederatedBundleResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_delete_federated_bundle(
        &self,
        _: Request<bundle::BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<bundle::BatchDeleteFederatedBundleResponse>, Status> {
        Err(not_faked())
    }
}

#[tonic::async_trait]
impl svid::svid_server::Svid for Service {
    async fn new_downstream_x509ca(
        &self,
        _: Request<svid::NewDownstreamX509caRequest>,
    ) -> Result<Response<svid::NewDownstreamX509caResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_new_x509svid(
        &self,
        request: Request<svid::BatchNewX509svidRequest>,
    ) -> Result<Response<svid::BatchNewX509svidResponse>, Status> {
        self.0.agent(&request, "BatchNewX509SVID")?;
        let content = self.0.content.borrow().clone();
        let sign = |params: svid::NewX509svidParams| match content.entries.get(&params.entry_id) {
            Some(entry) => {
                let ttl_secs = match entry.x509_svid_ttl_secs {
                    0 => 3600,
                    secs => i64::from(secs),
                };
                let svid = self.0.sign(&entry.spiffe_id, &params.csr, ttl_secs).unwrap();
                svid::batch_new_x509svid_response::Result { status: Some(item_ok()), svid: Some(x509(&svid)) }
            }
            None => svid::batch_new_x509svid_response::Result {
                status: Some(item_refusal(
                    Code::NotFound,
                    Reason::EntryNotAuthorized,
                    "entry not found or not authorized".into(),
                )),
                svid: None,
            },
        };
        let results = request.into_inner().params.into_iter().map(sign).collect();
        Ok(Response::new(svid::BatchNewX509svidResponse { results }))
    }

    async fn mint_x509svid(
        &self,
        _: Request<svid::MintX509svidRequest>,
    ) -> Result<Response<svid::MintX509svidResponse>, Status> {
        Err(not_faked())
    }

    async fn mint_jwtsvid(
        &self,
        _: Request<svid::MintJwtsvidRequest>,
    ) -> Result<Response<svid::MintJwtsvidResponse>, Status> {
        Err(not_faked())
    }

    async fn mint_witsvid(
        &self,
        _: Request<svid::MintWitsvidRequest>,
    ) -> Result<Response<svid::MintWitsvidResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_new_witsvid(
        &self,
        _: Request<svid::BatchNewWitsvidRequest>,
    ) -> Result<Response<svid::BatchNewWitsvidResponse>, Status> {
        Err(not_faked())
    }

    async fn new_jwtsvid(
        &self,
        request: Request<svid::NewJwtsvidRequest>,
    ) -> Result<Response<svid::NewJwtsvidResponse>, Status> {
        self.0.agent(&request, "NewJWTSVID")?;
        Ok(Response::new(self.0.new_token(&request.into_inner())?))
    }
}

#[tonic::async_trait]
impl sync::sync_server::Sync for Service {
    type FollowStream = Answers<sync::FollowResponse>;

    async fn follow(
        &self,
        request: Request<Streaming<sync::FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        self.0.agent(&request, "Follow")?;
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.message);
        let Some(sync::follow_request::Message::Hello(hello)) = first else {
            return Err(Status::invalid_argument("no hello"));
        };
        self.0.hellos.lock().unwrap().push(hello);
        let fake = self.0.clone();
        let acknowledgements = futures_util::stream::unfold(requests, move |mut requests| {
            let fake = fake.clone();
            async move {
                let request = requests.message().await.ok()??;
                if let Some(sync::follow_request::Message::Acknowledge(ack)) = request.message {
                    fake.acknowledged.send_replace(ack.revision.unwrap_or_default().number);
                }
                Some((None, requests))
            }
        });
        let (fake, mut old) = (self.0.clone(), None::<Content>);
        let updates = WatchStream::new(self.0.content.subscribe()).map(move |new| {
            let update = fake.update(old.as_ref(), &new);
            old = Some(new);
            Some(Ok(update))
        });
        let refusals = WatchStream::new(self.0.refuse.subscribe())
            .map(|reason| reason.map(|reason| Err(agent_refusal("Follow", reason))));
        // Ends with the first refusal, as a real server's stream does.
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let mut all = Box::pin(futures_util::stream::select(
            futures_util::stream::select(updates, refusals),
            acknowledgements,
        ));
        let pump = async move {
            while let Some(item) = all.next().await {
                let Some(message) = item else { continue };
                let is_last = message.is_err();
                if sender.send(message).await.is_err() || is_last {
                    return;
                }
            }
        };
        // The pump runs as part of the stream itself, so it ends with it.
        let pumped = futures_util::stream::once(pump).filter_map(|()| async { None });
        Ok(Response::new(Box::pin(futures_util::stream::select(ReceiverStream::new(receiver), pumped))))
    }
}

#[tonic::async_trait]
impl entry::entry_server::Entry for Service {
    type SyncAuthorizedEntriesStream = Answers<entry::SyncAuthorizedEntriesResponse>;

    async fn sync_authorized_entries(
        &self,
        request: Request<Streaming<entry::SyncAuthorizedEntriesRequest>>,
    ) -> Result<Response<Self::SyncAuthorizedEntriesStream>, Status> {
        self.0.agent(&request, "SyncAuthorizedEntries")?;
        let mut requests = request.into_inner();
        requests.message().await?;
        let content = self.0.content.borrow().clone();
        if content.entries.len() <= 500 {
            let entries = content.entries.values().map(entry_to_proto).collect();
            let only = entry::SyncAuthorizedEntriesResponse { entries, ..Default::default() };
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(only)))));
        }
        let all: Vec<_> = content.entries.values().collect();
        let pages: Vec<_> = all.chunks(500).collect();
        let last = pages.len() - 1;
        let brief = pages.into_iter().enumerate().map(|(number, page)| {
            Ok(entry::SyncAuthorizedEntriesResponse {
                entry_revisions: page.iter().map(|one| revision(one)).collect(),
                entries: Vec::new(),
                more: number < last,
            })
        });
        let brief: Vec<_> = brief.collect();
        let fake = self.0.clone();
        let asked = requests.map(move |request| {
            let ids = request?.ids;
            fake.asked.lock().unwrap().extend(ids.clone());
            let entries = ids.iter().filter_map(|id| content.entries.get(id)).map(entry_to_proto);
            Ok(entry::SyncAuthorizedEntriesResponse { entries: entries.collect(), ..Default::default() })
        });
        Ok(Response::new(Box::pin(tokio_stream::iter(brief).chain(asked))))
    }

    async fn get_authorized_entries(
        &self,
        request: Request<entry::GetAuthorizedEntriesRequest>,
    ) -> Result<Response<entry::GetAuthorizedEntriesResponse>, Status> {
        self.0.agent(&request, "GetAuthorizedEntries")?;
        let entries = self.0.content.borrow().entries.values().map(entry_to_proto).collect();
        self.0.asked.lock().unwrap().push("everything".into());
        Ok(Response::new(entry::GetAuthorizedEntriesResponse { entries }))
    }

    async fn count_entries(
        &self,
        _: Request<entry::CountEntriesRequest>,
    ) -> Result<Response<entry::CountEntriesResponse>, Status> {
        Err(not_faked())
    }

    async fn list_entries(
        &self,
        _: Request<entry::ListEntriesRequest>,
    ) -> Result<Response<entry::ListEntriesResponse>, Status> {
        Err(not_faked())
    }

    async fn get_entry(&self, _: Request<entry::GetEntryRequest>) -> Result<Response<types::Entry>, Status> {
        Err(not_faked())
    }

    async fn batch_create_entry(
        &self,
        _: Request<entry::BatchCreateEntryRequest>,
    ) -> Result<Response<entry::BatchCreateEntryResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_update_entry(
        &self,
        _: Request<entry::BatchUpdateEntryRequest>,
    ) -> Result<Response<entry::BatchUpdateEntryResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_delete_entry(
        &self,
        _: Request<entry::BatchDeleteEntryRequest>,
    ) -> Result<Response<entry::BatchDeleteEntryResponse>, Status> {
        Err(not_faked())
    }
}

fn revision(one: &RegistrationEntry) -> entry::EntryRevision {
    let created_at = Timestamp::unix_secs(one.created_at);
    entry::EntryRevision { id: one.id.to_string(), revision_number: one.revision_number, created_at }
}

fn not_faked() -> Status {
    Status::unimplemented("the fake has no such method")
}
