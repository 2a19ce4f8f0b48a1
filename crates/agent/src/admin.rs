//! The admin socket: a look inside the agent, its log level, and identities for delegates. Off unless configured.
//!
//! Who may connect is a matter of the socket's mode and of its directory, which lies apart from the public one; the
//! Delegated Identity API looks at each caller besides. Start at [`AdminSocket::bind`].

mod debug;
mod delegated;
mod logger;
mod place;

use std::path::{Path, PathBuf};

use spindle_proto::AGENT_DESCRIPTOR_SET;
use spindle_proto::spire::agent::debug::v1::debug_server::DebugServer;
use spindle_proto::spire::api::agent::logger::v1::logger_server::LoggerServer;
use spindle_runtime::{Logs, Shutdown};
use spindle_telemetry::{MeterLayer, RpcMeter};
use spindle_transport::{UnixBindError, UnixClients, UnixListener, UnixSocketConfig, grpc_server};

use crate::reflection::describing;
use crate::workload_api::Ending;

pub(crate) use debug::DebugService;
pub(crate) use delegated::DelegatedIdentity;
pub(crate) use place::{NotApart, check_apart};

use logger::LoggerService;

/// The agent's user and group.
const SOCKET_MODE: u32 = 0o770;

/// For directories that have to be made.
const PARENT_MODE: u32 = 0o750;

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminSocketError {
    /// gRPC gave up.
    #[error("the admin socket failed")]
    Serve(#[from] tonic::transport::Error),
    /// The reflection service cannot be built.
    #[error("cannot offer reflection: {0}")]
    Reflection(String),
}

/// What is offered on the socket.
pub(crate) struct Services {
    pub(crate) debug: DebugService,
    pub(crate) logs: Logs,
    pub(crate) delegated: DelegatedIdentity,
    /// Counts the calls of all of them.
    pub(crate) meter: RpcMeter,
}

/// A bound socket.
pub(crate) struct AdminSocket(UnixListener);

impl AdminSocket {
    /// Binds `path`.
    pub(crate) fn bind(path: &Path) -> Result<Self, UnixBindError> {
        let config = UnixSocketConfig {
            path: path.to_owned(),
            mode: SOCKET_MODE,
            parent_mode: PARENT_MODE,
            // Delegates use any gRPC library.
            clients: UnixClients::Workloads,
        };
        Ok(Self(UnixListener::bind(&config)?))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Serves until the shutdown begins.
    pub(crate) async fn serve(self, services: Services, shutdown: Shutdown) -> Result<(), AdminSocketError> {
        let Services { debug, logs, delegated, meter } = services;
        let v1 = reflection().build_v1().map_err(unbuilt)?;
        let v1alpha = reflection().build_v1alpha().map_err(unbuilt)?;
        let server = grpc_server()
            .layer(MeterLayer::new(meter))
            .add_service(DebugServer::new(debug))
            .add_service(LoggerServer::new(LoggerService { logs }))
            .add_service(delegated)
            .add_service(Ending::new(v1, shutdown.clone()))
            .add_service(Ending::new(v1alpha, shutdown.clone()));
        Ok(server.serve_with_incoming_shutdown(self.0.incoming(), shutdown.begun()).await?)
    }
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    describing([AGENT_DESCRIPTOR_SET])
}

fn unbuilt(error: impl std::fmt::Display) -> AdminSocketError {
    AdminSocketError::Reflection(error.to_string())
}
