//! The Delegated Identity API through `spire-api`: identities, tokens and bundles of another workload.

use futures_util::{StreamExt, pin_mut};
use serde_json::json;
use spiffe::JwtSvid;
use spiffe::transport::{GrpcStatusCode, TransportError};
use spire_api::{DelegateAttestationRequest, DelegatedIdentityClient, DelegatedIdentityError, selectors};

use crate::args::Args;
use crate::{Failure, Outcome, emit, svid_event, verify};

/// Prints the SVID of the workload that is asked for, verified, then a valid token and the bundles, then follows rotations.
pub async fn delegated(args: &Args) -> Result<Outcome, Failure> {
    let client = DelegatedIdentityClient::connect_to(&args.admin).await?;
    let subject = subject(args)?;
    let updates = match client.stream_x509_svids(subject.clone()).await {
        Err(error) if is_denial(&error) => return Ok(Outcome::Refused(error.to_string())),
        updates => updates?,
    };
    pin_mut!(updates);
    let mut serials = Vec::new();
    while serials.len() <= args.rotations {
        let svid = updates.next().await.ok_or("the stream ended")??;
        verify(&svid, &client.fetch_x509_bundles().await?)?;
        let event = svid_event(&svid)?;
        if serials.is_empty() {
            tokens(&client, args, subject.clone()).await?;
        }
        if !serials.contains(&event["serial"]) {
            serials.push(event["serial"].clone());
        }
        emit(&event);
    }
    Ok(Outcome::Done)
}

/// A process, or what the delegate has found out about one.
fn subject(args: &Args) -> Result<DelegateAttestationRequest, Failure> {
    if let Some(pid) = args.pids.first() {
        return Ok(DelegateAttestationRequest::for_pid(*pid)?);
    }
    let pairs = args.selectors.iter().map(|one| one.split_once(':'));
    let generic = |(kind, value): (&str, &str)| selectors::Selector::Generic((kind.into(), value.into()));
    let all: Option<Vec<_>> = pairs.map(|pair| pair.map(generic)).collect();
    Ok(DelegateAttestationRequest::for_selectors(all.ok_or("--selector needs TYPE:VALUE")?)?)
}

async fn tokens(
    client: &DelegatedIdentityClient,
    args: &Args,
    subject: DelegateAttestationRequest,
) -> Result<(), Failure> {
    let audience = [args.audience.as_str()];
    let bundles = client.fetch_jwt_bundles().await?;
    for svid in client.fetch_jwt_svids(&audience, subject).await? {
        let valid = JwtSvid::parse_and_validate(svid.token(), &bundles, &audience)?;
        emit(&json!({
            "event": "token", "spiffe_id": valid.spiffe_id().to_string(), "audience": valid.audience(),
            "kid": valid.key_id(),
        }));
    }
    Ok(())
}

fn is_denial(error: &DelegatedIdentityError) -> bool {
    matches!(error, DelegatedIdentityError::Transport(TransportError::Status(status))
        if status.code() == GrpcStatusCode::PermissionDenied)
}
