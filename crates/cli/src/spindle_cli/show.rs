//! What `dev` and `quickstart` tell the person in front of them.

use std::io::{Result, Write};

use spindle_spiffe_core::Timestamp;

use crate::agent_cli::Fetched;
use crate::local::{Paths, Progress, issuer};

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

/// How another terminal reaches this trust domain.
pub(super) fn other_terminal(out: &mut dyn Write, paths: &Paths, bin_dir: &str) -> Result<()> {
    writeln!(out, "\nFrom another terminal:")?;
    writeln!(out, "  export SPIFFE_ENDPOINT_SOCKET=unix://{}", paths.agent_socket.display())?;
    writeln!(out, "  {bin_dir}spindle-agent api fetch")?;
    writeln!(out, "  {bin_dir}spindle-server entry show -socketPath {}", paths.server_socket.display())?;
    writeln!(out, "\nCtrl-C stops everything.")?;
    out.flush()
}

/// Where this program lies, with the closing slash, so that its neighbours can be named; empty when unknown.
pub(super) fn bin_dir() -> String {
    let exe = std::env::current_exe().ok();
    let dir = exe.as_deref().and_then(std::path::Path::parent);
    dir.map(|dir| format!("{}/", dir.display())).unwrap_or_default()
}
