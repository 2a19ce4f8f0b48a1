//! A whole trust domain in one process: a real server, real agents and real callers over real sockets.
//!
//! Only the process boundary is left out; what needs one (signals, other users) starts the binaries instead. Nothing here
//! sleeps: callers wait for a message or for a condition. Start at [`Domain::start`].

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use spindle_agent::{Agent, AgentConfig, Bootstrap, JoinToken};
use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::spire::api::server::agent::v1 as agent_api;
use spindle_proto::spire::api::server::svid::v1 as svid_api;
use spindle_proto::spire::api::types;
use spindle_proto::workload;
use spindle_runtime::{Shutdown, SystemClock, SystemEntropy};
use spindle_server::{
    CaSubject, KeySettings, KeyType, RunningServer, Server, ServerConfig, ServerError, StoreKind,
    StoreSettings,
};
use spindle_spiffe_core::{SpiffeId, TrustDomain};
use spindle_testkit::TestFolder;
use spindle_transport::connect_unix;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Request, Streaming};

mod admin;
pub mod light;
pub mod requirements;

pub use admin::Admin;

/// Far beyond any healthy answer: reaching it is a failure, not a slow machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The trust domain of all tests.
pub const TRUST_DOMAIN: &str = "example.org";

/// A server that serves, in its own folder.
pub struct Domain {
    folder: TestFolder,
    config: ServerConfig,
    shutdown: Shutdown,
    addr: std::net::SocketAddr,
    serving: Option<JoinHandle<Result<()>>>,
}

/// An agent that serves.
pub struct Node {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// Path of the workload socket.
    pub socket_path: PathBuf,
    shutdown: Shutdown,
    running: JoinHandle<Result<()>>,
}

#[expect(clippy::disallowed_methods, reason = "the handle is kept and awaited by Domain and Node")]
fn spawn(task: impl Future<Output = Result<()>> + Send + 'static) -> JoinHandle<Result<()>> {
    tokio::spawn(task)
}

/// The trust domain of all tests, parsed.
pub fn trust_domain() -> TrustDomain {
    TRUST_DOMAIN.parse().expect("the constant is a trust domain name")
}

/// `spiffe://example.org` + `path`.
pub fn id(path: &str) -> SpiffeId {
    trust_domain().member(path).expect("tests use valid paths")
}

impl Domain {
    /// Starts a server on the given kind of store, with lifetimes in seconds.
    pub async fn start(kind: StoreKind, ca_ttl_secs: i64, svid_ttl_secs: i64) -> Result<Self> {
        Self::start_with(kind, ca_ttl_secs, svid_ttl_secs, |_| ()).await
    }

    /// The same, with other settings than usual.
    pub async fn start_with(
        kind: StoreKind,
        ca_ttl_secs: i64,
        svid_ttl_secs: i64,
        change: impl FnOnce(&mut ServerConfig),
    ) -> Result<Self> {
        let folder = TestFolder::new();
        let mut config = ServerConfig {
            trust_domain: trust_domain(),
            bind_address: std::net::Ipv4Addr::LOCALHOST.into(),
            bind_port: 0,
            socket_path: folder.socket("server.sock"),
            store: StoreSettings { kind, directory: folder.join("store") },
            keys: KeySettings::Disk(folder.join("keys.json")),
            ca_key_type: KeyType::EcP256,
            ca_ttl_secs,
            ca_subject: CaSubject::default(),
            default_x509_svid_ttl_secs: svid_ttl_secs,
            agent_ttl_secs: svid_ttl_secs,
            jwt: Default::default(),
            wit: Default::default(),
            node_attestors: Default::default(),
            agent_spiffe_id_as_selector: false,
            operations: Default::default(),
            admin_ids: Vec::new(),
            roles: Vec::new(),
            // Every agent comes from one address here.
            rate_limits: spindle_server::RateLimitSettings { attestation: false, signing: false },
            signing_queue_max: ServerConfig::SIGNING_QUEUE_MAX,
            upstream: None,
        };
        change(&mut config);
        let mut domain = Self {
            folder,
            config,
            shutdown: Shutdown::new(),
            addr: ([127, 0, 0, 1], 0).into(),
            serving: None,
        };
        domain.boot().await?;
        Ok(domain)
    }

