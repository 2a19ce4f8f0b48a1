//! Puts the agent together and keeps it running: socket, identities, node identity, sync.
//!
//! The data directory is locked and the socket bound before anything else, so that a second agent or a wrong path is known
//! at once and early callers wait instead of failing. Start at [`Agent::start`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use spindle_attest::{AttestorError, Caller, ProcRoot, UnixAttestor, WorkloadAttestor};
use spindle_keys::{DiskKeys, KeyManager, MemoryKeys};
use spindle_renewal::RenewalPolicy;
use spindle_runtime::{BoundHealthListener, Shutdown, TaskSet};
use spindle_spiffe_core::{Clock, Entropy, ErrorChain, Selector, X509Bundle};
use spindle_telemetry::Sinks;
use spindle_transport::{ExpectedServer, LiveIdentity, TlsDialer, Trust};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::admin::{self, AdminSocket, DebugService, DelegatedIdentity, check_apart};
use crate::broker::{BrokerSockets, Endpoint, Reachable};
use crate::cache::Cache;
use crate::callers::Callers;
use crate::config::{AgentConfig, KeyStorage};
use crate::data_lock::DataLock;
use crate::error::AgentError;
use crate::gate::{Gate, GateSettings};
use crate::health::{self, HealthService};
use crate::identities::{self, Identities};
use crate::in_step::InStep;
use crate::kubelet::Kubelet;
use crate::metrics::{self, Metrics};
use crate::node_identity::{self, NodeIdentity, ProofSource, StateFile};
use crate::plugins::{LivePlugins, PluginSettings};
use crate::sds::Sds;
use crate::server::{Heard, ServerLink};
use crate::sync::{self, Sync};
use crate::tokens::{self, TokenSource};
use crate::trust::OwnTrust;
use crate::wits::{self, WitKeeper, WitSource};
use crate::workload_api::{self, Services, Socket, WorkloadApi};

/// How long open streams may take to end when the agent stops.
const GRACE: Duration = Duration::from_secs(5);

/// Updates that may wait for the cache: each is applied before the next is asked for.
const UPDATES_WAITING: usize = 1;

/// Starts agents.
pub struct Agent;

/// An agent at work. It stops when its shutdown begins, or by itself on an error.
pub struct RunningAgent {
    socket_path: PathBuf,
    admin_socket_path: Option<PathBuf>,
    broker_addr: Option<SocketAddr>,
    health_addr: Option<SocketAddr>,
    prometheus_addr: Option<SocketAddr>,
    ready: watch::Receiver<bool>,
    plugins: LivePlugins,
    tasks: TaskSet,
    shutdown: Shutdown,
    failure: Arc<OnceLock<AgentError>>,
    /// Given back when the last task has ended.
    locks: Vec<DataLock>,
}

