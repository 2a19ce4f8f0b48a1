//! A server and an agent in one folder, set up as an operator would, over and over.

use std::fs;
use std::path::PathBuf;

use crate::process::{Ended, Process, done, run};

pub(crate) const NODE: &str = "spiffe://example.org/node";

/// Each takes some milliseconds: far more of them than an agent needs to come back.
const FETCHES_MAX: usize = 10_000;

pub(crate) struct Domain {
    dir: tempfile::TempDir,
    data: PathBuf,
    kind: &'static str,
    /// More attestors of the server.
    pub(crate) server_attestor: String,
    /// The attestor of the agent.
    pub(crate) agent_attestor: String,
    /// More of the agent's own settings.
    pub(crate) agent_settings: String,
    /// More blocks of the agent's file.
    pub(crate) agent_blocks: String,
    /// What the agent's attestor of workloads is told.
    pub(crate) unix_attestor: &'static str,
    /// 0 until the first start has been given one.
    port: u16,
    /// More of the server's plugins.
    plugins: String,
}

impl Domain {
    pub(crate) fn new(kind: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("server");
        let agent_attestor = "NodeAttestor \"join_token\" { plugin_data {} }".into();
        Self {
            dir,
            data,
            kind,
            server_attestor: String::new(),
            agent_attestor,
            agent_settings: String::new(),
            agent_blocks: String::new(),
            unix_attestor: "",
            port: 0,
            plugins: String::new(),
        }
    }

    /// One whose server's authority is signed by the certificate, key and bundle in these files.
    pub(crate) fn below(kind: &'static str, files: [PathBuf; 3]) -> Self {
        let [cert, key, bundle] = files.map(|path| path.display().to_string());
        let plugins = format!(
            r#"UpstreamAuthority "disk" {{ plugin_data {{
                cert_file_path = "{cert}"
                key_file_path = "{key}"
                bundle_file_path = "{bundle}"
            }} }}"#
        );
        Self { plugins, ..Self::new(kind) }
    }

    /// One whose server keeps its state in `data`.
    pub(crate) fn with_data(kind: &'static str, data: PathBuf) -> Self {
        Self { data, ..Self::new(kind) }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_owned()
    }

    /// The directory of the store.
    pub(crate) fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    pub(crate) fn spawn_server(&self) -> Process {
        let (port, data, socket) = (self.port, self.data.display(), self.text("server.sock"));
        let server_attestor = &self.server_attestor;
        let text = format!(
            r#"
server {{
    trust_domain = "example.org"
    bind_address = "127.0.0.1"
    bind_port = {port}
    data_dir = "{data}"
    socket_path = "{socket}"
}}
plugins {{
    DataStore "{}" {{ plugin_data {{}} }}
    KeyManager "disk" {{ plugin_data {{ keys_path = "{data}/keys.json" }} }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    {server_attestor}
    {}
}}
"#,
            self.kind, self.plugins
        );
        fs::write(self.file("server.conf"), text).unwrap();
        Process::start("spindle-server", &["run", "-config", &self.text("server.conf")])
    }

    /// A server that answers. While it was away its port may have been given to a connection for a moment.
    pub(crate) fn start_server(&mut self) -> Process {
        loop {
            let mut server = self.spawn_server();
            if let Some(port) = server.wait_for(port) {
                server
                    .wait_for(|line| line.contains("network=unix").then_some(()))
                    .expect("the admin socket");
                self.port = port;
                return server;
            }
            let log = server.log();
            assert!(log.contains("Address already in use"), "the server does not start:\n{log}");
        }
    }

    pub(crate) fn server(&self, words: &[&str]) -> Ended {
        run("spindle-server", &[words, &["-socketPath", &self.text("server.sock")]].concat())
    }

    pub(crate) fn server_done(&self, words: &[&str]) -> String {
        done("spindle-server", &[words, &["-socketPath", &self.text("server.sock")]].concat())
    }

    /// Creates the entry `/n` for this process.
    pub(crate) fn create_entry(&self, n: u64) -> Ended {
        let (id, selector) = (entry_id(n), format!("unix:uid:{}", uid()));
        self.server(&["entry", "create", "-spiffeID", &id, "-parentID", NODE, "-selector", &selector])
    }

    /// The SPIFFE IDs of all entries of the node, as often as they are there.
    pub(crate) fn entries(&self) -> Vec<String> {
        let shown = self.server_done(&["entry", "show", "-parentID", NODE]);
        ids(&shown)
    }

    /// An agent that is attested: with a token at the first start, by what it kept at later ones.
    pub(crate) fn start_agent(&self, token: Option<&str>) -> Process {
        let (port, dir, attestor) = (self.port, self.dir.path().display(), &self.agent_attestor);
        let (settings, blocks) = (&self.agent_settings, &self.agent_blocks);
        let unix_attestor = self.unix_attestor;
        let text = format!(
            r#"
agent {{
    trust_domain = "example.org"
    server_address = "127.0.0.1"
    server_port = {port}
    data_dir = "{dir}/agent"
    socket_path = "{dir}/agent.sock"
    trust_bundle_path = "{dir}/bundle.pem"
    {settings}
}}
{blocks}
plugins {{
    KeyManager "disk" {{ plugin_data {{ directory = "{dir}/agent" }} }}
    {attestor}
    WorkloadAttestor "unix" {{ plugin_data {{ {unix_attestor} }} }}
}}
"#
        );
        fs::write(self.file("agent.conf"), text).unwrap();
        let config = self.text("agent.conf");
        let token: Vec<&str> = token.iter().flat_map(|token| ["-joinToken", token]).collect();
        Process::start("spindle-agent", &[&["run", "-config", &config][..], &token].concat())
    }

    pub(crate) fn first_agent(&self) -> Process {
        fs::write(self.file("bundle.pem"), self.server_done(&["bundle", "show"])).unwrap();
        let printed = self.server_done(&["token", "generate", "-spiffeID", NODE]);
        let token = printed.lines().find_map(|line| line.strip_prefix("Token:")).expect("a token").trim();
        self.start_agent(Some(token))
    }

    /// Fetch until this process is served at least `wanted`.
    pub(crate) fn wait_until_served(&self, agent: &mut Process, wanted: &[String]) {
        let socket = self.text("agent.sock");
        for _ in 0..FETCHES_MAX {
            let fetched = run("spindle-agent", &["api", "fetch", "x509", "-socketPath", &socket]);
            let served = ids(&fetched.out);
            if fetched.ok && wanted.iter().all(|id| served.contains(id)) {
                return;
            }
            assert!(!agent.has_ended(), "the agent ended by itself: {}", agent.log());
        }
        panic!("never served: {wanted:?}");
    }
}

pub(crate) fn entry_id(n: u64) -> String {
    format!("spiffe://example.org/n{n}")
}

fn ids(shown: &str) -> Vec<String> {
    let id =
        |line: &str| Some(line.trim().strip_prefix("SPIFFE ID")?.trim().strip_prefix(':')?.trim().to_owned());
    shown.lines().filter_map(id).collect()
}

/// The port in the log line of the TLS listener.
fn port(line: &str) -> Option<u16> {
    let line = line.contains("Starting Server APIs").then_some(line)?;
    let address = line.contains("network=tcp").then(|| line.split("address=").nth(1))??;
    address.split_whitespace().next()?.trim_matches('"').rsplit(':').next()?.parse().ok()
}

pub(crate) fn uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid()
}
