//! What unit tests of several modules need: a context on a memory store, with a clock that the test moves.

use std::sync::Arc;

use spindle_ca::{CaSubject, Jwt, TokenFamily};
use spindle_keys::{Key, KeyManager, KeyType, MemoryKeys, certificate_request};
use spindle_proto::convert::{entry_from_proto, spiffe_id_to_proto};
use spindle_proto::spire::api::types;
use spindle_runtime::{Shutdown, SystemEntropy};
use spindle_spiffe_core::{Bundle, Clock, Entropy, Selector, Selectors, SpiffeId, TrustDomain};
use spindle_store::{Store, StoreConfig, StoreKind, Transaction};
use spindle_telemetry::Counter;
use spindle_testkit::{ManualClock, NOW, TestAuthority};

use crate::attestation::node::NodeAttestors;
use crate::authorities::{Authorities, AuthoritySettings, TokenAuthorities, TokenAuthoritySettings};
use crate::config::{Operations, ServerConfig};
use crate::context::Context;
use crate::directory::{AgentRow, Directory, EntryRow, agent_key, bundle_key, encode_bundle};
use crate::issuer::Issuer;
use crate::live::{LiveSettings, Reloadable};
use crate::rate_limit::RateLimits;
use crate::roles::RoleBook;
use crate::subscriptions::Subscriptions;
use crate::token_issuer::{Signing, TokenIssuer};
use crate::upstream::UpstreamAuthority;

pub(crate) const SVID_TTL_SECS: i64 = 3600;

pub(crate) fn trust_domain() -> TrustDomain {
    "example.org".parse().unwrap()
}

pub(crate) fn id(path: &str) -> SpiffeId {
    trust_domain().member(path).unwrap()
}

pub(crate) fn selectors(texts: &[&str]) -> Selectors {
    Selectors::new(texts.iter().map(|text| text.parse::<Selector>().unwrap())).unwrap()
}

/// A certificate request for a fresh key, without names.
pub(crate) fn csr() -> Vec<u8> {
    certificate_request(&Key::generate(KeyType::EcP256).unwrap(), None, &[]).unwrap()
}