    async fn boot(&mut self) -> Result<()> {
        self.shutdown = Shutdown::new();
        let server =
            tokio::time::timeout(PATIENCE, self.start_server()).await.context("its port stays taken")?;
        let server = server.context("the server does not start")?;
        self.addr = server.addr();
        // A restarted server must come back where its agents look for it.
        self.config.bind_port = self.addr.port();
        self.serving = Some(spawn(async move { Ok(server.wait().await?) }));
        Ok(())
    }

    /// While a restarted server was away, any connection of this machine may have been given its port for a moment.
    async fn start_server(&self) -> Result<RunningServer, ServerError> {
        loop {
            let (config, shutdown) = (self.config.clone(), self.shutdown.clone());
            match Server::start(config, SystemClock::shared(), Arc::new(SystemEntropy), shutdown).await {
                Err(ServerError::Port { source, .. }) if source.kind() == ErrorKind::AddrInUse => {}
                started => return started,
            }
            tokio::task::yield_now().await;
        }
    }

    /// Stops the server in order and waits for its end.
    pub async fn stop(&mut self) -> Result<()> {
        self.shutdown.begin();
        match self.serving.take() {
            Some(serving) => tokio::time::timeout(PATIENCE, serving).await??,
            None => Ok(()),
        }
    }

    /// Starts the server again on the same store, keys and port.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.boot().await
    }

    /// Starts the server again on the same store, but for another trust domain.
    pub async fn restart_as(&mut self, name: &str) -> Result<()> {
        self.config.trust_domain = name.parse()?;
        self.restart().await
    }

    /// The folder that everything of this trust domain is in.
    pub fn folder(&self) -> &TestFolder {
        &self.folder
    }

    /// A connection to the admin socket.
    pub async fn admin(&self) -> Result<Channel> {
        Ok(connect_unix(&self.config.socket_path).await?)
    }

    /// The admin socket's calls.
    pub async fn admin_calls(&self) -> Result<Admin> {
        Admin::connect(&self.config.socket_path).await
    }

    /// Makes a join token.
    pub async fn join_token(&self) -> Result<String> {
        self.admin_calls().await?.join_token().await
    }

    /// The trust domain's bundle as PEM.
    pub async fn bundle_pem(&self) -> Result<String> {
        Ok(self.admin_calls().await?.bundle().await?.to_pem())
    }

    /// Starts an agent with a fresh join token and waits until it is ready.
    pub async fn node(&self, name: &str) -> Result<Node> {
        let token = self.join_token().await?;
        let agent_id = id(&format!("/spire/agent/join_token/{token}"));
        self.node_with(name, agent_id, |config| config.join_token = Some(JoinToken::new(token))).await
    }

    /// Starts an agent that proves itself as `change` says and will be `agent_id`, and waits until it is ready.
    pub async fn node_with(
        &self,
        name: &str,
        agent_id: SpiffeId,
        change: impl FnOnce(&mut AgentConfig),
    ) -> Result<Node> {
        let bundle = self.folder.file(&format!("{name}.pem"), self.bundle_pem().await?.as_bytes());
        let mut config = AgentConfig::new(
            trust_domain(),
            "127.0.0.1",
            self.addr.port(),
            self.folder.join(name),
            self.folder.socket(&format!("{name}.sock")),
            Bootstrap::File { path: bundle, format: Default::default() },
        );
        change(&mut config);
        let socket_path = config.socket_path.clone();
        let shutdown = Shutdown::new();
        let agent = Agent::start(config, SystemClock::shared(), Arc::new(SystemEntropy), shutdown.clone())
            .context("the agent does not start")?;
        let mut ready = agent.ready();
        let running = spawn(async move { Ok(agent.wait().await?) });
        tokio::time::timeout(PATIENCE, ready.wait_for(|ready| *ready))
            .await
            .context("the agent is not ready in time")??;
        Ok(Node { id: agent_id, socket_path, shutdown, running })
    }

    /// Registers `path` for callers with `selectors` below `parent`; returns the entry's id.
    pub async fn register(&self, parent: &SpiffeId, path: &str, selectors: &[&str]) -> Result<String> {
        self.register_with(entry(parent, path, selectors)?).await
    }

    /// Registers an entry; returns its id.
    pub async fn register_with(&self, entry: types::Entry) -> Result<String> {
        self.admin_calls().await?.register(entry).await
    }

    /// Deletes an entry.
    pub async fn unregister(&self, entry_id: &str) -> Result<()> {
        self.admin_calls().await?.unregister(entry_id).await
    }

    /// Clients of the agent and SVID services over the admin socket.
    pub async fn admin_clients(
        &self,
    ) -> Result<(agent_api::agent_client::AgentClient<Channel>, svid_api::svid_client::SvidClient<Channel>)>
    {
        let channel = self.admin().await?;
        Ok((
            agent_api::agent_client::AgentClient::new(channel.clone()),
            svid_api::svid_client::SvidClient::new(channel),
        ))
    }
}

