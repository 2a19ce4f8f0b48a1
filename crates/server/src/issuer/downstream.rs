//! Authorities for servers below this one.

use spindle_ca::{CheckedCsr, SignedAuthority};
use spindle_spiffe_core::Validity;

use super::{BACKDATE_SECS, IssueError, Issuer, Urgency};

impl Issuer {
    /// Signs an authority for the key of `csr`, for `ttl_secs` or, at 0, as long as one of this server's own. It ends no
    /// later than the one that signs it.
    pub(crate) async fn issue_downstream(
        &self,
        csr: CheckedCsr,
        ttl_secs: i64,
    ) -> Result<SignedAuthority, IssueError> {
        let inner = self.0.clone();
        self.one(Urgency::First, move || {
            let authority = inner.authorities.active().ok_or(IssueError::NoAuthority)?;
            let ttl_secs = if ttl_secs > 0 { ttl_secs } else { inner.authorities.ttl_secs() };
            let now = inner.clock.now();
            let validity = Validity { not_before: now - BACKDATE_SECS, not_after: now + ttl_secs };
            let signed = authority.sign_downstream(&csr, validity, inner.entropy.serial())?;
            inner.metrics.signed_authorities.increment(1);
            Ok(signed)
        })
        .await?
    }
}
