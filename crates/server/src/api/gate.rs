//! The layer in front of every service: lets the caller in, takes its message, and sees to it that a refusal says why.
//!
//! A caller can hold its message back after it was let in. So the one message of an ordinary call is read here, within a
//! time limit, and the caller is looked at again once it is complete. Services that are sent a stream read it with
//! [`in_time`] and look again themselves.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full};
use spindle_proto::refusal::refusal;
use spindle_spiffe_core::Reason;
use spindle_transport::Peer;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::MESSAGE_BYTES_MAX;
use super::audit::{Audit, Call};
use super::authorization::{Takes, row_of};
use super::caller::Admission;
use super::refused::{RefusalLog, reasoned};

/// How long a message may take to arrive once the call is open: 4 MiB over a slow line, and no more.
const MESSAGE_WAIT: Duration = Duration::from_secs(30);

/// What stands in front of a gRPC message: one byte of flags and four of length.
const PREFIX_BYTES: usize = 5;

/// What the layer needs for each call.
pub(crate) struct Gate {
    pub(crate) admission: Admission,
    pub(crate) log: RefusalLog,
    /// None when calls are not recorded.
    pub(crate) audit: Option<Audit>,
}

impl Gate {
    /// The request as the service is to see it: whole, and with its caller; and what the audit log is to know of it.
    async fn pass(
        &self,
        mut request: http::Request<Body>,
        peer: Option<&Peer>,
    ) -> Result<(http::Request<Body>, Option<Call>), Status> {
        let method = request.uri().path();
        let Some(row) = row_of(method) else {
            let message = format!("method {method} is not served here");
            return Err(refusal(Code::Unimplemented, Reason::MethodUnknown, &message));
        };
        let mut caller = self.admission.admit(row, peer).await?;
        let mut whole = None;
        if row.takes == Takes::Message {
            let (parts, body) = request.into_parts();
            let message = in_time(whole_message(body)).await?;
            whole = Some(message.clone());
            request = http::Request::from_parts(parts, Body::new(Full::new(message)));
            caller = self.admission.admit(row, peer).await?;
        }
        let call =
            self.audit.as_ref().map(|audit| audit.admitted(row.method, peer, &caller, whole, &mut request));
        request.extensions_mut().insert(caller);
        Ok((request, call))
    }
}

/// Waits for a message, but no longer than it may take.
pub(crate) async fn in_time<T>(message: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(MESSAGE_WAIT, message).await.unwrap_or_else(|_| {
        let message = format!("the message did not arrive within {} seconds", MESSAGE_WAIT.as_secs());
        Err(refusal(Code::DeadlineExceeded, Reason::MessageLate, &message))
    })
}

/// Reads the one message of a call, with its prefix, up to its bound. Whether it is well formed is found out by the service.
async fn whole_message(mut body: Body) -> Result<Bytes, Status> {
    let mut message = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::cancelled(format!("the message broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if message.len() + data.len() > PREFIX_BYTES + MESSAGE_BYTES_MAX {
            let message = format!("a message has at most {MESSAGE_BYTES_MAX} bytes");
            return Err(refusal(Code::ResourceExhausted, Reason::MessageTooLarge, &message));
        }
        message.extend_from_slice(&data);
    }
    if message.is_empty() {
        return Err(refusal(Code::InvalidArgument, Reason::BadRequest, "the call carries no message"));
    }
    Ok(message.freeze())
}

/// Wraps every service in the gate.
#[derive(Clone)]
pub(crate) struct GateLayer(pub(crate) Arc<Gate>);

impl<S> Layer<S> for GateLayer {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Gated { gate: self.0.clone(), inner }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub(crate) struct Gated<S> {
    gate: Arc<Gate>,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let gate = self.gate.clone();
        // The ready instance answers this call; its clone waits for the next one.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>().cloned();
            let method = request.uri().path().to_owned();
            let answer = match gate.pass(request, peer.as_ref()).await {
                Ok((request, None)) => inner.call(request).await?,
                Ok((request, Some(call))) => call.watch(inner.call(request).await?),
                Err(status) => status.into_http(),
            };
            // A refusal stands in the headers; only the end of a stream does not, and streams see to their own.
            match Status::from_header_map(answer.headers()) {
                Some(status) if status.code() != Code::Ok => {
                    let status = reasoned(status);
                    gate.log.write(&method, peer.as_ref(), &status);
                    Ok(status.into_http())
                }
                _ => Ok(answer),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use spindle_proto::refusal::reason_of;

    use super::*;

    fn body(frames: Vec<Vec<u8>>) -> Body {
        let frames = frames.into_iter().map(|data| Ok::<_, Status>(Frame::data(Bytes::from(data))));
        Body::new(StreamBody::new(tokio_stream::iter(frames)))
    }

    #[track_caller]
    fn check(answer: Result<Bytes, Status>, code: Code, reason: Reason) {
        let status = answer.expect_err("a refusal");
        assert_eq!((status.code(), reason_of(&status).as_deref()), (code, Some(reason.code())), "{status:?}");
    }

    #[tokio::test]
    async fn a_message_in_pieces_is_put_together_up_to_its_bound() {
        assert_eq!(
            whole_message(body(vec![vec![1, 2], vec![], vec![3]])).await.unwrap(),
            [1, 2, 3].as_slice()
        );
        let most = vec![vec![0; PREFIX_BYTES], vec![0; MESSAGE_BYTES_MAX]];
        assert_eq!(whole_message(body(most.clone())).await.unwrap().len(), PREFIX_BYTES + MESSAGE_BYTES_MAX);
        let more = whole_message(body([most, vec![vec![0]]].concat())).await;
        check(more, Code::ResourceExhausted, Reason::MessageTooLarge);
        check(whole_message(body(vec![])).await, Code::InvalidArgument, Reason::BadRequest);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_never_comes_is_not_waited_for() {
        let never = Body::new(StreamBody::new(tokio_stream::pending::<Result<Frame<Bytes>, Status>>()));
        check(in_time(whole_message(never)).await, Code::DeadlineExceeded, Reason::MessageLate);
    }
}
