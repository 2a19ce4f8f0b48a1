//! Lets calls in as far as there is room for their process and user, before anything else is looked at; whoever is refused
//! is told when to come back.
//!
//! For all services of the socket. A call keeps its place until its answer has ended, a stream as long as it is open. Calls
//! are counted here, those of our own process aside; with telemetry off that takes no room.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::{Frame, SizeHint};
use spindle_proto::refusal::come_back_to_busy;
use spindle_telemetry::Call;
use spindle_transport::{Crowded, LocalPeer, Peer, Place, is_ourselves};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;

use crate::gate::Gate;

/// When it is worth trying again after a place was missing: others have to go first.
const PLACE_AFTER: Duration = Duration::from_secs(5);

/// What all calls on a connection too many are told.
pub(super) fn too_many_connections(crowded: Crowded) -> Status {
    come_back_to_busy(&format!("{} has too many connections open", crowded.who()), PLACE_AFTER)
}

/// A service behind the admission.
#[derive(Clone)]
pub(super) struct Admitting<S> {
    service: S,
    gate: Arc<Gate>,
}

impl<S> Admitting<S> {
    pub(super) fn new(service: S, gate: Arc<Gate>) -> Self {
        Self { service, gate }
    }

    fn begin(&self, request: &Request<Body>) -> Option<Call> {
        self.gate.metrics().rpc.begin(request.uri().path())
    }

    fn enter(&self, peer: &LocalPeer) -> Result<Place, Status> {
        self.gate.admission().enter(peer).map_err(|crowded| {
            let text = format!("{} has too many calls open", crowded.who());
            self.gate.refuse_crowd(peer, &text, PLACE_AFTER)
        })
    }
}

impl<S> Service<Request<Body>> for Admitting<S>
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
        let Some(Peer::Local(peer)) = request.extensions().get::<Peer>() else {
            // The service itself says what it thinks of that.
            return Box::pin(self.service.call(request));
        };
        let call = if is_ourselves(peer.pid) { None } else { self.begin(&request) };
        match self.enter(peer) {
            Ok(place) => {
                let answer = self.service.call(request);
                Box::pin(async move { Ok(placed(answer.await?, place, call)) })
            }
            Err(refused) => {
                if let Some(call) = call {
                    call.done(refused.code());
                }
                Box::pin(std::future::ready(Ok(refused.into_http())))
            }
        }
    }
}

/// The answer with its place, and with its call if that is counted.
fn placed(answer: Response<Body>, place: Place, call: Option<Call>) -> Response<Body> {
    match call {
        Some(call) => call.follow(answer).map(|body| Body::new(Placed { body, _place: place })),
        None => answer.map(|body| Body::new(Placed { body, _place: place })),
    }
}

/// An answer and the place that it keeps.
struct Placed<B> {
    body: B,
    _place: Place,
}

impl<B> hyper::body::Body for Placed<B>
where
    B: hyper::body::Body<Data = Bytes, Error = Status> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use spindle_telemetry::Metered;

    use super::*;

    #[test]
    fn an_open_call_has_room_for_being_counted_only_while_it_is() {
        let uncounted = size_of::<Body>() + size_of::<Place>();
        assert_eq!(size_of::<Placed<Body>>(), uncounted);
        assert_eq!(size_of::<Placed<Metered>>(), uncounted + size_of::<Call>());
        assert_eq!(size_of::<Call>(), 16);
    }
}
