//! SPIRE's labels for people, which scripts search for.

use std::io::{Result, Write};

use spindle_proto::spire::api::types;
use time::OffsetDateTime;

use super::line;

/// A time as Go prints it in UTC, such as `2026-11-24 04:15:33 +0000 UTC`.
pub fn go_time(unix_secs: i64) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] +0000 UTC");
    OffsetDateTime::from_unix_timestamp(unix_secs)
        .ok()
        .and_then(|at| at.format(format).ok())
        .unwrap_or_else(|| unix_secs.to_string())
}

/// A SPIFFE ID of a message; empty when it is not there.
pub fn id(id: &Option<types::Spiffeid>) -> String {
    id.as_ref().map(|id| format!("spiffe://{}{}", id.trust_domain, id.path)).unwrap_or_default()
}

/// The lines of one registration entry, and an empty one.
///
/// # Errors
/// When `out` cannot be written.
pub fn entry(out: &mut dyn Write, entry: &types::Entry) -> Result<()> {
    const WIDTH: usize = 24;
    let ttl = |secs: i32| if secs == 0 { "default".into() } else { secs.to_string() };
    let entry_id = if entry.id.is_empty() { "(none)" } else { &entry.id };
    line(out, "Entry ID", WIDTH, entry_id)?;
    line(out, "SPIFFE ID", WIDTH, id(&entry.spiffe_id))?;
    line(out, "Parent ID", WIDTH, id(&entry.parent_id))?;
    line(out, "Revision", WIDTH, entry.revision_number)?;
    flag(out, "Downstream", WIDTH, entry.downstream)?;
    line(out, "X509-SVID TTL", WIDTH, ttl(entry.x509_svid_ttl))?;
    line(out, "JWT-SVID TTL", WIDTH, ttl(entry.jwt_svid_ttl))?;
    if entry.expires_at != 0 {
        line(out, "Expiration time", WIDTH, go_time(entry.expires_at))?;
    }
    for selector in &entry.selectors {
        line(out, "Selector", WIDTH, format_args!("{}:{}", selector.r#type, selector.value))?;
    }
    entry.federates_with.iter().try_for_each(|name| line(out, "FederatesWith", WIDTH, name))?;
    entry.dns_names.iter().try_for_each(|name| line(out, "DNS name", WIDTH, name))?;
    flag(out, "Admin", WIDTH, entry.admin)?;
    flag(out, "StoreSvid", WIDTH, entry.store_svid)?;
    if !entry.hint.is_empty() {
        line(out, "Hint", WIDTH, &entry.hint)?;
    }
    if let Some(attributes) = &entry.additional_attributes {
        flag(out, "DisableX509SvidPrefetch", WIDTH, attributes.disable_x509_svid_prefetch)?;
        flag(out, "JwtSvidIncludeJti", WIDTH, attributes.jwt_svid_include_jti)?;
    }
    writeln!(out)
}

/// What is rarely true is shown only then.
fn flag(out: &mut dyn Write, label: &str, width: usize, value: bool) -> Result<()> {
    if value { line(out, label, width, value) } else { Ok(()) }
}

/// The lines of one agent, and an empty one.
///
/// # Errors
/// When `out` cannot be written.
pub fn agent(out: &mut dyn Write, agent: &types::Agent) -> Result<()> {
    const WIDTH: usize = 18;
    line(out, "SPIFFE ID", WIDTH, id(&agent.id))?;
    line(out, "Attestation type", WIDTH, &agent.attestation_type)?;
    line(out, "Expiration time", WIDTH, go_time(agent.x509svid_expires_at))?;
    if agent.banned {
        line(out, "Banned", WIDTH, true)?;
    } else {
        line(out, "Serial number", WIDTH, &agent.x509svid_serial_number)?;
    }
    line(out, "Can re-attest", WIDTH, agent.can_reattest)?;
    if !agent.agent_version.is_empty() {
        line(out, "Agent version", WIDTH, &agent.agent_version)?;
    }
    writeln!(out)
}
