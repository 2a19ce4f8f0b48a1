//! A trust domain of real processes: a server, and an agent beside it, as an operator would start them.
//!
//! State lies beside the binaries, because a temporary folder may be in memory, where writes are durable for free; sockets
//! lie in a temporary folder, because their paths have to be short. Start at [`Server::start`] and [`Agent::start`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use spindle_e2e::{Admin, TRUST_DOMAIN, entry, id, svid_stream};
use spindle_spiffe_core::SpiffeId;
use spindle_testkit::TestFolder;
use spindle_transport::connect_unix;
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::process::{Process, program};

/// The embedded stores.
#[derive(Clone, Copy)]
pub(crate) enum Store {
    Sled,
    Redb,
    /// Keeps nothing: what is left of a cost on it is not the disk's.
    Memory,
}

impl Store {
    pub(crate) const DURABLE: [Self; 2] = [Self::Sled, Self::Redb];

    /// Its name in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Redb => "redb",
            Self::Memory => "memory",
        }
    }
}

/// A server that answers.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) addr: SocketAddr,
    pub(crate) admin: Admin,
    pub(crate) store: Store,
    sockets: TestFolder,
    state: TempDir,
}

impl Server {
    /// Starts a server with a fresh store.
    pub(crate) async fn start(store: Store) -> Result<Self> {
        let binaries = program("")?;
        let state = tempfile::Builder::new().prefix("spindle-bench-").tempdir_in(binaries)?;
        let sockets = TestFolder::new();
        let socket_path = sockets.socket("server.sock");
        let config_path = state.path().join("server.conf");
        std::fs::write(&config_path, server_config(store, state.path(), &socket_path))?;
        let arguments = ["run", "-config", text(&config_path)?];
        let mut process = Process::start("spindle-server", &arguments, &state.path().join("server.log"))?;
        let addr =
            process.wait_for("the server's address", async |process| Ok(address(&process.log()?))).await?;
        let admin = Admin::connect(&socket_path).await?;
        Ok(Self { process, addr, admin, store, sockets, state })
    }

    /// A folder on the disk that the store is on.
    pub(crate) fn folder(&self) -> &Path {
        self.state.path()
    }
}

/// An agent that has an SVID for its callers.
pub(crate) struct Agent {
    pub(crate) process: Process,
    pub(crate) id: SpiffeId,
    socket_path: PathBuf,
}

impl Agent {
    /// Starts an agent that is attested by join token, with one entry `path` for callers with `selector`, and waits until
    /// this process is served.
    pub(crate) async fn start(server: &Server, path: &str, selector: &str) -> Result<Self> {
        let (folder, token) = (server.folder(), server.admin.join_token().await?);
        let id = id(&format!("/spire/agent/join_token/{token}"));
        server.admin.register(entry(&id, path, &[selector])?).await?;
        std::fs::write(folder.join("bundle.pem"), server.admin.bundle().await?.to_pem())?;
        let socket_path = server.sockets.socket("agent.sock");
        let config_path = folder.join("agent.conf");
        std::fs::write(&config_path, agent_config(server, &socket_path))?;
        let arguments = ["run", "-config", text(&config_path)?, "-joinToken", &token];
        let mut process = Process::start("spindle-agent", &arguments, &folder.join("agent.log"))?;
        process.wait_for("an SVID", async |_| Ok(is_served(&socket_path).await.then_some(()))).await?;
        Ok(Self { process, id, socket_path })
    }

    /// Where its Workload API is.
    pub(crate) fn socket_path(&self) -> &Path {
        &self.socket_path
    }

    /// A new connection to the Workload API.
    pub(crate) async fn connect(&self) -> Result<Channel> {
        Ok(connect_unix(&self.socket_path).await?)
    }
}

async fn is_served(socket_path: &Path) -> bool {
    let Ok(channel) = connect_unix(socket_path).await else { return false };
    let Ok(mut stream) = svid_stream(channel).await else { return false };
    matches!(stream.message().await, Ok(Some(_)))
}

/// The address in the log line of the TLS listener.
fn address(log: &str) -> Option<SocketAddr> {
    let line =
        log.lines().find(|line| line.contains("Starting Server APIs") && line.contains("network=tcp"))?;
    line.split("address=").nth(1)?.split_whitespace().next()?.trim_matches('"').parse().ok()
}

fn server_config(store: Store, state: &Path, socket_path: &Path) -> String {
    let (store, state, socket_path) = (store.name(), state.display(), socket_path.display());
    format!(
        r#"server {{
    trust_domain = "{TRUST_DOMAIN}"
    bind_address = "127.0.0.1"
    bind_port = 0
    data_dir = "{state}/server"
    socket_path = "{socket_path}"
    ratelimit {{
        attestation = false
        signing = false
    }}
}}
plugins {{
    DataStore "{store}" {{ plugin_data {{}} }}
    KeyManager "disk" {{ plugin_data {{ keys_path = "{state}/server/keys.json" }} }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
"#
    )
}

fn agent_config(server: &Server, socket_path: &Path) -> String {
    let (state, port, socket_path) = (server.folder().display(), server.addr.port(), socket_path.display());
    format!(
        r#"agent {{
    trust_domain = "{TRUST_DOMAIN}"
    server_address = "127.0.0.1"
    server_port = {port}
    data_dir = "{state}/agent"
    socket_path = "{socket_path}"
    trust_bundle_path = "{state}/bundle.pem"
}}
plugins {{
    KeyManager "disk" {{ plugin_data {{ directory = "{state}/agent" }} }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"#
    )
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("the folder of the binaries has a name that is no text")
}
