//! What the agent counts, by SPIRE's names; docs/telemetry.md has the table.
//!
//! One value for the whole agent. Its handles are made once and kept; with telemetry off all of them are empty.

use std::sync::Arc;

use spindle_attest::{AttestorError, Caller, WorkloadAttestor};
use spindle_keys::{Key, KeyError, KeyManager, KeyType};
use spindle_proto::{
    AGENT_DESCRIPTOR_SET, BROKER_DESCRIPTOR_SET, ENVOY_DESCRIPTOR_SET, WORKLOAD_DESCRIPTOR_SET,
};
use spindle_spiffe_core::{Selector, TrustDomain};
use spindle_telemetry::{CallMeter, Counter, Gauge, Histogram, RpcMeter, Telemetry};
use tonic::Code;

use crate::bootstrap::Attempt;
use crate::call_error::CallError;

/// The first part of names.
pub(crate) const PREFIX: &str = "spire_agent";

/// The services of which the calls under way are told.
const CONNECTIONS: [(&str, &str); 5] = [
    ("SpiffeWorkloadAPI", "workload_api"),
    ("envoy.service.secret.v3.SecretDiscoveryService", "sds_api"),
    ("spire.agent.debug.v1.Debug", "debug_api"),
    ("spire.api.agent.logger.v1.Logger", "logger_api"),
    ("spire.api.agent.delegatedidentity.v1.DelegatedIdentity", "delegated_identity_api"),
];

/// SPIRE's label on the sizes of the cache of X509-SVIDs.
const X509: [(&str, &str); 1] = [("svid_type", "X509")];

/// Everything the agent counts.
pub(crate) struct Metrics {
    telemetry: Telemetry,
    /// Calls of all services.
    pub(crate) rpc: RpcMeter,
    /// Attestations of workloads.
    pub(crate) attestation: CallMeter,
    /// Selectors that a workload showed.
    pub(crate) discovered_selectors: Histogram,
    /// Updates of what the agent is authorised for.
    pub(crate) fetch_entries: CallMeter,
    /// Calls that have X509-SVIDs signed.
    pub(crate) fetch_svids: CallMeter,
    /// Renewals of the agent's own SVID.
    pub(crate) rotate: CallMeter,
    /// Renewals by another attestation.
    pub(crate) reattest: CallMeter,
    /// X509-SVIDs that are renewed because of their age, at a time.
    pub(crate) expiring_svids: Histogram,
    /// X509-SVIDs that are replaced because their entry changed, at a time.
    pub(crate) outdated_svids: Histogram,
    /// X509-SVIDs under an authority that was tainted.
    pub(crate) tainted_svids: Histogram,
    /// Looks for those.
    pub(crate) process_tainted: CallMeter,
    pub(crate) entries_added: Counter,
    pub(crate) entries_removed: Counter,
    pub(crate) entries_updated: Counter,
    /// Entries that the agent is authorised for.
    pub(crate) entries: Gauge,
    /// The same, by the name that SPIRE has for its sync.
    pub(crate) synced_entries: Gauge,
    /// Bundles, the own one included.
    pub(crate) synced_bundles: Gauge,
    /// X509-SVIDs at hand.
    pub(crate) svids: Gauge,
    /// JWT-SVIDs at hand.
    pub(crate) jwt_svids: Gauge,
    /// How long a delegate waited for its first X509-SVIDs, in milliseconds.
    pub(crate) first_delegated_update: Histogram,
    bootstrapped: Gauge,
}

impl Default for Metrics {
    /// Counts nothing.
    fn default() -> Self {
        Self::new(&Telemetry::off())
    }
}

impl Metrics {
    /// The handles of `telemetry`.
    pub(crate) fn new(telemetry: &Telemetry) -> Self {
        let descriptors = [
            WORKLOAD_DESCRIPTOR_SET,
            ENVOY_DESCRIPTOR_SET,
            AGENT_DESCRIPTOR_SET,
            BROKER_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
        ];
        let call = |key| CallMeter::new(telemetry, key, &[]);
        let gauge = |key| telemetry.gauge(key, &[]);
        let samples = |key| telemetry.samples(key, &[]);
        let counter = |key| telemetry.counter(key, &[]);
        Self {
            rpc: RpcMeter::new(telemetry, &descriptors, &CONNECTIONS),
            attestation: call("workload_api.workload_attestation"),
            discovered_selectors: samples("workload_api.discovered_selectors"),
            fetch_entries: call("manager.sync.fetch_entries_updates"),
            fetch_svids: call("manager.sync.fetch_svids_updates"),
            rotate: call("agent_svid.rotate"),
            reattest: call("node.attest"),
            expiring_svids: samples("cache_manager.expiring_svids"),
            outdated_svids: samples("cache_manager.outdated_svids"),
            tainted_svids: samples("cache_manager.tainted_x509_svids.workload"),
            process_tainted: call("cache_manager.workload.process_tainted_x509_svids"),
            entries_added: counter("lru_cache_entry_add"),
            entries_removed: counter("lru_cache_entry_remove"),
            entries_updated: counter("lru_cache_entry_update"),
            entries: telemetry.gauge("lru_cache_record_map_size", &X509),
            synced_entries: gauge("sync_entries_total"),
            synced_bundles: gauge("sync_bundles_total"),
            svids: telemetry.gauge("lru_cache_svid_map_size", &X509),
            jwt_svids: gauge("jwt_svid_cache_size"),
            first_delegated_update: samples(
                "delegated_identity_api.subscribe_x509_svids.first_update.elapsed_time",
            ),
            bootstrapped: gauge("bootstrapped"),
            telemetry: telemetry.clone(),
        }
    }

