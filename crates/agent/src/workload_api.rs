//! The SPIFFE Workload API on the agent's Unix socket, with health and reflection beside it.
//!
//! Thin: header rule, caller, view, answer. Finished messages come from the cache and are shared by all streams with the
//! same view, so the service writes them itself instead of having each stream encode its own copy. The WIT profile
//! is there when the trust domain has it; otherwise its methods answer UNIMPLEMENTED. Start at [`WorkloadApi`]; the methods
//! are in one table, [`CALLS`].

mod admitting;
mod decide;
mod ending;
mod jwt;
mod session;
mod socket;
mod validate;
mod wit;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use spindle_proto::refusal::refusal;
use spindle_spiffe_core::audience::AUDIENCE_BYTES_MAX;
use spindle_spiffe_core::jws::TOKEN_BYTES_MAX;
use spindle_spiffe_core::{Clock, Reason, ReplayCache, TrustDomain};
use spindle_transport::{LocalPeer, Peer};
use tonic::body::Body;
use tonic::{Code, Status};

use crate::frames::{framed, read_request, reason_for_request, single, streamed};
use crate::gate::{Gate, Limited, NOT_SUPPORTED, stopping};
use crate::tokens::TokenSource;
use crate::wits::WitSource;
use decide::Method;
use session::Session;
use validate::{REPLAYS_MAX, Replay};
use wit::WitSession;

pub(crate) use ending::Ending;
pub(crate) use socket::{Services, Socket};

/// The metadata every call must carry (Workload Endpoint 3).
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// The largest request taken that says nothing but what method it is of.
const EMPTY_BYTES_MAX: usize = 4096;

/// The largest request for tokens: the largest audience there may be and a SPIFFE ID, twice for their framing.
const JWT_SVID_BYTES_MAX: usize = 64 * 1024;

/// The largest request to validate a token: the largest token and one audience.
const VALIDATE_BYTES_MAX: usize = TOKEN_BYTES_MAX + AUDIENCE_BYTES_MAX;

/// What a call is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Messages without an end; there is nothing in the request.
    Stream(Method),
    /// Tokens.
    JwtSvids,
    /// What a token says.
    ValidateJwtSvid,
    /// Tokens that are bound to keys, without an end.
    WitSvids,
}

/// Every method there is. Others answer UNIMPLEMENTED.
const CALLS: [(&str, Call); 7] = [
    ("FetchX509SVID", Call::Stream(Method::X509Svids)),
    ("FetchX509Bundles", Call::Stream(Method::X509Bundles)),
    ("FetchJWTSVID", Call::JwtSvids),
    ("FetchJWTBundles", Call::Stream(Method::JwtBundles)),
    ("ValidateJWTSVID", Call::ValidateJwtSvid),
    ("FetchWITSVID", Call::WitSvids),
    ("FetchWITBundles", Call::Stream(Method::WitBundles)),
];

/// The service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WorkloadApi(Arc<Shared>);

struct Shared {
    parts: Parts,
    /// Tokens shown to callers who want each only once.
    replays: Mutex<ReplayCache>,
}

