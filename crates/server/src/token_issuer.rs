//! Policy in, signed tokens out.
//!
//! Lifetimes and claims follow the entry and the configuration. Tokens are signed on the same blocking threads as
//! certificates, so that a burst of either waits in one line. What differs between the SVID types is in [`jwt`] and [`wit`].

mod jwt;
mod wit;

use std::sync::Arc;

use spindle_ca::{Jwt, SignedToken, TokenFamily, TokenSignError, TokenSigner, Wit};
use spindle_proto::refusal::refusal;
use spindle_spiffe_core::{Clock, Entropy, Reason};
use spindle_telemetry::Counter;
use tonic::{Code, Status};

use crate::authorities::TokenAuthorities;
use crate::issuer::{IssueError, Issuer};
use crate::live::LiveSettings;

pub(crate) use jwt::JwtRequest;
pub(crate) use wit::WitRequest;

/// Signs JWT-SVIDs.
pub(crate) type JwtIssuer = TokenIssuer<Jwt>;

/// Signs WIT-SVIDs.
pub(crate) type WitIssuer = TokenIssuer<Wit>;

/// Why a token was not issued.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum TokenIssueError {
    /// The family's name, and the rule that switches it off.
    #[error("{0} functionality is disabled")]
    Disabled(&'static str, Reason),
    #[error("the server has no active {0} authority yet")]
    NoAuthority(&'static str),
    #[error("failed to sign {0}-SVID: {1}")]
    Sign(&'static str, TokenSignError),
    #[error("failed to sign {0}-SVID: {1}")]
    NotSigned(&'static str, IssueError),
}

impl TokenIssueError {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Disabled(_, reason) => *reason,
            Self::NoAuthority(_) => Reason::ServerStarting,
            Self::Sign(_, error) => error.reason(),
            Self::NotSigned(_, error) => error.reason(),
        }
    }

    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Disabled(..) => Code::Unimplemented,
            Self::NoAuthority(_) | Self::Sign(_, TokenSignError::AuthorityOver { .. }) => Code::Unavailable,
            Self::Sign(_, TokenSignError::ForeignId { .. } | TokenSignError::IdWithoutPath(_)) => {
                Code::InvalidArgument
            }
            Self::Sign(..) => Code::Internal,
            Self::NotSigned(_, error) => error.code(),
        }
    }

    /// The status of a call that fails for it; one that found no room is told when to come back.
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::NotSigned(_, error) => error.status(&self.to_string()),
            _ => refusal(self.code(), self.reason(), &self.to_string()),
        }
    }
}

/// What all issuers of tokens of a server share.
#[derive(Clone)]
pub(crate) struct Signing {
    /// Whose blocking threads are used.
    pub(crate) threads: Issuer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) live: LiveSettings,
}

/// Signs with the active authority of one family. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TokenIssuer<F: TokenFamily>(Arc<Inner<F>>);

struct Inner<F: TokenFamily> {
    /// None when the family is switched off.
    authorities: Option<Arc<TokenAuthorities<F>>>,
    signing: Signing,
    issuer: Option<String>,
    /// Counts tokens.
    count: Counter,
}

impl<F: TokenFamily> TokenIssuer<F> {
    pub(crate) fn new(
        authorities: Option<Arc<TokenAuthorities<F>>>,
        signing: &Signing,
        issuer: Option<String>,
        count: Counter,
    ) -> Self {
        Self(Arc::new(Inner { authorities, signing: signing.clone(), issuer, count }))
    }

    /// Refuses when the family is switched off.
    pub(crate) fn enabled(&self) -> Result<(), TokenIssueError> {
        self.authorities().map(drop)
    }

    /// What signs the tokens, unless the family is switched off.
    pub(crate) fn authorities(&self) -> Result<&Arc<TokenAuthorities<F>>, TokenIssueError> {
        self.0.authorities()
    }

    /// Whether authorities rotate when they are due, if there are any.
    pub(crate) fn rotates(&self) -> bool {
        self.0.authorities.as_ref().is_none_or(|authorities| authorities.rotate())
    }
}

impl<F: TokenFamily> Inner<F> {
    fn authorities(&self) -> Result<&Arc<TokenAuthorities<F>>, TokenIssueError> {
        self.authorities.as_ref().ok_or(TokenIssueError::Disabled(F::NAME, F::DISABLED))
    }

    fn active(&self) -> Result<Arc<TokenSigner<F>>, TokenIssueError> {
        self.authorities()?.active().ok_or(TokenIssueError::NoAuthority(F::NAME))
    }

    /// Random bytes that tell a token from all others.
    fn token_id(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.signing.entropy.fill(&mut bytes);
        bytes
    }

    fn signed(&self, result: Result<SignedToken, TokenSignError>) -> Result<SignedToken, TokenIssueError> {
        let signed = result.map_err(|error| TokenIssueError::Sign(F::NAME, error))?;
        self.count.increment(1);
        Ok(signed)
    }

    fn not_signed(error: IssueError) -> TokenIssueError {
        TokenIssueError::NotSigned(F::NAME, error)
    }
}