impl Agent {
    /// Takes the data directory, binds the socket, opens keys and state, and starts all tasks. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// When another agent has the directory or the socket, or the keys, the state or the node's certificate cannot be opened.
    /// What fails later ends [`RunningAgent::wait`].
    pub fn start(
        config: AgentConfig,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        shutdown: Shutdown,
    ) -> Result<RunningAgent, AgentError> {
        let config = Arc::new(config);
        let locks = match &config.keys {
            KeyStorage::Disk { directory } => DataLock::hold_all(&[&config.data_dir, directory])?,
            KeyStorage::Memory => DataLock::hold_all(&[&config.data_dir])?,
        };
        let plugins = PluginSettings::from(config.as_ref());
        plugins.check()?;
        let plugins = LivePlugins::new(plugins);
        let (socket, admin_socket) = bind_sockets(&config)?;
        let socket_path = config.socket_path.clone();
        let health_listener = bind_health(&config)?;
        let broker_sockets = bind_broker(&config)?;
        let (telemetry, sinks) = Sinks::open(&config.telemetry, metrics::PREFIX, config.trust_domain.name())?;
        let metrics = Arc::new(Metrics::new(&telemetry));
        let file = StateFile::open(&config.data_dir, config.trust_domain.clone())?;
        let keys = metrics.keys(open_keys(&config, &plugins)?);
        let cache = Arc::new(Cache::new(config.trust_domain.clone()));
        let (ready, in_step, started_at) = (cache.synced(), InStep::default(), clock.now());
        let failure = Arc::new(OnceLock::new());
        let mut tasks = TaskSet::new();
        let prometheus_addr = sinks.prometheus_addr();
        sinks.spawn(&mut tasks, &shutdown);
        metrics.started(&config.trust_domain);

        let trust = OwnTrust::new(X509Bundle::empty(config.trust_domain.clone()));
        let identity = LiveIdentity::new();
        let dialer = TlsDialer::new(
            &config.server_address,
            config.server_port,
            Trust::Bundles(trust.live()),
            ExpectedServer::Id(config.trust_domain.server_id()),
            clock.clone(),
        )
        .with_key_exchange(config.key_exchange());
        let (link, heard) = ServerLink::new(dialer.with_identity(identity.clone()));
        let tokens = TokenSource::new(tokens::Parts {
            cache: cache.clone(),
            issuer: Arc::new(link.clone()),
            clock: clock.clone(),
            entropy: entropy.clone(),
            held_max: config.jwt_svid_cache_max_size,
            hit_timeout: config.jwt_svid_cache_hit_timeout,
            metrics: metrics.clone(),
        });
        let callers = Callers::new(attestors(&plugins, &metrics), ProcRoot::new(&config.proc_root))
            .limited(&config.caller_limits)
            .following(plugins.clone())
            .metered(metrics.clone());
        let settings =
            GateSettings { log_selectors: config.log_selectors.clone(), rate_limits: config.rate_limits };
        let gate = Gate::with(settings, cache.clone(), callers, shutdown.clone());
        let wits = WitSource::new(cache.clone());
        let keeper = WitKeeper::new(wits::Parts {
            source: wits.clone(),
            issuer: Arc::new(link.clone()),
            clock: clock.clone(),
            entropy: entropy.clone(),
            policy: RenewalPolicy::with_availability_target(config.availability_target),
        });
        tasks.spawn_infallible("WIT-SVIDs", keeper.run(shutdown.clone()));
        let checked = (!config.disable_workload_api).then(|| socket_path.clone());
        let broker_addr = broker_sockets.as_ref().and_then(BrokerSockets::address);
        let reachable = config.broker.as_ref().map(|settings| Reachable {
            socket: settings.socket_path.clone(),
            address: broker_addr,
            identity: identity.clone(),
            bundles: trust.live(),
            clock: clock.clone(),
        });
        let checks = health::checks(checked, reachable, ready.clone());
        if let Some(socket) = socket {
            let api = (!config.disable_workload_api).then(|| {
                WorkloadApi::new(workload_api::Parts {
                    gate: gate.clone(),
                    tokens: tokens.clone(),
                    wits,
                    clock: clock.clone(),
                    trust_domain: config.trust_domain.clone(),
                    allowed_foreign_jwt_claims: config.allowed_foreign_jwt_claims.clone(),
                    allow_unauthenticated_verifiers: config.allow_unauthenticated_verifiers,
                })
            });
            let sds = (!config.disable_sds_api).then(|| Sds::new(gate.clone(), config.sds.clone()));
            let health = HealthService::server(checks.clone(), ready.clone());
            tasks.spawn(
                "Workload API",
                socket.serve(gate.clone(), Services { api, sds, health }, shutdown.clone()),
            );
            info!(socket = %socket_path.display(), "the Workload API socket is open");
        }
        if let Some((sockets, settings)) = broker_sockets.zip(config.broker.clone()) {
            let endpoint = Endpoint {
                gate: gate.clone(),
                tokens: tokens.clone(),
                clock: clock.clone(),
                identity: identity.clone(),
                own_bundle: trust.changes(),
                kubelet: config.kubelet.as_ref().map(|_| Kubelet::following(plugins.clone())),
            };
            let shutdown = shutdown.clone();
            tasks.spawn("broker endpoint", async move { sockets.serve(endpoint, &settings, shutdown).await });
        }
        let admin_socket_path = admin_socket.as_ref().map(AdminSocket::path);
        if let Some(socket) = admin_socket {
            let debug = DebugService {
                cache: cache.clone(),
                identity: identity.clone(),
                trust: trust.clone(),
                in_step: in_step.clone(),
                tokens: tokens.clone(),
                clock: clock.clone(),
                started_at,
            };
            let delegated = DelegatedIdentity::new(gate, config.authorized_delegates.clone(), tokens);
            let (logs, meter) = (config.logs.clone(), metrics.rpc.clone());
            let services = admin::Services { debug, logs, delegated, meter };
            info!(socket = %socket.path().display(), "the admin socket is open");
            tasks.spawn("admin socket", socket.serve(services, shutdown.clone()));
        }
        let health_addr = health_listener.as_ref().map(BoundHealthListener::address);
        if let Some(listener) = health_listener {
            info!(address = %listener.address(), "Serving health checks");
            tasks.spawn_infallible("health probes", listener.serve(checks, shutdown.clone()));
        }

        let own_tasks = Tasks {
            config,
            plugins: plugins.clone(),
            clock,
            entropy,
            cache,
            in_step,
            keys,
            file,
            trust,
            identity,
            link,
            heard,
            shutdown: shutdown.clone(),
            metrics,
        };
        own_tasks.spawn(&mut tasks, failure.clone());
        Ok(RunningAgent {
            socket_path,
            admin_socket_path,
            broker_addr,
            health_addr,
            prometheus_addr,
            ready,
            plugins,
            tasks,
            shutdown,
            failure,
            locks,
        })
    }
}