impl std::ops::Deref for Shared {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Shared {
    fn replays(&self) -> MutexGuard<'_, ReplayCache> {
        self.replays.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the service needs from outside.
pub(crate) struct Parts {
    pub(crate) gate: Arc<Gate>,
    pub(crate) tokens: TokenSource,
    pub(crate) wits: WitSource,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) trust_domain: TrustDomain,
    /// Claims of foreign tokens that are told, beside those that always are.
    pub(crate) allowed_foreign_jwt_claims: Vec<String>,
    pub(crate) allow_unauthenticated_verifiers: bool,
}

impl WorkloadApi {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared { parts, replays: Mutex::new(ReplayCache::new(REPLAYS_MAX)) }))
    }

    /// Whether the call is one that this trust domain has not. Before the first sync nobody knows.
    fn lacks(&self, call: Call) -> bool {
        matches!(call, Call::WitSvids | Call::Stream(Method::WitBundles))
            && self.0.gate.is_synced()
            && !self.0.wits.is_supported()
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let Some(Peer::Local(peer)) = request.extensions().get::<Peer>().cloned() else {
            return Err(refusal(Code::Internal, Reason::Internal, "the caller came over no Unix socket"));
        };
        let refuse = |code, reason, message: &str| self.0.gate.refuse(&peer, code, reason, message);
        if !has_security_header(request.headers()) {
            let text = "security header missing from request";
            return Err(refuse(Code::InvalidArgument, Reason::SecurityHeaderMissing, text));
        }
        let name = request.uri().path().rsplit_once('/').map_or("", |(_, name)| name);
        let Some((_, call)) = CALLS.into_iter().find(|(known, _)| *known == name) else {
            return Err(refuse(Code::Unimplemented, Reason::NotSupported, NOT_SUPPORTED));
        };
        if self.lacks(call) {
            return Err(refuse(Code::Unimplemented, Reason::NotSupported, NOT_SUPPORTED));
        }
        let unread = |status: Status| refuse(status.code(), reason_for_request(&status), status.message());
        let (head, body) = request.into_parts();
        match call {
            Call::Stream(method) => {
                read_request::<()>(body, EMPTY_BYTES_MAX).await.map_err(unread)?;
                self.stream(method, peer).await
            }
            Call::JwtSvids => {
                let request = read_request(body, JWT_SVID_BYTES_MAX).await.map_err(unread)?;
                self.unary(jwt::fetch(&self.0, peer, request)).await
            }
            Call::ValidateJwtSvid => {
                let request = read_request(body, VALIDATE_BYTES_MAX).await.map_err(unread)?;
                let validated = validate::validate(&self.0, peer, Replay::asked(&head.headers), request);
                self.unary(async { Ok(framed(&validated.await?)) }).await
            }
            Call::WitSvids => {
                let request = read_request(body, EMPTY_BYTES_MAX).await.map_err(unread)?;
                let spiffe_id = wit::wanted(&request)
                    .map_err(|what| refuse(Code::InvalidArgument, Reason::BadRequest, &what))?;
                let caller = self.0.gate.clone().admit(peer).await?;
                streamed(WitSession::new(caller, &self.0.wits, spiffe_id)).await
            }
        }
    }

    /// One message and a good end, unless the agent stops first.
    async fn unary(
        &self,
        answer: impl Future<Output = Result<Bytes, Status>>,
    ) -> Result<Response<Body>, Status> {
        // Cancel-safe: an answer that is not given is made anew for the next call.
        let message = tokio::select! {
            biased;
            () = self.0.gate.shutdown().begun() => return Err(stopping()),
            message = answer => message?,
        };
        Ok(single(message))
    }

    async fn stream(self, method: Method, peer: LocalPeer) -> Result<Response<Body>, Status> {
        let mut caller = self.0.gate.clone().admit(peer).await?;
        if let Some(limited) = limited(method) {
            caller = caller.within_limit(limited)?;
        }
        streamed(Session::new(caller, method, self.0.allow_unauthenticated_verifiers)).await
    }
}

/// What a stream counts as; SPIRE has no limits for the WIT profile.
fn limited(method: Method) -> Option<Limited> {
    match method {
        Method::X509Svids => Some(Limited::FetchX509Svid),
        Method::X509Bundles => Some(Limited::FetchX509Bundles),
        Method::JwtBundles => Some(Limited::FetchJwtBundles),
        Method::WitBundles => None,
    }
}

/// Exactly one value, exactly `true`. Checked before anything else is looked at.
fn has_security_header(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(SECURITY_HEADER).iter();
    matches!((values.next().map(HeaderValue::as_bytes), values.next()), (Some(b"true"), None))
}

crate::frames::grpc_service!(WorkloadApi, "SpiffeWorkloadAPI");

#[cfg(test)]
mod tests;
