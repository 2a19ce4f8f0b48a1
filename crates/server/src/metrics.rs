//! What the server counts, by SPIRE's names; docs/telemetry.md has the table.
//!
//! One value for the whole server. Its handles are made once and kept; with telemetry off all of them are empty.

use std::sync::Arc;

use spindle_proto::SERVER_DESCRIPTOR_SET;
use spindle_spiffe_core::{Timestamp, TrustDomain};
use spindle_telemetry::{CallMeter, Counter, Gauge, RpcMeter, Telemetry};
use tonic::Code;

use crate::directory::{Directory, View};

/// The first part of names.
pub(crate) const PREFIX: &str = "spire_server";

/// Everything the server counts.
pub(crate) struct Metrics {
    /// Calls of all services.
    pub(crate) rpc: RpcMeter,
    pub(crate) x509_authorities: FamilyMetrics,
    pub(crate) jwt_authorities: FamilyMetrics,
    pub(crate) wit_authorities: FamilyMetrics,
    /// X509-SVIDs signed, those of agents and of the server itself included.
    pub(crate) signed_x509_svids: Counter,
    /// Authorities signed for servers below.
    pub(crate) signed_authorities: Counter,
    pub(crate) signed_jwt_svids: Counter,
    pub(crate) signed_wit_svids: Counter,
    /// Registration entries there are.
    pub(crate) entries: Gauge,
    /// Agents there are.
    pub(crate) agents: Gauge,
    /// Rounds that delete ended entries.
    pub(crate) prune_entries: CallMeter,
    telemetry: Telemetry,
}

/// What is counted of one family of authorities.
#[derive(Clone)]
pub(crate) struct FamilyMetrics {
    pub(crate) prepare: CallMeter,
    pub(crate) activated: Counter,
    /// Changes of the bundle for what has ended, and those that worked. X.509 authorities do it for all.
    pub(crate) prune_bundle: CallMeter,
    pub(crate) pruned: Counter,
    /// New SVIDs of the server itself. X.509 authorities have them.
    pub(crate) rotate_svid: CallMeter,
    signed_svids: Counter,
    expiration: Gauge,
    ttl: Gauge,
}

impl Default for FamilyMetrics {
    /// Counts nothing.
    fn default() -> Self {
        Self {
            prepare: CallMeter::off(),
            activated: Counter::noop(),
            prune_bundle: CallMeter::off(),
            pruned: Counter::noop(),
            rotate_svid: CallMeter::off(),
            signed_svids: Counter::noop(),
            expiration: Gauge::noop(),
            ttl: Gauge::noop(),
        }
    }
}

impl FamilyMetrics {
    /// The active authority ends after the second `not_after`.
    pub(crate) fn active_until(&self, not_after: Timestamp, now: Timestamp) {
        self.expiration.set(seconds(not_after.unix_secs()));
        self.ttl.set(seconds(not_after.secs_since(now)));
    }

    /// An authority is active from now on.
    pub(crate) fn is_activated(&self) {
        self.activated.increment(1);
    }

    /// The server signed an SVID for itself.
    pub(crate) fn signed_own_svid(&self) {
        self.signed_svids.increment(1);
    }
}

/// Exact for the next 285 million years.
#[allow(clippy::cast_precision_loss, reason = "see above")]
fn seconds(secs: i64) -> f64 {
    secs as f64
}

/// How something that has no code of its own ended.
pub(crate) fn code_of<T, E>(outcome: &Result<T, E>) -> Code {
    if outcome.is_ok() { Code::Ok } else { Code::Internal }
}

impl Default for Metrics {
    /// Counts nothing.
    fn default() -> Self {
        Self {
            rpc: RpcMeter::default(),
            x509_authorities: FamilyMetrics::default(),
            jwt_authorities: FamilyMetrics::default(),
            wit_authorities: FamilyMetrics::default(),
            signed_x509_svids: Counter::noop(),
            signed_authorities: Counter::noop(),
            signed_jwt_svids: Counter::noop(),
            signed_wit_svids: Counter::noop(),
            entries: Gauge::noop(),
            agents: Gauge::noop(),
            prune_entries: CallMeter::off(),
            telemetry: Telemetry::off(),
        }
    }
}

impl Metrics {
    /// The handles of `telemetry`.
    pub(crate) fn new(telemetry: &Telemetry, trust_domain: &TrustDomain) -> Self {
        let call = |key| CallMeter::new(telemetry, key, &[]);
        let counter = |key| telemetry.counter(key, &[]);
        let of_trust_domain = |key| telemetry.gauge(key, &[("trust_domain_id", trust_domain.name())]);
        let descriptors = [SERVER_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let signed_x509_svids = counter("server_ca.sign.x509_svid");
        Self {
            rpc: RpcMeter::new(telemetry, &descriptors, &[]),
            x509_authorities: FamilyMetrics {
                prepare: call("ca.manager.x509_ca.prepare"),
                activated: counter("ca.manager.x509_ca.activate"),
                prune_bundle: call("ca.manager.bundle.prune"),
                pruned: counter("ca.manager.bundle.pruned"),
                rotate_svid: call("svid.rotate"),
                signed_svids: signed_x509_svids.clone(),
                expiration: of_trust_domain("manager.x509_ca.rotate.expiration"),
                ttl: of_trust_domain("manager.x509_ca.rotate.ttl"),
            },
            jwt_authorities: FamilyMetrics {
                prepare: call("ca.manager.jwt_key.prepare"),
                activated: counter("manager.jwt_key.activate"),
                ..FamilyMetrics::default()
            },
            wit_authorities: FamilyMetrics {
                prepare: call("ca.manager.wit_key.prepare"),
                activated: counter("manager.wit_key.activate"),
                ..FamilyMetrics::default()
            },
            signed_x509_svids,
            signed_authorities: counter("server_ca.sign.x509_ca_svid"),
            signed_jwt_svids: counter("server_ca.sign.jwt_svid"),
            signed_wit_svids: counter("server_ca.sign.wit_svid"),
            entries: telemetry.gauge("entry.entries_by_entryid_cache.count", &[]),
            agents: telemetry.gauge("node.agents_by_id_cache.count", &[]),
            prune_entries: call("registration_entry.manager.prune"),
            telemetry: telemetry.clone(),
        }
    }

    /// Tells how much there is, now and after each change.
    pub(crate) fn follow(self: &Arc<Self>, directory: &Directory) {
        if !self.telemetry.is_on() {
            return;
        }
        let metrics = self.clone();
        directory.listen(Box::new(move |view, _| metrics.tell(view)));
        self.tell(&directory.view());
    }

    fn tell(&self, view: &View) {
        let size = |items: usize| u32::try_from(items).map_or(f64::from(u32::MAX), f64::from);
        self.entries.set(size(view.entry_count()));
        self.agents.set(size(view.agent_count()));
    }

    /// The server begins its work.
    pub(crate) fn started(&self, trust_domain: &TrustDomain) {
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("trust_domain_id", trust_domain.name())];
        self.telemetry.gauge("started", &labels).set(1.0);
    }
}
