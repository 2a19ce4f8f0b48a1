//! The JWT profile: tokens are validated by `spiffe` and by the agent.

use std::time::Duration;

use serde_json::json;
use spiffe::{JwtSource, JwtSvid, WorkloadApiClient};
use tokio::time::sleep;

use crate::args::Args;
use crate::{Failure, Outcome, emit};

/// Between two looks whether tokens are signed with another key.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Fetches tokens for one audience, for the other and for both, has each validated here and by the agent, and then follows
/// a rotation of the key.
pub async fn jwt(args: &Args) -> Result<Outcome, Failure> {
    let client = WorkloadApiClient::connect_to(&args.socket).await?;
    let source = JwtSource::builder().endpoint(&args.socket).build().await?;
    let (audience, other) = (args.audience.as_str(), args.other.as_str());
    let first = validated(&client, &source, &[audience]).await?;
    validated(&client, &source, &[other]).await?;
    validated(&client, &source, &[audience, other]).await?;
    if let Err(error) = JwtSvid::parse_and_validate(first.token(), &source, &[other]) {
        emit(&json!({"event": "refused here", "detail": error.to_string()}));
    }
    if let Err(error) = client.validate_jwt_token(other, first.token()).await {
        emit(&json!({"event": "refused by the agent", "detail": error.to_string()}));
    }
    emit(&json!({"event": "waiting"}));
    while client.fetch_jwt_svid([audience], None).await?.key_id() == first.key_id() {
        sleep(LOOK_EVERY).await;
    }
    validated(&client, &source, &[audience]).await?;
    Ok(Outcome::Done)
}

/// Fetches a token for these audiences and has it validated for each of them.
async fn validated(
    client: &WorkloadApiClient,
    source: &JwtSource,
    audiences: &[&str],
) -> Result<JwtSvid, Failure> {
    let svid = client.fetch_jwt_svid(audiences, None).await?;
    for audience in audiences {
        let here = JwtSvid::parse_and_validate(svid.token(), source, &[audience])?;
        let there = client.validate_jwt_token(audience, svid.token()).await?;
        if here.spiffe_id() != svid.spiffe_id() || there.spiffe_id() != svid.spiffe_id() {
            return Err(format!("{} became another", svid.spiffe_id()).into());
        }
    }
    let mut named = svid.audience().to_vec();
    named.sort();
    emit(&json!({
        "event": "token", "spiffe_id": svid.spiffe_id().to_string(), "audience": named, "kid": svid.key_id(),
    }));
    Ok(svid)
}
