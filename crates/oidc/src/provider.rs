//! A running provider: sockets first, then the tasks behind them.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use spindle_runtime::{Shutdown, TaskEnd, TaskSet};
use spindle_spiffe_core::{Clock, Entropy};
use spindle_transport::{UnixBindError, UnixClients, UnixListener, UnixSocketConfig};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::acme::{self, AcmeConfig};
use crate::answers::{Answer, SiteAnswers};
use crate::config::{Health, ListenAddress, Listener, ProviderConfig, ServingFiles};
use crate::health::{HealthAnswers, threshold};
use crate::published::{self, Reader};
use crate::serve::Front;
use crate::tls::files::{FileCertificate, FilesError};
use crate::tls::{ALPN_ACME, ALPN_HTTP, server_config};
use crate::{sockets, source};

/// How long tasks may take to end: the last answers have five seconds.
const GRACE: Duration = Duration::from_secs(8);

/// Connections at once, some 40 KiB each. Clients keep the keys and come seldom.
const CONNECTIONS_MAX: usize = 512;

/// Connections at once from one address, which may be a proxy's.
const PER_ADDRESS_MAX: usize = 128;

/// Connections of supervisors at once.
const HEALTH_CONNECTIONS_MAX: usize = 32;

/// Why a provider did not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The Unix socket cannot be listened on.
    #[error("cannot listen on the Unix socket")]
    Unix(#[from] UnixBindError),
    /// The certificate or its key cannot be served.
    #[error("{0}")]
    Files(String),
    /// The directory of certificates cannot be used.
    #[error("cannot use the cache directory {path}")]
    Cache {
        /// The directory.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// A part ended that must not.
    #[error("{0}")]
    Task(String),
}

impl From<FilesError> for ProviderError {
    fn from(error: FilesError) -> Self {
        Self::Files(spindle_spiffe_core::ErrorChain(&error).to_string())
    }
}

/// Where clients are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// With the real port.
    Tcp(SocketAddr),
    /// The Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Asks a running provider to look at its source and its certificate now. Clones ask the same provider.
#[derive(Clone, Debug, Default)]
pub struct Refresh {
    source: Arc<Notify>,
    certificate: Arc<Notify>,
}

impl Refresh {
    /// Asks.
    pub fn now(&self) {
        self.source.notify_one();
        self.certificate.notify_one();
    }
}

/// A running provider.
pub struct Provider {
    tasks: TaskSet,
    shutdown: Shutdown,
    bound: Bound,
    health: Option<SocketAddr>,
}

impl Provider {
    /// Listens, and begins to fetch keys. Until the first are there, clients are told so. `refresh` asks for a look now.
    ///
    /// # Errors
    /// When an address cannot be listened on, or the certificate in files cannot be served.
    pub async fn start(
        config: ProviderConfig,
        refresh: Refresh,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        shutdown: Shutdown,
    ) -> Result<Self, ProviderError> {
        let (publisher, reader) = published::channel(config.set_key_use, clock.clone());
        let answers: Arc<dyn Answer> = Arc::new(SiteAnswers {
            site: config.site,
            reader: reader.clone(),
            log_requests: config.log_requests,
        });
        let start = Start { tasks: TaskSet::new(), answers, refresh, shutdown, clock, entropy };
        let (mut start, bound) = start.listener(config.listener).await?;
        let threshold = threshold(config.source.poll_interval);
        let health = match config.health {
            Some(health) => Some(start.health(health, threshold, reader).await?),
            None => None,
        };
        let again = start.refresh.source.clone();
        start.tasks.spawn_infallible(
            "key source",
            source::run(config.source, publisher, again, start.shutdown.clone()),
        );
        Ok(Self { tasks: start.tasks, shutdown: start.shutdown, bound, health })
    }

    /// Where clients are answered.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Where supervisors are answered.
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health
    }

    /// Waits for the end: of a part, which is an error, or by the shutdown.
    ///
    /// # Errors
    /// When a part ended by itself.
    pub async fn wait(self) -> Result<(), ProviderError> {
        match self.tasks.run(&self.shutdown, GRACE).await {
            Some(TaskEnd { name, error }) => Err(ProviderError::Task(match error {
                Some(error) => format!("{name} failed: {error}"),
                None => format!("{name} ended"),
            })),
            None => Ok(()),
        }
    }
}

