//! The bundle of a server, asked over its local socket: `GetBundle`, of SPIRE's server or ours.

use std::path::Path;
use std::time::Duration;

use spindle_proto::spire::api::server::bundle::v1::GetBundleRequest;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::spire::api::types;
use spindle_transport::connect_unix_lazy;
use tokio::time::timeout;
use tonic::transport::Channel;

use super::poll::Ask;
use super::{SourceError, log_ignored};
use crate::keys::WebKey;

/// A local server answers in milliseconds; one that hangs must not hang us.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// A server's local socket. Connects when it is asked, and again when the connection was lost.
pub(super) struct Server(BundleClient<Channel>);

impl Server {
    pub(super) fn at(path: &Path) -> Self {
        Self(BundleClient::new(connect_unix_lazy(path)))
    }
}

impl Ask for Server {
    async fn ask(&self) -> Result<Vec<WebKey>, SourceError> {
        let mask = types::BundleMask { jwt_authorities: true, ..types::BundleMask::default() };
        let request = GetBundleRequest { output_mask: Some(mask) };
        let mut client = self.0.clone();
        let bundle = timeout(ANSWER_WAIT, client.get_bundle(request))
            .await
            .map_err(|_| SourceError::Late(ANSWER_WAIT.as_secs()))??
            .into_inner();
        let (mut keys, mut ignored) = (Vec::new(), Vec::new());
        for key in bundle.jwt_authorities {
            match WebKey::new(&key.key_id, &key.public_key) {
                Ok(key) => keys.push(key),
                Err(error) => ignored.push(spindle_spiffe_core::ErrorChain(&error).to_string()),
            }
        }
        log_ignored(&ignored);
        Ok(keys)
    }
}
