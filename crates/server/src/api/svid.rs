//! The SVID service: batches for agents, minting for administrators, authorities for servers below. What concerns JWT-SVIDs
//! is in [`jwt`], what concerns WIT-SVIDs in [`wit`].

mod downstream;
mod jwt;
mod wit;

use std::sync::{Arc, Mutex, PoisonError};

use spindle_ca::CheckedCsr;
use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::refusal::{item_ok, item_refusal, refusal};
use spindle_proto::spire::api::server::svid::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{EntryId, Reason};
use spindle_transport::LogGate;
use tonic::{Code, Request, Response, Status};
use tracing::{info, warn};

use super::caller::caller_of;
use super::filter::bad_request;
use crate::context::Context;
use crate::directory::is_authorized;
use crate::issuer::{IssueError, Issued, WorkloadRequest};
use crate::rate_limit::source_of;

/// Most SVIDs in one batch; SPIRE's agents ask for up to 500.
const SVIDS_MAX: usize = 1000;

/// What is refused about an item.
const X509: &str = "X509-SVID";

pub(crate) struct SvidService {
    context: Arc<Context>,
    /// An agent may have a thousand items refused in one call, and call again.
    item_lines: Mutex<LogGate>,
}

/// An issued SVID as it goes to the caller.
pub(crate) fn svid_to_proto(issued: &Issued, hint: &str) -> types::X509svid {
    types::X509svid {
        cert_chain: issued.chain.iter().map(|der| der.to_vec().into()).collect(),
        id: Some(spiffe_id_to_proto(&issued.spiffe_id)),
        expires_at: issued.validity.not_after.unix_secs(),
        hint: hint.to_owned(),
    }
}

/// One item of a batch that passed the cheap checks, or what it was refused for.
type Checked = Result<(WorkloadRequest, String), types::Status>;

impl SvidService {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, item_lines: Mutex::new(LogGate::new()) }
    }

    fn item_refused(
        &self,
        kind: &'static str,
        code: Code,
        reason: Reason,
        message: String,
        entry_id: &str,
    ) -> types::Status {
        let line = self.item_lines.lock().unwrap_or_else(PoisonError::into_inner).pass();
        if let Some(not_shown) = line {
            warn!(entry_id, reason = reason.code(), error = message, not_shown, "{kind} refused");
        }
        item_refusal(code, reason, message)
    }

    fn issue_refused(&self, error: &IssueError, entry_id: &str) -> types::Status {
        self.item_refused(X509, error.code(), error.reason(), error.to_string(), entry_id)
    }
}

#[tonic::async_trait]
impl wire::svid_server::Svid for SvidService {
    async fn batch_new_x509svid(
        &self,
        request: Request<wire::BatchNewX509svidRequest>,
    ) -> Result<Response<wire::BatchNewX509svidResponse>, Status> {
        use wire::batch_new_x509svid_response::Result as Item;
        let caller = caller_of(&request)?.agent()?.clone();
        let agent_id = caller.id();
        let source = source_of(&request);
        let params = request.into_inner().params;
        if params.is_empty() {
            return Err(bad_request("missing parameters"));
        }
        if params.len() > SVIDS_MAX {
            let message = format!("a batch has at most {SVIDS_MAX} CSRs, this one has {}", params.len());
            return Err(refusal(Code::InvalidArgument, Reason::MessageTooLarge, &message));
        }
        self.context.rate_limits.signing(source, params.len()).await?;
        let checked: Vec<(String, Checked)> = {
            let view = self.context.directory.view();
            let agent = caller.row(&view, self.context.clock.now())?;
            params
                .into_iter()
                .map(|param| {
                    let entry_id = param.entry_id.clone();
                    let row = param.entry_id.parse().ok().and_then(|id: EntryId| view.entry(&id));
                    let checked = match row.filter(|row| is_authorized(&view, agent, &row.entry)) {
                        _ if param.entry_id.is_empty() => Err(self.item_refused(
                            X509,
                            Code::InvalidArgument,
                            Reason::BadRequest,
                            "missing entry ID".into(),
                            "",
                        )),
                        _ if param.csr.is_empty() => Err(self.item_refused(
                            X509,
                            Code::InvalidArgument,
                            Reason::BadCsr,
                            "missing CSR".into(),
                            &entry_id,
                        )),
                        None => Err(self.item_refused(
                            X509,
                            Code::NotFound,
                            Reason::EntryNotAuthorized,
                            "entry not found or not authorized".into(),
                            &entry_id,
                        )),
                        Some(row) => Ok((
                            WorkloadRequest::of_entry(&row.entry, param.csr.to_vec()),
                            row.entry.hint.as_str().to_owned(),
                        )),
                    };
                    (entry_id, checked)
                })
                .collect()
        };
        let requests =
            checked.iter().filter_map(|(_, item)| item.as_ref().ok().map(|(request, _)| request.clone()));
        let issued = self.context.issuer.issue_batch(requests.collect()).await;
        let mut issued = issued.map_err(|error| error.status(&error.to_string()))?.into_iter();
        let results = checked
            .into_iter()
            .map(|(entry_id, item)| match item {
                Err(status) => Item { status: Some(status), svid: None },
                Ok((_, hint)) => match issued.next() {
                    Some(Ok(issued)) => {
                        info!(entry_id, spiffe_id = %issued.spiffe_id, agent_id = %agent_id,
                              serial_num = issued.serial, expires_at = %issued.validity.not_after, "X509-SVID issued");
                        Item {
                            status: Some(item_ok()),
                            svid: Some(svid_to_proto(&issued, &hint)),
                        }
                    }
                    Some(Err(error)) => Item { status: Some(self.issue_refused(&error, &entry_id)), svid: None },
                    None => Item { status: Some(self.issue_refused(&IssueError::Stopped, &entry_id)), svid: None },
                },
            })
            .collect();
        Ok(Response::new(wire::BatchNewX509svidResponse { results }))
    }

