//! The SPIFFE Workload API on the agent's Unix socket, with health and reflection beside it.
//!
//! Thin: header rule, caller, view, answer. Finished messages come from the cache and are shared by all streams with the
//! same view, so the service writes them itself instead of having each stream encode its own copy. The WIT profile is not
//! here yet: its methods answer UNIMPLEMENTED. Start at [`WorkloadApi`]; the methods are in one table, [`CALLS`].

mod admitting;
mod decide;
mod ending;
mod jwt;
mod session;
mod socket;
mod validate;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, Stream};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use spindle_proto::refusal::refusal;
use spindle_spiffe_core::audience::AUDIENCE_BYTES_MAX;
use spindle_spiffe_core::jws::TOKEN_BYTES_MAX;
use spindle_spiffe_core::{Clock, Reason, TrustDomain};
use spindle_transport::{LocalPeer, Peer};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::codec::{Codec, Streaming};
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::gate::{Gate, stopping};
use crate::tokens::TokenSource;
use decide::Method;
use session::Session;

pub(crate) use socket::Socket;

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
}

/// Every method there is. Others answer UNIMPLEMENTED.
const CALLS: [(&str, Call); 5] = [
    ("FetchX509SVID", Call::Stream(Method::X509Svids)),
    ("FetchX509Bundles", Call::Stream(Method::X509Bundles)),
    ("FetchJWTSVID", Call::JwtSvids),
    ("FetchJWTBundles", Call::Stream(Method::JwtBundles)),
    ("ValidateJWTSVID", Call::ValidateJwtSvid),
];

/// A caller sends its request right after the headers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WorkloadApi(Arc<Parts>);

/// What the service needs from outside.
pub(crate) struct Parts {
    pub(crate) gate: Arc<Gate>,
    pub(crate) tokens: TokenSource,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) trust_domain: TrustDomain,
    /// Claims of foreign tokens that are told, beside those that always are.
    pub(crate) allowed_foreign_jwt_claims: Vec<String>,
    pub(crate) allow_unauthenticated_verifiers: bool,
}

impl WorkloadApi {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    fn gate(&self) -> Arc<Gate> {
        self.0.gate.clone()
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
            let text = "this profile of the Workload API is not supported";
            return Err(refuse(Code::Unimplemented, Reason::NotSupported, text));
        };
        let unread = |status: Status| refuse(status.code(), reason_for_request(&status), status.message());
        let body = request.into_body();
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
                self.unary(async { Ok(frame(&validate::validate(&self.0, peer, request).await?)) }).await
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
        Ok(framed(stream::iter([data(message), trailers(&Status::ok(""))])))
    }

    /// Waits for the first message, so that a refusal is the whole answer, and streams the later ones.
    async fn stream(self, method: Method, peer: LocalPeer) -> Result<Response<Body>, Status> {
        let caller = self.0.gate.clone().admit(peer).await?;
        let mut session = Session::new(caller, method, self.0.allow_unauthenticated_verifiers);
        let first = session.next().await?;
        let first_then_rest = stream::unfold(Next::Ready(first, session), |next| async {
            match next {
                Next::Ready(bytes, session) => Some((data(bytes), Next::Wait(session))),
                Next::Wait(mut session) => Some(match session.next().await {
                    Ok(bytes) => (data(bytes), Next::Wait(session)),
                    Err(status) => (trailers(&status), Next::Over),
                }),
                Next::Over => None,
            }
        });
        Ok(framed(first_then_rest))
    }
}

/// An answer of finished frames.
fn framed(frames: impl Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(header::CONTENT_TYPE, grpc);
    response
}

/// Where a stream stands.
enum Next {
    Ready(Bytes, Session),
    Wait(Session),
    Over,
}

pub(crate) fn data(bytes: Bytes) -> Result<Frame<Bytes>, Status> {
    Ok(Frame::data(bytes))
}

/// A message behind the one byte that says "not compressed" and its length.
fn frame(message: &impl prost::Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let length = u32::try_from(bytes.len()).expect("an answer is no longer than a few requests");
    let mut frame = Vec::with_capacity(5 + bytes.len());
    frame.push(0);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&bytes);
    frame.into()
}

pub(crate) fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut headers = HeaderMap::new();
    status.add_header(&mut headers)?;
    Ok(Frame::trailers(headers))
}

/// Exactly one value, exactly `true`. Checked before anything else is looked at.
fn has_security_header(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(SECURITY_HEADER).iter();
    matches!((values.next().map(HeaderValue::as_bytes), values.next()), (Some(b"true"), None))
}

/// What is wrong with a request that could not be read.
pub(crate) fn reason_for_request(status: &Status) -> Reason {
    match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Reason::MessageTooLarge,
        Code::DeadlineExceeded => Reason::TooSlow,
        _ => Reason::BadRequest,
    }
}

/// Reads the one message of a request. An empty message is read like `()`, which passes over all fields.
async fn read_request<M>(body: Body, bytes_max: usize) -> Result<M, Status>
where
    M: prost::Message + Default + 'static,
{
    let read = async {
        let decoder = ProstCodec::<M, M>::default().decoder();
        let mut messages = Streaming::new_request(decoder, body, None, Some(bytes_max));
        messages.message().await?.ok_or_else(|| Status::internal("the request has no message"))
    };
    timeout(REQUEST_TIMEOUT, read).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no request came")))
}

impl Service<Request<Body>> for WorkloadApi {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(service.answer(request).await.unwrap_or_else(Status::into_http)) })
    }
}

impl NamedService for WorkloadApi {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

#[cfg(test)]
mod tests;
