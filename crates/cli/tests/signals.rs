//! What a running server does when it is sent a signal.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A server with its log in a file.
struct Server(Child);

impl Server {
    fn start(dir: &Path) -> Self {
        let path = |name: &str| dir.join(name).to_str().expect("text").to_owned();
        let (socket, data, log) = (path("api.sock"), path("data"), path("server.log"));
        let child = Command::new(env!("CARGO_BIN_EXE_spindle-server"))
            .args(["run", "-trustDomain", "example.org", "-bindAddress", "127.0.0.1", "-config"])
            .arg(config(dir))
            .args(["-socketPath", &socket, "-dataDir", &data, "-logFile", &log, "-logFormat", "json"])
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        let mut server = Self(child);
        while !is_healthy(&socket) {
            assert_eq!(server.0.try_wait().expect("a child"), None, "the server ended");
        }
        server
    }

    fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().expect("a pid")), signal).expect("it runs");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Port 0 cannot be given by a flag, which counts as unset when 0.
fn config(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("server.conf");
    std::fs::write(&path, "server {\n bind_port = 0\n}\n").expect("written");
    path
}

fn is_healthy(socket: &str) -> bool {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spindle-server"));
    let output = command.args(["healthcheck", "-socketPath", socket]).output().expect("runs");
    output.status.success()
}

/// The log lines under `path`, or none when there is no such file.
fn messages(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let message = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("whole lines of JSON");
        line["msg"].as_str().expect("a message").to_owned()
    };
    text.lines().map(message).collect()
}

#[test]
fn sigusr2_reopens_the_log_file_sigusr1_is_noted_and_neither_ends_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let (log, old) = (dir.path().join("server.log"), dir.path().join("server.log.1"));
    std::fs::rename(&log, &old).unwrap();
    server.send(Signal::SIGUSR1);
    server.send(Signal::SIGUSR2);
    while !std::fs::read_to_string(&log).is_ok_and(|text| text.contains("log file reopened")) {
        assert!(is_healthy(dir.path().join("api.sock").to_str().unwrap()), "the server does not answer");
    }
    server.send(Signal::SIGTERM);
    assert!(server.0.wait().unwrap().success());
    let (before, after) = (messages(&old), messages(&log));
    assert!(before.iter().any(|message| message == "Starting Server APIs"), "{before:?}");
    assert!(
        after.contains(&"stopping".into()) && !before.contains(&"stopping".into()),
        "{before:?} {after:?}"
    );
    let noted = |message: &String| message.starts_with("nothing to reload");
    assert!(before.iter().chain(&after).any(noted), "{before:?} {after:?}");
}
