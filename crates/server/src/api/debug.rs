//! The Debug service: counts and the server's own SVID chain.

use std::sync::Arc;

use spindle_proto::convert::spiffe_id_to_proto;
use spindle_proto::spire::api::server::debug::v1 as wire;
use tonic::{Request, Response, Status};

use crate::context::Context;

pub(crate) struct DebugService {
    pub(crate) context: Arc<Context>,
}

fn count(items: usize) -> i32 {
    i32::try_from(items).unwrap_or(i32::MAX)
}

#[tonic::async_trait]
impl wire::debug_server::Debug for DebugService {
    async fn get_info(
        &self,
        _: Request<wire::GetInfoRequest>,
    ) -> Result<Response<wire::GetInfoResponse>, Status> {
        let view = self.context.directory.view();
        let uptime_secs = self.context.clock.now().secs_since(self.context.started_at);
        let svid_chain = self
            .context
            .authorities
            .server_svid()
            .iter()
            .map(|link| wire::get_info_response::Cert {
                id: Some(spiffe_id_to_proto(&link.id)),
                expires_at: link.expires_at.unix_secs(),
                subject: link.subject.clone(),
            })
            .collect();
        Ok(Response::new(wire::GetInfoResponse {
            svid_chain,
            uptime: i32::try_from(uptime_secs).unwrap_or(i32::MAX),
            agents_count: count(view.agent_count()),
            entries_count: count(view.entry_count()),
            federated_bundles_count: count(view.bundle_count()),
        }))
    }
}
