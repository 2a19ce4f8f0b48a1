//! A server in a folder of its own with a clock that the test moves, and callers of every kind.
//!
//! Start at [`TestServer::start`], [`TestServer::admin`] and [`TestServer::attest`].

mod values;

use std::time::Duration;

use spindle_keys::{Key, KeyType, certificate_request};
use spindle_proto::admin::v1 as admin_api;
use spindle_proto::admin::v1::roles_client::RolesClient;
use spindle_proto::convert::{bundle_from_proto, bundle_to_proto, spiffe_id_to_proto};
use spindle_proto::refusal::reason_of;
use spindle_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use spindle_proto::spire::api::server::bundle::v1::batch_delete_federated_bundle_request::Mode;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use spindle_proto::spire::api::server::localauthority::v1::local_authority_client::LocalAuthorityClient;
use spindle_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use spindle_proto::spire::api::server::trustdomain::v1::trust_domain_client::TrustDomainClient;
use spindle_proto::spire::api::server::{
    agent::v1 as agent_api, bundle::v1 as bundle_api, entry::v1 as entry_api, svid::v1 as svid_api,
};
use spindle_proto::spire::api::types;
use spindle_runtime::{Shutdown, SystemEntropy};
use spindle_server::{
    CaSubject, EntryRules, Grant, JwtSettings, KeySettings, LiveSettings, PathPrefix, RateLimitSettings,
    Role, RoleAssignment, RoleSubject, RunningServer, Server, ServerConfig, ServerError, StoreKind,
    StoreSettings, Verb,
};
use spindle_spiffe_core::{Bundle, Reason, SpiffeId, TrustDomain, X509Bundles, X509Svid, verify_x509_svid};
use spindle_store::{Store, StoreConfig, Transaction};
use spindle_testkit::{ManualClock, NOW, TestAuthority, TestFolder};
use spindle_transport::{ExpectedServer, LiveBundles, LiveIdentity, TlsDialer, Trust, connect_unix};
use tonic::transport::Channel;
use tonic::{Code, Status};

pub(crate) use values::*;

/// Far beyond any healthy answer: reaching it is a failure, not a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Lifetime of the authority in these tests, in seconds.
pub(crate) const CA_TTL_SECS: i64 = 24 * 3600;

/// Lifetime of SVIDs in these tests, in seconds.
pub(crate) const SVID_TTL_SECS: i64 = 3600;

/// What a call answers.
pub(crate) type Answer<T> = Result<tonic::Response<T>, Status>;

/// The result of a call that must answer in time.
pub(crate) async fn in_time<T>(call: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, call).await.expect("an answer in time")
}

/// A server that serves, and what it needs to be started again.
pub(crate) struct TestServer {
    pub(crate) clock: ManualClock,
    config: ServerConfig,
    shutdown: Shutdown,
    running: Option<RunningServer>,
    _folder: TestFolder,
}

/// An attested agent with a connection of its own.
pub(crate) struct TestAgent {
    pub(crate) id: SpiffeId,
    pub(crate) key: Key,
    pub(crate) svid: X509Svid,
    pub(crate) channel: Channel,
}

