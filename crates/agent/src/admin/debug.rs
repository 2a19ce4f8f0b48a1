//! The Debug service: counts, the last sync, and the agent's own SVID chain, as they are when asked for.

use std::sync::Arc;

use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::spire::agent::debug::v1 as wire;
use spindle_spiffe_core::{Clock, Timestamp, X509Svid, certificate_summary};
use spindle_transport::LiveIdentity;
use tonic::{Request, Response, Status};

use crate::cache::Cache;
use crate::in_step::InStep;
use crate::tokens::TokenSource;
use crate::trust::{OwnTrust, authority_of};

/// What the service looks at.
pub(crate) struct DebugService {
    pub(crate) cache: Arc<Cache>,
    pub(crate) identity: LiveIdentity,
    pub(crate) trust: OwnTrust,
    pub(crate) in_step: InStep,
    pub(crate) tokens: TokenSource,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started_at: Timestamp,
}

fn count(items: usize) -> i32 {
    i32::try_from(items).unwrap_or(i32::MAX)
}

impl DebugService {
    /// The agent's certificate and all above it, down to the authority that its trust stands on.
    fn chain(&self, svid: &X509Svid, now: Timestamp) -> Vec<wire::get_info_response::Cert> {
        let bundle = self.trust.bundle();
        let authority = authority_of(svid, &bundle, now);
        let certificates = svid.chain().iter().chain(authority.as_ref().map(|one| one.der()));
        certificates
            .map(|certificate| {
                let summary = certificate_summary(certificate);
                wire::get_info_response::Cert {
                    id: summary.spiffe_id.as_ref().map(spiffe_id_to_proto),
                    expires_at: summary.not_after.unix_secs(),
                    subject: summary.subject,
                }
            })
            .collect()
    }
}

#[tonic::async_trait]
impl wire::debug_server::Debug for DebugService {
    #[allow(deprecated, reason = "old clients read the old field")]
    async fn get_info(
        &self,
        _: Request<wire::GetInfoRequest>,
    ) -> Result<Response<wire::GetInfoResponse>, Status> {
        let now = self.clock.now();
        let uptime_secs = now.secs_since(self.started_at);
        // Those of every entry in the agent's set, as SPIRE counts them: also of one that names the node itself, which a join token
        // with a SPIFFE ID brings along.
        let ready = self.cache.snapshot().identities().filter(|one| one.state.is_ok()).count();
        Ok(Response::new(wire::GetInfoResponse {
            svid_chain: self.identity.svid().map(|svid| self.chain(&svid, now)).unwrap_or_default(),
            uptime: i32::try_from(uptime_secs).unwrap_or(i32::MAX),
            svids_count: count(ready),
            last_sync_success: self.in_step.last(now).map_or(0, Timestamp::unix_secs),
            cached_x509_svids_count: count(ready),
            cached_jwt_svids_count: count(self.tokens.held()),
            // Nothing is put into stores: entries for them are left alone.
            cached_svidstore_x509_svids_count: 0,
        }))
    }
}
