//! Refusals as they travel: a gRPC status whose details name the reason for programs.
//!
//! Every status made here carries a `google.rpc.ErrorInfo` with the code of a [`Reason`]; those about an agent's
//! standing also carry SPIRE's `PermissionDeniedDetails`, by which agents of both kinds decide what to do next. Details
//! are for display and for an agent's next step; nothing is ever granted by them.

use std::collections::BTreeMap;
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use spindle_spiffe_core::Reason;
use tonic::{Code, Status};

use crate::generated::google::rpc;
use crate::spire::api::types;
use crate::spire::api::types::PermissionDeniedDetails;
use crate::spire::api::types::permission_denied_details::Reason as Standing;

/// The domain of our reasons in `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "spindle";

/// The domain of the reasons that SPIFFE's own standards define.
pub const STANDARD_DOMAIN: &str = "spiffe.io";

/// The longest message of a status, in bytes. It is sent twice, once escaped, and some clients take no more than 8 KiB of
/// trailers.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// The most details looked at in a status from outside; ours have two.
const DETAILS_MAX: usize = 16;

const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

const ERROR_INFO: &str = "google.rpc.ErrorInfo";
const RETRY_INFO: &str = "google.rpc.RetryInfo";
const PERMISSION_DENIED_DETAILS: &str = "spire.api.types.PermissionDeniedDetails";

/// Why a call was refused, as read from its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code of the reason in snake case, see [`Reason::code`]. A newer server may send codes that are not known here.
    pub code: String,
    /// More facts, by name.
    pub facts: BTreeMap<String, String>,
}

impl Refusal {
    /// The refusal in the details of a status; none when it has no detail of ours.
    pub fn of(status: &Status) -> Option<Self> {
        let info: rpc::ErrorInfo = details(status)
            .filter_map(|any| open(&any, ERROR_INFO))
            .find(|info: &rpc::ErrorInfo| info.domain == DOMAIN)?;
        Some(Self { code: info.reason.to_ascii_lowercase(), facts: info.metadata })
    }

    /// The refusal of one item of a batch; none for success, and from a server of SPIRE.
    pub fn of_item(status: &types::Status) -> Option<Self> {
        let refused = status.code != 0 && !status.reason.is_empty();
        refused.then(|| Self { code: status.reason.clone(), facts: BTreeMap::new() })
    }

    /// The reason, when it is known here.
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL.iter().copied().find(|reason| reason.code() == self.code)
    }
}

/// A status that refuses a call for `reason`.
pub fn refusal(code: Code, reason: Reason, message: &str) -> Status {
    refusal_with(code, reason, message, [])
}

/// A status that refuses a call for `reason`, with facts for programs. Facts are short: they travel in trailers.
pub fn refusal_with<'a>(
    code: Code,
    reason: Reason,
    message: &str,
    facts: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Status {
    let facts = facts.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    status(code, message, vec![error_info(reason, facts)])
}

/// A status that refuses a call for `reason`, for which a SPIFFE standard has a name of its own, such as
/// `WORKLOAD_NOT_FOUND` (Broker API 4.8). That one stands first, for readers who look at one detail only.
pub fn refusal_of_standard<'a>(
    code: Code,
    reason: Reason,
    standard: &str,
    message: &str,
    facts: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Status {
    let metadata: BTreeMap<String, String> =
        facts.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
    let info = rpc::ErrorInfo {
        reason: standard.into(),
        domain: STANDARD_DOMAIN.into(),
        metadata: metadata.clone(),
    };
    status(code, message, vec![pack(ERROR_INFO, &info), error_info(reason, metadata)])
}

/// The reason that a SPIFFE standard has for a refusal, if the status names one.
pub fn standard_reason_of(status: &Status) -> Option<String> {
    let all = details(status).filter_map(|any| open(&any, ERROR_INFO));
    all.filter(|info: &rpc::ErrorInfo| info.domain == STANDARD_DOMAIN).map(|info| info.reason).next()
}

/// A status that refuses a call because there is too much to do, and says when to come back, to people in `message` and to
/// programs in a `google.rpc.RetryInfo`.
pub fn come_back(message: &str, after: Duration) -> Status {
    status(Code::ResourceExhausted, message, overloaded(after))
}

/// As [`come_back`], with the code that the SPIFFE endpoints answer under load: UNAVAILABLE (Workload Endpoint 6).
pub fn come_back_to_busy(message: &str, after: Duration) -> Status {
    status(Code::Unavailable, message, overloaded(after))
}

