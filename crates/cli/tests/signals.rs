//! What a running server does when it is sent a signal, and what it writes to its log.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A server with its log in a file.
struct Server {
    child: Child,
    dir: PathBuf,
}

impl Server {
    /// `settings` stand in the `server` block of its file.
    fn start(dir: &Path, settings: &str) -> Self {
        write_config(dir, settings);
        let path = |name: &str| dir.join(name).to_str().expect("text").to_owned();
        let (socket, data, log) = (path("api.sock"), path("data"), path("server.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_spindle-server"))
            .args(["run", "-trustDomain", "example.org", "-bindAddress", "127.0.0.1", "-config"])
            .arg(dir.join("server.conf"))
            .args(["-socketPath", &socket, "-dataDir", &data, "-logFile", &log, "-logFormat", "json"])
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        let mut server = Self { child, dir: dir.into() };
        while !server.is_healthy() {
            assert_eq!(server.child.try_wait().expect("a child"), None, "the server ended");
        }
        server
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().expect("a pid")), signal).expect("it runs");
    }

    /// Runs a command of `spindle-server` against it.
    fn call(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spindle-server"));
        command.args(line.split_whitespace()).arg("-socketPath").arg(self.dir.join("api.sock"));
        command.output().expect("runs")
    }

    /// What a command that must succeed prints.
    fn print(&self, line: &str) -> String {
        let output = self.call(line);
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn is_healthy(&self) -> bool {
        self.call("healthcheck").status.success()
    }

    /// Asks until a log line with that message, beyond the first `seen` lines, is there; returns all lines from it on.
    fn lines_from(&self, seen: usize, message: &str) -> Vec<Value> {
        loop {
            let mut lines = lines(&self.dir.join("server.log"));
            if let Some(at) = lines.iter().skip(seen).position(|line| line["msg"] == message) {
                return lines.split_off(seen + at);
            }
            assert!(self.is_healthy(), "the server does not answer");
        }
    }

    fn line_count(&self) -> usize {
        lines(&self.dir.join("server.log")).len()
    }

    /// How long an SVID lasts whose lifetime nobody names, in seconds from its back-dated beginning.
    fn default_ttl_secs(&self) -> i64 {
        let text = self.print("x509 mint -spiffeID spiffe://example.org/a -output json");
        let minted: Value = serde_json::from_str(&text).expect("JSON");
        let chain = STANDARD.decode(minted["x509_svid"][0].as_str().expect("a chain")).expect("base64");
        let (_, leaf) = x509_parser::parse_x509_certificate(&chain).expect("a certificate");
        leaf.validity().not_after.timestamp() - leaf.validity().not_before.timestamp()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Port 0 cannot be given by a flag, which counts as unset when 0.
fn write_config(dir: &Path, settings: &str) {
    let text = format!("server {{\n bind_port = 0\n{settings}\n}}\n");
    std::fs::write(dir.join("server.conf"), text).expect("written");
}

/// The whole log lines under `path`; none when there is no such file.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| serde_json::from_str(line).expect("lines of JSON")).collect()
}

fn messages(path: &Path) -> Vec<String> {
    lines(path).iter().map(|line| line["msg"].as_str().expect("a message").to_owned()).collect()
}

#[test]
fn sigusr2_reopens_the_log_file_sigusr1_reloads_and_neither_ends_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path(), "");
    let (log, old) = (dir.path().join("server.log"), dir.path().join("server.log.1"));
    std::fs::rename(&log, &old).unwrap();
    server.send(Signal::SIGUSR1);
    server.send(Signal::SIGUSR2);
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("log file reopened")) {
        assert!(server.is_healthy(), "the server does not answer");
    }
    server.send(Signal::SIGTERM);
    assert!(server.child.wait().unwrap().success());
    let (before, after) = (messages(&old), messages(&log));
    assert!(before.iter().any(|message| message == "Starting Server APIs"), "{before:?}");
    assert!(
        after.contains(&"stopping".into()) && !before.contains(&"stopping".into()),
        "{before:?} {after:?}"
    );
    let reloaded = |message: &String| message.starts_with("configuration reloaded");
    assert!(before.iter().chain(&after).any(reloaded), "{before:?} {after:?}");
}

