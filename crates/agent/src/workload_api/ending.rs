//! Lets the streams of a service end when the agent stops. Health and reflection keep theirs open for as long as the
//! client likes, and the socket would wait for them.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Body as _;
use spindle_runtime::Shutdown;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

use crate::frames::trailers;
use crate::gate::stopping;

/// A service whose answers end with the agent.
#[derive(Clone)]
pub(crate) struct Ending<S> {
    service: S,
    shutdown: Shutdown,
}

impl<S> Ending<S> {
    pub(crate) fn new(service: S, shutdown: Shutdown) -> Self {
        Self { service, shutdown }
    }
}

impl<S> Service<Request<Body>> for Ending<S>
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, shutdown) = (self.service.call(request), self.shutdown.clone());
        Box::pin(async move { Ok(answer.await?.map(|body| ending(body, shutdown))) })
    }
}

impl<S: NamedService> NamedService for Ending<S> {
    const NAME: &'static str = S::NAME;
}

/// What is ready is still sent; then the stream is told that the agent stops.
fn ending(body: Body, shutdown: Shutdown) -> Body {
    // A refusal is headers alone. Wrapped, it would be followed by an empty frame, which gRPC for Go takes for a broken stream.
    if body.is_end_stream() {
        return body;
    }
    let frames = stream::unfold(Some((body, shutdown)), |open| async {
        let (mut body, shutdown) = open?;
        // Cancel-safe: a frame is taken only when it is returned.
        tokio::select! {
            biased;
            frame = body.frame() => Some((frame?, Some((body, shutdown)))),
            () = shutdown.begun() => Some((trailers(&stopping()), None)),
        }
    });
    Body::new(StreamBody::new(frames))
}

#[cfg(test)]
mod tests {
    use futures_util::future::{Ready, ready};
    use tonic::{Code, Status};

    use super::*;

    /// Answers every call with a refusal.
    struct Refusing;

    impl Service<Request<Body>> for Refusing {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = Ready<Result<Response<Body>, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            ready(Ok(Status::new(Code::InvalidArgument, "no").into_http()))
        }
    }

    #[tokio::test]
    async fn a_refusal_ends_with_its_headers_as_grpc_for_go_wants_it() {
        let answer = Ending::new(Refusing, Shutdown::new()).call(Request::new(Body::empty())).await.unwrap();
        assert_eq!(answer.headers()["grpc-status"], "3");
        assert!(answer.body().is_end_stream(), "an empty frame would follow");
    }
}
