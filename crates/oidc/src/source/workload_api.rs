//! The JWT bundle of an agent: `FetchJWTBundles`, whose stream pushes each change (Workload API 6.2).

use std::path::PathBuf;
use std::time::Duration;

use spindle_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use spindle_proto::workload::{JwtBundlesRequest, JwtBundlesResponse};
use spindle_spiffe_core::TrustDomain;
use spindle_transport::connect_unix_lazy;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Streaming};
use tracing::info;

use super::poll::Pace;
use super::{Health, SourceError, log_ignored};
use crate::keys::{WebKey, from_jwks};
use crate::published::{Heard, Publisher};

/// The first pause before a stream that broke is opened anew; it doubles up to the poll interval.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Follows the stream, and opens it anew when it breaks, until the shutdown begins.
pub(super) async fn follow(path: PathBuf, trust_domain: TrustDomain, pace: Pace, mut publisher: Publisher) {
    let channel = connect_unix_lazy(&path);
    let first_pause = FIRST_PAUSE.min(pace.interval);
    let (mut health, mut pause) = (Health::default(), first_pause);
    loop {
        let mut came = Came { publisher: &mut publisher, health: &mut health, any: false };
        // A stream that the shutdown cuts off leaves nothing behind.
        let error = tokio::select! {
            Err(error) = stream(channel.clone(), &trust_domain, &mut came) => error,
            () = pace.shutdown.begun() => return,
        };
        let any = came.any;
        publisher.lost();
        health.failed(&error);
        pause = if any { first_pause } else { pause };
        if !pace.rest(pause).await {
            return;
        }
        pause = (pause * 2).min(pace.interval);
    }
}

/// Where the answers of one stream go.
struct Came<'a> {
    publisher: &'a mut Publisher,
    health: &'a mut Health,
    any: bool,
}

impl Came<'_> {
    fn take(&mut self, answer: Result<Vec<WebKey>, SourceError>) {
        match answer {
            Ok(keys) => {
                self.any = true;
                self.health.good();
                let count = keys.len();
                if self.publisher.publish(keys, Heard::Now) {
                    info!(keys = count, "clients are shown new keys");
                }
            }
            // The next answer may be better; until then the last good one ages.
            Err(error) => {
                self.publisher.lost();
                self.health.failed(&error);
            }
        }
    }
}

/// Reads one stream until it breaks.
async fn stream(
    channel: Channel,
    trust_domain: &TrustDomain,
    came: &mut Came<'_>,
) -> Result<std::convert::Infallible, SourceError> {
    let mut request = Request::new(JwtBundlesRequest {});
    request.metadata_mut().insert("workload.spiffe.io", MetadataValue::from_static("true"));
    let mut stream: Streaming<JwtBundlesResponse> =
        SpiffeWorkloadApiClient::new(channel).fetch_jwt_bundles(request).await?.into_inner();
    while let Some(answer) = stream.message().await? {
        came.take(keys_of(&answer, trust_domain));
    }
    Err(SourceError::Ended)
}

fn keys_of(answer: &JwtBundlesResponse, trust_domain: &TrustDomain) -> Result<Vec<WebKey>, SourceError> {
    let id = trust_domain.id().to_string();
    let bundle =
        answer.bundles.get(&id).ok_or_else(|| SourceError::NoBundle(trust_domain.name().to_owned()))?;
    let (keys, ignored) = from_jwks(bundle)?;
    log_ignored(&ignored);
    Ok(keys)
}
