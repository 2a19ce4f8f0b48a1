//! How `debug getinfo` of server and agent print their own SVID's chain.

use spindle_proto::spire::api::types;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::console::Console;
use crate::error::Failure;
use crate::output;

/// One certificate.
pub(crate) struct ChainLink<'a> {
    pub(crate) id: &'a Option<types::Spiffeid>,
    pub(crate) subject: &'a str,
    /// Seconds since the Unix epoch.
    pub(crate) expires_at: i64,
}

/// Prints the chain with SPIRE's labels; nothing when it is empty.
pub(crate) fn print_chain<'a>(
    console: &mut Console<'_>,
    links: impl Iterator<Item = ChainLink<'a>>,
) -> Result<(), Failure> {
    let out = &mut console.out;
    for (at, link) in links.enumerate() {
        if at == 0 {
            writeln!(out, "  SVID Chain:")?;
        }
        let id = if link.id.is_some() { output::text::id(link.id) } else { "(none)".into() };
        writeln!(out, "    [{at}] SPIFFE ID:  {id}")?;
        writeln!(out, "        Subject:    {}", link.subject)?;
        writeln!(out, "        Expires At: {}", rfc3339(link.expires_at))?;
    }
    Ok(())
}

/// Seconds since the Unix epoch as Go prints them in UTC.
pub(crate) fn rfc3339(unix_secs: i64) -> String {
    let at = OffsetDateTime::from_unix_timestamp(unix_secs).ok();
    at.and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_else(|| unix_secs.to_string())
}