#[test]
fn sighup_takes_over_what_can_change_and_names_what_cannot() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "");
    assert_eq!(server.default_ttl_secs(), 3600 + 10);
    write_config(
        dir.path(),
        r#"default_x509_svid_ttl = "20m" admin_ids = ["spiffe://example.org/admin"] log_level = "WARN" ca_ttl = "48h"
           ratelimit { attestation = false } audit_log_enabled = true"#,
    );
    server.send(Signal::SIGHUP);
    let lines = server.lines_from(0, "these keys have changed and cannot be reloaded: restart the server");
    assert_eq!(lines[0]["keys"], "server.audit_log_enabled, server.ca_ttl");
    server.lines_from(0, "configuration reloaded");
    assert_eq!(server.default_ttl_secs(), 1200 + 10);
    assert_eq!(server.print("logger get"), "Logger Level : warning\nLaunch Level : warning\n\n");
    write_config(dir.path(), r#"default_x509_svid_ttl = "30m" log_level = "info""#);
    let seen = server.line_count();
    server.send(Signal::SIGHUP);
    let lines = server.lines_from(seen, "configuration reloaded");
    assert_eq!(
        lines[0]["changes"],
        "server.default_x509_svid_ttl: 20m0s -> 30m0s, server.agent_ttl: 20m0s -> 30m0s, \
         server.admin_ids: [spiffe://example.org/admin] -> [], server.ratelimit.attestation: false -> true, \
         server.log_level: warning -> info"
    );
    assert_eq!(server.default_ttl_secs(), 1800 + 10);
    let seen = server.line_count();
    server.send(Signal::SIGHUP);
    server.lines_from(seen, "configuration reloaded: no setting has changed");
}

#[test]
fn a_bad_file_leaves_everything_as_it_was_with_one_error() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "default_x509_svid_ttl = \"20m\"");
    for (settings, expected) in [
        ("default_x509_svid_ttl = \"5m\" log_level = \"loud\"", "server.log_level: \"loud\" is not a level"),
        ("default_x509_svid_ttl = \"5m\" agent_tl = \"1h\"", "did you mean agent_ttl?"),
        ("default_x509_svid_ttl = \"5m", "malformed"),
        ("default_x509_svid_ttl = \"5m\" admin_ids = [\"x\"]", "server.admin_ids"),
    ] {
        let seen = server.line_count();
        write_config(dir.path(), settings);
        server.send(Signal::SIGHUP);
        let lines = server.lines_from(seen, "configuration not reloaded: everything stays as it was");
        assert_eq!(lines[0]["level"], "error");
        assert!(lines[0]["error"].as_str().unwrap().contains(expected), "{settings}: {}", lines[0]);
        assert_eq!(server.default_ttl_secs(), 1200 + 10, "{settings}");
    }
    std::fs::remove_file(dir.path().join("server.conf")).unwrap();
    let seen = server.line_count();
    server.send(Signal::SIGHUP);
    server.lines_from(seen, "configuration not reloaded: everything stays as it was");
    assert_eq!(server.default_ttl_secs(), 1200 + 10);
}

#[test]
fn a_log_level_that_was_set_hides_lines_until_it_is_reset() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "");
    let minted = |server: &Server| {
        server.print("x509 mint -spiffeID spiffe://example.org/a");
        messages(&dir.path().join("server.log")).iter().filter(|line| *line == "X509-SVID minted").count()
    };
    assert_eq!(minted(&server), 1);
    assert_eq!(server.print("logger set -level error"), "Logger Level : error\nLaunch Level : info\n\n");
    assert_eq!(minted(&server), 1, "the line is hidden");
    let json = server.print("logger get -output json");
    assert_eq!(json, "{\"current_level\":\"ERROR\",\"launch_level\":\"INFO\"}\n");
    assert_eq!(server.print("logger reset"), "Logger Level : info\nLaunch Level : info\n\n");
    assert_eq!(minted(&server), 2);
    server.print("logger set -level debug");
    let refused = server.call("logger set -level loud");
    assert_eq!(
        String::from_utf8_lossy(&refused.stderr).lines().next().unwrap(),
        "Error: the value \"loud\" is not a valid setting"
    );
    assert!(server.print("logger get").starts_with("Logger Level : debug"));
}

