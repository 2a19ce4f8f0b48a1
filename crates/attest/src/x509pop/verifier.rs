//! The server's side: looks at a node's chain, asks for a proof, and says who the node is.
//!
//! Nothing costly is done for a chain past its bounds, and nothing is asked of a certificate that nobody vouches for. What
//! the chain says of the node is told only after the proof. Start at [`Verifier::begin`].

mod fault;

use std::net::IpAddr;

use rustls_pki_types::CertificateDer;
use spindle_spiffe_core::{
    ErrorChain, Selector, Selectors, SpiffeId, Timestamp, TrustDomain, X509Bundle, X509Svid,
};

use super::certificate::{Leaf, rsa_bits};
use super::message::{Payload, Response};
use super::path_template::{Facts, PathTemplate};
use super::proof::{Challenger, Nonce};
use super::roots::{Fingerprints, Roots};
use super::{MAX_INTERMEDIATES, MAX_RSA_BITS, NAME};

pub use fault::{NodeFault, Place};

/// Whose certificates are taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those below these roots.
    ExternalPki(Roots),
    /// SVIDs of the own trust domain whose path begins with `prefix`, which ends with a slash.
    Spiffe {
        /// Such as `/spire-exchange/`.
        prefix: String,
    },
}

/// What an operator can choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whose certificates are taken.
    pub mode: Mode,
    /// How agents are named.
    pub path_template: PathTemplate,
    /// The most certificates taken beside the leaf.
    pub max_intermediates: usize,
    /// The largest RSA key taken, in bits.
    pub max_rsa_bits: usize,
    /// Whether the certificate must have the address that the node calls from.
    pub verify_client_ip: bool,
}

impl Settings {
    /// Where in the trust domain SVIDs make agents; none when they do not.
    pub fn exchange_prefix(&self) -> Option<&str> {
        match &self.mode {
            Mode::ExternalPki(_) => None,
            Mode::Spiffe { prefix } => Some(prefix),
        }
    }

    /// SPIRE's defaults for `mode`.
    pub fn new(mode: Mode) -> Self {
        let path_template = match mode {
            Mode::ExternalPki(_) => PathTemplate::of_fingerprints(),
            Mode::Spiffe { .. } => PathTemplate::of_svid_paths(),
        };
        Self {
            mode,
            path_template,
            max_intermediates: MAX_INTERMEDIATES,
            max_rsa_bits: MAX_RSA_BITS,
            verify_client_ip: false,
        }
    }
}

/// What holds at the moment of an attestation.
pub struct Circumstances<'a> {
    /// The server's trust domain.
    pub trust_domain: &'a TrustDomain,
    /// Its bundle.
    pub own_bundle: &'a X509Bundle,
    /// Where the node calls from; none when that is not known.
    pub client_ip: Option<IpAddr>,
    /// The time.
    pub now: Timestamp,
    /// Fresh random bytes for the challenge.
    pub nonce: Nonce,
}

/// A server's attestor.
#[derive(Clone, Debug)]
pub struct Verifier(Settings);

/// A node whose certificate is good, and that has not proved yet that it is its own.
pub struct Pending {
    challenger: Challenger,
    trust_domain: TrustDomain,
    path_template: PathTemplate,
    leaf: Leaf,
    svid_path_trimmed: String,
    vouching: Fingerprints,
}

/// Who a node is, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestedNode {
    /// The agent's ID.
    pub spiffe_id: SpiffeId,
    /// What its certificate shows.
    pub selectors: Selectors,
}

impl Verifier {
    /// An attestor with these settings.
    pub fn new(settings: Settings) -> Self {
        Self(settings)
    }

    /// Looks at a node's first message.
    ///
    /// # Errors
    /// When the certificate is none that may attest.
    pub fn begin(&self, payload: &[u8], now: &Circumstances<'_>) -> Result<Pending, NodeFault> {
        let certificates = Payload::parse(payload).map_err(NodeFault::Payload)?.certificates;
        self.check_bounds(&certificates)?;
        let (leaf_der, intermediates) = certificates.split_first().ok_or(NodeFault::NoCertificate)?;
        let leaf = Leaf::parse(leaf_der).ok_or(NodeFault::Unreadable(Place::Leaf))?;
        let of_bundle;
        let roots = match &self.0.mode {
            Mode::ExternalPki(roots) => roots,
            Mode::Spiffe { .. } => {
                of_bundle = Roots::of_bundle(now.own_bundle);
                &of_bundle
            }
        };
        let vouching = roots.vouching(leaf_der, intermediates, now.now).map_err(NodeFault::NotTrusted)?;
        self.check_address(&leaf, now.client_ip)?;
        if !leaf.may_sign {
            return Err(NodeFault::NotForSignatures);
        }
        let key = leaf.key.as_ref().map_err(|error| NodeFault::Key(error.clone()))?;
        let challenger = Challenger::new(key, now.nonce).ok_or(NodeFault::KeyKind)?;
        let svid_path_trimmed = match &self.0.mode {
            Mode::ExternalPki(_) => String::new(),
            Mode::Spiffe { prefix } => exchanged_path(certificates, prefix, now.trust_domain)?,
        };
        let (trust_domain, path_template) = (now.trust_domain.clone(), self.0.path_template.clone());
        Ok(Pending { challenger, trust_domain, path_template, leaf, svid_path_trimmed, vouching })
    }