    async fn new_downstream_x509ca(
        &self,
        request: Request<wire::NewDownstreamX509caRequest>,
    ) -> Result<Response<wire::NewDownstreamX509caResponse>, Status> {
        let caller = caller_of(&request)?.downstream()?.clone();
        let source = source_of(&request);
        downstream::new_authority(&self.context, &caller, source, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn mint_x509svid(
        &self,
        request: Request<wire::MintX509svidRequest>,
    ) -> Result<Response<wire::MintX509svidResponse>, Status> {
        let request = request.into_inner();
        if request.csr.is_empty() {
            return Err(bad_request("missing CSR"));
        }
        let csr = CheckedCsr::parse(&request.csr).map_err(|error| {
            refusal(Code::InvalidArgument, error.reason(), &format!("malformed CSR: {error}"))
        })?;
        let issued = self
            .context
            .issuer
            .mint(csr, i64::from(request.ttl))
            .await
            .map_err(|error| error.status(&error.to_string()))?;
        info!(spiffe_id = %issued.spiffe_id, serial_num = issued.serial,
              expires_at = %issued.validity.not_after, "X509-SVID minted");
        Ok(Response::new(wire::MintX509svidResponse { svid: Some(svid_to_proto(&issued, "")) }))
    }

    async fn mint_jwtsvid(
        &self,
        request: Request<wire::MintJwtsvidRequest>,
    ) -> Result<Response<wire::MintJwtsvidResponse>, Status> {
        jwt::mint(&self.context, request.into_inner()).await.map(Response::new)
    }

    async fn new_jwtsvid(
        &self,
        request: Request<wire::NewJwtsvidRequest>,
    ) -> Result<Response<wire::NewJwtsvidResponse>, Status> {
        let caller = caller_of(&request)?.agent()?.clone();
        let source = source_of(&request);
        jwt::new(&self.context, &caller, source, request.into_inner()).await.map(Response::new)
    }

    async fn mint_witsvid(
        &self,
        request: Request<wire::MintWitsvidRequest>,
    ) -> Result<Response<wire::MintWitsvidResponse>, Status> {
        wit::mint(&self.context, request.into_inner()).await.map(Response::new)
    }

    async fn batch_new_witsvid(
        &self,
        request: Request<wire::BatchNewWitsvidRequest>,
    ) -> Result<Response<wire::BatchNewWitsvidResponse>, Status> {
        let caller = caller_of(&request)?.agent()?.clone();
        let source = source_of(&request);
        wit::new_batch(self, &caller, source, request.into_inner().params).await.map(Response::new)
    }
}