#[test]
fn a_file_with_an_sqlite_database_starts_and_one_line_says_what_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("datastore.sqlite3");
    std::fs::write(&database, "SQLite format 3").unwrap();
    let sql = format!(
        "}}\nplugins {{ DataStore \"sql\" {{ plugin_data {{ database_type = \"sqlite3\" connection_string = {database:?} }} }}"
    );
    let server = Server::start(dir.path(), &sql);
    let lines = lines(&dir.path().join("server.log"));
    let notes: Vec<_> = lines.iter().filter(|line| line["level"] == "warning").collect();
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0]["note"].as_str().unwrap().starts_with("plugins.DataStore.sql: the embedded store"),
        "{notes:?}"
    );
    assert!(dir.path().join("data/store").is_dir());
    assert_eq!(server.print("entry count"), "0 registration entries\n");
    assert_eq!(std::fs::read_to_string(&database).unwrap(), "SQLite format 3", "the database is left alone");
}

#[test]
fn the_audit_log_stands_in_the_log_with_spires_fields() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "audit_log_enabled = true");
    let made = server.call("entry create -parentID spiffe://example.org/node -spiffeID spiffe://example.org/a -selector unix:uid:1");
    assert!(made.status.success());
    server.call("agent show -spiffeID spiffe://example.org/spire/agent/x/none");
    server.lines_from(0, "API accessed");
    let lines = lines(&dir.path().join("server.log"));
    let records: Vec<_> = lines.iter().filter(|line| line["msg"] == "API accessed").collect();
    assert_eq!(records.len(), 2, "{records:#?}");
    assert!(records.iter().all(|record| record["type"] == "audit" && record["authorized_as"] == "local"));
    assert_eq!(
        (&records[0]["status"], &records[0]["spiffe_id"]),
        (&"success".into(), &"spiffe://example.org/a".into())
    );
    assert_eq!(records[0]["caller_path"], env!("CARGO_BIN_EXE_spindle-server"));
    assert_eq!(
        (&records[1]["status_code"], &records[1]["status_message"]),
        (&5.into(), &"agent not found".into())
    );
}

/// An agent with its log in a file, ended when this is dropped.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_agent_takes_over_its_log_level_and_names_what_needs_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), "");
    let started = server.lines_from(0, "Starting Server APIs");
    let address = started.iter().find_map(|line| line["address"].as_str()).expect("an address");
    let port = address.rsplit(':').next().expect("a port").to_owned();
    let token = server.print("token generate -spiffeID spiffe://example.org/node");
    let token =
        token.lines().next().and_then(|line| line.strip_prefix("Token: ")).expect("a token").to_owned();
    let (config, log) = (dir.path().join("agent.conf"), dir.path().join("agent.log"));
    let write = |settings: &str| {
        let text = format!("agent {{\n{settings}\n}}\nplugins {{ WorkloadAttestor \"unix\" {{ }} }}\n");
        std::fs::write(&config, text).unwrap();
    };
    write("");
    let at = |name: &str| dir.path().join(name);
    let child = Command::new(env!("CARGO_BIN_EXE_spindle-agent"))
        .args(["run", "-trustDomain", "example.org", "-serverAddress", "127.0.0.1", "-insecureBootstrap"])
        .args(["-serverPort", &port, "-joinToken", &token, "-logFormat", "json", "-config"])
        .arg(&config)
        .arg("-dataDir")
        .arg(at("agent"))
        .arg("-socketPath")
        .arg(at("agent.sock"))
        .arg("-logFile")
        .arg(&log)
        .stdout(Stdio::null())
        .spawn()
        .expect("starts");
    let agent = Agent(child);
    let wait_for = |message: &str| loop {
        if let Some(line) = lines(&log).into_iter().find(|line| line["msg"] == message) {
            return line;
        }
        assert!(server.is_healthy(), "the server does not answer");
    };
    while !at("agent.sock").exists() {
        assert!(server.is_healthy(), "the server does not answer");
    }
    let hang_up = || kill(Pid::from_raw(agent.0.id().try_into().unwrap()), Signal::SIGHUP).unwrap();
    write("log_level = \"debug\" allow_unauthenticated_verifiers = true");
    hang_up();
    assert_eq!(wait_for("configuration reloaded")["changes"], "agent.log_level: info -> debug");
    let others = wait_for("these keys have changed and cannot be reloaded: restart the agent");
    assert_eq!(others["keys"], "agent.allow_unauthenticated_verifiers");
    write("log_levl = \"info\"");
    hang_up();
    let error = wait_for("configuration not reloaded: everything stays as it was");
    assert!(error["error"].as_str().unwrap().contains("did you mean log_level?"), "{error}");
}
