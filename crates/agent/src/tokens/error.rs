//! Why a workload gets no token.

use std::sync::Arc;

use spindle_proto::refusal::refusal;
use spindle_spiffe_core::Reason;
use tonic::{Code, Status};

use crate::call_error::CallError;

/// Why there is no token. Shared by all who waited for it.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// Who is entitled to what is not known yet.
    #[error("the agent has not reached its server yet")]
    AgentStarting,
    /// Nothing matches, or not what was asked for.
    #[error("no identity issued")]
    NoIdentity,
    /// Too many requests wait already.
    #[error("too many JWT-SVIDs are being asked for")]
    Overloaded,
    /// The server has not signed it.
    #[error("could not fetch JWT-SVID: {0}")]
    Server(Arc<CallError>),
}

impl From<CallError> for TokenError {
    fn from(error: CallError) -> Self {
        Self::Server(Arc::new(error))
    }
}

impl TokenError {
    /// The code to show.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::AgentStarting => Reason::AgentStarting,
            Self::NoIdentity => Reason::NoMatchingEntry,
            Self::Overloaded => Reason::Overloaded,
            Self::Server(error) => error.known_reason(),
        }
    }

    /// The status for the caller: SPIRE's codes and words.
    pub(crate) fn status(&self) -> Status {
        let code = match self {
            Self::NoIdentity => Code::PermissionDenied,
            _ => Code::Unavailable,
        };
        refusal(code, self.reason(), &self.to_string())
    }
}
