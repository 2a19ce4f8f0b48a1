//! Whether the agent serves, asked where a workload or a broker asks: its own Workload API over its own socket, and its broker
//! endpoint.
//!
//! The same checks for the gRPC health service and for HTTP probes. A refusal is a fine answer, for the agent has no identity of
//! its own; that the API is not available is not. A broker endpoint that cannot be reached makes the agent unready and not dead:
//! workloads are still served, and an SVID that has ended is not mended by a new start. Start at [`checks`] and [`HealthService`].

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt};
use spindle_proto::refusal::refusal;
use spindle_proto::workload::X509BundlesRequest;
use spindle_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spindle_runtime::HealthChecks;
use spindle_runtime::health::{Finding, Gravity, HealthReport, Probe, fault_in_time};
use spindle_spiffe_core::{ErrorChain, Reason};
use spindle_transport::connect_unix;
use tokio::sync::watch;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::broker::Reachable;

/// SPIRE's names of the agent's one check and of its detail.
const CHECK: &str = "agent";
const DETAIL: &str = "make_new_x509_err";

/// Ours: SPIRE waits for its broker endpoint before its first check, and never looks at it again.
const BROKER_CHECK: &str = "agent.broker";
const BROKER_DETAIL: &str = "broker_err";

/// The checks of an agent whose Workload API answers at `workload_api`, none when it is switched off, and of its broker
/// endpoint, if there is one. Until `synced` the agent is starting: alive, not ready.
pub(crate) fn checks(
    workload_api: Option<PathBuf>,
    broker: Option<Reachable>,
    synced: watch::Receiver<bool>,
) -> Arc<HealthChecks> {
    let (workload_api, broker) = (workload_api.map(Arc::new), broker.map(Arc::new));
    Arc::new(HealthChecks::new(move || {
        let (workload_api, broker) = (workload_api.clone(), broker.clone());
        let is_synced = *synced.borrow();
        Box::pin(async move {
            if !is_synced {
                let fault = Some("the agent has not reached its server yet".to_owned());
                return HealthReport(vec![Finding::new(CHECK, DETAIL, fault).of(Gravity::Starting)]);
            }
            let fault = match workload_api {
                Some(path) => fault_in_time(async move { ask(&path).await }).await,
                None => None,
            };
            let mut findings = vec![Finding::new(CHECK, DETAIL, fault)];
            if let Some(broker) = broker {
                let fault = fault_in_time(async move { broker.check().await }).await;
                findings.push(Finding::new(BROKER_CHECK, BROKER_DETAIL, fault).of(Gravity::Hindered));
            }
            HealthReport(findings)
        })
    }))
}

/// Asks for the bundles, as any caller may who has an identity; to be told that one has none is an answer as well.
async fn ask(path: &std::path::Path) -> Result<(), String> {
    let channel = connect_unix(path)
        .await
        .map_err(|error| format!("cannot reach the Workload API: {}", ErrorChain(&error)))?;
    let mut request = Request::new(X509BundlesRequest {});
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    match SpiffeWorkloadApiClient::new(channel).fetch_x509_bundles(request).await {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::PermissionDenied => Ok(()),
        Err(status) => Err(format!("the Workload API is unavailable: {}", status.message())),
    }
}

/// gRPC health with SPIRE's meaning: of the whole agent, not of single services.
pub(crate) struct HealthService {
    checks: Arc<HealthChecks>,
    synced: watch::Receiver<bool>,
}

impl HealthService {
    /// The service, which makes `checks` for each call, and tells watchers when the agent is in step.
    pub(crate) fn server(checks: Arc<HealthChecks>, synced: watch::Receiver<bool>) -> HealthServer<Self> {
        HealthServer::new(Self { checks, synced })
    }
}

/// The text of SPIRE's refusal.
fn check_whole(request: &HealthCheckRequest) -> Result<(), Status> {
    match request.service.is_empty() {
        true => Ok(()),
        false => {
            let text = "per-service health is not supported";
            Err(refusal(Code::InvalidArgument, Reason::BadRequest, text))
        }
    }
}

fn answer(is_serving: bool) -> HealthCheckResponse {
    let status = if is_serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        check_whole(request.get_ref())?;
        let report = self.checks.report().await;
        Ok(Response::new(answer(report.is_well(Probe::Ready))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Whether the agent is in step with its server. That it stops ends the stream.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        check_whole(request.get_ref())?;
        let first = *self.synced.borrow();
        let later = stream::unfold((self.synced.clone(), first), |(mut synced, told)| async move {
            if told || synced.wait_for(|synced| *synced).await.is_err() {
                // Once in step it stays so; the stream is the socket's to end.
                return std::future::pending().await;
            }
            Some((Ok(answer(true)), (synced, true)))
        });
        Ok(Response::new(Box::pin(stream::once(async move { Ok(answer(first)) }).chain(later))))
    }
}
