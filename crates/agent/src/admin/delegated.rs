//! The Delegated Identity API: a process that is listed as a delegate gets the identities of other workloads, which it names
//! by what they show or by their process.
//!
//! Answers with private keys are written straight into memory that is wiped, so the service reads and writes its messages
//! itself. A delegate is looked at before each message, and a stream ends as soon as it is a delegate no longer, or its
//! process has ended. Start at [`DelegatedIdentity`].

mod bundles;
mod delegate;
mod identities;
mod subject;
mod tokens;

use std::collections::BTreeSet;
use std::sync::Arc;

use http::{Request, Response};
use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::agent::delegatedidentity::v1 as wire;
use spindle_spiffe_core::{Reason, SpiffeId};
use spindle_transport::Peer;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};

use crate::frames::{framed, read_or_refuse, single, streamed};
use crate::gate::{Gate, stopping};
use crate::tokens::TokenSource;
use bundles::{Bundles, Kind};
use delegate::Delegate;
use identities::Identities;
use subject::Subject;

/// The largest request taken: as many selectors as a workload may show, each as large as it may be, have room.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// The service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DelegatedIdentity {
    gate: Arc<Gate>,
    delegates: Arc<BTreeSet<SpiffeId>>,
    tokens: TokenSource,
}

impl DelegatedIdentity {
    /// The service for these delegates.
    pub(crate) fn new(
        gate: Arc<Gate>,
        delegates: impl IntoIterator<Item = SpiffeId>,
        tokens: TokenSource,
    ) -> Self {
        Self { gate, delegates: Arc::new(delegates.into_iter().collect()), tokens }
    }

    async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let Some(Peer::Local(peer)) = request.extensions().get::<Peer>().cloned() else {
            return Err(refusal(Code::Internal, Reason::Internal, "the caller came over no Unix socket"));
        };
        let began = Instant::now();
        let method = request.uri().path().rsplit_once('/').map(|(_, method)| method.to_owned());
        let body = request.into_body();
        let delegate = Delegate::new(self.gate.clone(), self.delegates.clone(), peer);
        match method.as_deref() {
            Some("SubscribeToX509SVIDs") => {
                let asked: wire::SubscribeToX509sviDsRequest = read(body).await?;
                let delegate = delegate.admitted().await?;
                let subject = Subject::named(self.gate.callers(), &asked.selectors, asked.pid).await?;
                let answer = streamed(Identities::new(self.gate.clone(), delegate, subject)).await?;
                let waited_ms = began.elapsed().as_secs_f64() * 1000.0;
                self.gate.metrics().first_delegated_update.record(waited_ms);
                Ok(answer)
            }
            Some("SubscribeToX509Bundles") => {
                read::<wire::SubscribeToX509BundlesRequest>(body).await?;
                let delegate = delegate.admitted().await?;
                streamed(Bundles::new(self.gate, delegate, Kind::X509)).await
            }
            Some("SubscribeToJWTBundles") => {
                read::<wire::SubscribeToJwtBundlesRequest>(body).await?;
                let delegate = delegate.admitted().await?;
                streamed(Bundles::new(self.gate, delegate, Kind::Jwt)).await
            }
            Some("FetchJWTSVIDs") => {
                let asked = read(body).await?;
                // Cancel-safe: an answer that is not given is made anew for the next call.
                tokio::select! {
                    biased;
                    () = self.gate.shutdown().begun() => Err(stopping()),
                    answer = self.fetch_tokens(delegate, asked) => Ok(single(framed(&answer?))),
                }
            }
            _ => {
                let text = "the Delegated Identity API has no such method";
                Err(refusal(Code::Unimplemented, Reason::NotSupported, text))
            }
        }
    }

    async fn fetch_tokens(
        &self,
        delegate: Delegate,
        asked: wire::FetchJwtsviDsRequest,
    ) -> Result<wire::FetchJwtsviDsResponse, Status> {
        let audience = tokens::audience(&asked.audience)?;
        let mut delegate = delegate.admitted().await?;
        let subject = Subject::named(self.gate.callers(), &asked.selectors, asked.pid).await?;
        let answer = tokens::fetch(&self.tokens, subject, &audience).await?;
        // The server may have taken its time.
        delegate.check_again().await?;
        Ok(answer)
    }
}

async fn read<M: prost::Message + Default + 'static>(body: Body) -> Result<M, Status> {
    read_or_refuse(body, REQUEST_BYTES_MAX).await
}

crate::frames::grpc_service!(DelegatedIdentity, "spire.api.agent.delegatedidentity.v1.DelegatedIdentity");

#[cfg(test)]
mod tests;
