//! A whole trust domain in one process, for people who write applications: server, agent and entries for the caller.
//!
//! Everything goes the same way as between machines: the agent attests over TLS with a join token, entries are made over
//! the admin socket, SVIDs come from the Workload API. Start at [`LocalDomain::start`].

mod admin;
mod agent;
mod paths;
mod workload;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use spindle_keys::KeyType;
use spindle_proto::spire::api::types;
use spindle_runtime::{Shutdown, SystemClock, SystemEntropy};
use spindle_server::{CaSubject, KeySettings, Server, ServerConfig, ServerError, StoreKind, StoreSettings};
use spindle_spiffe_core::{SpiffeId, TrustDomain};

pub(crate) use admin::Admin;
pub(crate) use paths::Paths;
pub(crate) use workload::{Workload, issuer};

use crate::error::Failure;
use agent::Started;

/// What to start.
pub(crate) struct LocalSettings {
    /// The name.
    pub(crate) trust_domain: TrustDomain,
    /// Where sockets, keys and the store go.
    pub(crate) dir: PathBuf,
    /// Which store; with the memory store nothing is kept but sockets.
    pub(crate) store: StoreKind,
    /// Entries to make sure of, below the node.
    pub(crate) entries: Vec<LocalEntry>,
}

/// An identity for local processes.
pub(crate) struct LocalEntry {
    /// Stays the same over restarts.
    pub(crate) entry_id: String,
    /// The identity.
    pub(crate) spiffe_id: SpiffeId,
    /// What a process must show.
    pub(crate) selectors: Vec<types::Selector>,
    /// Lifetime of its SVIDs; the server's default when 0.
    pub(crate) ttl_secs: i32,
}

/// How far the start has come, for the person who waits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The server answers.
    ServerUp(SocketAddr),
    /// The agent goes on with an identity it kept, or joined with a new token.
    AgentUp {
        /// Whether a new token was needed.
        joined: bool,
    },
    /// An entry exists.
    EntryReady(SpiffeId),
}

type Ending = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// A running trust domain.
pub(crate) struct LocalDomain {
    admin: Admin,
    server: Ending,
    agent: Ending,
}

impl LocalDomain {
    /// Starts everything and returns once workloads are served; none when `shutdown` began before.
    ///
    /// # Errors
    /// When a part does not start; what runs already is stopped.
    pub(crate) async fn start(
        settings: LocalSettings,
        shutdown: &Shutdown,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Option<Self>, Failure> {
        let paths = Paths::make(&settings.dir)?;
        if settings.store != StoreKind::Memory {
            paths.claim(&settings.trust_domain)?;
        }
        let config = server_config(&settings, &paths);
        let (clock, entropy) = (SystemClock::shared(), Arc::new(SystemEntropy));
        let server = Server::start(config, clock, entropy, shutdown.clone()).await;
        let server = server.map_err(|error| server_failure(&error))?;
        let addr = server.addr();
        progress(Progress::ServerUp(addr));
        let server: Ending =
            Box::pin(async move { server.wait().await.map_err(|error| server_failure(&error)) });
        match Self::start_agent(&settings, &paths, addr, shutdown, progress).await {
            Ok((admin, agent)) => Ok(Some(Self { admin, server, agent })),
            Err(_) if shutdown.has_begun() => server.await.map(|()| None),
            Err(failure) => {
                shutdown.begin();
                // The first fault is the one to tell.
                let _ = server.await;
                Err(failure)
            }
        }
    }

    async fn start_agent(
        settings: &LocalSettings,
        paths: &Paths,
        addr: SocketAddr,
        shutdown: &Shutdown,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(Admin, Ending), Failure> {
        let admin = Admin::connect(&paths.server_socket).await?;
        let node: SpiffeId = node_name(&settings.trust_domain)
            .parse()
            .map_err(|error| Failure::because("the trust domain's name is too long", &error))?;
        for entry in &settings.entries {
            admin.ensure_entry(&node, entry).await?;
            progress(Progress::EntryReady(entry.spiffe_id.clone()));
        }
        let bundle = admin.bundle(&settings.trust_domain).await?;
        paths.take_bundle(&bundle)?;
        let Started { ending, joined } =
            agent::start(&settings.trust_domain, paths, addr, &admin, &node, shutdown).await?;
        progress(Progress::AgentUp { joined });
        Ok((admin, ending))
    }

    /// The operator's part.
    pub(crate) fn admin(&self) -> Admin {
        self.admin.clone()
    }

    /// Waits until the shutdown begins or a part fails, then until all has ended.
    ///
    /// # Errors
    /// When a part failed.
    pub(crate) async fn wait(mut self, shutdown: &Shutdown) -> Result<(), Failure> {
        // Both arms are cancel-safe: the endings are only borrowed.
        let (first, server_ended) = tokio::select! {
            ended = &mut self.server => (ended, true),
            ended = &mut self.agent => (ended, false),
        };
        shutdown.begin();
        let second = if server_ended { self.agent.await } else { self.server.await };
        first.and(second)
    }
}

/// The name under which entries find the node, whatever ID its agent has at the time.
pub(crate) fn node_name(trust_domain: &TrustDomain) -> String {
    format!("spiffe://{trust_domain}/node")
}

fn server_failure(error: &ServerError) -> Failure {
    Failure::because("the server cannot run", error)
        .try_this("look whether another `spindle` runs in this directory, or name another one with -dir")
}

fn server_config(settings: &LocalSettings, paths: &Paths) -> ServerConfig {
    let keys = match settings.store {
        // Without its store the old authority's key is of no use.
        StoreKind::Memory => KeySettings::Memory,
        _ => KeySettings::Disk(paths.server_keys.clone()),
    };
    ServerConfig {
        trust_domain: settings.trust_domain.clone(),
        bind_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        bind_port: 0,
        socket_path: paths.server_socket.clone(),
        store: StoreSettings { kind: settings.store, directory: paths.store.clone() },
        keys,
        ca_key_type: KeyType::EcP256,
        ca_ttl_secs: ServerConfig::CA_TTL_SECS,
        ca_subject: CaSubject {
            country: String::new(),
            organization: "Spindle".into(),
            common_name: settings.trust_domain.to_string().chars().take(64).collect(),
        },
        default_x509_svid_ttl_secs: ServerConfig::X509_SVID_TTL_SECS,
        agent_ttl_secs: ServerConfig::X509_SVID_TTL_SECS,
        jwt: Default::default(),
        wit: Default::default(),
        node_attestors: Default::default(),
        agent_spiffe_id_as_selector: false,
        admin_ids: Vec::new(),
        roles: Vec::new(),
        rate_limits: Default::default(),
        operations: Default::default(),
        signing_queue_max: ServerConfig::SIGNING_QUEUE_MAX,
        upstream: None,
    }
}
