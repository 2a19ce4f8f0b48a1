//! Envoy's Secret Discovery Service v3 beside the Workload API: SVIDs and trust bundles for proxies, pushed when they change.
//!
//! Needs no security header, as with SPIRE. Who the caller is and what it may have is decided as for the Workload API; names
//! are SPIRE's. Both variants of the protocol, and the single question. Start at [`Sds`], then `exchange`.

mod catalog;
mod delta;
mod exchange;
mod secret;
mod sotw;
mod stream;
mod validation;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{iter, unfold};
use http::{HeaderValue, Request, Response, header};
use http_body_util::StreamBody;
use spindle_proto::refusal::refusal;
use spindle_spiffe_core::Reason;
use spindle_transport::Peer;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::config::SdsConfig;
use crate::frames::{data, trailers};
use crate::gate::{Gate, Limited};
use delta::Delta;
use exchange::Exchange;
use sotw::Sotw;
use stream::Stream;
use validation::Validation;

/// Every method there is. Each has a limit.
const METHODS: [(&str, Limited); 3] = [
    ("StreamSecrets", Limited::StreamSecrets),
    ("DeltaSecrets", Limited::DeltaSecrets),
    ("FetchSecrets", Limited::FetchSecrets),
];

/// The service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sds {
    gate: Arc<Gate>,
    config: Arc<SdsConfig>,
}

impl Sds {
    pub(crate) fn new(gate: Arc<Gate>, config: SdsConfig) -> Self {
        Self { gate, config: Arc::new(config) }
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let Some(Peer::Local(peer)) = request.extensions().get::<Peer>().cloned() else {
            return Err(refusal(Code::Internal, Reason::Internal, "the caller came over no Unix socket"));
        };
        let name = request.uri().path().rsplit_once('/').map_or("", |(_, name)| name);
        let Some((_, method)) = METHODS.into_iter().find(|(known, _)| *known == name) else {
            let text = "the secret discovery service has no such method";
            return Err(self.gate.refuse(&peer, Code::Unimplemented, Reason::NotSupported, text));
        };
        let caller = self.gate.clone().admit(peer).await?.within_limit(method)?;
        let validation = Validation::configured(self.config.disable_spiffe_cert_validation);
        let requests = request.into_body();
        match method {
            Limited::StreamSecrets => {
                Ok(streamed(Stream::new(caller, self.config, requests, Sotw::new(validation))))
            }
            Limited::DeltaSecrets => {
                Ok(streamed(Stream::new(caller, self.config, requests, Delta::new(validation))))
            }
            _ => single(Stream::new(caller, self.config, requests, Sotw::single(validation))).await,
        }
    }
}

/// The whole stream. Its end is told in the trailers.
fn streamed<E>(stream: Stream<E>) -> Response<Body>
where
    E: Exchange + Send + 'static,
    E::Request: Send,
    E::Response: Send,
    E::Sent: Send,
{
    let frames = unfold(Some(stream), |open| async {
        let mut stream = open?;
        Some(match stream.next().await {
            Ok(Some(answer)) => (data(answer), Some(stream)),
            Ok(None) => (trailers(&Status::ok("")), None),
            Err(status) => (trailers(&status), None),
        })
    });
    response(StreamBody::new(frames))
}

/// One answer; a refusal instead of it has no message before it.
async fn single(mut stream: Stream<Sotw>) -> Result<Response<Body>, Status> {
    let Some(answer) = stream.next().await? else {
        return Err(refusal(Code::InvalidArgument, Reason::BadRequest, "the request has no message"));
    };
    let frames = iter([data(answer), trailers(&Status::ok(""))]);
    Ok(response(StreamBody::new(frames)))
}

fn response<B>(body: B) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

crate::frames::grpc_service!(Sds, "envoy.service.secret.v3.SecretDiscoveryService");

#[cfg(test)]
mod tests;