/// A wire entry.
pub(crate) fn entry(parent: &SpiffeId, path: &str, selectors: &[&str]) -> types::Entry {
    let split =
        |text: &&str| text.split_once(':').map(|(kind, value)| (kind.to_owned(), value.to_owned())).unwrap();
    types::Entry {
        spiffe_id: Some(spiffe_id_to_proto(&id(path))),
        parent_id: Some(spiffe_id_to_proto(parent)),
        selectors: selectors
            .iter()
            .map(split)
            .map(|(r#type, value)| types::Selector { r#type, value })
            .collect(),
        ..Default::default()
    }
}

/// An empty directory on a memory store.
pub(crate) fn directory() -> Directory {
    let config = StoreConfig { kind: StoreKind::Memory, dir: "unused".into(), history: [7; 16] };
    Directory::open(Store::open(&config).unwrap(), &trust_domain()).unwrap()
}

/// Authorities of `ca_ttl_secs` on that directory, not yet started.
pub(crate) fn authorities(
    directory: &Directory,
    subscriptions: &Subscriptions,
    keys: Arc<dyn KeyManager>,
    clock: &ManualClock,
    ca_ttl_secs: i64,
) -> Arc<Authorities> {
    authorities_below(directory, subscriptions, keys, clock, ca_ttl_secs, None)
}

/// The same, signed by `upstream` if there is one.
pub(crate) fn authorities_below(
    directory: &Directory,
    subscriptions: &Subscriptions,
    keys: Arc<dyn KeyManager>,
    clock: &ManualClock,
    ca_ttl_secs: i64,
    upstream: Option<Arc<dyn UpstreamAuthority>>,
) -> Arc<Authorities> {
    let live =
        LiveSettings::new(Reloadable { default_x509_svid_ttl_secs: SVID_TTL_SECS, ..Reloadable::default() });
    let settings = AuthoritySettings {
        trust_domain: trust_domain(),
        key_type: KeyType::EcP256,
        ca_ttl_secs,
        subject: CaSubject::default(),
        live,
        upstream,
    };
    let (directory, subscriptions) = (directory.clone(), subscriptions.clone());
    Arc::new(Authorities::new(
        settings,
        directory,
        subscriptions,
        keys,
        clock.shared(),
        Arc::new(SystemEntropy),
    ))
}

/// JWT authorities of `ttl_secs` on that directory, not yet started.
pub(crate) fn jwt_authorities(
    directory: &Directory,
    subscriptions: &Subscriptions,
    keys: Arc<dyn KeyManager>,
    clock: &ManualClock,
    ttl_secs: i64,
) -> Arc<TokenAuthorities<Jwt>> {
    token_authorities(directory, subscriptions, keys, clock, ttl_secs)
}

/// Authorities of any family that signs tokens, not yet started.
pub(crate) fn token_authorities<F: TokenFamily>(
    directory: &Directory,
    subscriptions: &Subscriptions,
    keys: Arc<dyn KeyManager>,
    clock: &ManualClock,
    ttl_secs: i64,
) -> Arc<TokenAuthorities<F>> {
    let settings =
        TokenAuthoritySettings { trust_domain: trust_domain(), key_type: KeyType::EcP256, ttl_secs };
    let (directory, subscriptions) = (directory.clone(), subscriptions.clone());
    let entropy = Arc::new(SystemEntropy);
    Arc::new(TokenAuthorities::new(settings, directory, subscriptions, keys, clock.shared(), entropy))
}

/// Everything the services need, with an active authority and no listener.
pub(crate) async fn context(clock: &ManualClock) -> Arc<Context> {
    let directory = directory();
    let subscriptions = Subscriptions::of(&directory);
    let keys = Arc::new(MemoryKeys::new());
    let authorities = authorities(&directory, &subscriptions, keys.clone(), clock, 24 * 3600);
    authorities.start().await.unwrap();
    let jwt_authorities = jwt_authorities(&directory, &subscriptions, keys.clone(), clock, 24 * 3600);
    jwt_authorities.start().await.unwrap();
    let wit_authorities = token_authorities(&directory, &subscriptions, keys, clock, 24 * 3600);
    wit_authorities.start().await.unwrap();
    let entropy = Arc::new(SystemEntropy);
    let live = LiveSettings::new(Reloadable::default());
    let issuer = Issuer::new(
        trust_domain(),
        authorities.clone(),
        clock.shared(),
        entropy.clone(),
        live.clone(),
        ServerConfig::SIGNING_QUEUE_MAX,
        Arc::default(),
    );
    let signing = Signing {
        threads: issuer.clone(),
        clock: clock.shared(),
        entropy: entropy.clone(),
        live: live.clone(),
    };
    Arc::new(Context {
        trust_domain: trust_domain(),
        directory,
        subscriptions,
        authorities,
        jwt_issuer: TokenIssuer::new(Some(jwt_authorities), &signing, None, Counter::noop()),
        wit_issuer: TokenIssuer::new(Some(wit_authorities), &signing, None, Counter::noop()),
        issuer,
        clock: clock.shared(),
        entropy,
        node_attestors: NodeAttestors::new(live.clone()),
        agent_spiffe_id_as_selector: false,
        rate_limits: RateLimits::new(live.clone()),
        roles: Arc::new(RoleBook::new(live.clone(), &[])),
        live,
        operations: Operations::default(),
        started_at: clock.now(),
        metrics: Arc::default(),
        shutdown: Shutdown::new(),
    })
}

/// Stores an entry and returns it as it stands.
pub(crate) async fn create(directory: &Directory, wire: types::Entry) -> Arc<EntryRow> {
    let entry = entry_from_proto(&wire, || SystemEntropy.uuid().parse().unwrap()).unwrap();
    crate::entries::create(directory, &trust_domain(), entry, &crate::entries::anything).await.unwrap()
}

/// Stores an agent with these node selectors and returns it as it stands.
pub(crate) async fn agent(directory: &Directory, path: &str, selectors_: &[&str]) -> Arc<AgentRow> {
    let agent = AgentRow {
        spiffe_id: id(path),
        attestation_type: "test".into(),
        serial: "1".into(),
        expires_at: NOW + SVID_TTL_SECS,
        renewed: None,
        can_reattest: false,
        agent_version: String::new(),
        selectors: selectors(selectors_),
        banned: false,
        revision: 0,
    };
    directory.commit(Transaction::new().put(agent_key(&agent.spiffe_id), agent.encode())).await.unwrap();
    directory.view().agent(&agent.spiffe_id).unwrap().clone()
}

/// Stores the bundle of a foreign trust domain.
pub(crate) async fn foreign_bundle(directory: &Directory, name: &str, sequence: u64) {
    let bundle = Bundle { sequence, ..TestAuthority::new(name, NOW).bundle() };
    let key = bundle_key(&bundle.trust_domain);
    directory.commit(Transaction::new().put(key, encode_bundle(&bundle))).await.unwrap();
}
