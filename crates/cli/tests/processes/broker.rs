//! `broker` against a real agent: what a node component does with what other workloads are entitled to.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use spindle_spiffe_core::X509Svid;
use spindle_spiffe_core::pem::certificates_from_pem;

use crate::domain::{Domain, NODE, entry_id};
use crate::process::{Ended, Process, binary, run};

const BROKER_ID: &str = "spiffe://example.org/broker";

/// Far beyond any healthy answer: reaching it is a failure, not a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A domain whose agent serves a broker, which it knows by its program.
struct Rig {
    domain: Domain,
    /// The broker's socket lies apart from the public one.
    apart: tempfile::TempDir,
    _server: Process,
    agent: Process,
}

impl Rig {
    fn new() -> Self {
        let apart = tempfile::tempdir().unwrap();
        let mut domain = Domain::new("memory");
        domain.unix_attestor = "discover_workload_path = true";
        domain.agent_settings = format!(
            r#"
    experimental {{
        broker {{
            socket_path = "{}/broker.sock"
            brokers = [
                {{
                    id = "{BROKER_ID}"
                    allowed_reference_types = [
                        {{ type_url = "type.googleapis.com/spiffe.broker.WorkloadPIDReference" }}
                    ]
                }}
            ]
        }}
    }}
"#,
            apart.path().display()
        );
        let server = domain.start_server();
        create(&domain, BROKER_ID, Path::new(binary("spindle-agent")));
        let mut agent = domain.first_agent();
        domain.wait_until_served(&mut agent, &[BROKER_ID.into()]);
        Self { domain, apart, _server: server, agent }
    }

    fn address(&self) -> String {
        format!("unix://{}/broker.sock", self.apart.path().display())
    }

    /// A program with an entry of its own that is told from others by its path, and a process of it.
    fn workload(&self, n: u64) -> Workload {
        let program = self.domain.file(&format!("work-{n}"));
        fs::copy("/bin/cat", &program).unwrap();
        create(&self.domain, &entry_id(n), &program);
        Workload::start(&program)
    }

    fn words<'a>(&'a self, words: &[&'a str], socket: &'a str) -> Vec<&'a str> {
        [&["broker"], words, &["-socketPath", socket]].concat()
    }

    fn broker(&self, words: &[&str]) -> Ended {
        let (socket, address) = (self.domain.text("agent.sock"), self.address());
        run("spindle-agent", &[&self.words(words, &socket)[..], &["-brokerSocket", &address]].concat())
    }

    /// The same command until the workload's entry has reached the agent.
    fn served(&self, words: &[&str]) -> Ended {
        wait_for("an answer for the workload", || Some(self.broker(words)).filter(|ended| ended.ok))
    }

    /// Keeps the files of a process; the endpoint is told by the standard's variable.
    fn keep(&self, pid: u32, dir: &Path) -> Process {
        let (socket, pid, dir) = (self.domain.text("agent.sock"), pid.to_string(), dir.to_str().unwrap());
        let words = self.words(&["files", "-pid", &pid, "-dir", dir], &socket);
        Process::start_with("spindle-agent", &words, &[("SPIFFE_BROKER_SOCKET", &self.address())])
    }
}

fn create(domain: &Domain, id: &str, program: &Path) -> String {
    let selector = format!("unix:path:{}", program.display());
    let made =
        domain.server_done(&["entry", "create", "-spiffeID", id, "-parentID", NODE, "-selector", &selector]);
    let entry = made.lines().find_map(|line| line.strip_prefix("Entry ID")?.split(':').nth(1));
    entry.expect("an entry ID").trim().to_owned()
}

/// A process that runs until it is told to end.
struct Workload(Child);

impl Workload {
    fn start(program: &Path) -> Self {
        loop {
            let mut command = Command::new(program);
            match command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn() {
                Ok(child) => return Self(child),
                // A test beside this one was forking while the program was written.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.end();
    }
}

/// Asks again until there is an answer.
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let patience = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(tokio::time::Instant::now() < patience, "{what} did not come");
        // Gives the processor to those that are waited for.
        thread::park_timeout(Duration::from_millis(2));
    }
}

