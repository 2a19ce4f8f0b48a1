//! Asks the server for one token, again when the failure may pass, and never for longer than one call may take.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use spindle_proto::spire::api::server::svid::v1::NewJwtsvidRequest;
use spindle_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use spindle_proto::spire::api::types;
use spindle_proto::spire::api::types::permission_denied_details::Reason as Standing;
use spindle_renewal::{Backoff, BackoffPolicy, Jitter};
use spindle_spiffe_core::{Entropy, EntryId};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Status};
use tracing::debug;

use crate::call_error::CallError;
use crate::server::{CALL_TIMEOUT, ServerLink};

/// Pauses between tries: SPIRE's first one, and its growth.
const BACKOFF: BackoffPolicy = BackoffPolicy {
    first: Duration::from_secs(1),
    max: Duration::from_secs(10),
    growth_percent: 150,
    jitter_percent: 10,
};

/// Whoever signs tokens: the server, or a stand-in of a test.
pub(crate) trait TokenIssuer: Send + Sync {
    /// A token for an entry, of these services.
    fn issue(
        &self,
        entry_id: &EntryId,
        audience: Vec<String>,
    ) -> BoxFuture<'static, Result<types::Jwtsvid, CallError>>;
}

impl TokenIssuer for ServerLink {
    fn issue(
        &self,
        entry_id: &EntryId,
        audience: Vec<String>,
    ) -> BoxFuture<'static, Result<types::Jwtsvid, CallError>> {
        let link = self.clone();
        let request = NewJwtsvidRequest { entry_id: entry_id.as_str().into(), audience };
        Box::pin(async move {
            let answer =
                link.call(|channel| async move { SvidClient::new(channel).new_jwtsvid(request).await });
            answer.await?.svid.ok_or_else(|| CallError::answer("it has no JWT-SVID"))
        })
    }
}

/// Whether a failed try is the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tries {
    /// There is something else to give.
    One,
    /// Nothing serves but a new token.
    Many,
}

/// Asks until there is an answer, a failure that will not pass, or no time left.
pub(super) async fn ask(
    issuer: Arc<dyn TokenIssuer>,
    entropy: &dyn Entropy,
    entry_id: &EntryId,
    audience: &[String],
    tries: Tries,
) -> Result<types::Jwtsvid, CallError> {
    let ends_at = Instant::now() + CALL_TIMEOUT;
    let mut backoff = Backoff::new(BACKOFF);
    loop {
        let answer = timeout_at(ends_at, issuer.issue(entry_id, audience.to_vec())).await;
        let error = match answer.unwrap_or_else(|_| Err(too_late())) {
            Ok(svid) => return Ok(svid),
            Err(error) => error,
        };
        let own = backoff.next_pause(Jitter::draw(entropy));
        let pause = error.retry_after().map_or(own, |asked| asked.max(own));
        if tries == Tries::One || !may_pass(&error) || Instant::now() + pause >= ends_at {
            return Err(error);
        }
        debug!(%entry_id, %error, pause_ms = pause.as_millis(), "no JWT-SVID yet, trying again");
        sleep(pause).await;
    }
}

fn too_late() -> CallError {
    Status::deadline_exceeded("the server did not answer in time").into()
}

/// Whether the next try can end otherwise. As SPIRE's agent, but a refusal that nothing in this call will change is told
/// at once, and so is that of a banned agent.
fn may_pass(error: &CallError) -> bool {
    match error {
        CallError::Dial(_) => true,
        CallError::Answer(_) | CallError::Local(_) => false,
        CallError::Status(_) => match error.standing() {
            Some(standing) => standing != Standing::AgentBanned,
            None => matches!(
                error.code(),
                Some(Code::Unavailable | Code::ResourceExhausted | Code::Aborted | Code::Internal)
            ),
        },
    }
}

#[cfg(test)]
mod tests {
    use spindle_proto::refusal::{agent_refusal, refusal};
    use spindle_spiffe_core::Reason;

    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for code in [Code::Unavailable, Code::ResourceExhausted, Code::Aborted, Code::Internal] {
            assert!(may_pass(&Status::new(code, "").into()), "{code:?}");
        }
        for code in [
            Code::Unknown,
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::InvalidArgument,
            Code::Unimplemented,
            Code::NotFound,
            Code::PermissionDenied,
        ] {
            assert!(!may_pass(&Status::new(code, "").into()), "{code:?}");
        }
        assert!(!may_pass(&CallError::answer("nonsense")));
        assert!(!may_pass(&refusal(Code::NotFound, Reason::EntryNotAuthorized, "").into()));
    }

    #[test]
    fn an_agent_that_may_attest_again_tries_again_and_a_banned_one_does_not() {
        let standing = |reason| may_pass(&agent_refusal("NewJWTSVID", reason).into());
        assert!(standing(Reason::AgentNotActive) && standing(Reason::AgentExpired));
        assert!(!standing(Reason::AgentBanned));
    }
}
