//! WIT-SVIDs: minting for administrators, and batches for the entries of an agent.

use spindle_ca::{SignedToken, confirmation_key};
use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::refusal::{item_ok, refusal};
use spindle_proto::spire::api::server::svid::v1 as wire;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{EntryId, Reason, RegistrationEntry};
use tonic::{Code, Status};
use tracing::info;

use super::jwt::workload_id;
use super::{SVIDS_MAX, SvidService};
use crate::api::caller::AgentCaller;
use crate::api::filter::bad_request;
use crate::context::Context;
use crate::directory::is_authorized;
use crate::issuer::IssueError;
use crate::rate_limit::Source;
use crate::token_issuer::{TokenIssueError, WitRequest};

use wire::batch_new_witsvid_response::Result as Item;

/// What is refused about an item, as SPIRE words it.
const KIND: &str = "WIT-SVID";

/// Signs what an administrator asks for.
pub(super) async fn mint(
    context: &Context,
    request: wire::MintWitsvidRequest,
) -> Result<wire::MintWitsvidResponse, Status> {
    context.wit_issuer.enabled().map_err(|error| error.status())?;
    let spiffe_id = workload_id(request.id.as_ref(), &context.trust_domain)?;
    let confirmation = confirmation_key(&request.public_key, &request.signing_algorithm)
        .map_err(|error| refusal(Code::InvalidArgument, Reason::BadKey, &error.to_string()))?;
    let asked = WitRequest { spiffe_id, confirmation, ttl_secs: i64::from(request.ttl) };
    let signed = context.wit_issuer.mint(asked).await.map_err(|error| error.status())?;
    info!(spiffe_id = %signed.spiffe_id, expires_at = %signed.expires_at, "WIT-SVID minted");
    Ok(wire::MintWitsvidResponse { svid: Some(to_proto(signed, "")) })
}

/// One item that passed the cheap checks: what to sign, and the entry's hint.
type Checked = Result<(WitRequest, String), types::Status>;

/// Signs for entries that the agent may have; identity and lifetime are the entry's, that of its X509-SVIDs as with SPIRE.
/// Each item has a status of its own, OK too, which SPIRE's server leaves out.
pub(super) async fn new_batch(
    service: &SvidService,
    caller: &AgentCaller,
    source: Option<Source>,
    params: Vec<wire::NewWitsvidParams>,
) -> Result<wire::BatchNewWitsvidResponse, Status> {
    let context = &service.context;
    context.wit_issuer.enabled().map_err(|error| error.status())?;
    if params.is_empty() {
        return Err(bad_request("missing parameters"));
    }
    if params.len() > SVIDS_MAX {
        let message = format!("a batch has at most {SVIDS_MAX} keys, this one has {}", params.len());
        return Err(refusal(Code::InvalidArgument, Reason::MessageTooLarge, &message));
    }
    context.rate_limits.wit_signing(source, params.len()).await?;
    let checked = check(service, caller, &params)?;
    let requests = checked.iter().filter_map(|item| item.as_ref().ok().map(|(request, _)| request.clone()));
    let signed = context.wit_issuer.issue_batch(requests.collect()).await;
    let mut signed = signed.map_err(|error| error.status())?.into_iter();
    let results = checked.into_iter().zip(&params).map(|(item, param)| match item {
        Err(status) => Item { status: Some(status), svid: None },
        Ok((_, hint)) => match signed.next().unwrap_or(Err(stopped())) {
            Ok(signed) => {
                info!(entry_id = param.entry_id, spiffe_id = %signed.spiffe_id, agent_id = %caller.id(),
                      expires_at = %signed.expires_at, "WIT-SVID issued");
                Item { status: Some(item_ok()), svid: Some(to_proto(signed, &hint)) }
            }
            Err(error) => {
                let (code, reason) = (error.code(), error.reason());
                let status = service.item_refused(KIND, code, reason, error.to_string(), &param.entry_id);
                Item { status: Some(status), svid: None }
            }
        },
    });
    Ok(wire::BatchNewWitsvidResponse { results: results.collect() })
}

/// Looks at all items by one view of the entries.
fn check(
    service: &SvidService,
    caller: &AgentCaller,
    params: &[wire::NewWitsvidParams],
) -> Result<Vec<Checked>, Status> {
    let view = service.context.directory.view();
    let agent = caller.row(&view, service.context.clock.now())?;
    let one = |param: &wire::NewWitsvidParams| {
        let row = param.entry_id.parse().ok().and_then(|id: EntryId| view.entry(&id));
        let row = row.filter(|row| is_authorized(&view, agent, &row.entry));
        checked_item(param, row.map(|row| &row.entry)).map_err(|(code, reason, message)| {
            service.item_refused(KIND, code, reason, message, &param.entry_id)
        })
    };
    Ok(params.iter().map(one).collect())
}

/// `entry` is the one asked for, if the agent may have it.
fn checked_item(
    param: &wire::NewWitsvidParams,
    entry: Option<&RegistrationEntry>,
) -> Result<(WitRequest, String), (Code, Reason, String)> {
    if param.entry_id.is_empty() {
        return Err((Code::InvalidArgument, Reason::BadRequest, "missing entry ID".into()));
    }
    if param.public_key.is_empty() {
        return Err((Code::InvalidArgument, Reason::BadKey, "missing public key".into()));
    }
    let missing = || (Code::NotFound, Reason::EntryNotAuthorized, "entry not found or not authorized".into());
    let entry = entry.ok_or_else(missing)?;
    let confirmation = confirmation_key(&param.public_key, &param.signing_algorithm)
        .map_err(|error| (Code::InvalidArgument, Reason::BadKey, error.to_string()))?;
    let (spiffe_id, ttl_secs) = (entry.spiffe_id.clone(), i64::from(entry.x509_svid_ttl_secs));
    Ok((WitRequest { spiffe_id, confirmation, ttl_secs }, entry.hint.as_str().to_owned()))
}

fn stopped() -> TokenIssueError {
    TokenIssueError::NotSigned("WIT", IssueError::Stopped)
}

fn to_proto(signed: SignedToken, hint: &str) -> types::Witsvid {
    types::Witsvid {
        id: Some(spiffe_id_to_proto(&signed.spiffe_id)),
        expires_at: signed.expires_at.unix_secs(),
        issued_at: signed.issued_at.unix_secs(),
        hint: hint.to_owned(),
        token: signed.token,
    }
}
