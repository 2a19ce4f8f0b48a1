//! The door in front of every service of the endpoint, reflection included: the security header, then who the caller is.
//!
//! Refusals by whatever service are told to the operator here, within bounds.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use spindle_proto::refusal::{reason_of, refusal};
use spindle_spiffe_core::Reason;
use spindle_transport::{LogGate, Peer};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::{Code, Status};
use tracing::warn;

use super::Parts;
use super::caller::Broker;

/// The metadata every call must carry (Broker Endpoint 3).
pub(super) const SECURITY_HEADER: &str = "broker.spiffe.io";

/// A service behind the door.
#[derive(Clone)]
pub(super) struct Door<S> {
    service: S,
    parts: Arc<Parts>,
    lines: Arc<Mutex<LogGate>>,
}

impl<S> Door<S> {
    pub(super) fn new(service: S, parts: Arc<Parts>, lines: Arc<Mutex<LogGate>>) -> Self {
        Self { service, parts, lines }
    }
}

/// Exactly one value, exactly `true`. Looked at before anything else.
fn has_security_header(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(SECURITY_HEADER).iter();
    matches!((values.next().map(HeaderValue::as_bytes), values.next()), (Some(b"true"), None))
}

fn let_in(parts: &Parts, request: &Request<Body>) -> Result<Broker, Status> {
    if !has_security_header(request.headers()) {
        let text = "security header missing from request";
        return Err(refusal(Code::InvalidArgument, Reason::BrokerHeaderMissing, text));
    }
    Broker::identify(parts, request.extensions().get::<Peer>())
}

fn tell(lines: &Mutex<LogGate>, method: &str, caller: Option<&str>, status: &Status) {
    let Some(left_out) = lines.lock().unwrap_or_else(PoisonError::into_inner).pass() else { return };
    let (reason, error) = (reason_of(status).unwrap_or_default(), status.message());
    let caller_id = caller.unwrap_or_default();
    warn!(
        method,
        caller_id,
        reason,
        status_code = status.code() as i32,
        error,
        left_out,
        "a broker's call was refused"
    );
}

impl<S> Service<Request<Body>> for Door<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (method, lines) = (request.uri().path().to_owned(), self.lines.clone());
        let broker = match let_in(&self.parts, &request) {
            Ok(broker) => broker,
            Err(status) => {
                let caller = match request.extensions().get::<Peer>() {
                    Some(Peer::Tls { identity, .. } | Peer::LocalTls { identity, .. }) => {
                        identity.as_ref().map(|peer| peer.spiffe_id().as_str())
                    }
                    _ => None,
                };
                tell(&lines, &method, caller, &status);
                return Box::pin(std::future::ready(Ok(status.into_http())));
            }
        };
        let id = broker.id().clone();
        request.extensions_mut().insert(broker);
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            // A refusal stands in the headers; what ends a stream later is no refusal of a call.
            let refused = Status::from_header_map(answer.headers()).filter(|one| one.code() != Code::Ok);
            if let Some(status) = refused {
                tell(&lines, &method, Some(id.as_str()), &status);
            }
            Ok(answer)
        })
    }
}