impl TestServer {
    /// A server on the memory store.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    /// A server with other settings than usual.
    pub(crate) async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::try_start_with(change).await.unwrap()
    }

    /// The same, for settings with which it may not start.
    pub(crate) async fn try_start_with(change: impl FnOnce(&mut ServerConfig)) -> Result<Self, ServerError> {
        let folder = TestFolder::new();
        let mut config = ServerConfig {
            trust_domain: trust_domain(),
            bind_address: std::net::Ipv4Addr::LOCALHOST.into(),
            bind_port: 0,
            socket_path: folder.socket("server.sock"),
            store: StoreSettings { kind: StoreKind::Memory, directory: folder.join("store") },
            keys: KeySettings::Disk(folder.join("keys.json")),
            ca_key_type: KeyType::EcP256,
            ca_ttl_secs: CA_TTL_SECS,
            ca_subject: CaSubject::default(),
            default_x509_svid_ttl_secs: SVID_TTL_SECS,
            agent_ttl_secs: SVID_TTL_SECS,
            jwt: JwtSettings::default(),
            wit: Default::default(),
            node_attestors: Default::default(),
            agent_spiffe_id_as_selector: false,
            admin_ids: Vec::new(),
            roles: Vec::new(),
            // All callers come from one address here, and tests wait for nothing.
            rate_limits: RateLimitSettings { attestation: false, signing: false },
            operations: Default::default(),
            signing_queue_max: ServerConfig::SIGNING_QUEUE_MAX,
            upstream: None,
        };
        change(&mut config);
        let clock = ManualClock::default();
        let mut server = Self { clock, config, shutdown: Shutdown::new(), running: None, _folder: folder };
        server.try_boot().await?;
        Ok(server)
    }

    async fn boot(&mut self) {
        self.try_boot().await.unwrap();
    }

    async fn try_boot(&mut self) -> Result<(), ServerError> {
        self.shutdown = Shutdown::new();
        let (config, clock) = (self.config.clone(), self.clock.shared());
        let started = Server::start(config, clock, std::sync::Arc::new(SystemEntropy), self.shutdown.clone());
        self.running = Some(in_time(started).await?);
        Ok(())
    }

    /// Where it answers health probes.
    pub(crate) fn health_addr(&self) -> std::net::SocketAddr {
        self.running.as_ref().unwrap().health_addr().unwrap()
    }

    /// Where Prometheus may scrape.
    pub(crate) fn prometheus_addr(&self) -> std::net::SocketAddr {
        self.running.as_ref().unwrap().prometheus_addr().unwrap()
    }

    /// Its admin socket.
    pub(crate) fn socket_path(&self) -> &std::path::Path {
        self.running.as_ref().unwrap().socket_path()
    }

    /// Begins the shutdown and waits for its end.
    pub(crate) async fn stop(&mut self) {
        self.shutdown.begin();
        in_time(self.running.take().unwrap().wait()).await.unwrap();
    }

    /// What can be changed while it serves.
    pub(crate) fn live(&self) -> LiveSettings {
        self.running.as_ref().unwrap().live()
    }

    /// Begins the shutdown; nobody waits for its end yet.
    pub(crate) fn begin_stop(&self) {
        self.shutdown.begin();
    }

    /// A server that knows the bundle of `other.example`.
    pub(crate) async fn start_with_other_example() -> Self {
        let server = Self::start().await;
        let authority = TestAuthority::new("other.example", NOW);
        let bundle = Bundle { sequence: 7, refresh_hint_secs: Some(60), ..authority.bundle() };
        server.set_bundle(&bundle).await;
        server
    }

    /// Writes into the store of a server that has stopped.
    pub(crate) fn write_into_store(&self, transaction: Transaction) {
        let StoreSettings { kind, directory } = self.config.store.clone();
        let store = Store::open(&StoreConfig { kind, dir: directory, history: [0; 16] }).unwrap();
        store.commit_wait(transaction).unwrap().unwrap();
        store.close();
    }

    /// Lets go of the server as it stands. Its tasks end with the runtime they are in; nobody closes anything.
    pub(crate) fn abandon(&mut self) {
        drop(self.running.take());
    }

    /// Tries to start the stopped server on a port that it may not get.
    pub(crate) async fn try_boot_on(&self, port: u16) -> Result<(), ServerError> {
        let config = ServerConfig { bind_port: port, ..self.config.clone() };
        let entropy = std::sync::Arc::new(SystemEntropy);
        in_time(Server::start(config, self.clock.shared(), entropy, Shutdown::new())).await.map(|_| ())
    }

    /// Starts the stopped server again on what it left behind.
    pub(crate) async fn restart_stopped(&mut self) {
        self.boot().await;
    }

    /// Stops the server and starts it again on what it left behind.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.boot().await;
    }

    /// Stops the server and starts it again on what it left behind, with other settings.
    pub(crate) async fn restart_with(&mut self, change: impl FnOnce(&mut ServerConfig)) {
        self.stop().await;
        change(&mut self.config);
        self.boot().await;
    }

    /// A connection to the admin socket.
    pub(crate) async fn admin(&self) -> Channel {
        in_time(connect_unix(&self.config.socket_path)).await.unwrap()
    }

    pub(crate) async fn agents(&self) -> AgentClient<Channel> {
        AgentClient::new(self.admin().await)
    }

    pub(crate) async fn entries(&self) -> EntryClient<Channel> {
        EntryClient::new(self.admin().await)
    }

    pub(crate) async fn svids(&self) -> SvidClient<Channel> {
        SvidClient::new(self.admin().await)
    }

    pub(crate) async fn local_authorities(&self) -> LocalAuthorityClient<Channel> {
        LocalAuthorityClient::new(self.admin().await)
    }

    pub(crate) async fn bundles(&self) -> BundleClient<Channel> {
        BundleClient::new(self.admin().await)
    }

    pub(crate) async fn trust_domains(&self) -> TrustDomainClient<Channel> {
        TrustDomainClient::new(self.admin().await)
    }

    /// Sets the bundle of another trust domain, which must be taken.
    pub(crate) async fn set_bundle(&self, bundle: &Bundle) {
        let bundle = vec![bundle_to_proto(bundle)];
        let request = bundle_api::BatchSetFederatedBundleRequest { bundle, output_mask: None };
        let results =
            self.bundles().await.batch_set_federated_bundle(request).await.unwrap().into_inner().results;
        assert_eq!(code_of(&results[0].status), Code::Ok, "{results:?}");
    }

    /// Deletes the bundle of another trust domain; returns how that went.
    pub(crate) async fn delete_bundle(&self, name: &str, mode: Mode) -> types::Status {
        let request = bundle_api::BatchDeleteFederatedBundleRequest {
            trust_domains: vec![name.into()],
            mode: mode.into(),
        };
        let answer = in_time(self.bundles().await.batch_delete_federated_bundle(request)).await;
        answer.unwrap().into_inner().results.remove(0).status.unwrap()
    }

    /// The trust domain's bundle.
    pub(crate) async fn bundle(&self) -> Bundle {
        let answer = self.bundles().await.get_bundle(bundle_api::GetBundleRequest::default()).await.unwrap();
        bundle_from_proto(&answer.into_inner()).unwrap()
    }

    /// Checks that the trust domain's bundle vouches for the SVID in an answer, and returns it.
    pub(crate) async fn verified(&self, wire: &types::X509svid) -> X509Svid {
        let svid = parse_svid(wire);
        let bundles = X509Bundles::from(self.bundle().await.x509_bundle());
        verify_x509_svid(svid.chain(), &bundles, spindle_spiffe_core::Clock::now(&self.clock)).unwrap();
        assert_eq!(wire.id.as_ref(), Some(&spiffe_id_to_proto(svid.spiffe_id())));
        assert_eq!(wire.expires_at, svid.expires_at().unix_secs());
        svid
    }

    /// A connection over TLS, presenting nothing or an SVID with its key.
    pub(crate) async fn dial(&self, identity: Option<(&X509Svid, &Key)>) -> Channel {
        in_time(self.dialer(identity).await.connect()).await.unwrap()
    }

    /// Calls something that anyone may call, presenting an SVID that the server may refuse.
    pub(crate) async fn try_dial(
        &self,
        svid: &X509Svid,
        key: &Key,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let channel = in_time(self.dialer(Some((svid, key))).await.connect()).await?;
        in_time(BundleClient::new(channel).get_bundle(bundle_api::GetBundleRequest::default())).await?;
        Ok(())
    }

    async fn dialer(&self, identity: Option<(&X509Svid, &Key)>) -> TlsDialer {
        let trust = Trust::Bundles(LiveBundles::new(X509Bundles::from(self.bundle().await.x509_bundle())));
        let addr = self.running.as_ref().unwrap().addr();
        let expected = ExpectedServer::Id(trust_domain().server_id());
        let dialer = TlsDialer::new(addr.ip().to_string(), addr.port(), trust, expected, self.clock.shared());
        let Some((svid, key)) = identity else { return dialer };
        let live = LiveIdentity::new();
        live.set(svid.chain().to_vec(), &key.pkcs8_der()).unwrap();
        dialer.with_identity(live)
    }

    /// A connection over TLS as `path`, an identity that was minted for it.
    pub(crate) async fn dial_as(&self, path: &str) -> Channel {
        let key = Key::generate(KeyType::EcP256).unwrap();
        let csr = certificate_request(&key, Some(&id(path)), &[]).unwrap();
        let request = svid_api::MintX509svidRequest { csr: csr.into(), ttl: 0 };
        let minted = self.svids().await.mint_x509svid(request).await.unwrap().into_inner().svid.unwrap();
        self.dial(Some((&parse_svid(&minted), &key))).await
    }

    /// Connects again as an agent whose connection is gone.
    pub(crate) async fn reconnect(&self, agent: TestAgent) -> TestAgent {
        let channel = self.dial(Some((&agent.svid, &agent.key))).await;
        TestAgent { channel, ..agent }
    }

    /// Makes a join token that lasts ten minutes.
    pub(crate) async fn join_token(&self) -> String {
        let request = agent_api::CreateJoinTokenRequest { ttl: 600, ..Default::default() };
        self.agents().await.create_join_token(request).await.unwrap().into_inner().value
    }

    /// Attests a new agent with a fresh token and connects as it.
    pub(crate) async fn attest(&self) -> TestAgent {
        let token = self.join_token().await;
        let key = Key::generate(KeyType::EcP256).unwrap();
        let stranger = self.dial(None).await;
        let result = attest(stranger, token.as_bytes(), &csr_of(&key)).await.unwrap();
        self.connect(key, &result.svid.unwrap()).await
    }

    /// Connects as an agent that holds `svid`.
    pub(crate) async fn connect(&self, key: Key, svid: &types::X509svid) -> TestAgent {
        let svid = parse_svid(svid);
        let channel = self.dial(Some((&svid, &key))).await;
        TestAgent { id: svid.spiffe_id().clone(), key, svid, channel }
    }

    /// Registers entries, all of which must be taken, and returns them as they stand.
    pub(crate) async fn create(&self, entries: Vec<types::Entry>) -> Vec<types::Entry> {
        let request = entry_api::BatchCreateEntryRequest { entries, output_mask: None };
        let results = self.entries().await.batch_create_entry(request).await.unwrap().into_inner().results;
        let taken = results.into_iter().map(|result| {
            assert_eq!(result.status.as_ref().unwrap().code, 0, "{:?}", result.status);
            result.entry.unwrap()
        });
        taken.collect()
    }

    /// Registers one entry and returns its id.
    pub(crate) async fn create_one(&self, entry: types::Entry) -> String {
        self.create(vec![entry]).await.remove(0).id
    }

    /// Deletes an entry that is there.
    pub(crate) async fn delete(&self, id: &str) {
        let request = entry_api::BatchDeleteEntryRequest { ids: vec![id.to_owned()] };
        let results = self.entries().await.batch_delete_entry(request).await.unwrap().into_inner().results;
        assert_eq!(results[0].status.as_ref().unwrap().code, 0, "{results:?}");
    }

    pub(crate) async fn roles(&self) -> RolesClient<Channel> {
        RolesClient::new(self.admin().await)
    }

    /// Gives the identity of `path` a role.
    pub(crate) async fn grant(&self, path: &str, grant: admin_api::Grant) {
        let request = admin_api::GrantRoleRequest { spiffe_id: id(path).to_string(), grant: Some(grant) };
        self.roles().await.grant_role(request).await.unwrap();
    }

    /// Takes all roles from the identity of `path`.
    pub(crate) async fn revoke(&self, path: &str) {
        let request = admin_api::RevokeRoleRequest { spiffe_id: id(path).to_string(), role: String::new() };
        self.roles().await.revoke_role(request).await.unwrap();
    }

    pub(crate) async fn ban(&self, agent: &SpiffeId) {
        let request = agent_api::BanAgentRequest { id: Some(spiffe_id_to_proto(agent)) };
        self.agents().await.ban_agent(request).await.unwrap();
    }

    pub(crate) async fn evict(&self, agent: &SpiffeId) {
        let request = agent_api::DeleteAgentRequest { id: Some(spiffe_id_to_proto(agent)) };
        self.agents().await.delete_agent(request).await.unwrap();
    }
}

