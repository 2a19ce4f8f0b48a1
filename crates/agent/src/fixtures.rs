//! Small values for unit tests. Test code only.

mod api;
mod issuer;
mod wit_issuer;

use std::path::Path;
use std::sync::Arc;

use spindle_keys::{Key, KeyType};
use spindle_spiffe_core::{
    Bundle, Hint, RegistrationEntry, Selector, Selectors, SpiffeId, Timestamp, TrustDomain, Validity,
    X509Bundle, X509Svid,
};
use spindle_testkit::TestAuthority;

use crate::cache::{Cache, HeldSvid, Identity, Unready};
use crate::config::{AgentConfig, Bootstrap};

pub(crate) use api::{calling_as, process, workload_api, workload_api_with};
pub(crate) use issuer::{FakeIssuer, HIT_TIMEOUT};
pub(crate) use spindle_testkit::{ManualClock, NOW};
pub(crate) use wit_issuer::FakeWitIssuer;

pub(crate) fn trust_domain() -> TrustDomain {
    "prod.example".parse().unwrap()
}

pub(crate) fn selectors(texts: &[&str]) -> Selectors {
    Selectors::new(texts.iter().map(|text| text.parse::<Selector>().unwrap())).unwrap()
}

/// An entry whose SPIFFE ID ends in its own id.
pub(crate) fn entry(id: &str, needs: &[&str]) -> RegistrationEntry {
    RegistrationEntry {
        id: id.parse().unwrap(),
        spiffe_id: trust_domain().member(&format!("/{id}")).unwrap(),
        parent_id: trust_domain().member("/spire/agent/join_token/t").unwrap(),
        selectors: selectors(needs),
        x509_svid_ttl_secs: 0,
        jwt_svid_ttl_secs: 0,
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: None,
        dns_names: Vec::new(),
        revision_number: 0,
        store_svid: false,
        hint: Hint::default(),
        created_at: NOW,
        disable_x509_svid_prefetch: false,
        jwt_svid_include_jti: false,
    }
}

/// An authority that can sign SVIDs for tests, with its bundle.
pub(crate) struct Authority {
    ca: TestAuthority,
    pub(crate) bundle: X509Bundle,
}

impl Authority {
    pub(crate) fn new(name: &TrustDomain) -> Self {
        let ca = TestAuthority::new(name.name(), NOW);
        let bundle = ca.x509_bundle();
        Self { ca, bundle }
    }

    /// The whole bundle, which has no keys of other SVID types.
    pub(crate) fn whole(&self) -> Bundle {
        let mut whole = Bundle::new(self.bundle.trust_domain().clone());
        whole.x509_authorities = self.bundle.authorities().to_vec();
        whole
    }

    /// A leaf for `spki_der`, back-dated by ten seconds.
    pub(crate) fn sign(&self, id: &SpiffeId, spki_der: &[u8], now: Timestamp, ttl_secs: i64) -> X509Svid {
        self.ca.sign(id, spki_der, &[], Validity { not_before: now - 10, not_after: now + ttl_secs })
    }

    /// A signed identity for `entry`.
    pub(crate) fn identity(&self, cache: &Cache, entry: RegistrationEntry) -> Identity {
        let key = Key::generate(KeyType::EcP256).unwrap();
        let svid = self.sign(&entry.spiffe_id, key.spki_der(), NOW, 3600);
        let held = HeldSvid { number: cache.next_number(), svid, key_pkcs8: key.pkcs8_der() };
        Identity { entry: Arc::new(entry), state: Ok(Arc::new(held)) }
    }
}

pub(crate) fn signing(entry: RegistrationEntry) -> Identity {
    Identity { entry: Arc::new(entry), state: Err(Unready::Signing) }
}

/// A configuration whose files all lie below `dir`.
pub(crate) fn config(dir: &Path) -> AgentConfig {
    AgentConfig::new(trust_domain(), "127.0.0.1", 1, dir, dir.join("api.sock"), Bootstrap::Insecure)
}
