//! What a failed call to the server means for the agent: try again, attest again, or give up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use spindle_proto::refusal::{Refusal, permission_denied_details_of, reason_of, retry_after_of};
use spindle_proto::spire::api::types::permission_denied_details::Reason as Standing;
use spindle_renewal::Jitter;
use spindle_spiffe_core::{ErrorChain, Reason};
use spindle_transport::DialError;
use tonic::{Code, Status};

/// The longest pause that a server may ask for.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How much an asked pause is drawn out at most, in percent: agents that were turned away together come back one by one.
const ASKED_PAUSE_JITTER_PERCENT: u64 = 50;

/// The pause that a server asked for and a random part of it more: never less than asked, unless it asks too much.
pub(crate) fn drawn_out(asked: Duration, jitter: Jitter) -> Duration {
    let asked = asked.min(ASKED_PAUSE_MAX);
    let half = u64::try_from(asked.as_micros()).unwrap_or(u64::MAX) * ASKED_PAUSE_JITTER_PERCENT / 200;
    asked + Duration::from_micros(jitter.spread(half, 100))
}

/// Why a call to the server brought nothing.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The server, or the way to it, answered with a status.
    Status(Box<Status>),
    /// There is no connection, and this is why.
    Dial(Arc<DialError>),
    /// The server's answer makes no sense.
    Answer(String),
    /// The agent could not even ask.
    Local(String),
}

impl CallError {
    pub(crate) fn answer(what: impl Into<String>) -> Self {
        Self::Answer(what.into())
    }

    pub(crate) fn local(error: &dyn std::error::Error) -> Self {
        Self::Local(error.to_string())
    }

    /// The status's code, if there is one.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Status(status) => Some(status.code()),
            _ => None,
        }
    }

    /// Whether the server could not be reached, or is not ready.
    pub(crate) fn is_unreachable(&self) -> bool {
        match self {
            Self::Dial(error) => error.reason() == Reason::Unreachable,
            _ => self.code() == Some(Code::Unavailable),
        }
    }

    /// Whether it was a server whose certificate no trusted authority vouches for.
    pub(crate) fn is_untrusted_server(&self) -> bool {
        matches!(self, Self::Dial(error) if error.is_unknown_authority())
    }

    /// How long the server asks to wait before the next try.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(status) => retry_after_of(status),
            _ => None,
        }
    }

    /// What the server says about the agent's standing.
    pub(crate) fn standing(&self) -> Option<Standing> {
        match self {
            Self::Status(status) => permission_denied_details_of(status),
            _ => None,
        }
    }

    /// The stable code for logs: the server's own, which may be newer than the set known here, or one of that set.
    pub(crate) fn reason_code(&self) -> String {
        let told = match self {
            Self::Status(status) => reason_of(status),
            _ => None,
        };
        told.unwrap_or_else(|| self.reason().code().into())
    }

    /// The server's own reason, if it is one of the set known here, or else what can be told from here.
    pub(crate) fn known_reason(&self) -> Reason {
        let told = match self {
            Self::Status(status) => Refusal::of(status).and_then(|refusal| refusal.reason()),
            _ => None,
        };
        told.unwrap_or_else(|| self.reason())
    }

    /// The reason as far as it can be told from here.
    fn reason(&self) -> Reason {
        match self {
            Self::Dial(error) => error.reason(),
            Self::Answer(_) => Reason::BadAnswer,
            Self::Local(_) => Reason::LocalFailure,
            Self::Status(status) => match status.code() {
                Code::Unavailable => Reason::Unreachable,
                Code::DeadlineExceeded => Reason::TooSlow,
                Code::Unimplemented => Reason::NotSupported,
                _ => Reason::RefusedByServer,
            },
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => {
                f.write_str(status.message())?;
                // A broken connection says why only in its sources.
                match std::error::Error::source(&**status) {
                    Some(cause) => write!(f, ": {}", ErrorChain(cause)),
                    None => Ok(()),
                }
            }
            Self::Dial(error) => ErrorChain(&**error).fmt(f),
            Self::Answer(what) => write!(f, "the server's answer makes no sense: {what}"),
            Self::Local(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for CallError {}

impl From<Status> for CallError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl From<DialError> for CallError {
    fn from(error: DialError) -> Self {
        Self::Dial(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use spindle_proto::refusal::refusal;

    use super::*;

    #[test]
    fn an_asked_pause_is_drawn_out_by_up_to_a_half_and_cut_when_it_is_too_long() {
        let ten = Duration::from_secs(10);
        assert_eq!(drawn_out(ten, Jitter::from_number(0)), ten);
        let most = drawn_out(ten, Jitter::from_number(u64::MAX));
        assert!(most > ten * 149 / 100 && most <= ten * 3 / 2, "{most:?}");
        assert_eq!(drawn_out(Duration::from_secs(1 << 40), Jitter::from_number(0)), ASKED_PAUSE_MAX);
    }

    #[test]
    fn every_failed_call_has_a_code_of_the_closed_set_or_the_servers_own() {
        let check = |error: CallError, expected: Reason| assert_eq!(error.reason_code(), expected.code());
        check(Status::unavailable("away").into(), Reason::Unreachable);
        check(Status::deadline_exceeded("late").into(), Reason::TooSlow);
        check(Status::unimplemented("no").into(), Reason::NotSupported);
        for code in [Code::Internal, Code::PermissionDenied, Code::Unknown, Code::ResourceExhausted] {
            check(Status::new(code, "no").into(), Reason::RefusedByServer);
        }
        check(CallError::answer("nonsense"), Reason::BadAnswer);
        check(CallError::local(&std::io::Error::other("full")), Reason::LocalFailure);
        check(refusal(Code::Internal, Reason::StoreFailed, "full").into(), Reason::StoreFailed);
    }
}
