//! What the two variants of the protocol have in common: requests go in, steps come out. Pure.
//!
//! An exchange knows what one proxy wants and has. It reads no clock and sends nothing: the stream tells it for how long the
//! proxy has been waiting, and what was sent in the end. Start at [`Exchange`].

use std::time::Duration;

use prost::Message;
use spindle_spiffe_core::Reason;

use super::catalog::Catalog;
use super::secret::SECRET_TYPE;
use super::validation::Validation;

/// How many names one proxy may ask for.
pub(super) const NAMES_MAX: usize = 256;

/// How long a name may be, in bytes: a SPIFFE ID has at most that many.
pub(super) const NAME_BYTES_MAX: usize = 2048;

/// Stands for all resources, as an empty list does at first.
pub(super) const WILDCARD: &str = "*";

/// How long an answer waits for the rest when it could be given now.
pub(super) const COMPLETE_WAIT: Duration = Duration::from_millis(500);

/// How long an answer waits for an identity that is being signed.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(5);

/// One variant of the protocol, for one stream.
pub(super) trait Exchange {
    /// What the proxy sends.
    type Request: Message + Default + 'static;
    /// What it is sent.
    type Response: Message;
    /// What is to be remembered once an answer has been sent.
    type Sent;

    /// Takes a request. Returns what the proxy found wrong with an answer, if it says so.
    fn take(&mut self, request: Self::Request) -> Result<Option<String>, BadRequest>;

    /// Whether a request has come.
    fn has_request(&self) -> bool;

    /// The form of validation contexts for this proxy.
    fn validation(&self) -> Validation;

    /// What to do next, when the proxy has been waiting for `waited`.
    fn step(&self, catalog: &Catalog<'_>, waited: Duration) -> Step<Self::Response, Self::Sent>;

    /// Notes that an answer has been sent.
    fn note(&mut self, sent: Self::Sent);
}

/// The next thing to do for one stream.
#[derive(Debug, PartialEq)]
pub(super) enum Step<Response, Sent> {
    /// The proxy has what it wants.
    Nothing,
    /// Something may come in a moment: wait for a change, up to this long since the stream began to wait.
    WaitUpTo(Duration),
    /// Send this. `unknown` names are told to the operator.
    Send { response: Response, sent: Sent, unknown: Vec<String> },
    /// End the stream.
    Refuse(Refused),
}

/// Why a stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The agent has no bundle yet.
    Starting,
    /// An identity that was asked for cannot be given yet.
    NotReady,
    /// These names are of nothing that the workload may have.
    Unknown(Vec<String>),
    /// This name stands for several trust domains, which only the SPIFFE validator can tell apart.
    NeedsValidator(String),
}

/// What is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    /// Another type of resource.
    #[error("resources of type {0:?} are not offered here, only {SECRET_TYPE:?}")]
    Type(String),
    /// Too many names.
    #[error("at most {NAMES_MAX} resources can be asked for")]
    TooMany,
    /// Too long a name.
    #[error("the name of a resource has at most {NAME_BYTES_MAX} bytes, one asked for has {0}")]
    Length(usize),
}

impl BadRequest {
    /// The code to show.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Type(_) => Reason::NotSupported,
            Self::TooMany | Self::Length(_) => Reason::BadRequest,
        }
    }
}

/// The one type that is offered; empty stands for it.
pub(super) fn check_type(type_url: &str) -> Result<(), BadRequest> {
    if type_url.is_empty() || type_url == SECRET_TYPE {
        return Ok(());
    }
    let shown = type_url.chars().take(100).collect();
    Err(BadRequest::Type(shown))
}

/// Bounds the length of a name.
pub(super) fn check_name(name: &str) -> Result<(), BadRequest> {
    if name.len() > NAME_BYTES_MAX { Err(BadRequest::Length(name.len())) } else { Ok(()) }
}
