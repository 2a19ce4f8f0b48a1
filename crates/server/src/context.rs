//! What every service of one server shares.

use std::sync::Arc;

use spindle_runtime::Shutdown;
use spindle_spiffe_core::{Clock, Entropy, Timestamp, TrustDomain};

use crate::attestation::node::NodeAttestors;
use crate::authorities::Authorities;
use crate::config::Operations;
use crate::directory::Directory;
use crate::issuer::Issuer;
use crate::live::LiveSettings;
use crate::metrics::Metrics;
use crate::rate_limit::RateLimits;
use crate::roles::RoleBook;
use crate::subscriptions::Subscriptions;
use crate::token_issuer::{JwtIssuer, WitIssuer};

pub(crate) struct Context {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) directory: Directory,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) issuer: Issuer,
    pub(crate) jwt_issuer: JwtIssuer,
    pub(crate) wit_issuer: WitIssuer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) node_attestors: NodeAttestors,
    pub(crate) agent_spiffe_id_as_selector: bool,
    pub(crate) live: LiveSettings,
    pub(crate) operations: Operations,
    pub(crate) rate_limits: RateLimits,
    pub(crate) roles: Arc<RoleBook>,
    pub(crate) started_at: Timestamp,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
}
