//! The server: certificate authority and registration store of one trust domain.
//!
//! Stations, in the order a request passes them: `api` (gate, services), `entries`, `federation` and `attestation` (one
//! operation each), `directory` (state in memory, made durable by the store), `issuer` and `authorities` (signing),
//! `subscriptions` (who is told). Reading the configuration and printing are left to the command line. Start at
//! [`Server::start`].

mod api;
mod attestation;
mod authorities;
mod backup;
mod bundles;
pub mod config;
mod context;
mod copy;
mod directory;
mod entries;
mod federation;
#[cfg(test)]
mod fixtures;
mod health;
mod issuer;
mod live;
mod maintenance;
mod metrics;
mod rate_limit;
mod roles;
mod subscriptions;
mod token_issuer;
mod upstream;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use spindle_ca::TokenFamily;
use spindle_keys::{DiskKeys, KeyManager, MemoryKeys};
use spindle_runtime::{BoundHealthListener, Shutdown, TaskEnd, TaskSet};
use spindle_spiffe_core::{Clock, Entropy};
use spindle_store::{Store, StoreConfig};
use spindle_telemetry::{MeterLayer, Sinks};
use spindle_transport::{ServerTls, TlsListener, UnixClients, UnixListener, UnixSocketConfig, grpc_server};
use tracing::{info, warn};

pub use authorities::AuthoritiesError;
pub use backup::{BackupError, accept_restored_store, export_store, import_store};
pub use config::{
    DiskUpstreamSettings, JwtSettings, KeySettings, NodeAttestorSettings, Operations, PruneAgents,
    RateLimitSettings, ServerConfig, StoreSettings, UpstreamSettings, WitSettings,
};
pub use copy::{CopyStoreError, copy_store};
pub use directory::DirectoryError;
pub use live::{LiveSettings, Reloadable};
pub use roles::{EntryRules, Grant, PathPrefix, Role, RoleAssignment, RoleError, RoleSubject, Verb};
pub use spindle_attest::x509pop;
pub use spindle_ca::{CaSubject, guaranteed_svid_ttl_secs};
pub use spindle_keys::KeyType;
pub use spindle_runtime::HealthListener;
pub use spindle_store::{Exported, ImportError, StoreKind, check_export};
pub use upstream::{DiskUpstreamError, UpstreamError};

use attestation::node::NodeAttestors;
use authorities::{Authorities, AuthoritySettings, TokenAuthorities, TokenAuthoritySettings};
use context::Context;
use directory::Directory;
use issuer::Issuer;
use metrics::{FamilyMetrics, Metrics};
use rate_limit::RateLimits;
use roles::RoleBook;
use subscriptions::Subscriptions;
use token_issuer::{Signing, TokenIssuer};
use upstream::UpstreamAuthority;

/// How long calls at hand may take to end at a shutdown; SPIRE's ten seconds.
const GRACE: Duration = Duration::from_secs(10);

/// Mode of the admin socket: the server's user and group.
const ADMIN_SOCKET_MODE: u32 = 0o770;

/// Mode of the admin socket's directory when it has to be made.
const ADMIN_SOCKET_PARENT_MODE: u32 = 0o750;