/// The identity in the files of a directory; none when there is none.
fn identity_in(dir: &Path) -> Option<String> {
    let pem = fs::read(dir.join("current/tls.crt")).ok()?;
    let svid = X509Svid::parse(certificates_from_pem(&pem).ok()?).ok()?;
    Some(svid.spiffe_id().to_string())
}

/// All files below a directory that hold something of a workload, at any depth.
fn kept(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (kind, path) = (entry.file_type().unwrap(), entry.path());
        if kind.is_dir() {
            found.extend(kept(&path));
        } else if kind.is_file() && entry.file_name() != ".spindle-files" {
            found.push(path);
        }
    }
    found
}

#[test]
fn bep_10_bap_52_bap_61_bap_67_a_workloads_files_end_with_its_identity_and_with_itself_and_no_others_do() {
    let rig = Rig::new();
    let (mut first, second) = (rig.workload(1), rig.workload(2));
    let dirs = [rig.domain.file("first"), rig.domain.file("second")];
    let mut keeper = rig.keep(first.pid(), &dirs[0]);
    let mut other = rig.keep(second.pid(), &dirs[1]);
    let shows = |at: usize, n: Option<u64>| {
        wait_for("the files", || (identity_in(&dirs[at]) == n.map(entry_id)).then_some(()));
    };
    shows(0, Some(1));
    shows(1, Some(2));
    // The one workload loses its identity, and gets it back.
    let first_program = rig.domain.file("work-1");
    let entries = rig.domain.server_done(&["entry", "show", "-spiffeID", &entry_id(1)]);
    let entry = entries.lines().find_map(|line| line.strip_prefix("Entry ID")?.split(':').nth(1)).unwrap();
    rig.domain.server_done(&["entry", "delete", "-entryID", entry.trim()]);
    wait_for("nothing of the first", || kept(&dirs[0]).is_empty().then_some(()));
    assert_eq!(identity_in(&dirs[1]), Some(entry_id(2)), "the other one keeps its own");
    create(&rig.domain, &entry_id(1), &first_program);
    shows(0, Some(1));
    // It ends, and so does the broker's work for it.
    first.end();
    assert_eq!(keeper.end(), Some(0), "{}", keeper.log());
    assert!(kept(&dirs[0]).is_empty());
    assert_eq!(identity_in(&dirs[1]), Some(entry_id(2)));
    assert!(!other.has_ended(), "{}", other.log());
}

#[test]
fn bap_52_the_end_of_a_process_is_seen_though_the_agent_is_away() {
    let mut rig = Rig::new();
    let mut workload = rig.workload(1);
    let dir = rig.domain.file("svid");
    let mut keeper = rig.keep(workload.pid(), &dir);
    wait_for("the files", || identity_in(&dir));
    rig.agent.kill();
    let lost = keeper.wait_for(|line| line.contains("the Broker API is not there").then_some(()));
    assert!(lost.is_some(), "{}", keeper.log());
    assert!(identity_in(&dir).is_some(), "what was there stays while the agent is away");
    workload.end();
    assert_eq!(keeper.end(), Some(0), "{}", keeper.log());
    assert!(kept(&dir).is_empty());
}