impl TestAgent {
    pub(crate) fn agents(&self) -> AgentClient<Channel> {
        AgentClient::new(self.channel.clone())
    }

    pub(crate) fn entries(&self) -> EntryClient<Channel> {
        EntryClient::new(self.channel.clone())
    }

    pub(crate) fn svids(&self) -> SvidClient<Channel> {
        SvidClient::new(self.channel.clone())
    }

    /// Calls a method that every agent in good standing may call.
    pub(crate) async fn knock(&self) -> Answer<agent_api::PostStatusResponse> {
        in_time(self.agents().post_status(agent_api::PostStatusRequest::default())).await
    }

    /// Renews the agent's SVID with a new key; returns both.
    pub(crate) async fn renew(&self) -> (Key, types::X509svid) {
        let key = Key::generate(KeyType::EcP256).unwrap();
        let params = Some(agent_api::AgentX509svidParams { csr: csr_of(&key).into() });
        let answer = self.agents().renew_agent(agent_api::RenewAgentRequest { params }).await.unwrap();
        (key, answer.into_inner().svid.unwrap())
    }
}

/// Attests with a join token over `channel`.
pub(crate) async fn attest(
    channel: Channel,
    token: &[u8],
    csr: &[u8],
) -> Result<agent_api::attest_agent_response::Result, Status> {
    let step = agent_api::attest_agent_request::Step::Params(agent_api::attest_agent_request::Params {
        data: Some(types::AttestationData { r#type: "join_token".into(), payload: token.to_vec().into() }),
        params: Some(agent_api::AgentX509svidParams { csr: csr.to_vec().into() }),
    });
    attest_step(channel, Some(step)).await
}

/// Opens an attestation stream whose one message is `step`.
pub(crate) async fn attest_step(
    channel: Channel,
    step: Option<agent_api::attest_agent_request::Step>,
) -> Result<agent_api::attest_agent_response::Result, Status> {
    let requests = tokio_stream::iter([agent_api::AttestAgentRequest { step }]);
    let mut answers = in_time(AgentClient::new(channel).attest_agent(requests)).await?.into_inner();
    let answer = in_time(answers.message()).await?.expect("an answer before the end");
    match answer.step {
        Some(agent_api::attest_agent_response::Step::Result(result)) => Ok(result),
        other => panic!("a join token needs no challenge: {other:?}"),
    }
}
