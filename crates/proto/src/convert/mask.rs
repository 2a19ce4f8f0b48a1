//! Which fields of an entry a request means.

use crate::spire::api::types;

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
        fn keep<T: Default>(wanted: bool, value: T) -> T {
            if wanted { value } else { T::default() }
        }
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