impl RunningAgent {
    /// The public socket, which is not there when all its services are off.
    pub fn socket_path(&self) -> &Path {
        &self.socket_path
    }

    /// The admin socket; none when it is off.
    pub fn admin_socket_path(&self) -> Option<&Path> {
        self.admin_socket_path.as_deref()
    }

    /// Where the broker endpoint listens on TCP, with the real port; none when it does not.
    pub fn broker_addr(&self) -> Option<SocketAddr> {
        self.broker_addr
    }

    /// Where health probes are answered, with the real port; none when nowhere.
    pub fn health_addr(&self) -> Option<SocketAddr> {
        self.health_addr
    }

    /// Where Prometheus may scrape, with the real port; none when nowhere.
    pub fn prometheus_addr(&self) -> Option<SocketAddr> {
        self.prometheus_addr
    }

    /// True once the first sync is complete and workloads are served.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.clone()
    }

    /// What can be changed while it runs.
    pub fn plugins(&self) -> LivePlugins {
        self.plugins.clone()
    }

    /// Waits until the agent has stopped. Its shutdown has begun when this returns.
    ///
    /// # Errors
    /// Why it stopped, unless it was told to.
    pub async fn wait(self) -> Result<(), AgentError> {
        let Self { tasks, shutdown, failure, locks, .. } = self;
        let ended = tasks.run(&shutdown, GRACE).await;
        drop(locks);
        if let Some(error) = Arc::into_inner(failure).and_then(OnceLock::into_inner) {
            return Err(error);
        }
        match ended {
            None => Ok(()),
            Some(end) => Err(AgentError::TaskEnded { task: end.name, why: end.to_string() }),
        }
    }
}

/// What the tasks behind the socket are made of.
struct Tasks {
    config: Arc<AgentConfig>,
    plugins: LivePlugins,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    cache: Arc<Cache>,
    in_step: InStep,
    keys: Arc<dyn KeyManager>,
    file: StateFile,
    trust: OwnTrust,
    identity: LiveIdentity,
    link: ServerLink,
    heard: mpsc::Receiver<Heard>,
    shutdown: Shutdown,
    metrics: Arc<Metrics>,
}

impl Tasks {
    fn spawn(self, tasks: &mut TaskSet, failure: Arc<OnceLock<AgentError>>) {
        let Self { config, plugins, clock, entropy, link, trust, shutdown, metrics, .. } = self;
        let (updates, received) = mpsc::channel(UPDATES_WAITING);
        let (established, is_established) = oneshot::channel();

        let identities = Identities::new(identities::Parts {
            cache: self.cache,
            signer: Arc::new(link.clone()),
            updates: received,
            clock: clock.clone(),
            entropy: entropy.clone(),
            key_type: config.workload_key_type,
            policy: RenewalPolicy::with_availability_target(config.availability_target),
            cache_max: config.x509_svid_cache_max_size,
            metrics: metrics.clone(),
        });
        tasks.spawn_infallible("identities", identities.run(shutdown.clone()));

        let sync = Sync::new(sync::Parts {
            trust_domain: config.trust_domain.clone(),
            link: link.clone(),
            trust: trust.clone(),
            updates,
            in_step: self.in_step,
            clock: clock.clone(),
            entropy: entropy.clone(),
            poll_interval: config.sync_interval,
            poll_differences: config.use_sync_authorized_entries,
            metrics: metrics.clone(),
        });
        let sync_shutdown = shutdown.clone();
        tasks.spawn_infallible("sync", async move {
            // Without an identity there is nothing to sync with; its task says why, and ends the agent.
            if is_established.await.is_ok() {
                sync.run(sync_shutdown).await;
            } else {
                sync_shutdown.begun().await;
            }
        });

        let parts = node_identity::Parts {
            keys: self.keys,
            file: self.file,
            identity: self.identity,
            heard: self.heard,
            config,
            plugins,
            trust,
            link,
            clock,
            entropy,
            metrics,
        };
        tasks.spawn("node identity", async move {
            let kept = keep_identity(parts, established);
            // Cancel-safe: what the server gave is on disk before it is used.
            let outcome = tokio::select! {
                outcome = kept => outcome,
                () = shutdown.begun() => Ok(()),
            };
            match outcome {
                Ok(()) => Ok(()),
                Err(error) => {
                    let text = std::io::Error::other(error.to_string());
                    let _ = failure.set(error);
                    Err(text)
                }
            }
        });
    }
}

