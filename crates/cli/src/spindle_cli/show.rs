//! What `dev` and `quickstart` tell the person in front of them.

use std::io::{Result, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use spindle_spiffe_core::{Timestamp, TrustDomain};

use crate::agent_cli::Fetched;
use crate::local::{Paths, Progress, issuer, node_name};

/// One line for each step of the start.
pub(super) fn progress(out: &mut dyn Write, step: &Progress) -> Result<()> {
    match step {
        Progress::ServerUp(addr) => writeln!(out, "  server   up on {addr}, its authority is ready")?,
        Progress::EntryReady(id) => writeln!(out, "  entry    {id}")?,
        Progress::AgentUp { joined: true } => writeln!(out, "  agent    joined with a new token")?,
        Progress::AgentUp { joined: false } => writeln!(out, "  agent    goes on with the identity it kept")?,
    }
    out.flush()
}

/// The SVIDs of an answer in full.
pub(super) fn svids(out: &mut dyn Write, fetched: &Fetched, now: Timestamp) -> Result<()> {
    for one in &fetched.svids {
        let not_after = one.svid.expires_at();
        writeln!(out, "\nYour X.509-SVID")?;
        writeln!(out, "  SPIFFE ID : {}", one.svid.spiffe_id())?;
        writeln!(out, "  Serial    : {}", one.svid.serial_decimal())?;
        writeln!(out, "  Not after : {not_after} (in {} s)", not_after.secs_since(now))?;
        writeln!(out, "  Issuer    : {}", issuer(&one.svid))?;
    }
    out.flush()
}

/// One line for each SVID of a later answer.
pub(super) fn rotated(out: &mut dyn Write, fetched: &Fetched, now: Timestamp) -> Result<()> {
    for one in &fetched.svids {
        let (id, serial) = (one.svid.spiffe_id(), one.svid.serial_decimal());
        writeln!(out, "{now}  rotated {id}: serial {serial}, not after {}", one.svid.expires_at())?;
    }
    out.flush()
}

/// How another terminal reaches this trust domain, and how another program gets an identity of its own.
pub(super) fn other_terminal(
    out: &mut dyn Write,
    paths: &Paths,
    trust_domain: &TrustDomain,
    bin_dir: &str,
) -> Result<()> {
    let server = format!("-socketPath {}", paths.server_socket.display());
    writeln!(out, "\nFrom another terminal:")?;
    writeln!(out, "  export SPIFFE_ENDPOINT_SOCKET=unix://{}", paths.agent_socket.display())?;
    writeln!(out, "  {bin_dir}spindle-agent api fetch")?;
    writeln!(out, "  {bin_dir}spindle-server entry show {server}")?;
    // The node's own name: the agent's ID is another one whenever it has to join again.
    writeln!(out, "  {bin_dir}spindle-server entry create {server} \\")?;
    writeln!(
        out,
        "      -parentID {} -spiffeID spiffe://{trust_domain}/billing -selector unix:uid:1001",
        node_name(trust_domain)
    )?;
    if let Some(dir) = closed_to_others(&paths.agent_socket) {
        writeln!(out, "Other users cannot reach the agent's socket: {} is closed to them.", dir.display())?;
    }
    writeln!(out, "\nCtrl-C stops everything.")?;
    out.flush()
}

/// The first directory on the way to `path` that others may not pass.
fn closed_to_others(path: &Path) -> Option<&Path> {
    let dirs: Vec<_> = path.ancestors().skip(1).collect();
    let is_closed = |dir: &&&Path| {
        std::fs::metadata(dir).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 == 0)
    };
    dirs.iter().rev().find(is_closed).copied()
}

/// Where this program lies, with the closing slash, so that its neighbours can be named; empty when unknown.
pub(super) fn bin_dir() -> String {
    let exe = std::env::current_exe().ok();
    let dir = exe.as_deref().and_then(Path::parent);
    dir.map(|dir| format!("{}/", dir.display())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs::{DirBuilder, Permissions, set_permissions};

    use super::*;

    #[test]
    fn the_outermost_directory_that_is_closed_to_others_is_named() {
        let temp = tempfile::tempdir().unwrap();
        set_permissions(temp.path(), Permissions::from_mode(0o755)).unwrap();
        let (closed, open) = (temp.path().join("closed"), temp.path().join("open"));
        DirBuilder::new().create(&open).unwrap();
        set_permissions(&open, Permissions::from_mode(0o711)).unwrap();
        std::fs::create_dir_all(closed.join("inner")).unwrap();
        for dir in [&closed, &closed.join("inner")] {
            set_permissions(dir, Permissions::from_mode(0o750)).unwrap();
        }
        assert_eq!(closed_to_others(&open.join("agent.sock")), None);
        assert_eq!(closed_to_others(&closed.join("inner/agent.sock")), Some(closed.as_path()));
    }
}
