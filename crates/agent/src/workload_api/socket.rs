//! The socket with all its services: Workload API, Envoy's SDS, health, reflection.
//!
//! Bound first and served later: until then callers wait in the kernel's queue. SDS, health and reflection need no
//! security header, as with SPIRE (Workload Endpoint 3 speaks of the Workload API).

use std::path::{Path, PathBuf};

use spindle_proto::{ENVOY_DESCRIPTOR_SET, WORKLOAD_DESCRIPTOR_SET};
use spindle_runtime::Shutdown;
use spindle_transport::{CrowdLimits, UnixBindError, UnixClients, UnixListener, UnixSocketConfig, serve};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use super::WorkloadApi;
use super::admitting::{Admitting, too_many_connections};
use super::ending::Ending;
use crate::config::CallerLimits;
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

    /// Takes so many connections of a process and of a user.
    pub(crate) fn limited(self, limits: &CallerLimits) -> Self {
        let usual = CrowdLimits::workload_connections();
        Self(self.0.limited(CrowdLimits {
            per_process: limits.connections_per_process.unwrap_or(usual.per_process),
            per_user: limits.connections_per_user.unwrap_or(usual.per_user),
            ..usual
        }))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Serves until the shutdown begins. `ready` says when the health service may answer SERVING.
    pub(crate) async fn serve(
        self,
        api: WorkloadApi,
        sds: Option<Sds>,
        mut ready: watch::Receiver<bool>,
        shutdown: Shutdown,
    ) -> Result<(), SocketError> {
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter.set_service_status("", ServingStatus::NotServing).await;
        let reflection = || reflection(sds.is_some());
        let (v1, v1alpha) =
            (reflection().build_v1().map_err(unbuilt)?, reflection().build_v1alpha().map_err(unbuilt)?);
        let (gate, routes) = (api.gate(), Routes::new(api));
        let routes = match sds {
            Some(sds) => routes.add_service(sds),
            None => routes,
        };
        let routes = routes
            .add_service(Ending::new(health, shutdown.clone()))
            .add_service(Ending::new(v1, shutdown.clone()))
            .add_service(Ending::new(v1alpha, shutdown.clone()))
            .prepare();
        let service = Admitting::new(routes, gate);
        let served = serve(self.0.incoming(), service, too_many_connections, shutdown.begun());
        let report = async {
            if ready.wait_for(|ready| *ready).await.is_ok() {
                reporter.set_service_status("", ServingStatus::Serving).await;
            }
            std::future::pending::<()>().await;
        };
        // Cancel-safe: the report only sets a value.
        tokio::select! {
            () = served => Ok(()),
            () = report => Ok(()),
        }
    }
}

fn reflection(has_sds: bool) -> tonic_reflection::server::Builder<'static> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(WORKLOAD_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    if has_sds { builder.register_encoded_file_descriptor_set(ENVOY_DESCRIPTOR_SET) } else { builder }
}

fn unbuilt(error: impl std::fmt::Display) -> SocketError {
    SocketError::Reflection(error.to_string())
}
