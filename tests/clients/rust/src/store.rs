//! What a broker holds for one workload, and for no other: each workload has a store of its own.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use spiffe::broker_api::pb::spiffe::broker::{Jwtsvid, X509svid};
use spiffe::{JwtBundle, JwtBundleSet, JwtSvid, SpiffeId, TrustDomain, X509Bundle, X509BundleSet, X509Svid};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Failure, svid_event, verify, verify_chain};

/// Identities and tokens by their hints; of two with one hint the first counts.
#[derive(Default)]
pub struct Store {
    identities: BTreeMap<String, X509Svid>,
    tokens: BTreeMap<String, JwtSvid>,
    x509_bundles: X509BundleSet,
    jwt_bundles: JwtBundleSet,
}

impl Store {
    /// Takes the full set of identities in place of the one before. Each is verified, and has its own key.
    pub fn set_identities(&mut self, svids: Vec<X509svid>) -> Result<(), Failure> {
        let mut identities = BTreeMap::new();
        for one in svids {
            let svid = X509Svid::parse_from_der(&one.x509_svid, &one.x509_svid_key)?;
            if svid.spiffe_id().to_string() != one.spiffe_id {
                return Err(format!("{} was sent as {}", svid.spiffe_id(), one.spiffe_id).into());
            }
            let domain = svid.spiffe_id().trust_domain().clone();
            let own = X509Bundle::parse_from_der(domain, &one.bundle)?;
            verify(&svid, &X509BundleSet::from_iter([own]))?;
            has_its_key(&svid)?;
            identities.entry(one.hint).or_insert(svid);
        }
        self.identities = identities;
        Ok(())
    }

    pub fn set_x509_bundles<B: AsRef<[u8]>>(&mut self, bundles: HashMap<String, B>) -> Result<(), Failure> {
        let parsed =
            bundles.iter().map(|(name, der)| Ok(X509Bundle::parse_from_der(domain(name)?, der.as_ref())?));
        self.x509_bundles = parsed.collect::<Result<_, Failure>>()?;
        Ok(())
    }

    pub fn set_jwt_bundles<B: AsRef<[u8]>>(&mut self, bundles: HashMap<String, B>) -> Result<(), Failure> {
        let parsed = bundles
            .iter()
            .map(|(name, keys)| Ok(JwtBundle::from_jwt_authorities(domain(name)?, keys.as_ref())?));
        self.jwt_bundles = parsed.collect::<Result<_, Failure>>()?;
        Ok(())
    }

    /// Takes tokens that this workload's own JWT bundles find valid.
    pub fn set_tokens(&mut self, tokens: Vec<Jwtsvid>, audience: &str) -> Result<(), Failure> {
        self.tokens.clear();
        for one in tokens {
            let svid = JwtSvid::parse_and_validate(&one.svid, &self.jwt_bundles, &[audience])?;
            self.tokens.entry(one.hint).or_insert(svid);
        }
        Ok(())
    }

    /// Whether there is enough to ask for tokens.
    pub fn can_validate(&self) -> bool {
        !self.identities.is_empty() && !self.jwt_bundles.is_empty()
    }

    /// Whether this workload would let in who shows this certificate.
    fn lets_in(&self, foreign: &[u8]) -> Result<bool, Failure> {
        let domain = spiffe_id(foreign)?.trust_domain().clone();
        let Some(bundle) = self.x509_bundles.get(&domain) else { return Ok(false) };
        Ok(verify_chain(&[CertificateDer::from(foreign)], &bundle).is_ok())
    }

    /// Whether this workload would let the other one in.
    pub fn knows(&self, other: &Self) -> bool {
        other.identities.values().all(|svid| verify(svid, &self.x509_bundles).is_ok())
    }

    /// For the run to look at.
    pub fn show(&self, foreign: &[u8]) -> Result<Value, Failure> {
        let mut identities = BTreeMap::new();
        for (hint, svid) in &self.identities {
            let mut shown = svid_event(svid)?;
            let (_, leaf) = X509Certificate::from_der(svid.leaf().as_bytes())?;
            let key = &leaf.public_key().subject_public_key.data;
            shown["key"] = key.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
            identities.insert(hint, shown);
        }
        let tokens: BTreeMap<_, _> = self
            .tokens
            .iter()
            .map(|(hint, one)| {
                (hint, json!({"spiffe_id": one.spiffe_id().to_string(), "audience": one.audience()}))
            })
            .collect();
        let mut x509: Vec<_> = self.x509_bundles.iter().map(|(name, _)| name.to_string()).collect();
        let mut jwt: Vec<_> = self.jwt_bundles.iter().map(|(name, _)| name.to_string()).collect();
        x509.sort();
        jwt.sort();
        Ok(json!({
            "identities": identities, "tokens": tokens, "x509_bundles": x509, "jwt_bundles": jwt,
            "lets_foreign_in": self.lets_in(foreign)?,
        }))
    }
}

/// Bundles come under the SPIFFE IDs of trust domains.
fn domain(name: &str) -> Result<TrustDomain, Failure> {
    Ok(TrustDomain::from_str(name)?)
}

fn spiffe_id(certificate: &[u8]) -> Result<SpiffeId, Failure> {
    let (_, parsed) = X509Certificate::from_der(certificate)?;
    let names = parsed.subject_alternative_name()?.ok_or("a certificate without names")?;
    let uri = names.value.general_names.iter().find_map(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    Ok(SpiffeId::from_str(uri.ok_or("a certificate without a URI")?)?)
}

/// `spiffe` reads the key but does not hold it against the certificate.
fn has_its_key(svid: &X509Svid) -> Result<(), Failure> {
    let chain = svid.cert_chain().iter().map(|link| CertificateDer::from(link.as_bytes().to_vec())).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec()));
    CertifiedKey::from_der(chain, key, &ring::default_provider())?;
    Ok(())
}
