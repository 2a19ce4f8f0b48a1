//! `NewDownstreamX509CA`: an authority for a server below this one.

use spindle_ca::CheckedCsr;
use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::server::svid::v1 as wire;
use spindle_spiffe_core::{Reason, SpiffeId};
use tonic::{Code, Status};
use tracing::info;

use crate::api::filter::bad_request;
use crate::bundles;
use crate::context::Context;
use crate::rate_limit::Source;

pub(super) async fn new_authority(
    context: &Context,
    caller: &SpiffeId,
    source: Option<Source>,
    request: wire::NewDownstreamX509caRequest,
) -> Result<wire::NewDownstreamX509caResponse, Status> {
    context.rate_limits.signing(source, 1).await?;
    if request.csr.is_empty() {
        return Err(refusal(Code::InvalidArgument, Reason::BadCsr, "missing CSR"));
    }
    if request.preferred_ttl < 0 {
        return Err(bad_request(&format!(
            "preferred_ttl is {}, a lifetime is not negative",
            request.preferred_ttl
        )));
    }
    let csr = CheckedCsr::parse(&request.csr).map_err(|error| {
        refusal(Code::InvalidArgument, error.reason(), &format!("malformed CSR: {error}"))
    })?;
    let ttl_secs = i64::from(request.preferred_ttl);
    let signed = context.issuer.issue_downstream(csr, ttl_secs).await.map_err(|error| {
        let message = format!("failed to sign downstream X.509 CA: {error}");
        error.status(&message)
    })?;
    info!(spiffe_id = %caller, serial_num = %signed.serial, expires_at = %signed.validity.not_after,
          "X.509 authority issued to a server below");
    // Read after the signing: the authority that signed is in it.
    let roots = bundles::own(&context.directory.view(), &context.trust_domain).x509_authorities;
    Ok(wire::NewDownstreamX509caResponse {
        ca_cert_chain: signed.chain.iter().map(|der| der.to_vec().into()).collect(),
        x509_authorities: roots.iter().map(|root| root.der().to_vec().into()).collect(),
    })
}
