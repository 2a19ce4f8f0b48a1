//! The agent's admin socket and its health, with the real binaries and the real numbers of processes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use spindle_proto::spire::api::agent::delegatedidentity::v1::SubscribeToX509sviDsRequest;
use spindle_proto::spire::api::agent::delegatedidentity::v1::delegated_identity_client::DelegatedIdentityClient;
use spindle_transport::connect_unix;
use tonic::Code;

use crate::domain::{Domain, NODE, uid};
use crate::process::{Process, done, run};

/// A domain whose agent has an admin socket and answers probes.
struct Rig {
    domain: Domain,
    _server: Process,
    agent: Process,
    admin: tempfile::TempDir,
    probes: String,
}

/// A process with a program of its own.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Rig {
    fn start() -> Self {
        let (mut domain, admin) = (Domain::new("sled"), tempfile::tempdir().unwrap());
        domain.agent_settings = format!(
            "admin_socket_path = \"{}/admin.sock\"\nauthorized_delegates = [\"spiffe://example.org/delegate\"]",
            admin.path().display()
        );
        domain.agent_blocks =
            "health_checks {\nlistener_enabled = true\nbind_address = \"127.0.0.1\"\nbind_port = \"0\"\n}"
                .into();
        let server = domain.start_server();
        let selector = format!("unix:uid:{}", uid());
        for path in ["/delegate", "/workload"] {
            let id = format!("spiffe://example.org{path}");
            domain.server_done(&[
                "entry",
                "create",
                "-spiffeID",
                &id,
                "-parentID",
                NODE,
                "-selector",
                &selector,
            ]);
        }
        let mut agent = domain.first_agent();
        let probes = agent.wait_for(|line| {
            let address = line.contains("Serving health checks").then(|| line.split("address=").nth(1))??;
            Some(address.split_whitespace().next()?.trim_matches('"').to_owned())
        });
        let probes = probes.expect("a listener for probes");
        let wanted = ["spiffe://example.org/delegate", "spiffe://example.org/workload"].map(str::to_owned);
        domain.wait_until_served(&mut agent, &wanted);
        Self { domain, _server: server, agent, admin, probes }
    }

    fn socket(&self) -> String {
        self.admin.path().join("admin.sock").display().to_string()
    }

    fn admin(&self, words: &[&str]) -> String {
        done("spindle-agent", &[words, &["-socketPath", &self.socket()]].concat())
    }

    fn probe(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.probes).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

#[test]
fn an_agent_is_looked_into_over_its_admin_socket_and_says_that_it_is_healthy() {
    let rig = Rig::start();
    let mode = std::fs::metadata(rig.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o770);
    let info: Value = serde_json::from_str(&rig.admin(&["debug", "getinfo", "-output", "json"])).unwrap();
    // Those of the two entries, and of the node's own name.
    assert_eq!(info["cached_x509_svids_count"], 3, "{info}");
    assert!(info["last_sync_success"].as_str().unwrap().parse::<i64>().unwrap() > 0, "{info}");
    let chain = info["svid_chain"].as_array().unwrap();
    assert_eq!(chain.len(), 2, "its own certificate and the authority: {info}");
    assert!(chain[0]["id"]["path"].as_str().unwrap().starts_with("/spire/agent/join_token/"), "{info}");
    let shown = rig.admin(&["debug", "getinfo"]);
    assert!(
        shown.starts_with("Agent Debug Info:\n") && shown.contains("Cached X.509 SVIDs:              3\n"),
        "{shown}"
    );
    assert_eq!(rig.admin(&["logger", "get"]), "Logger Level : info\nLaunch Level : info\n\n");
    assert_eq!(
        rig.admin(&["logger", "set", "-level", "debug"]),
        "Logger Level : debug\nLaunch Level : info\n\n"
    );
    assert_eq!(rig.admin(&["logger", "reset"]), "Logger Level : info\nLaunch Level : info\n\n");
    let refused = run("spindle-agent", &["logger", "set", "-level", "loud", "-socketPath", &rig.socket()]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.starts_with("Error: the value \"loud\" is not a valid setting"), "{}", refused.err);

    let public = rig.domain.text("agent.sock");
    assert_eq!(done("spindle-agent", &["healthcheck", "-socketPath", &public]), "Agent is healthy.\n");
    let verbose = done("spindle-agent", &["healthcheck", "-verbose", "-shallow", "-socketPath", &public]);
    assert_eq!(verbose, "Checking agent health...\nAgent is healthy.\n");
    for path in ["/live", "/ready"] {
        let answer = rig.probe(path);
        assert!(
            answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("{\"agent\":{}}\n"),
            "{answer}"
        );
    }
}

#[test]
fn a_delegate_gets_the_identity_of_a_real_process_until_that_ends() {
    let mut rig = Rig::start();
    let child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let workload = Running(child);
    let pid = i32::try_from(workload.0.id()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let channel = connect_unix(std::path::Path::new(&rig.socket())).await.unwrap();
        let mut client = DelegatedIdentityClient::new(channel);
        let request = SubscribeToX509sviDsRequest { selectors: Vec::new(), pid };
        let mut stream = client.subscribe_to_x509svi_ds(request).await.unwrap().into_inner();
        let answer = stream.message().await.unwrap().unwrap();
        let ids: Vec<String> =
            answer.x509_svids.iter().map(|one| one.x509_svid.clone().unwrap().id.unwrap().path).collect();
        assert_eq!(ids.len(), 2, "{ids:?}");
        assert!(ids.contains(&"/workload".to_owned()), "{ids:?}");
        drop(workload);
        let end = stream.message().await.expect_err("the stream ends with the process");
        assert_eq!((end.code(), end.message()), (Code::NotFound, "the process has ended"));
    });
    assert!(!rig.agent.has_ended());
}

#[test]
fn an_admin_socket_beside_the_public_one_is_refused_through_links_too() {
    let (mut domain, elsewhere) = (Domain::new("sled"), tempfile::tempdir().unwrap());
    let _server = domain.start_server();
    std::os::unix::fs::symlink(domain.file(""), elsewhere.path().join("link")).unwrap();
    domain.agent_settings = format!("admin_socket_path = \"{}/link/admin.sock\"", elsewhere.path().display());
    let mut agent = domain.first_agent();
    agent.ends_with("the directory of the public socket; choose another directory");
}