/// A provider in the making.
struct Start {
    tasks: TaskSet,
    answers: Arc<dyn Answer>,
    refresh: Refresh,
    shutdown: Shutdown,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Start {
    async fn listener(mut self, listener: Listener) -> Result<(Self, Bound), ProviderError> {
        let bound = match listener {
            Listener::Unix(path) => self.unix(path)?,
            Listener::Insecure(address) => {
                let (listener, bound) = bind(&address).await?;
                warn!(address = %bound, "Serving HTTP (insecure)");
                self.tcp(listener, None);
                Bound::Tcp(bound)
            }
            Listener::Files(files) => Bound::Tcp(self.files(files).await?),
            Listener::Acme(config) => Bound::Tcp(self.acme(config).await?),
        };
        Ok((self, bound))
    }

    fn unix(&mut self, path: PathBuf) -> Result<Bound, ProviderError> {
        // Everybody may ask, as with SPIRE: there is nothing to see but public keys.
        let config = UnixSocketConfig {
            path: path.clone(),
            mode: 0o777,
            parent_mode: 0o755,
            clients: UnixClients::Tools,
        };
        let listener = UnixListener::bind(&config)?;
        info!(network = "unix", address = %path.display(), "Serving HTTP");
        self.tasks.spawn_infallible("http listener", self.front(None).unix(listener.incoming()));
        Ok(Bound::Unix(path))
    }

    async fn files(&mut self, files: ServingFiles) -> Result<SocketAddr, ProviderError> {
        let address = files.address.clone();
        let (certificate, content) = FileCertificate::load(files).await?;
        let certificate = Arc::new(certificate);
        let tls = server_config(certificate.clone(), &[ALPN_HTTP])?;
        let (listener, bound) = bind(&address).await?;
        info!(address = %bound, "Serving HTTPS using certificate loaded from disk");
        let again = self.refresh.certificate.clone();
        let watch = certificate.watch(content, again, self.shutdown.clone());
        self.tasks.spawn_infallible("serving certificate", watch);
        self.tcp(listener, Some(tls));
        Ok(bound)
    }

    async fn acme(&mut self, config: AcmeConfig) -> Result<SocketAddr, ProviderError> {
        let address = config.address.clone();
        let (manager, certificates) = acme::open(config, self.clock.clone(), self.entropy.clone())
            .await
            .map_err(|(path, source)| ProviderError::Cache { path: path.display().to_string(), source })?;
        let tls = server_config(certificates, &[ALPN_HTTP, ALPN_ACME])?;
        let (listener, bound) = bind(&address).await?;
        info!(address = %bound, "Serving HTTPS via ACME");
        self.tcp(listener, Some(tls));
        let again = self.refresh.certificate.clone();
        self.tasks.spawn_infallible("acme certificates", manager.run(again, self.shutdown.clone()));
        Ok(bound)
    }

    async fn health(
        &mut self,
        health: Health,
        threshold: Duration,
        reader: Reader,
    ) -> Result<SocketAddr, ProviderError> {
        let (listener, bound) = bind(&health.address).await?;
        info!(address = %bound, "Serving health checks");
        let front = Front {
            answers: Arc::new(HealthAnswers::new(health, threshold, reader)),
            tls: None,
            connections_max: HEALTH_CONNECTIONS_MAX,
            per_address_max: HEALTH_CONNECTIONS_MAX,
            shutdown: self.shutdown.clone(),
        };
        self.tasks.spawn_infallible("health listener", front.tcp(listener));
        Ok(bound)
    }

    fn tcp(&mut self, listener: TcpListener, tls: Option<Arc<ServerConfig>>) {
        self.tasks.spawn_infallible("http listener", self.front(tls).tcp(listener));
    }

    fn front(&self, tls: Option<Arc<ServerConfig>>) -> Front {
        Front {
            answers: self.answers.clone(),
            tls,
            connections_max: CONNECTIONS_MAX,
            per_address_max: PER_ADDRESS_MAX,
            shutdown: self.shutdown.clone(),
        }
    }
}

async fn bind(address: &ListenAddress) -> Result<(TcpListener, SocketAddr), ProviderError> {
    let failed = |source| ProviderError::Listen { address: address.to_string(), source };
    let listener = sockets::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
