//! A world that tests fill, and what they read out of answers.

mod delta;
mod service;
mod sotw;

use std::time::Duration;

use prost::Message;
use spindle_proto::any::Any;
use spindle_proto::envoy::config::core::v3::DataSource;
use spindle_proto::envoy::config::core::v3::data_source::Specifier;
use spindle_proto::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use spindle_proto::envoy::extensions::transport_sockets::tls::v3::{Secret, SpiffeCertValidatorConfig};
use spindle_spiffe_core::RegistrationEntry;
use spindle_spiffe_core::pem::certificates_from_pem;

use super::catalog::Catalog;
use super::exchange::{Exchange, Step};
use super::secret::SECRET_TYPE;
use crate::cache::{Cache, Change, Identity, Unready, View};
use crate::config::SdsConfig;
use crate::fixtures::{Authority, entry, selectors, signing, trust_domain};

const OWN: &str = "spiffe://prod.example";
const PARTNER: &str = "spiffe://partner.example";
const A: &str = "spiffe://prod.example/a";
const B: &str = "spiffe://prod.example/b";

/// An agent's cache, seen by one workload.
struct World {
    cache: Cache,
    ca: Authority,
    partner: Authority,
}

impl World {
    /// In step with the server, without any entry.
    fn new() -> Self {
        let partner = Authority::new(&"partner.example".parse().unwrap());
        let world = Self { cache: Cache::new(trust_domain()), ca: Authority::new(&trust_domain()), partner };
        world.cache.publish(Change {
            own_bundle: Some(world.ca.whole()),
            federated: vec![world.partner.whole()],
            synced: true,
            ..Change::default()
        });
        world
    }

    /// With these entries signed.
    fn with(ids: &[&str]) -> Self {
        let world = Self::new();
        ids.iter().for_each(|id| world.sign(id));
        world
    }

    /// Signs an entry, or signs it anew.
    fn sign(&self, id: &str) {
        self.put(self.ca.identity(&self.cache, one(id)));
    }

    fn put(&self, identity: Identity) {
        self.cache.publish(Change { put: vec![identity], ..Change::default() });
    }

    fn remove(&self, id: &str) {
        self.cache.publish(Change { removed: vec![id.parse().unwrap()], ..Change::default() });
    }

    /// Signs an entry that federates with the partner.
    fn federate(&self, id: &str) {
        let mut entry = one(id);
        entry.federates_with = vec!["partner.example".parse().unwrap()];
        self.put(self.ca.identity(&self.cache, entry));
    }

    fn view(&self) -> View {
        self.cache.subscribe(&selectors(&["unix:uid:1"])).borrow().clone()
    }

    /// What the exchange does next.
    fn step<E: Exchange>(&self, exchange: &E, waited: Duration) -> Step<E::Response, E::Sent> {
        let (view, config) = (self.view(), SdsConfig::default());
        exchange.step(&Catalog::new(&view, &config, exchange.validation()), waited)
    }

    /// The answer that is due, noted as sent.
    fn answer<E: Exchange>(&self, exchange: &mut E) -> Option<E::Response> {
        match self.step(exchange, Duration::ZERO) {
            Step::Nothing => None,
            Step::Send { response, sent, .. } => {
                exchange.note(sent);
                Some(response)
            }
            Step::WaitUpTo(limit) => panic!("waits for {limit:?}"),
            Step::Refuse(refused) => panic!("{refused:?}"),
        }
    }

    /// The serial number of an entry's SVID, as the cache has it.
    fn serial(&self, id: &str) -> String {
        let identity = self.cache.snapshot().identity(&id.parse().unwrap()).cloned().unwrap();
        identity.state.clone().unwrap().svid.serial().to_string()
    }
}

fn one(id: &str) -> RegistrationEntry {
    entry(id, &["unix:uid:1"])
}

fn failed(id: &str) -> Identity {
    Identity { state: Err(Unready::Failed("refused".into())), ..signing(one(id)) }
}

/// A secret in few words: its name, and a serial number or the trust domains it is about.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Certificate(String, String),
    Validator(String, Vec<String>),
    Authorities(String),
}

fn told(any: &Any) -> Told {
    assert_eq!(any.type_url, SECRET_TYPE);
    let secret = Secret::decode(any.value.clone()).unwrap();
    match secret.r#type.unwrap() {
        Type::TlsCertificate(certificate) => {
            let chain = certificates_from_pem(&inline(certificate.certificate_chain)).unwrap();
            let key = inline(certificate.private_key);
            assert!(key.starts_with(b"-----BEGIN PRIVATE KEY-----\n"));
            let svid = spindle_spiffe_core::X509Svid::parse(chain).unwrap();
            Told::Certificate(secret.name, svid.serial().to_string())
        }
        Type::ValidationContext(context) => match context.custom_validator_config {
            None => {
                certificates_from_pem(&inline(context.trusted_ca)).unwrap();
                Told::Authorities(secret.name)
            }
            Some(validator) => {
                assert_eq!((&*validator.name, context.trusted_ca), ("envoy.tls.cert_validator.spiffe", None));
                let typed = validator.typed_config.unwrap();
                let name = "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
                assert_eq!(typed.type_url, format!("type.googleapis.com/{name}"));
                let config = SpiffeCertValidatorConfig::decode(typed.value).unwrap();
                let names = config.trust_domains.into_iter().map(|one| {
                    certificates_from_pem(&inline(one.trust_bundle)).unwrap();
                    one.name
                });
                Told::Validator(secret.name, names.collect())
            }
        },
    }
}

fn inline(source: Option<DataSource>) -> Vec<u8> {
    match source.unwrap().specifier.unwrap() {
        Specifier::InlineBytes(bytes) => bytes.to_vec(),
        other => panic!("{other:?} is not inline"),
    }
}

fn certificate(name: &str, serial: String) -> Told {
    Told::Certificate(name.into(), serial)
}

fn validator(name: &str, trust_domains: &[&str]) -> Told {
    Told::Validator(name.into(), trust_domains.iter().map(ToString::to_string).collect())
}
