//! JWT-SVIDs: one for each call.

use spindle_ca::{Jwt, JwtSvidRequest, SignedToken};
use spindle_spiffe_core::{Audience, SpiffeId};

use super::{Inner, JwtIssuer, TokenIssueError};
use crate::issuer::Urgency;

/// What one token is to say.
#[derive(Clone, Debug)]
pub(crate) struct JwtRequest {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) audience: Audience,
    /// Zero or less means the server's default.
    pub(crate) ttl_secs: i64,
    /// Whether it is told apart from others by a `jti`.
    pub(crate) with_token_id: bool,
}

impl JwtIssuer {
    /// Signs one token when it is its turn; `urgency` says for whom.
    pub(crate) async fn issue(
        &self,
        request: JwtRequest,
        urgency: Urgency,
    ) -> Result<SignedToken, TokenIssueError> {
        let inner = self.0.clone();
        let signed = self.0.signing.threads.one(urgency, move || inner.sign(&request)).await;
        signed.map_err(Inner::<Jwt>::not_signed)?
    }
}

impl Inner<Jwt> {
    fn sign(&self, request: &JwtRequest) -> Result<SignedToken, TokenIssueError> {
        let authority = self.active()?;
        let issued_at = self.signing.clock.now();
        let default_secs = self.signing.live.load().default_jwt_svid_ttl_secs;
        let ttl_secs = if request.ttl_secs > 0 { request.ttl_secs } else { default_secs };
        self.signed(authority.sign_jwt_svid(&JwtSvidRequest {
            spiffe_id: &request.spiffe_id,
            audience: &request.audience,
            issued_at,
            expires_at: issued_at + ttl_secs,
            issuer: self.issuer.as_deref(),
            token_id: request.with_token_id.then(|| self.token_id()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use spindle_proto::refusal::retry_after_of;
    use spindle_testkit::ManualClock;

    use spindle_spiffe_core::Reason;
    use tonic::Code;

    use super::*;
    use crate::config::ServerConfig;
    use crate::fixtures;

    #[tokio::test]
    async fn a_full_line_turns_workloads_tokens_away_with_a_time_and_lets_an_administrators_in() {
        let context = fixtures::context(&ManualClock::default()).await;
        let request = JwtRequest {
            spiffe_id: fixtures::id("/web"),
            audience: Audience::new(vec!["db".to_owned()]).unwrap(),
            ttl_secs: 60,
            with_token_id: false,
        };
        let crowd = context.issuer.crowd(ServerConfig::SIGNING_QUEUE_MAX);
        let refused = context.jwt_issuer.issue(request.clone(), Urgency::Usual).await.expect_err("no room");
        let status = refused.status();
        assert_eq!((status.code(), refused.reason()), (Code::ResourceExhausted, Reason::Overloaded));
        assert!(retry_after_of(&status) > Some(Duration::ZERO), "{status:?}");
        assert!(status.message().contains("too many SVIDs are waiting"), "{status:?}");
        context.jwt_issuer.issue(request.clone(), Urgency::First).await.expect("room of its own");
        drop(crowd);
        context.jwt_issuer.issue(request, Urgency::Usual).await.expect("room");
    }
}