fn overloaded(after: Duration) -> Vec<Any> {
    let retry_delay = prost_types::Duration::try_from(after).ok();
    let retry = pack(RETRY_INFO, &rpc::RetryInfo { retry_delay });
    vec![error_info(Reason::Overloaded, BTreeMap::new()), retry]
}

/// How long the other side asks to wait before the next try; none when it does not say, or says nonsense.
pub fn retry_after_of(status: &Status) -> Option<Duration> {
    let info: rpc::RetryInfo = details(status).find_map(|any| open(&any, RETRY_INFO))?;
    let delay = info.retry_delay?;
    // By hand: the library's conversion overflows on the smallest number of seconds.
    let nanos = u32::try_from(delay.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, nanos))
}

/// The status of an item of a batch that went well.
pub fn item_ok() -> types::Status {
    types::Status { code: Code::Ok.into(), message: "OK".into(), reason: String::new() }
}

/// The status of an item of a batch that is refused for `reason`. A batch goes on when an item is refused, so the reason
/// travels in the item and not in the details of the call's own status.
pub fn item_refusal(code: Code, reason: Reason, message: String) -> types::Status {
    types::Status { code: code.into(), message, reason: reason.code().into() }
}

/// The status for an agent that may not call `method` (a full method name) because of its standing. Reasons that have no
/// counterpart in SPIRE's detail travel without it.
pub fn agent_refusal(method: &str, reason: Reason) -> Status {
    let message = format!("authorization denied for method {method}");
    let mut all = Vec::new();
    if let Some(standing) = standing_of(reason) {
        // First, as SPIRE sends it: a reader that looks at one detail only finds it.
        let detail = PermissionDeniedDetails { reason: standing.into() };
        all.push(pack(PERMISSION_DENIED_DETAILS, &detail));
    }
    all.push(error_info(reason, BTreeMap::new()));
    status(Code::PermissionDenied, &message, all)
}

/// The code of the reason a status carries, in snake case; see [`Refusal`].
pub fn reason_of(status: &Status) -> Option<String> {
    Refusal::of(status).map(|refusal| refusal.code)
}

/// The check that failed for an agent, by SPIRE's detail; understood from both kinds of server. None unless the status
/// is PERMISSION_DENIED.
pub fn permission_denied_details_of(status: &Status) -> Option<Standing> {
    if status.code() != Code::PermissionDenied {
        return None;
    }
    let detail: PermissionDeniedDetails =
        details(status).find_map(|any| open(&any, PERMISSION_DENIED_DETAILS))?;
    Standing::try_from(detail.reason).ok()
}

/// SPIRE's name of a reason, for those that agents act on.
fn standing_of(reason: Reason) -> Option<Standing> {
    match reason {
        Reason::AgentExpired => Some(Standing::AgentExpired),
        Reason::AgentNotAttested => Some(Standing::AgentNotAttested),
        Reason::AgentNotActive => Some(Standing::AgentNotActive),
        Reason::AgentBanned => Some(Standing::AgentBanned),
        Reason::AgentMustReattest => Some(Standing::AgentMustReattest),
        _ => None,
    }
}

fn error_info(reason: Reason, metadata: BTreeMap<String, String>) -> Any {
    let info = rpc::ErrorInfo { reason: reason.code().to_ascii_uppercase(), domain: DOMAIN.into(), metadata };
    pack(ERROR_INFO, &info)
}

fn status(code: Code, message: &str, details: Vec<Any>) -> Status {
    let message = bounded(message);
    let body = rpc::Status { code: code.into(), message: message.into(), details };
    Status::with_details(code, message, body.encode_to_vec().into())
}

/// The start of a text that fits [`MESSAGE_BYTES_MAX`].
fn bounded(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_BYTES_MAX)]
}

fn pack(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("{TYPE_URL_PREFIX}{name}"), value: message.encode_to_vec() }
}

/// The message in an envelope of that name. What comes before the last slash of the type does not count (Any).
fn open<M: Message + Default>(any: &Any, name: &str) -> Option<M> {
    let (_, found) = any.type_url.rsplit_once('/')?;
    if found != name {
        return None;
    }
    M::decode(any.value.as_slice()).ok()
}

/// The envelopes in a status; none when its details cannot be read.
fn details(status: &Status) -> impl Iterator<Item = Any> {
    let body = rpc::Status::decode(status.details()).unwrap_or_default();
    body.details.into_iter().take(DETAILS_MAX)
}

#[cfg(test)]
mod tests;
