//! `spindle quickstart` from nothing and again: the store, the authority and the agent of the first run go on.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use assert_cmd::Command;

fn quickstart(dir: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spindle"));
    // Twelve seconds of life and ten of back-dating: the half comes after one.
    command.args(["quickstart", "-ttl", "12", "-rotations", "1", "-dir"]).arg(dir).args(more);
    command.timeout(std::time::Duration::from_secs(120)).output().expect("runs")
}

fn told(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(err.is_empty(), "{err}");
    out.into_owned()
}

fn issuer(text: &str) -> &str {
    text.lines().find_map(|line| line.trim().strip_prefix("Issuer    : ")).expect("an issuer")
}

#[test]
fn a_second_run_goes_on_with_store_authority_and_agent_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let first = told(&quickstart(dir.path(), &[]));
    for part in
        ["server   up on 127.0.0.1:", "joined with a new token", "SPIFFE ID : spiffe://example.org/user/"]
    {
        assert!(first.contains(part), "{part}: {first}");
    }
    assert!(first.contains("export SPIFFE_ENDPOINT_SOCKET=unix:///"), "{first}");
    assert_eq!(first.matches("  rotated spiffe://example.org/user/").count(), 1, "{first}");
    assert!(first.ends_with("Stopped.\n"), "{first}");

    let second = told(&quickstart(dir.path(), &[]));
    assert!(second.contains("goes on with the identity it kept"), "{second}");
    assert_eq!(issuer(&first), issuer(&second));
}

/// A quickstart in the foreground; it is killed when the test is over.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn other_users_reach_the_workload_socket_and_nothing_else_and_no_core_is_dumped() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::set_permissions(temp.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let dir = temp.path().join("run");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_spindle"));
    command.args(["quickstart", "-dir"]).arg(&dir).stdout(Stdio::piped());
    let mut running = Running(command.spawn().unwrap());
    let lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let told: Vec<_> = lines.take_while(|line| !line.starts_with("Ctrl-C stops")).collect();
    let told = told.join("\n");

    let mode = |name: &str| std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("."), mode("agent.sock")), (0o755, 0o777), "{told}");
    assert_eq!((mode("server"), mode("agent")), (0o700, 0o700));
    assert_eq!((mode("server/keys.json"), mode("spindle.log") & 0o137), (0o600, 0));
    assert!(dir.join("server/api.sock").exists() && dir.join("server/store").exists());

    let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.0.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");

    assert!(
        told.contains("-parentID spiffe://example.org/node -spiffeID spiffe://example.org/billing"),
        "{told}"
    );
    let closed = format!("{} is closed to them", temp.path().canonicalize().unwrap().display());
    assert!(told.contains(&closed), "{told}");
}

#[test]
fn another_trust_domain_in_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    told(&quickstart(dir.path(), &[]));
    let output = quickstart(dir.path(), &["-trustDomain", "other.org"]);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("holds the trust domain \"example.org\", not other.org\n  Try: "), "{err}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let output = quickstart(Path::new("/proc/nope"), &[]);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(err.contains("/proc/nope") && err.contains("-dir"), "{err}");
}

#[test]
fn the_demo_goes_as_it_should() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spindle"));
    let output =
        command.args(["demo", "-seconds", "6"]).timeout(std::time::Duration::from_secs(180)).output();
    let out = told(&output.expect("runs"));
    for part in
        [", 0 failed, while SVIDs rotated ", "no_matching_entry", "Its stream ends after", "presents no SVID"]
    {
        assert!(out.contains(part), "{part}: {out}");
    }
    assert!(out.ends_with("all went as it should.\n"), "{out}");
}