async fn keep_identity(
    parts: node_identity::Parts,
    established: oneshot::Sender<()>,
) -> Result<(), AgentError> {
    let node = NodeIdentity::establish(parts).await?;
    let _ = established.send(());
    node.run().await
}

/// The public socket, unless all its services are off, and the admin socket if there is to be one.
fn bind_sockets(config: &AgentConfig) -> Result<(Option<Socket>, Option<AdminSocket>), AgentError> {
    let has_public = !(config.disable_workload_api && config.disable_sds_api);
    if let Some(path) = config.admin_socket_path.as_deref().filter(|_| has_public) {
        check_apart(path, &config.socket_path)
            .map_err(|error| AgentError::AdminSocketPlace { why: error.to_string() })?;
    }
    let public = has_public.then(|| Socket::bind(&config.socket_path)).transpose()?;
    let public = public.map(|socket| socket.limited(&config.caller_limits));
    let admin = config.admin_socket_path.as_deref().map(AdminSocket::bind).transpose();
    Ok((public, admin.map_err(AgentError::AdminSocket)?))
}

/// The broker endpoint's sockets, if there are to be any.
fn bind_broker(config: &AgentConfig) -> Result<Option<BrokerSockets>, AgentError> {
    let Some(settings) = &config.broker else { return Ok(None) };
    let has_public = !(config.disable_workload_api && config.disable_sds_api);
    let public = has_public.then_some(config.socket_path.as_path());
    let sockets = BrokerSockets::bind(settings, public)
        .map_err(|error| AgentError::BrokerEndpoint { why: ErrorChain(&error).to_string() })?;
    if let Some(path) = &settings.socket_path {
        info!(socket = %path.display(), brokers = settings.brokers.len(), "the broker socket is open");
    }
    if let Some(address) = sockets.address() {
        info!(%address, brokers = settings.brokers.len(), "the broker port is open");
    }
    if settings.brokers.is_empty() {
        warn!("the broker endpoint has no brokers: it refuses everybody");
    }
    Ok(Some(sockets))
}

fn bind_health(config: &AgentConfig) -> Result<Option<BoundHealthListener>, AgentError> {
    let Some(settings) = config.health_checks.clone() else { return Ok(None) };
    let address = settings.address;
    settings.bind().map(Some).map_err(|source| AgentError::HealthPort { address, source })
}

fn open_keys(config: &AgentConfig, plugins: &LivePlugins) -> Result<Arc<dyn KeyManager>, AgentError> {
    match &config.keys {
        KeyStorage::Memory => {
            if !matches!(ProofSource::of(config, plugins), Some(ProofSource::X509Pop(_))) {
                warn!("the agent's keys are kept in memory: a restart needs a new join token");
            }
            Ok(Arc::new(MemoryKeys::new()))
        }
        KeyStorage::Disk { directory } => {
            let keys = DiskKeys::open(directory.join("keys.json"))?;
            if let Some(mode) = keys.exposed_mode() {
                warn!(path = %keys.path().display(), mode = format!("{mode:o}"), "others may read the agent's keys");
            }
            Ok(Arc::new(keys))
        }
    }
}

fn attestors(plugins: &LivePlugins, metrics: &Metrics) -> Vec<Box<dyn WorkloadAttestor>> {
    let unix = plugins.load().unix.map(|config| {
        let attestor = UnixAttestor::new(config);
        Box::new(LiveUnix { attestor, plugins: plugins.clone() }) as Box<dyn WorkloadAttestor>
    });
    if unix.is_none() {
        warn!("no workload attestor is configured: no process can be recognised");
    }
    unix.into_iter().map(|attestor| metrics.attestor(attestor)).collect()
}

/// The unix attestor with the settings of the moment.
struct LiveUnix {
    attestor: UnixAttestor,
    plugins: LivePlugins,
}

impl WorkloadAttestor for LiveUnix {
    fn name(&self) -> &str {
        self.attestor.name()
    }

    fn attest(&self, caller: &Caller) -> Result<Vec<Selector>, AttestorError> {
        self.attestor.attest_with(self.plugins.load().unix.unwrap_or_default(), caller)
    }
}