    /// Before anything is computed with them.
    fn check_bounds(&self, certificates: &[CertificateDer<'_>]) -> Result<(), NodeFault> {
        let (max, found) = (self.0.max_intermediates, certificates.len().saturating_sub(1));
        if found > max {
            return Err(NodeFault::TooMany { max, found });
        }
        for (index, der) in certificates.iter().enumerate() {
            let (place, max) = (Place::from(index), self.0.max_rsa_bits);
            match rsa_bits(der).ok_or(NodeFault::Unreadable(place))? {
                Some(found) if found > max => return Err(NodeFault::KeyTooLarge { place, max, found }),
                _ => {}
            }
        }
        Ok(())
    }

    fn check_address(&self, leaf: &Leaf, client_ip: Option<IpAddr>) -> Result<(), NodeFault> {
        if !self.0.verify_client_ip {
            return Ok(());
        }
        let address = client_ip.ok_or(NodeFault::AddressUnknown)?.to_canonical();
        if leaf.addresses.contains(&address) { Ok(()) } else { Err(NodeFault::Address(address)) }
    }
}

/// What follows the prefix in the path of an SVID. Stricter than SPIRE, which takes any certificate of an authority of its
/// own with a name that begins with `spiffe:`, whatever the trust domain in it.
fn exchanged_path(
    chain: Vec<CertificateDer<'static>>,
    prefix: &str,
    trust_domain: &TrustDomain,
) -> Result<String, NodeFault> {
    let svid = X509Svid::parse(chain).map_err(NodeFault::NotSvid)?;
    let id = svid.spiffe_id();
    if !id.is_member_of(trust_domain) {
        return Err(NodeFault::ForeignSvid(id.clone()));
    }
    match id.path().strip_prefix(prefix) {
        Some(rest) => Ok(rest.to_owned()),
        None => Err(NodeFault::Prefix { id: id.clone(), prefix: prefix.to_owned() }),
    }
}

impl Pending {
    /// The message that asks for the proof.
    pub fn challenge(&self) -> Vec<u8> {
        self.challenger.challenge().to_json()
    }

    /// Looks at the answer. There is one try: each challenge is new.
    ///
    /// # Errors
    /// When the answer proves nothing, or the certificate makes no agent.
    pub fn finish(self, response: &[u8]) -> Result<AttestedNode, NodeFault> {
        let response = Response::parse(response).map_err(NodeFault::Response)?;
        self.challenger.check(&response).map_err(NodeFault::Proof)?;
        let san_selectors = self.leaf.san_selectors(self.trust_domain.name());
        let facts = Facts {
            fingerprint: &self.leaf.fingerprint,
            trust_domain: self.trust_domain.name(),
            serial_hex: &self.leaf.serial_hex,
            svid_path_trimmed: &self.svid_path_trimmed,
            subject_common_name: &self.leaf.subject.common_name,
            subject_serial_number: &self.leaf.subject.serial_number,
            issuer_common_name: &self.leaf.issuer.common_name,
            uri_sans: &san_selectors,
        };
        let path = self.path_template.fill(&facts).map_err(NodeFault::Name)?;
        let spiffe_id = self.trust_domain.member(&format!("/spire/agent{path}"));
        let spiffe_id =
            spiffe_id.map_err(|error| NodeFault::Name(format!("{path:?}: {}", ErrorChain(&error))))?;
        let common_name = Some(&self.leaf.subject.common_name).filter(|name| !name.is_empty());
        let values = common_name.map(|name| format!("subject:cn:{name}")).into_iter();
        let values = values
            .chain(self.vouching.iter().map(|fingerprint| format!("ca:fingerprint:{fingerprint}")))
            .chain([format!("serialnumber:{}", self.leaf.serial_hex)])
            .chain(san_selectors.iter().map(|(key, value)| format!("san:{key}:{value}")));
        let selectors = values.map(|value| Selector::new(NAME, &value)).collect::<Result<Vec<_>, _>>()?;
        Ok(AttestedNode { spiffe_id, selectors: Selectors::new(selectors)? })
    }
}

#[cfg(test)]
mod tests;
