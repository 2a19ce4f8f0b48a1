//! Policy in, signed JWT-SVIDs out.
//!
//! Lifetimes and claims follow the entry and the configuration. Tokens are signed on the same blocking threads as
//! certificates, so that a burst of either waits in one line.

use std::sync::Arc;

use spindle_ca::{JwtSignError, JwtSvidRequest, SignedJwtSvid};
use spindle_proto::refusal::refusal;
use spindle_spiffe_core::{Audience, Clock, Entropy, Reason, SpiffeId};
use tonic::{Code, Status};

use crate::authorities::JwtAuthorities;
use crate::issuer::{IssueError, Issuer, Urgency};
use crate::live::LiveSettings;

/// What one token is to say.
#[derive(Clone, Debug)]
pub(crate) struct TokenRequest {
    pub(crate) spiffe_id: SpiffeId,
    pub(crate) audience: Audience,
    /// Zero or less means the server's default.
    pub(crate) ttl_secs: i64,
    /// Whether it is told apart from others by a `jti`.
    pub(crate) with_token_id: bool,
}

/// Why a token was not issued.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum JwtIssueError {
    #[error("JWT functionality is disabled")]
    Disabled,
    #[error("the server has no active JWT authority yet")]
    NoAuthority,
    #[error("failed to sign JWT-SVID: {0}")]
    Sign(#[from] JwtSignError),
    #[error("failed to sign JWT-SVID: {0}")]
    NotSigned(#[from] IssueError),
}

impl JwtIssueError {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Disabled => Reason::JwtSvidsDisabled,
            Self::NoAuthority => Reason::ServerStarting,
            Self::Sign(error) => error.reason(),
            Self::NotSigned(error) => error.reason(),
        }
    }

    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Disabled => Code::Unimplemented,
            Self::NoAuthority | Self::Sign(JwtSignError::AuthorityOver { .. }) => Code::Unavailable,
            Self::Sign(JwtSignError::ForeignId { .. } | JwtSignError::IdWithoutPath(_)) => {
                Code::InvalidArgument
            }
            Self::Sign(_) => Code::Internal,
            Self::NotSigned(error) => error.code(),
        }
    }

    /// The status of a call that fails for it; one that found no room is told when to come back.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::NotSigned(error) => error.status(&self.to_string()),
            _ => refusal(self.code(), self.reason(), &self.to_string()),
        }
    }
}

/// Signs with the active JWT authority. Cheap to clone.
#[derive(Clone)]
pub(crate) struct JwtIssuer(Arc<Inner>);

struct Inner {
    /// None when JWT-SVIDs are switched off.
    authorities: Option<Arc<JwtAuthorities>>,
    threads: Issuer,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    live: LiveSettings,
    issuer: Option<String>,
}

impl JwtIssuer {
    /// `threads` is whose blocking threads are used.
    pub(crate) fn new(
        authorities: Option<Arc<JwtAuthorities>>,
        threads: Issuer,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        live: LiveSettings,
        issuer: Option<String>,
    ) -> Self {
        Self(Arc::new(Inner { authorities, threads, clock, entropy, live, issuer }))
    }

    /// Refuses when JWT-SVIDs are switched off.
    pub(crate) fn enabled(&self) -> Result<(), JwtIssueError> {
        self.authorities().map(drop)
    }

    /// What signs the tokens, unless JWT-SVIDs are switched off.
    pub(crate) fn authorities(&self) -> Result<&Arc<JwtAuthorities>, JwtIssueError> {
        self.0.authorities.as_ref().ok_or(JwtIssueError::Disabled)
    }

    /// Whether JWT authorities rotate when they are due, if there are any.
    pub(crate) fn rotates(&self) -> bool {
        self.0.authorities.as_ref().is_none_or(|authorities| authorities.rotate())
    }

    /// Signs one token when it is its turn; `urgency` says for whom.
    pub(crate) async fn issue(
        &self,
        request: TokenRequest,
        urgency: Urgency,
    ) -> Result<SignedJwtSvid, JwtIssueError> {
        let inner = self.0.clone();
        self.0.threads.one(urgency, move || inner.sign(&request)).await?
    }
}

impl Inner {
    fn sign(&self, request: &TokenRequest) -> Result<SignedJwtSvid, JwtIssueError> {
        let authorities = self.authorities.as_ref().ok_or(JwtIssueError::Disabled)?;
        let authority = authorities.active().ok_or(JwtIssueError::NoAuthority)?;
        let issued_at = self.clock.now();
        let default_secs = self.live.load().default_jwt_svid_ttl_secs;
        let ttl_secs = if request.ttl_secs > 0 { request.ttl_secs } else { default_secs };
        Ok(authority.sign_jwt_svid(&JwtSvidRequest {
            spiffe_id: &request.spiffe_id,
            audience: &request.audience,
            issued_at,
            expires_at: issued_at + ttl_secs,
            issuer: self.issuer.as_deref(),
            token_id: request.with_token_id.then(|| {
                let mut bytes = [0; 16];
                self.entropy.fill(&mut bytes);
                bytes
            }),
        })?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use spindle_proto::refusal::retry_after_of;
    use spindle_testkit::ManualClock;

    use super::*;
    use crate::config::ServerConfig;
    use crate::fixtures;

    #[tokio::test]
    async fn a_full_line_turns_workloads_tokens_away_with_a_time_and_lets_an_administrators_in() {
        let context = fixtures::context(&ManualClock::default()).await;
        let request = TokenRequest {
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