/// A wire entry for `path` below `parent`.
pub fn entry(parent: &SpiffeId, path: &str, selectors: &[&str]) -> Result<types::Entry> {
    let split = |text: &&str| {
        let (kind, value) = text.split_once(':').context("selectors are type:value")?;
        Ok(types::Selector { r#type: kind.into(), value: value.into() })
    };
    Ok(types::Entry {
        spiffe_id: Some(spiffe_id_to_proto(&id(path))),
        parent_id: Some(spiffe_id_to_proto(parent)),
        selectors: selectors.iter().map(split).collect::<Result<_>>()?,
        ..Default::default()
    })
}

/// The selector of this very process.
pub fn own_uid() -> String {
    format!("unix:uid:{}", nix::unistd::getuid())
}

impl Node {
    /// Opens a FetchX509SVID stream as this process.
    pub async fn stream(&self) -> Result<Streaming<workload::X509svidResponse>, tonic::Status> {
        let channel = connect_unix(&self.socket_path)
            .await
            .map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        svid_stream(channel).await
    }

    /// A client of its Workload API.
    pub async fn workload(&self) -> Result<WorkloadClient> {
        Ok(WorkloadClient::new(connect_unix(&self.socket_path).await?))
    }

    /// Opens a stream once this process is served, and its first message. An acknowledged entry is on its way to the agent,
    /// not yet there: until then the agent rightly knows of no identity.
    pub async fn served_stream(
        &self,
    ) -> Result<(Streaming<workload::X509svidResponse>, workload::X509svidResponse)> {
        let attempts = async {
            loop {
                let refused = match self.stream().await {
                    Err(status) => status,
                    Ok(mut stream) => match stream.message().await {
                        Ok(Some(first)) => return Ok((stream, first)),
                        Ok(None) => bail!("the stream has ended"),
                        Err(status) => status,
                    },
                };
                if refused.code() != tonic::Code::PermissionDenied {
                    return Err(refused.into());
                }
            }
        };
        tokio::time::timeout(PATIENCE, attempts).await.context("this process is not served in time")?
    }

    /// Waits until the agent ends by itself, and returns why.
    pub async fn end(self) -> Result<anyhow::Error> {
        let ended = tokio::time::timeout(PATIENCE, self.running).await.context("the agent goes on")??;
        ended.err().context("the agent was told to end")
    }

    /// Stops the agent in order and waits for its end.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, self.running).await??
    }
}

/// A client of the Workload API.
pub type WorkloadClient = workload::spiffe_workload_api_client::SpiffeWorkloadApiClient<Channel>;

/// A request to the Workload API, with the header that every call must carry.
pub fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", tonic::metadata::MetadataValue::from_static("true"));
    request
}

/// Opens a FetchX509SVID stream on a connection to the Workload API.
pub async fn svid_stream(channel: Channel) -> Result<Streaming<workload::X509svidResponse>, tonic::Status> {
    let request = with_header(workload::X509svidRequest {});
    Ok(WorkloadClient::new(channel).fetch_x509svid(request).await?.into_inner())
}

/// The JWT-SVIDs of this process for `audience`.
pub async fn jwt_svids(channel: Channel, audience: &[&str]) -> Result<Vec<workload::Jwtsvid>, tonic::Status> {
    let audience = audience.iter().map(|one| (*one).to_owned()).collect();
    let request = with_header(workload::JwtsvidRequest { audience, spiffe_id: String::new() });
    Ok(WorkloadClient::new(channel).fetch_jwtsvid(request).await?.into_inner().svids)
}

/// The next message of a stream; an error when it ends or stays silent.
pub async fn next(stream: &mut Streaming<workload::X509svidResponse>) -> Result<workload::X509svidResponse> {
    match tokio::time::timeout(PATIENCE, stream.message()).await.context("the stream stays silent")? {
        Ok(Some(message)) => Ok(message),
        Ok(None) => bail!("the stream has ended"),
        Err(status) => Err(status.into()),
    }
}

/// The SPIFFE IDs in a message, in order.
pub fn ids(message: &workload::X509svidResponse) -> Vec<String> {
    message.svids.iter().map(|svid| svid.spiffe_id.clone()).collect()
}
