//! The socket with all its services: Workload API, Envoy's SDS, health, reflection.
//!
//! Bound first and served later: until then callers wait in the kernel's queue. SDS, health and reflection need no
//! security header, as with SPIRE (Workload Endpoint 3 speaks of the Workload API).

use std::path::Path;
use std::sync::Arc;

use spindle_proto::{ENVOY_DESCRIPTOR_SET, WORKLOAD_DESCRIPTOR_SET};
use spindle_runtime::Shutdown;
use spindle_transport::{
    CrowdLimits, PaceLimits, Rate, UnixBindError, UnixClients, UnixListener, UnixSocketConfig, serve,
};
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use super::WorkloadApi;
use super::admitting::{Admitting, too_many_connections};
use super::ending::Ending;
use crate::config::CallerLimits;
use crate::gate::Gate;
use crate::health::HealthService;
use crate::reflection::describing;
use crate::sds::Sds;

/// Anybody on the node may ask; who gets what is decided by what the process shows.
const SOCKET_MODE: u32 = 0o777;

/// For directories that have to be made.
const PARENT_MODE: u32 = 0o755;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    /// The reflection service cannot be built.
    #[error("cannot offer reflection: {0}")]
    Reflection(String),
}

/// What is served on the socket.
pub(crate) struct Services {
    /// None when the Workload API is switched off.
    pub(crate) api: Option<WorkloadApi>,
    /// None when SDS is switched off.
    pub(crate) sds: Option<Sds>,
    pub(crate) health: HealthServer<HealthService>,
}

/// A bound socket.
pub(crate) struct Socket(UnixListener);

impl Socket {
    /// Binds `path`.
    pub(crate) fn bind(path: &Path) -> Result<Self, UnixBindError> {
        let config = UnixSocketConfig {
            path: path.to_owned(),
            mode: SOCKET_MODE,
            parent_mode: PARENT_MODE,
            clients: UnixClients::Workloads,
        };
        Ok(Self(UnixListener::bind(&config)?))
    }

    /// Takes so many connections of a process and of a user, and new ones as often as their callers may be attested.
    pub(crate) fn limited(self, limits: &CallerLimits) -> Self {
        let usual = CrowdLimits::workload_connections();
        let at_a_time = CrowdLimits {
            per_process: limits.connections_per_process.unwrap_or(usual.per_process),
            per_user: limits.connections_per_user.unwrap_or(usual.per_user),
            ..usual
        };
        let often = PaceLimits {
            per_process: paced(limits.attestations_per_process),
            per_user: paced(limits.attestations_per_user),
        };
        Self(self.0.limited(at_a_time).paced(often))
    }

    /// Serves until the shutdown begins. Calls are let in by `gate`.
    pub(crate) async fn serve(
        self,
        gate: Arc<Gate>,
        services: Services,
        shutdown: Shutdown,
    ) -> Result<(), SocketError> {
        let Services { api, sds, health } = services;
        let reflection = || reflection(api.is_some(), sds.is_some());
        let (v1, v1alpha) =
            (reflection().build_v1().map_err(unbuilt)?, reflection().build_v1alpha().map_err(unbuilt)?);
        let mut routes = Routes::new(Ending::new(health, shutdown.clone()));
        if let Some(api) = api {
            routes = routes.add_service(api);
        }
        if let Some(sds) = sds {
            routes = routes.add_service(sds);
        }
        let routes = routes
            .add_service(Ending::new(v1, shutdown.clone()))
            .add_service(Ending::new(v1alpha, shutdown.clone()))
            .prepare();
        let service = Admitting::new(routes, gate);
        serve(self.0.incoming(), service, too_many_connections, shutdown.begun()).await;
        Ok(())
    }
}

/// How often connections are served that need an attestation each: a little behind those, so that a caller whose turn has
/// come is not refused for what others before him took a moment later than their turn.
fn paced(attestations: Rate) -> Rate {
    Rate { burst: attestations.burst - attestations.burst / 10, ..attestations }
}

fn reflection(has_workload_api: bool, has_sds: bool) -> tonic_reflection::server::Builder<'static> {
    let sets = [
        (true, tonic_health::pb::FILE_DESCRIPTOR_SET),
        (has_workload_api, WORKLOAD_DESCRIPTOR_SET),
        (has_sds, ENVOY_DESCRIPTOR_SET),
    ];
    describing(sets.into_iter().filter(|(is_offered, _)| *is_offered).map(|(_, set)| set))
}

fn unbuilt(error: impl std::fmt::Display) -> SocketError {
    SocketError::Reflection(error.to_string())
}