/// Why a server does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store cannot be opened.
    #[error("cannot open the store")]
    Open(#[from] spindle_store::OpenError),
    /// What the store holds cannot be loaded.
    #[error("cannot load what the store holds")]
    Directory(#[from] DirectoryError),
    /// The key manager cannot be opened.
    #[error("cannot open the key manager")]
    Keys(#[from] spindle_keys::KeyError),
    /// The upstream authority cannot be used.
    #[error("cannot use the upstream authority")]
    Upstream(#[from] UpstreamError),
    /// No authority.
    #[error("cannot bring up the signing authorities")]
    Authorities(#[from] AuthoritiesError),
    /// The admin socket is taken, or not allowed.
    #[error("cannot listen on the admin socket")]
    AdminSocket(#[from] spindle_transport::unix::UnixBindError),
    /// The TLS port is taken, or not allowed.
    #[error("cannot listen on {address}")]
    Port {
        /// The address as configured.
        address: SocketAddr,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// The port for health probes is taken, or not allowed.
    #[error("cannot listen for health probes on {address}")]
    HealthPort {
        /// The address as configured.
        address: SocketAddr,
        /// What the kernel answered.
        source: std::io::Error,
    },
    /// A sink of metrics cannot be opened.
    #[error("cannot open telemetry")]
    Telemetry(#[from] spindle_telemetry::SinkError),
    /// A task ended that must not.
    #[error("{0}")]
    Task(TaskEnd),
}

/// Starts servers.
pub struct Server;

/// A server that serves. Dropping it does not stop it; the shutdown handle does.
pub struct RunningServer {
    addr: SocketAddr,
    socket_path: PathBuf,
    health_addr: Option<SocketAddr>,
    prometheus_addr: Option<SocketAddr>,
    tasks: TaskSet,
    shutdown: Shutdown,
    directory: Directory,
    live: LiveSettings,
}

impl Server {
    /// Opens the store, brings up an authority, binds both listeners and serves. Returns once callers can connect.
    ///
    /// # Errors
    /// When any of these steps fails; nothing is left running then.
    pub async fn start(
        config: ServerConfig,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        shutdown: Shutdown,
    ) -> Result<RunningServer, ServerError> {
        // First of all, so that a second server on the same directory touches nothing.
        let directory = open_directory(&config, entropy.as_ref())?;
        let (telemetry, sinks) =
            Sinks::open(&config.operations.telemetry, metrics::PREFIX, config.trust_domain.name())?;
        let metrics = Arc::new(Metrics::new(&telemetry, &config.trust_domain));
        metrics.follow(&directory);
        let keys = open_keys(&config.keys)?;
        let subscriptions = Subscriptions::of(&directory);
        let live = LiveSettings::new(Reloadable::from(&config));
        let settings = AuthoritySettings {
            trust_domain: config.trust_domain.clone(),
            key_type: config.ca_key_type,
            ca_ttl_secs: config.ca_ttl_secs,
            subject: config.ca_subject.clone(),
            live: live.clone(),
            upstream: open_upstream(&config, &live, &clock, &entropy).await?,
        };
        let authorities = Authorities::new(
            settings,
            directory.clone(),
            subscriptions.clone(),
            keys.clone(),
            clock.clone(),
            entropy.clone(),
        );
        let authorities = Arc::new(authorities.metered(&metrics));
        let of_tokens = |key_type| TokenAuthoritySettings {
            trust_domain: config.trust_domain.clone(),
            key_type,
            ttl_secs: config.ca_ttl_secs,
        };
        let parts = (directory.clone(), subscriptions.clone(), keys, clock.clone(), entropy.clone());
        let (jwt, wit) = (&metrics.jwt_authorities, &metrics.wit_authorities);
        let jwt_authorities =
            token_authorities(config.jwt.enabled, of_tokens(config.jwt.key_type), &parts, jwt);
        let wit_authorities =
            token_authorities(config.wit.enabled, of_tokens(config.wit.key_type), &parts, wit);
        // Bound before an authority is made: a server that cannot serve leaves no root behind. Nobody is served yet.
        let tls_listener = bind_tls(&config, &authorities, clock.clone()).await?;
        let admin_listener = bind_admin(&config)?;
        let health_listener = bind_health(&config)?;
        authorities.start().await?;
        match &jwt_authorities {
            Some(authorities) => authorities.start().await?,
            None => info!("JWT-SVID profile is disabled"),
        }
        if let Some(authorities) = &wit_authorities {
            authorities.start().await?;
        }
        if let Err(error) = federation::removal::finish_all(&directory).await {
            warn!(%error, "entries of a deleted bundle are not unlinked yet; tried again later");
        }
        let issuer = Issuer::new(
            config.trust_domain.clone(),
            authorities.clone(),
            clock.clone(),
            entropy.clone(),
            live.clone(),
            config.signing_queue_max,
            metrics.clone(),
        );
        let signing = Signing {
            threads: issuer.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            live: live.clone(),
        };
        let context = Arc::new(Context {
            trust_domain: config.trust_domain.clone(),
            directory: directory.clone(),
            subscriptions,
            authorities: authorities.clone(),
            jwt_issuer: TokenIssuer::new(
                jwt_authorities.clone(),
                &signing,
                config.jwt.issuer.clone(),
                metrics.signed_jwt_svids.clone(),
            ),
            wit_issuer: TokenIssuer::new(
                wit_authorities.clone(),
                &signing,
                config.wit.issuer.clone(),
                metrics.signed_wit_svids.clone(),
            ),
            issuer,
            started_at: clock.now(),
            clock: clock.clone(),
            entropy,
            node_attestors: NodeAttestors::new(live.clone()),
            agent_spiffe_id_as_selector: config.agent_spiffe_id_as_selector,
            rate_limits: RateLimits::new(live.clone()),
            roles: Arc::new(RoleBook::new(live.clone(), &config.roles)),
            live: live.clone(),
            operations: config.operations.clone(),
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
        });
        let mut tasks = TaskSet::new();
        let prometheus_addr = sinks.prometheus_addr();
        sinks.spawn(&mut tasks, &shutdown);
        metrics.started(&config.trust_domain);
        let addr = tls_listener.local_addr();
        let socket_path = admin_listener.path().to_owned();
        serve_tls(tls_listener, &context, &shutdown, &mut tasks);
        serve_admin(admin_listener, &context, &shutdown, &mut tasks);
        let mut health_addr = None;
        if let Some(listener) = health_listener {
            let address = listener.address();
            health_addr = Some(address);
            let checks = Arc::new(health::checks(context.clone(), socket_path.clone())?);
            tasks.spawn_infallible("health probes", listener.serve(checks, shutdown.clone()));
            info!(%address, "Serving health checks");
        }
        tasks.spawn_infallible("X.509 authorities", authorities.run(shutdown.clone()));
        if let Some(authorities) = jwt_authorities {
            tasks.spawn_infallible("JWT authorities", authorities.run(shutdown.clone()));
        }
        if let Some(authorities) = wit_authorities {
            tasks.spawn_infallible("WIT authorities", authorities.run(shutdown.clone()));
        }
        tasks.spawn_infallible("maintenance", maintenance::run(context, shutdown.clone()));
        info!(address = %addr, network = "tcp", "Starting Server APIs");
        info!(address = %socket_path.display(), network = "unix", "Starting Server APIs");
        Ok(RunningServer {
            addr,
            socket_path,
            health_addr,
            prometheus_addr,
            tasks,
            shutdown,
            directory,
            live,
        })
    }
}

impl RunningServer {
    /// Address of the TLS listener, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Path of the admin socket.
    pub fn socket_path(&self) -> &Path {
        &self.socket_path
    }

    /// Where health probes are answered, with the real port; none when nowhere.
    pub fn health_addr(&self) -> Option<SocketAddr> {
        self.health_addr
    }

    /// Where Prometheus may scrape, with the real port; none when nowhere.
    pub fn prometheus_addr(&self) -> Option<SocketAddr> {
        self.prometheus_addr
    }

    /// What can be changed while it serves.
    pub fn live(&self) -> LiveSettings {
        self.live.clone()
    }

    /// Serves until the shutdown begins or a task fails, then ends everything in order and closes the store.
    ///
    /// # Errors
    /// When a task failed.
    pub async fn wait(self) -> Result<(), ServerError> {
        let failed = self.tasks.run(&self.shutdown, GRACE).await;
        self.directory.close();
        match failed {
            Some(end) => Err(ServerError::Task(end)),
            None => Ok(()),
        }
    }
}

fn open_keys(settings: &KeySettings) -> Result<Arc<dyn KeyManager>, ServerError> {
    Ok(match settings {
        KeySettings::Disk(path) => {
            let keys = DiskKeys::open(path)?;
            if let Some(mode) = keys.exposed_mode() {
                warn!(path = %keys.path().display(), mode = format!("{mode:o}"), "others may read the server's keys");
            }
            Arc::new(keys)
        }
        KeySettings::Memory => Arc::new(MemoryKeys::new()),
    })
}

/// What authorities work on.
type Parts = (Directory, Subscriptions, Arc<dyn KeyManager>, Arc<dyn Clock>, Arc<dyn Entropy>);

/// The authorities of one family that signs tokens, if it is switched on.
fn token_authorities<F: TokenFamily>(
    enabled: bool,
    settings: TokenAuthoritySettings,
    (directory, subscriptions, keys, clock, entropy): &Parts,
    metrics: &FamilyMetrics,
) -> Option<Arc<TokenAuthorities<F>>> {
    let (directory, subscriptions) = (directory.clone(), subscriptions.clone());
    let (keys, clock, entropy) = (keys.clone(), clock.clone(), entropy.clone());
    enabled.then(|| {
        let made = TokenAuthorities::new(settings, directory, subscriptions, keys, clock, entropy);
        Arc::new(made.metered(metrics.clone()))
    })
}

async fn open_upstream(
    config: &ServerConfig,
    live: &LiveSettings,
    clock: &Arc<dyn Clock>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Option<Arc<dyn UpstreamAuthority>>, ServerError> {
    let Some(settings) = &config.upstream else { return Ok(None) };
    let trust_domain = &config.trust_domain;
    let opened = upstream::open(settings, live.clone(), trust_domain, clock.clone(), entropy.clone()).await;
    Ok(Some(opened?))
}

fn open_directory(config: &ServerConfig, entropy: &dyn Entropy) -> Result<Directory, ServerError> {
    let mut history = [0; 16];
    entropy.fill(&mut history);
    let store =
        Store::open(&StoreConfig { kind: config.store.kind, dir: config.store.directory.clone(), history })?;
    Ok(Directory::open(store, &config.trust_domain)?)
}

async fn bind_tls(
    config: &ServerConfig,
    authorities: &Authorities,
    clock: Arc<dyn Clock>,
) -> Result<TlsListener, ServerError> {
    let address = SocketAddr::new(config.bind_address, config.bind_port);
    let tls = ServerTls { identity: authorities.identity(), bundles: authorities.bundles(), clock };
    TlsListener::bind(address, tls).await.map_err(|source| ServerError::Port { address, source })
}

fn bind_admin(config: &ServerConfig) -> Result<UnixListener, ServerError> {
    Ok(UnixListener::bind(&UnixSocketConfig {
        path: config.socket_path.clone(),
        mode: ADMIN_SOCKET_MODE,
        parent_mode: ADMIN_SOCKET_PARENT_MODE,
        clients: UnixClients::Tools,
    })?)
}

fn bind_health(config: &ServerConfig) -> Result<Option<BoundHealthListener>, ServerError> {
    let Some(settings) = config.operations.health_checks.clone() else { return Ok(None) };
    let address = settings.address;
    Ok(Some(settings.bind().map_err(|source| ServerError::HealthPort { address, source })?))
}

/// Counts all calls, those too that the gate refuses.
fn meter(context: &Context) -> MeterLayer {
    MeterLayer::new(context.metrics.rpc.clone())
}

fn serve_tls(listener: TlsListener, context: &Arc<Context>, shutdown: &Shutdown, tasks: &mut TaskSet) {
    let server =
        grpc_server().layer(meter(context)).layer(api::gate(context)).add_routes(api::routes(context));
    let stop = shutdown.clone();
    tasks.spawn("TLS listener", async move {
        server.serve_with_incoming_shutdown(listener.incoming(), async move { stop.begun().await }).await
    });
}

fn serve_admin(listener: UnixListener, context: &Arc<Context>, shutdown: &Shutdown, tasks: &mut TaskSet) {
    let server =
        grpc_server().layer(meter(context)).layer(api::gate(context)).add_routes(api::routes(context));
    let stop = shutdown.clone();
    tasks.spawn("admin socket", async move {
        server.serve_with_incoming_shutdown(listener.incoming(), async move { stop.begun().await }).await
    });
}
