//! The settings that can change while the server runs, and their one owner.
//!
//! Whoever obeys such a setting asks [`LiveSettings::load`] each time. A change replaces all of them at once, so nobody ever
//! sees half of one. Everything else in the configuration holds until the process ends.

use std::sync::Arc;

use arc_swap::ArcSwap;
use spindle_spiffe_core::SpiffeId;

use crate::config::{JwtSettings, NodeAttestorSettings, RateLimitSettings, ServerConfig, UpstreamSettings};

/// One state of the settings that can change. Lifetimes are in seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloadable {
    /// Lifetime of X509-SVIDs whose entry names none. The server's own has it from its next renewal on.
    pub default_x509_svid_ttl_secs: i64,
    /// Lifetime of JWT-SVIDs whose entry names none.
    pub default_jwt_svid_ttl_secs: i64,
    /// Lifetime of agents' SVIDs.
    pub agent_ttl_secs: i64,
    /// Callers with these SPIFFE IDs may call admin methods.
    pub admin_ids: Vec<SpiffeId>,
    /// Which limits hold.
    pub rate_limits: RateLimitSettings,
    /// How nodes may prove themselves.
    pub node_attestors: NodeAttestorSettings,
    /// Who signs the next authority. Whether it is its own root does not change.
    pub upstream: Option<UpstreamSettings>,
}

impl Default for Reloadable {
    fn default() -> Self {
        Self {
            default_x509_svid_ttl_secs: ServerConfig::X509_SVID_TTL_SECS,
            default_jwt_svid_ttl_secs: JwtSettings::TTL_SECS,
            agent_ttl_secs: ServerConfig::X509_SVID_TTL_SECS,
            admin_ids: Vec::new(),
            rate_limits: RateLimitSettings::default(),
            node_attestors: NodeAttestorSettings::default(),
            upstream: None,
        }
    }
}

impl From<&ServerConfig> for Reloadable {
    fn from(config: &ServerConfig) -> Self {
        Self {
            default_x509_svid_ttl_secs: config.default_x509_svid_ttl_secs,
            default_jwt_svid_ttl_secs: config.jwt.default_ttl_secs,
            agent_ttl_secs: config.agent_ttl_secs,
            admin_ids: config.admin_ids.clone(),
            rate_limits: config.rate_limits,
            node_attestors: config.node_attestors.clone(),
            upstream: config.upstream.clone(),
        }
    }
}

/// The settings as they are now. Cloned handles share them.
#[derive(Clone, Debug)]
pub struct LiveSettings(Arc<ArcSwap<Reloadable>>);

impl LiveSettings {
    /// Settings that start like this.
    pub fn new(first: Reloadable) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(first)))
    }

    /// The settings at this moment.
    pub fn load(&self) -> Arc<Reloadable> {
        self.0.load_full()
    }

    /// Puts others in their place; calls at hand finish with those they have read.
    pub fn replace(&self, next: Reloadable) {
        self.0.store(Arc::new(next));
    }
}
