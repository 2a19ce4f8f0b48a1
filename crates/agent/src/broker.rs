//! The SPIFFE Broker API: trusted processes get the identities of the workloads that they work for, which they name by
//! process or as Kubernetes objects.
//!
//! Thin: header, broker, reference, workload, view, answer. A broker is one of a configured list, named by its certificate;
//! it says which workload is meant, and nothing else that it says is believed. Streams end with their workload. Start at
//! [`BrokerApi`]; the sockets are in `endpoint.rs`, who is let in at all is in `door.rs`.

mod access;
mod caller;
mod decide;
mod door;
mod endpoint;
mod reachable;
mod refused;
mod subject;
mod subscription;
mod tokens;

use std::sync::Arc;

use http::{Request, Response};
use spindle_proto::broker::{
    FetchJwtsvidRequest, SubscribeToJwtBundlesRequest, SubscribeToX509BundlesRequest,
    SubscribeToX509svidRequest,
};
use spindle_proto::refusal::refusal;
use spindle_proto::workload_reference::Reference;
use spindle_spiffe_core::{Clock, Reason};
use spindle_transport::LiveBundles;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::frames::{read_or_refuse, single, streamed};
use crate::gate::Gate;
use crate::kubelet::Kubelet;
use crate::tokens::TokenSource;
use access::Brokers;
use caller::Broker;
use decide::Kind;
use subject::Subject;
use subscription::Subscription;

pub(crate) use endpoint::{BrokerSockets, Endpoint};
pub(crate) use reachable::Reachable;

/// The largest request taken: the largest audience there may be, a reference and a SPIFFE ID, twice for their framing.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// What the service needs from outside.
pub(crate) struct Parts {
    pub(crate) gate: Arc<Gate>,
    pub(crate) tokens: TokenSource,
    pub(crate) clock: Arc<dyn Clock>,
    /// Whom brokers' certificates are held against, in the handshake and before each answer.
    pub(crate) bundles: LiveBundles,
    /// Who may call.
    pub(crate) brokers: Brokers,
    /// Who knows the pods of this node, if anybody.
    pub(crate) kubelet: Option<Kubelet>,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BrokerApi(Arc<Parts>);

impl BrokerApi {
    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let Some(broker) = request.extensions().get::<Broker>().cloned() else {
            return Err(refusal(Code::Internal, Reason::Internal, "the call came past the door"));
        };
        let method = request.uri().path().rsplit_once('/').map(|(_, method)| method.to_owned());
        let body = request.into_body();
        match method.as_deref() {
            Some("SubscribeToX509SVID") => {
                let asked: SubscribeToX509svidRequest = read(body).await?;
                self.stream(broker, asked.reference, Kind::X509Svids).await
            }
            Some("SubscribeToX509Bundles") => {
                let asked: SubscribeToX509BundlesRequest = read(body).await?;
                self.stream(broker, asked.reference, Kind::X509Bundles).await
            }
            Some("SubscribeToJWTBundles") => {
                let asked: SubscribeToJwtBundlesRequest = read(body).await?;
                self.stream(broker, asked.reference, Kind::JwtBundles).await
            }
            Some("FetchJWTSVID") => {
                let mut asked: FetchJwtsvidRequest = read(body).await?;
                let subject = self.subject(&broker, asked.reference.take()).await?;
                Ok(single(tokens::fetch(&self.0, &broker, subject, asked).await?))
            }
            _ => {
                let text = "the Broker API has no such method";
                Err(refusal(Code::Unimplemented, Reason::NotSupported, text))
            }
        }
    }

    async fn stream(
        self,
        broker: Broker,
        reference: Option<spindle_proto::broker::WorkloadReference>,
        kind: Kind,
    ) -> Result<Response<Body>, Status> {
        let subject = self.subject(&broker, reference).await?;
        streamed(Subscription::new(self.0, broker, subject, kind)).await
    }

    /// The workload that is meant: its reference is judged before anything else is done (Broker API 4.8).
    async fn subject(
        &self,
        broker: &Broker,
        reference: Option<spindle_proto::broker::WorkloadReference>,
    ) -> Result<Subject, Status> {
        let reference = Reference::of(reference).map_err(|invalid| refused::invalid(&invalid))?;
        broker.may_use(reference.type_url()).map_err(|denied| refused::not_allowed(&denied))?;
        if !self.0.gate.cache().is_synced() {
            return Err(crate::gate::status_of(Reason::AgentStarting));
        }
        Subject::find(&self.0, reference).await
    }
}

async fn read<M: prost::Message + Default + 'static>(body: Body) -> Result<M, Status> {
    read_or_refuse(body, REQUEST_BYTES_MAX).await
}

crate::frames::grpc_service!(BrokerApi, "spiffe.broker.API");

#[cfg(test)]
mod tests;
