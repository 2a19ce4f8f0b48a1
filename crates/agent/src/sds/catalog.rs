//! Which resources a view has, and under what names. Pure.
//!
//! Names are SPIRE's: a SPIFFE ID or `default` for a certificate; `spiffe://TRUST_DOMAIN`, `ROOTCA` and `ALL` for whom to
//! accept. Any number of them may be asked for at once. Start at [`Catalog::find`].

use std::collections::HashSet;
use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use spindle_proto::any::Any;
use spindle_spiffe_core::X509Bundle;

use super::secret;
use super::validation::Validation;
use crate::cache::{Content, HeldSvid, Unready, View};
use crate::config::SdsConfig;

/// Bytes of the digest that a version shows: enough for no two contents to share one.
const VERSION_BYTES: usize = 16;

/// What a view offers to one proxy.
pub(super) struct Catalog<'a> {
    view: &'a View,
    config: &'a SdsConfig,
    validation: Validation,
}

/// One resource, not encoded yet.
#[derive(Clone)]
pub(super) struct Resource<'a> {
    /// The name it was asked for by.
    pub(super) name: String,
    content: Secret<'a>,
    validation: Validation,
}

#[derive(Clone, Copy)]
enum Secret<'a> {
    Certificate(&'a HeldSvid),
    Bundle(&'a X509Bundle),
    AllBundles(&'a Content),
}

/// A digest of what a resource says: equal for equal resources, also over restarts of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version(String);

/// Why there is no resource of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The workload has no such identity, and no entry that federates with such a trust domain.
    Unknown,
    /// The identity is being signed.
    Signing,
    /// The identity could not be signed; it is tried again.
    Unsigned,
    /// Several trust domains at once need Envoy's SPIFFE validator.
    NeedsValidator,
}

impl<'a> Catalog<'a> {
    pub(super) fn new(view: &'a View, config: &'a SdsConfig, validation: Validation) -> Self {
        Self { view, config, validation }
    }

    /// Whether there is nothing to accept anybody by: the agent has not got its own bundle.
    pub(super) fn is_empty(&self) -> bool {
        self.view.content.own.bundle.is_empty()
    }

    /// Whether identities are being signed.
    pub(super) fn is_signing(&self) -> bool {
        self.view.is_signing()
    }

    /// Whether what `name` stands for can become another identity when one more is signed.
    pub(super) fn is_default(&self, name: &str) -> bool {
        name == self.config.default_svid_name
    }

    /// The resource of a name. A name of two meanings has the first of: trust domain, own bundle, all bundles, SPIFFE ID, the
    /// default identity.
    pub(super) fn find(&self, name: &str) -> Result<Resource<'a>, Missing> {
        let content = &*self.view.content;
        let named = |secret| Ok(self.resource(name.to_owned(), secret));
        if let Some(bundle) = bundles(content).find(|bundle| bundle.trust_domain().id().as_str() == name) {
            return named(Secret::Bundle(bundle));
        }
        if name == self.config.default_bundle_name {
            return named(Secret::Bundle(&content.own.bundle));
        }
        if name == self.config.default_all_bundles_name {
            return match self.validation {
                Validation::Spiffe => named(Secret::AllBundles(content)),
                Validation::PlainCa => Err(Missing::NeedsValidator),
            };
        }
        let mut identities = content.identities.iter();
        if let Some(shown) = identities.find(|shown| shown.held.svid.spiffe_id().as_str() == name) {
            return named(Secret::Certificate(&shown.held));
        }
        match content.identities.first() {
            Some(shown) if self.is_default(name) => named(Secret::Certificate(&shown.held)),
            _ => Err(self.why_missing(name)),
        }
    }

    /// Every resource under its proper name: the bundles, and the identities by their SPIFFE IDs. Of those with one SPIFFE ID
    /// the first is meant, as if it were asked for.
    pub(super) fn all(&self) -> Vec<Resource<'a>> {
        let content = &*self.view.content;
        let mut all: Vec<Resource<'a>> = bundles(content)
            .map(|bundle| {
                self.resource(bundle.trust_domain().id().as_str().to_owned(), Secret::Bundle(bundle))
            })
            .collect();
        let mut seen = HashSet::new();
        for shown in &content.identities {
            let name = shown.held.svid.spiffe_id().as_str();
            if seen.insert(name) {
                all.push(self.resource(name.to_owned(), Secret::Certificate(&shown.held)));
            }
        }
        all
    }

    fn resource(&self, name: String, content: Secret<'a>) -> Resource<'a> {
        Resource { name, content, validation: self.validation }
    }

    fn why_missing(&self, name: &str) -> Missing {
        let mut unready = self.view.unready.iter();
        let meant = unready.find(|(_, spiffe_id, _)| self.is_default(name) || spiffe_id.as_str() == name);
        match meant {
            None => Missing::Unknown,
            Some(_) if self.is_default(name) && self.is_signing() => Missing::Signing,
            Some((_, _, Unready::Signing | Unready::OnDemand)) => Missing::Signing,
            Some(_) => Missing::Unsigned,
        }
    }
}

impl Resource<'_> {
    /// The resource in its envelope.
    pub(super) fn encode(&self) -> Any {
        match (self.content, self.validation) {
            (Secret::Certificate(held), _) => secret::certificate(&self.name, held),
            (Secret::Bundle(bundle), Validation::PlainCa) => secret::plain_validation(&self.name, bundle),
            (Secret::Bundle(bundle), Validation::Spiffe) => {
                secret::spiffe_validation(&self.name, std::iter::once(bundle))
            }
            (Secret::AllBundles(content), _) => {
                let mut all: Vec<&X509Bundle> = bundles(content).collect();
                all.sort_unstable_by_key(|bundle| bundle.trust_domain().name());
                secret::spiffe_validation(&self.name, all.into_iter())
            }
        }
    }

    /// What distinguishes this state of the resource from others.
    pub(super) fn version(&self) -> Version {
        let mut digest = Context::new(&SHA256);
        match self.content {
            Secret::Certificate(held) => digest.update(&held.svid.to_der()),
            Secret::Bundle(bundle) => {
                digest.update(&[u8::from(self.validation == Validation::PlainCa)]);
                digest.update(&bundle.to_der());
            }
            Secret::AllBundles(content) => {
                for bundle in bundles(content) {
                    digest.update(bundle.trust_domain().id().as_str().as_bytes());
                    digest.update(&bundle.to_der());
                }
            }
        }
        let digest = digest.finish();
        Version(digest.as_ref()[..VERSION_BYTES].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

impl Version {
    /// A version as a proxy reports it.
    pub(super) fn reported(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The own bundle, if there is one, and the foreign ones by name.
fn bundles(content: &Content) -> impl Iterator<Item = &X509Bundle> {
    let own = (!content.own.bundle.is_empty()).then_some(&content.own);
    own.into_iter().chain(&content.federated).map(|one| &one.bundle)
}
