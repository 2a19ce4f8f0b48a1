//! The gRPC services. Each call is: authenticate and authorise (the gate), validate, one call inward, encode.

mod agent;
mod audit;
mod authorization;
mod backup;
mod bundle;
mod caller;
mod can;
mod debug;
mod entry;
mod entry_access;
mod filter;
mod gate;
mod health;
mod local_authority;
mod logger;
mod refused;
mod roles;
mod svid;
mod sync;
mod sync_entries;
#[cfg(test)]
mod tests;
mod trust_domain;

use std::sync::Arc;

use spindle_attest::ProcRoot;
use spindle_proto::admin::v1::backup_server::BackupServer;
use spindle_proto::admin::v1::roles_server::RolesServer;
use spindle_proto::spire::api::server;
use spindle_proto::sync::v1::sync_server::SyncServer;
use tonic::service::Routes;

use audit::Audit;
use caller::Admission;
use gate::{Gate, GateLayer};
use refused::RefusalLog;

use crate::context::Context;

/// The largest message a caller may send, in bytes: gRPC's usual 4 MiB, which SPIRE's clients page by.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The largest message we send, in bytes. SPIRE answers unpaged lists whole; clients that ask for one raise their limit.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

macro_rules! sized {
    ($server:expr) => {
        $server.max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(ANSWER_BYTES_MAX)
    };
}

/// Every service, for both listeners: the table decides what is open to whom.
pub(crate) fn routes(context: &Arc<Context>) -> Routes {
    let context = || context.clone();
    let agents = server::agent::v1::agent_server::AgentServer::new(agent::AgentService::new(context()));
    let entries =
        server::entry::v1::entry_server::EntryServer::new(entry::EntryService { context: context() });
    let svids = server::svid::v1::svid_server::SvidServer::new(svid::SvidService::new(context()));
    let bundles =
        server::bundle::v1::bundle_server::BundleServer::new(bundle::BundleService { context: context() });
    let local_authorities = server::localauthority::v1::local_authority_server::LocalAuthorityServer::new(
        local_authority::LocalAuthorityService { context: context() },
    );
    let debug = server::debug::v1::debug_server::DebugServer::new(debug::DebugService { context: context() });
    let trust_domains = server::trustdomain::v1::trust_domain_server::TrustDomainServer::new(
        trust_domain::TrustDomainService { context: context() },
    );
    let loggers =
        server::logger::v1::logger_server::LoggerServer::new(logger::LoggerService { context: context() });
    let sync = SyncServer::new(sync::SyncService { context: context() });
    let roles = RolesServer::new(roles::RolesService { context: context() });
    let backup = BackupServer::new(backup::BackupService::new(context()));
    Routes::new(sized!(agents))
        .add_service(sized!(entries))
        .add_service(sized!(svids))
        .add_service(sized!(bundles))
        .add_service(sized!(trust_domains))
        .add_service(sized!(local_authorities))
        .add_service(sized!(debug))
        .add_service(sized!(loggers))
        .add_service(sized!(sync))
        .add_service(sized!(roles))
        .add_service(sized!(backup))
        .add_service(health::server(context()))
}

/// The gate in front of every service.
pub(crate) fn gate(context: &Context) -> GateLayer {
    let (directory, clock) = (context.directory.clone(), context.clock.clone());
    let admission = Admission { directory, clock, roles: context.roles.clone() };
    let audit = context.operations.audit_log.then(|| Audit {
        live: context.live.clone(),
        entropy: context.entropy.clone(),
        proc_root: ProcRoot::default(),
    });
    GateLayer(Arc::new(Gate { admission, log: RefusalLog::new(), audit }))
}