    /// The agent begins its work.
    pub(crate) fn started(&self, trust_domain: &TrustDomain) {
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("trust_domain_id", trust_domain.name())];
        self.telemetry.gauge("started", &labels).set(1.0);
    }

    /// Tries to reach a server that has not been reached yet.
    pub(crate) fn bootstrapping(&self, attempt: Attempt) {
        self.bootstrapped.set(0.0);
        self.tell_bootstrap(attempt.is_again, attempt.began_at.unix_secs(), attempt.number);
    }

    /// The server was reached, or a stored identity serves.
    pub(crate) fn bootstrapped(&self) {
        self.bootstrapped.set(1.0);
    }

    fn tell_bootstrap(&self, is_again: bool, began_at_secs: i64, attempts: u32) {
        let labels = [("mode", if is_again { "rebootstrap" } else { "bootstrap" })];
        // Exact for the next 285 million years.
        #[allow(clippy::cast_precision_loss, reason = "see above")]
        let began_at_secs = began_at_secs as f64;
        self.telemetry.gauge("bootstrap_seconds", &labels).set(began_at_secs);
        self.telemetry.gauge("bootstrap_attempts", &labels).set(f64::from(attempts));
    }

    /// A call was refused because callers with these selectors call too often. `method` is its full name.
    pub(crate) fn rate_limited(&self, method: &str) {
        self.telemetry.counter("workload_api.rate_limit_exceeded", &[("method", method)]).increment(1);
    }

    /// The node is attested with a proof of this kind.
    pub(crate) fn node_attestation(&self, attestor: &str) -> CallMeter {
        CallMeter::new(&self.telemetry, "node.attestor.new_svid", &[("attestor", attestor)])
    }

    /// The attestor, each call of which is counted.
    pub(crate) fn attestor(&self, attestor: Box<dyn WorkloadAttestor>) -> Box<dyn WorkloadAttestor> {
        if !self.telemetry.is_on() {
            return attestor;
        }
        let labels = [("attestor", attestor.name())];
        let meter = CallMeter::new(&self.telemetry, "workload_api.workload_attestor", &labels);
        Box::new(MeteredAttestor { attestor, meter })
    }

    /// The keys, each use of which is counted.
    pub(crate) fn keys(&self, keys: Arc<dyn KeyManager>) -> Arc<dyn KeyManager> {
        if !self.telemetry.is_on() {
            return keys;
        }
        let meter = |what: &str| CallMeter::new(&self.telemetry, &format!("agent_key_manager.{what}"), &[]);
        Arc::new(MeteredKeys {
            keys,
            generate: meter("generate_key"),
            get: meter("get_key"),
            all: meter("get_keys"),
        })
    }
}

/// A size for a gauge.
pub(crate) fn size(items: usize) -> f64 {
    u32::try_from(items).map_or(f64::from(u32::MAX), f64::from)
}

/// The code of a call to the server that failed.
pub(crate) fn code_of(error: &CallError) -> Code {
    if error.is_unreachable() { Code::Unavailable } else { error.code().unwrap_or(Code::Unknown) }
}

/// The code of a call to the server.
pub(crate) fn code_of_call<T>(outcome: &Result<T, CallError>) -> Code {
    outcome.as_ref().map_or_else(code_of, |_| Code::Ok)
}

struct MeteredAttestor {
    attestor: Box<dyn WorkloadAttestor>,
    meter: CallMeter,
}

impl WorkloadAttestor for MeteredAttestor {
    fn name(&self) -> &str {
        self.attestor.name()
    }

    fn attest(&self, caller: &Caller) -> Result<Vec<Selector>, AttestorError> {
        let timer = self.meter.start();
        let shown = self.attestor.attest(caller);
        timer.done(if shown.is_ok() { Code::Ok } else { Code::Internal });
        shown
    }
}

struct MeteredKeys {
    keys: Arc<dyn KeyManager>,
    generate: CallMeter,
    get: CallMeter,
    all: CallMeter,
}

impl KeyManager for MeteredKeys {
    fn generate(&self, id: &str, key_type: KeyType) -> Result<Key, KeyError> {
        let timer = self.generate.start();
        let key = self.keys.generate(id, key_type);
        timer.done(if key.is_ok() { Code::Ok } else { Code::Internal });
        key
    }

    fn keep(&self, id: &str, key: &Key) -> Result<(), KeyError> {
        self.keys.keep(id, key)
    }

    fn get(&self, id: &str) -> Option<Key> {
        let timer = self.get.start();
        let key = self.keys.get(id);
        timer.done(if key.is_some() { Code::Ok } else { Code::NotFound });
        key
    }

    fn all(&self) -> Vec<(String, Key)> {
        let timer = self.all.start();
        let keys = self.keys.all();
        timer.done(Code::Ok);
        keys
    }
}
