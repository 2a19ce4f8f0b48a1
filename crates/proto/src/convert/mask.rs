//! Which fields of an entry, a bundle or a relationship a request means. An absent mask means all of them.

use spindle_spiffe_core::{Bundle, FederationRelationship};

use crate::spire::api::types;

fn keep<T: Default>(wanted: bool, value: T) -> T {
    if wanted { value } else { T::default() }
}

/// The fields a request means; the id always is. An absent mask means all fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryMask(types::EntryMask);

impl EntryMask {
    /// All fields.
    pub fn all() -> Self {
        Self(types::EntryMask {
            spiffe_id: true,
            parent_id: true,
            selectors: true,
            x509_svid_ttl: true,
            federates_with: true,
            admin: true,
            downstream: true,
            expires_at: true,
            dns_names: true,
            revision_number: true,
            store_svid: true,
            jwt_svid_ttl: true,
            hint: true,
            created_at: true,
            additional_attributes: true,
        })
    }

    /// The fields wanted in an answer.
    pub fn output(wire: Option<types::EntryMask>) -> Self {
        wire.map_or_else(Self::all, Self)
    }

    /// The fields to change.
    pub fn input(wire: Option<types::EntryMask>) -> Self {
        wire.map_or_else(Self::all, Self)
    }

    /// The mask as a message.
    pub fn fields(&self) -> &types::EntryMask {
        &self.0
    }

    /// Keeps the fields of `entry` that the mask names, and the id.
    #[must_use]
    pub fn apply(&self, entry: types::Entry) -> types::Entry {
        let mask = &self.0;
        types::Entry {
            id: entry.id,
            spiffe_id: keep(mask.spiffe_id, entry.spiffe_id),
            parent_id: keep(mask.parent_id, entry.parent_id),
            selectors: keep(mask.selectors, entry.selectors),
            x509_svid_ttl: keep(mask.x509_svid_ttl, entry.x509_svid_ttl),
            federates_with: keep(mask.federates_with, entry.federates_with),
            admin: keep(mask.admin, entry.admin),
            downstream: keep(mask.downstream, entry.downstream),
            expires_at: keep(mask.expires_at, entry.expires_at),
            dns_names: keep(mask.dns_names, entry.dns_names),
            revision_number: keep(mask.revision_number, entry.revision_number),
            store_svid: keep(mask.store_svid, entry.store_svid),
            jwt_svid_ttl: keep(mask.jwt_svid_ttl, entry.jwt_svid_ttl),
            hint: keep(mask.hint, entry.hint),
            created_at: keep(mask.created_at, entry.created_at),
            additional_attributes: keep(mask.additional_attributes, entry.additional_attributes),
        }
    }
}

/// The fields of a bundle that a request means; the trust domain always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleMask(types::BundleMask);

impl BundleMask {
    /// The fields that a request means.
    pub fn of(wire: Option<types::BundleMask>) -> Self {
        Self(wire.unwrap_or(types::BundleMask {
            x509_authorities: true,
            jwt_authorities: true,
            refresh_hint: true,
            sequence_number: true,
            wit_authorities: true,
        }))
    }

    /// Keeps the fields of `bundle` that the mask names, and the trust domain.
    #[must_use]
    pub fn apply(&self, bundle: types::Bundle) -> types::Bundle {
        let mask = &self.0;
        types::Bundle {
            trust_domain: bundle.trust_domain,
            x509_authorities: keep(mask.x509_authorities, bundle.x509_authorities),
            jwt_authorities: keep(mask.jwt_authorities, bundle.jwt_authorities),
            refresh_hint: keep(mask.refresh_hint, bundle.refresh_hint),
            sequence_number: keep(mask.sequence_number, bundle.sequence_number),
            wit_authorities: keep(mask.wit_authorities, bundle.wit_authorities),
        }
    }

    /// `old` with the fields that the mask names taken from `new`.
    #[must_use]
    pub fn merge(&self, old: &Bundle, new: &Bundle) -> Bundle {
        let mask = &self.0;
        let from = |wanted| if wanted { new } else { old };
        Bundle {
            trust_domain: old.trust_domain.clone(),
            x509_authorities: from(mask.x509_authorities).x509_authorities.clone(),
            jwt_authorities: from(mask.jwt_authorities).jwt_authorities.clone(),
            wit_authorities: from(mask.wit_authorities).wit_authorities.clone(),
            sequence: from(mask.sequence_number).sequence,
            refresh_hint_secs: from(mask.refresh_hint).refresh_hint_secs,
        }
    }
}

/// The fields of a federation relationship that a request means; the trust domain always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationshipMask(types::FederationRelationshipMask);

impl RelationshipMask {
    /// The fields that a request means.
    pub fn of(wire: Option<types::FederationRelationshipMask>) -> Self {
        Self(wire.unwrap_or(types::FederationRelationshipMask {
            bundle_endpoint_url: true,
            bundle_endpoint_profile: true,
            trust_domain_bundle: true,
        }))
    }

    /// Whether the bundle is meant.
    pub fn has_bundle(&self) -> bool {
        self.0.trust_domain_bundle
    }

    /// Keeps the fields of `relationship` that the mask names, and the trust domain.
    #[must_use]
    pub fn apply(&self, relationship: types::FederationRelationship) -> types::FederationRelationship {
        let mask = &self.0;
        types::FederationRelationship {
            trust_domain: relationship.trust_domain,
            bundle_endpoint_url: keep(mask.bundle_endpoint_url, relationship.bundle_endpoint_url),
            bundle_endpoint_profile: keep(mask.bundle_endpoint_profile, relationship.bundle_endpoint_profile),
            trust_domain_bundle: keep(mask.trust_domain_bundle, relationship.trust_domain_bundle),
        }
    }

    /// `old` with the fields that the mask names taken from `new`.
    #[must_use]
    pub fn merge(
        &self,
        old: &FederationRelationship,
        new: &FederationRelationship,
    ) -> FederationRelationship {
        let mask = &self.0;
        let from = |wanted| if wanted { new } else { old };
        FederationRelationship {
            trust_domain: old.trust_domain.clone(),
            url: from(mask.bundle_endpoint_url).url.clone(),
            profile: from(mask.bundle_endpoint_profile).profile.clone(),
        }
    }
}