#[test]
fn bep_03_bep_05_bep_16_bap_62_bap_78_each_kind_is_fetched_for_the_workload_that_is_named() {
    let rig = Rig::new();
    let workload = rig.workload(1);
    let pid = workload.pid().to_string();
    let svids = rig.served(&["fetch", "-pid", &pid]);
    assert!(svids.out.contains(&entry_id(1)) && !svids.out.contains(BROKER_ID), "{}", svids.out);
    let tokens = rig.served(&["fetch", "jwt", "-audience", "db", "-pid", &pid, "-output", "json"]);
    let tokens: Value = serde_json::from_str(&tokens.out).unwrap();
    assert_eq!(tokens[0]["svids"][0]["spiffe_id"], entry_id(1).as_str());
    assert!(tokens[1]["bundles"]["spiffe://example.org"].is_string(), "{tokens}");
    let folder = rig.domain.text("");
    let bundles = rig.served(&["fetch", "x509bundles", "-pid", &pid, "-write", &folder]);
    assert!(bundles.out.contains("Trust domain:\t\texample.org"), "{}", bundles.out);
    let pem = fs::read_to_string(rig.domain.file("bundle.example.org.pem")).unwrap();
    assert_eq!(pem, rig.domain.server_done(&["bundle", "show"]), "certificates alone, no keys of tokens");
    let wrong = rig.broker(&["fetch", "-pid", &pid, "-agentID", "spiffe://example.org/spire/agent/other"]);
    assert!(!wrong.ok && wrong.err.contains("cannot reach the broker endpoint"), "{}", wrong.err);
    let unlisted = rig.broker(&["fetch", "-podUID", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"]);
    assert!(!unlisted.ok && unlisted.err.contains("PermissionDenied"), "{}", unlisted.err);
}

#[test]
fn a_workload_is_watched_until_it_ends() {
    let rig = Rig::new();
    let mut workload = rig.workload(1);
    let pid = workload.pid().to_string();
    rig.served(&["fetch", "-pid", &pid]);
    let (socket, address) = (rig.domain.text("agent.sock"), rig.address());
    let words = rig.words(&["watch", "-pid", &pid], &socket);
    let mut watch = Process::start_with("spindle-agent", &words, &[("SPIFFE_BROKER_SOCKET", &address)]);
    let shown = watch.wait_for(|line| line.contains(&entry_id(1)).then_some(()));
    assert!(shown.is_some(), "{}", watch.log());
    workload.end();
    assert_eq!(watch.end(), Some(0), "{}", watch.log());
    assert!(watch.log().contains("The workload is gone: "), "{}", watch.log());
}

#[test]
fn wap_33_a_verifier_without_identity_is_served_x509_bundles_of_certificates_alone() {
    let mut domain = Domain::new("memory");
    domain.agent_settings = "allow_unauthenticated_verifiers = true".into();
    let _server = domain.start_server();
    let _agent = domain.first_agent();
    let socket = domain.text("agent.sock");
    let folder = domain.text("");
    let words = ["api", "fetch", "x509bundles", "-socketPath", &socket, "-write", &folder];
    let shown = wait_for("an answer", || Some(run("spindle-agent", &words)).filter(|ended| ended.ok));
    assert!(shown.out.contains("Trust domain:\t\texample.org\nCA #1 Valid After:"), "{}", shown.out);
    let own = domain.server_done(&["bundle", "show"]);
    assert_eq!(fs::read_to_string(domain.file("bundle.example.org.pem")).unwrap(), own);
    let dir = domain.file("bundles");
    let flags = ["-dir", dir.to_str().unwrap(), "-bundlesOnly", "-jwtBundlesFile", "jwt.json"];
    let _keeper = Process::start("spindle-agent", &[&["files", "-socketPath", &socket][..], &flags].concat());
    wait_for("the files", || dir.join("current/jwt.json").exists().then_some(()));
    assert_eq!(fs::read_to_string(dir.join("bundle.example.org.pem")).unwrap(), own);
    let keys: Value = serde_json::from_slice(&fs::read(dir.join("jwt.json")).unwrap()).unwrap();
    assert!(keys["spiffe://example.org"]["keys"][0]["kid"].is_string(), "{keys}");
    assert_eq!(fs::read_dir(dir.join("current")).unwrap().count(), 2, "no identity, no key");
    let refused = run("spindle-agent", &["api", "fetch", "-socketPath", &socket]);
    assert!(!refused.ok && refused.err.contains("PermissionDenied"), "{}", refused.err);
}
