//! The sockets of the broker endpoint: mutual TLS with the agent's own SVID on each of them (Broker Endpoint 5).
//!
//! As long as the agent has no SVID, handshakes fail; until it has reached its server, calls are UNAVAILABLE. Clients are
//! held against the own trust domain's bundle and all foreign ones that the agent has. Start at [`BrokerSockets::bind`].

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use spindle_proto::BROKER_DESCRIPTOR_SET;
use spindle_runtime::Shutdown;
use spindle_spiffe_core::{Clock, X509Bundle, X509Bundles};
use spindle_telemetry::MeterLayer;
use spindle_transport::{
    LiveBundles, LiveIdentity, LogGate, ServerTls, TlsIncoming, TlsListener, UnixBindError, UnixClients,
    UnixListener, UnixSocketConfig, grpc_server,
};
use tokio::sync::watch;
use tower::layer::layer_fn;

use super::access::Brokers;
use super::door::Door;
use super::{BrokerApi, Parts};
use crate::admin::{NotApart, check_apart};
use crate::cache::Cache;
use crate::config::BrokerConfig;
use crate::gate::Gate;
use crate::kubelet::Kubelet;
use crate::reflection::describing;
use crate::tokens::TokenSource;
use crate::workload_api::Ending;

/// The agent's user and group.
const SOCKET_MODE: u32 = 0o770;

/// For directories that have to be made.
const PARENT_MODE: u32 = 0o750;

/// Why the endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerBindError {
    /// The Unix socket lies where workloads can find it.
    #[error(transparent)]
    Place(#[from] NotApart),
    /// There is no Unix socket.
    #[error(transparent)]
    Unix(#[from] UnixBindError),
    /// There is no TCP port.
    #[error("cannot listen on {address}")]
    Tcp {
        /// The address as configured.
        address: SocketAddr,
        /// What the kernel answered.
        source: io::Error,
    },
}

/// Why the endpoint ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// gRPC gave up.
    #[error("the broker endpoint failed")]
    Serve(#[from] tonic::transport::Error),
    /// The kernel took the port back.
    #[error("the broker endpoint's port failed")]
    Port(#[from] io::Error),
    /// The reflection service cannot be built.
    #[error("cannot offer reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Bound sockets.
pub(crate) struct BrokerSockets {
    unix: Option<UnixListener>,
    tcp: Option<std::net::TcpListener>,
    address: Option<SocketAddr>,
}

/// What the endpoint is made of, beside its sockets.
pub(crate) struct Endpoint {
    pub(crate) gate: Arc<Gate>,
    pub(crate) tokens: TokenSource,
    pub(crate) clock: Arc<dyn Clock>,
    /// Presented to brokers.
    pub(crate) identity: LiveIdentity,
    /// The own trust domain's bundle, with every change.
    pub(crate) own_bundle: watch::Receiver<X509Bundle>,
    /// Who knows the pods of this node, if anybody.
    pub(crate) kubelet: Option<Kubelet>,
}

impl BrokerSockets {
    /// Binds what the configuration has. `public` is the socket that workloads are given, if there is one: the broker's lies
    /// apart from it.
    pub(crate) fn bind(config: &BrokerConfig, public: Option<&Path>) -> Result<Self, BrokerBindError> {
        let unix = match &config.socket_path {
            None => None,
            Some(path) => {
                if let Some(public) = public {
                    check_apart(path, public)?;
                }
                Some(UnixListener::bind(&UnixSocketConfig {
                    path: path.clone(),
                    mode: SOCKET_MODE,
                    parent_mode: PARENT_MODE,
                    // What other libraries need mended is inside TLS.
                    clients: UnixClients::Tools,
                })?)
            }
        };
        let failed = |address| move |source| BrokerBindError::Tcp { address, source };
        let tcp = config
            .bind_address
            .map(|address| std::net::TcpListener::bind(address).map_err(failed(address)))
            .transpose()?;
        let address = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok());
        Ok(Self { unix, tcp, address })
    }

    /// Where it listens on TCP, with the real port.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Serves the brokers of `config` until the shutdown begins.
    pub(crate) async fn serve(
        self,
        endpoint: Endpoint,
        config: &BrokerConfig,
        shutdown: Shutdown,
    ) -> Result<(), ServeError> {
        let Endpoint { gate, tokens, clock, identity, own_bundle, kubelet } = endpoint;
        let bundles = LiveBundles::default();
        let trust = keep_trust(own_bundle, gate.cache().clone(), bundles.clone());
        let tls = ServerTls { identity, bundles: bundles.clone(), clock: clock.clone() };
        let brokers = Brokers::new(&config.brokers);
        let parts = Arc::new(Parts { gate, tokens, clock, bundles, brokers, kubelet });
        let lines = Arc::new(Mutex::new(LogGate::new()));
        let on_unix = self.unix.map(|listener| TlsIncoming::over_unix(listener, tls.clone()));
        let on_tcp = self.tcp.map(|tcp| TlsListener::from_std(tcp, tls)).transpose()?;
        let serve = |incoming: Option<TlsIncoming>| {
            let (parts, lines, shutdown) = (parts.clone(), lines.clone(), shutdown.clone());
            async move {
                match incoming {
                    Some(incoming) => serve_one(incoming, parts, lines, shutdown).await,
                    None => Ok(()),
                }
            }
        };
        let served = async { tokio::try_join!(serve(on_unix), serve(on_tcp.map(TlsListener::incoming))) };
        // Cancel-safe: the trust is only kept as long as somebody is served.
        tokio::select! {
            ended = served => ended.map(|_| ()),
            () = trust => Ok(()),
        }
    }
}

async fn serve_one(
    incoming: TlsIncoming,
    parts: Arc<Parts>,
    lines: Arc<Mutex<LogGate>>,
    shutdown: Shutdown,
) -> Result<(), ServeError> {
    let (v1, v1alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    let (api, meter) = (BrokerApi(parts.clone()), parts.gate.metrics().rpc.clone());
    grpc_server()
        .layer(MeterLayer::new(meter))
        .layer(layer_fn(move |service| Door::new(service, parts.clone(), lines.clone())))
        .add_service(api)
        .add_service(Ending::new(v1, shutdown.clone()))
        .add_service(Ending::new(v1alpha, shutdown.clone()))
        .serve_with_incoming_shutdown(incoming.of_identified_clients(), shutdown.begun())
        .await?;
    Ok(())
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    describing([BROKER_DESCRIPTOR_SET])
}

/// Trusts what the agent trusts: the own bundle is there from the first contact on, foreign ones come with the entries that
/// need them. Never ends while the agent lives.
async fn keep_trust(mut own: watch::Receiver<X509Bundle>, cache: Arc<Cache>, live: LiveBundles) {
    let mut foreign = cache.bundle_changes();
    loop {
        let mut all = X509Bundles::from(own.borrow_and_update().clone());
        foreign.mark_unchanged();
        let snapshot = cache.snapshot();
        let known = snapshot.federated_names().filter_map(|name| snapshot.federated(name));
        known.for_each(|one| all.insert(one.bundle.clone()));
        live.set(all);
        let told = tokio::select! {
            changed = own.changed() => changed,
            changed = foreign.changed() => changed,
        };
        if told.is_err() {
            return std::future::pending().await;
        }
    }
}
