//! Counts gRPC calls, by the services and methods of descriptors. What no descriptor names is not counted: a caller cannot
//! make up names.
//!
//! A call lasts until its answer has ended, a stream as long as it is open; one whose client left it ended well, as in SPIRE.
//! Start at [`RpcMeter::new`]; [`MeterLayer`] is for a whole server of tonic's, [`RpcMeter::begin`] for services that put the
//! call into a body of their own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use hyper::body::{Frame, SizeHint};
use metrics::{Counter, Gauge};
use prost::Message;
use prost_types::FileDescriptorSet;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::call::Ends;
use crate::emitter::Telemetry;
use crate::names::rpc_key;

/// The end of a call in its answer.
const STATUS_HEADER: &str = "grpc-status";

/// Counts the calls of some services. Cheap to clone.
#[derive(Clone, Default)]
pub struct RpcMeter(Option<Arc<HashMap<String, Arc<Method>>>>);

/// One method.
struct Method {
    ends: Ends,
    /// Whether its answers are messages without a number, which end when the client has enough.
    is_stream: bool,
    open: Option<Open>,
}

/// SPIRE's "connections" of a service, which are its calls under way.
#[derive(Clone)]
struct Open {
    begun: Counter,
    now: Gauge,
}

/// A call under way. Dropped without an end it was given up by its client.
#[must_use]
pub struct Call {
    /// None when it has ended.
    method: Option<Arc<Method>>,
    began_us: u64,
}

impl RpcMeter {
    /// A meter for the services of `descriptors` (each an encoded `FileDescriptorSet`). Services of `connections` have the
    /// counter `KEY.connection` and the gauge `KEY.connections` besides.
    ///
    /// # Panics
    /// When a descriptor is malformed, which are made when the program is built.
    pub fn new(telemetry: &Telemetry, descriptors: &[&[u8]], connections: &[(&str, &str)]) -> Self {
        if !telemetry.is_on() {
            return Self::default();
        }
        let mut methods = HashMap::new();
        for descriptor in descriptors {
            // Made by our own build, and read by the reflection service, too.
            let set = FileDescriptorSet::decode(*descriptor).expect("descriptors of our own build");
            for file in set.file {
                for service in &file.service {
                    let name = match file.package() {
                        "" => service.name().to_owned(),
                        package => format!("{package}.{}", service.name()),
                    };
                    let key = connections.iter().find(|(service, _)| *service == name).map(|(_, key)| *key);
                    let open = key.map(|key| Open {
                        begun: telemetry.counter(&format!("{key}.connection"), &[]),
                        now: telemetry.gauge(&format!("{key}.connections"), &[]),
                    });
                    for method in &service.method {
                        let ends = Ends::new(telemetry, &rpc_key(&name, method.name()), &[]);
                        let one = Method { ends, is_stream: method.server_streaming(), open: open.clone() };
                        methods.insert(format!("/{name}/{}", method.name()), Arc::new(one));
                    }
                }
            }
        }
        Self(Some(Arc::new(methods)))
    }

    /// Begins the call of `path`; none when it is not counted.
    pub fn begin(&self, path: &str) -> Option<Call> {
        let method = self.0.as_ref()?.get(path)?.clone();
        if let Some(open) = &method.open {
            open.begun.increment(1);
            open.now.increment(1.0);
        }
        let began_us = method.ends.now_us();
        Some(Call { method: Some(method), began_us })
    }
}

impl Call {
    /// The call has ended like this.
    pub fn done(mut self, code: Code) {
        self.end(code);
    }

    fn end(&mut self, code: Code) {
        let Some(method) = self.method.take() else { return };
        method.ends.count(code, self.began_us);
        if let Some(open) = &method.open {
            open.now.decrement(1.0);
        }
    }

    /// Ends with the answer's head if that says how, or else goes on in its body.
    pub fn follow(mut self, answer: Response<Body>) -> Response<Metered> {
        if let Some(code) = status_of(answer.headers()) {
            self.end(code);
        }
        answer.map(|body| Metered { body, call: self })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let is_stream = self.method.as_ref().is_some_and(|method| method.is_stream);
        self.end(if is_stream { Code::Ok } else { Code::Cancelled });
    }
}

fn status_of(headers: &HeaderMap) -> Option<Code> {
    headers.get(STATUS_HEADER).map(|value| Code::from_bytes(value.as_bytes()))
}

/// An answer that tells its call how it ended.
pub struct Metered {
    body: Body,
    call: Call,
}

impl hyper::body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let told = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.trailers_ref().and_then(status_of),
            Poll::Ready(Some(Err(status))) => Some(status.code()),
            Poll::Ready(None) | Poll::Pending => None,
        };
        if let Some(code) = told {
            self.call.end(code);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counts all calls of a server.
#[derive(Clone)]
pub struct MeterLayer(RpcMeter);

impl MeterLayer {
    /// Counts into `meter`.
    pub fn new(meter: RpcMeter) -> Self {
        Self(meter)
    }
}

impl<S> Layer<S> for MeterLayer {
    type Service = Metering<S>;

    fn layer(&self, service: S) -> Metering<S> {
        Metering { service, meter: self.0.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub struct Metering<S> {
    service: S,
    meter: RpcMeter,
}

impl<S> Service<Request<Body>> for Metering<S>
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
        let call = self.meter.begin(request.uri().path());
        let answer = self.service.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            Ok(match call {
                Some(call) => call.follow(answer).map(Body::new),
                None => answer,
            })
        })
    }
}

#[cfg(test)]
mod tests;
