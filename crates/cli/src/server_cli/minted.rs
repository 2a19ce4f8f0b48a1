//! What `x509 mint`, `jwt mint` and `wit mint` share.

use std::time::Duration;

use crate::console::Console;
use crate::error::Failure;

/// A lifetime as calls carry it: whole seconds, rounded up.
pub(super) fn ttl_secs(ttl: Duration) -> Result<i32, Failure> {
    let secs = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    i32::try_from(secs).map_err(|_| {
        Failure::new("-ttl is too long")
            .try_this("write at most 596523h; the authority's own end cuts it shorter anyway")
    })
}

/// That the server's answer lacks something.
pub(super) fn no_part(what: &str) -> Failure {
    Failure::new(format!("the server's answer has no {what}")).try_this("look at the server's log")
}

/// Says that the SVID ends earlier than was asked for.
pub(super) fn warn_capped(kind: &str, expires_at: impl std::fmt::Display, console: &mut Console<'_>) {
    let _ = writeln!(
        console.err,
        "{kind} lifetime was capped shorter than specified ttl; expires \"{expires_at}\""
    );
}
