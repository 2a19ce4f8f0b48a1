//! The part of the view that is about other trust domains: relationships, which entries refer to them, and what is still
//! to be unlinked. Bundles are in the view itself, as the own one is among them.

use std::ops::Bound;
use std::sync::Arc;

use rpds::{HashTrieMapSync, RedBlackTreeMapSync};
use spindle_proto::records::v1 as records;
use spindle_spiffe_core::{FederationRelationship, TrustDomain};
use spindle_store::{Kind, Record};

use super::view::Index;
use super::{DirectoryError, records as keys};

/// What becomes of the entries that federate with a trust domain whose bundle is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unlinking {
    /// They federate with it no more.
    Dissociate,
    /// They go.
    Delete,
}

impl Unlinking {
    /// The record that has it done.
    pub(crate) fn record(self, trust_domain: &TrustDomain) -> records::UnlinkingRecord {
        let unlinking = match self {
            Self::Dissociate => records::Unlinking::Dissociate,
            Self::Delete => records::Unlinking::Delete,
        };
        records::UnlinkingRecord { trust_domain: trust_domain.name().into(), unlinking: unlinking.into() }
    }
}

/// A relationship with the store revision of its last change.
#[derive(Clone, Debug)]
pub(crate) struct RelationshipRow {
    pub(crate) relationship: Arc<FederationRelationship>,
    pub(crate) revision: u64,
}

/// All that is known about other trust domains beside their bundles.
#[derive(Clone, Debug)]
pub(crate) struct Federation {
    relationships: RedBlackTreeMapSync<TrustDomain, RelationshipRow>,
    references: HashTrieMapSync<TrustDomain, u64>,
    unlinkings: RedBlackTreeMapSync<TrustDomain, Unlinking>,
    /// Entries by the trust domains they federate with; kept by the view.
    pub(super) by_trust_domain: Index<TrustDomain>,
}

impl Federation {
    pub(super) fn new() -> Self {
        Self {
            relationships: RedBlackTreeMapSync::new_sync(),
            references: HashTrieMapSync::new_sync(),
            unlinkings: RedBlackTreeMapSync::new_sync(),
            by_trust_domain: HashTrieMapSync::new_sync(),
        }
    }

    pub(super) fn put(&mut self, record: &Record) -> Result<(), DirectoryError> {
        match record.key.kind {
            keys::RELATIONSHIP => {
                let relationship = Arc::new(keys::decode_relationship(record)?);
                let row = RelationshipRow { relationship, revision: record.revision };
                self.relationships.insert_mut(row.relationship.trust_domain.clone(), row);
            }
            keys::REFERENCE => {
                self.references.insert_mut(name_in_key(record)?, record.revision);
            }
            keys::UNLINKING => {
                let decoded: records::UnlinkingRecord = keys::decode(record)?;
                let unlinking = match records::Unlinking::try_from(decoded.unlinking) {
                    Ok(records::Unlinking::Dissociate) => Unlinking::Dissociate,
                    Ok(records::Unlinking::Delete) => Unlinking::Delete,
                    Ok(records::Unlinking::Unspecified) | Err(_) => {
                        let why = format!("{} is no way to unlink entries", decoded.unlinking);
                        return Err(DirectoryError::Record { key: keys::describe(&record.key), why });
                    }
                };
                self.unlinkings.insert_mut(name_in_key(record)?, unlinking);
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, kind: Kind, text: &str) {
        let Ok(name) = text.parse::<TrustDomain>() else { return };
        match kind {
            keys::RELATIONSHIP => drop(self.relationships.remove_mut(&name)),
            keys::REFERENCE => drop(self.references.remove_mut(&name)),
            keys::UNLINKING => drop(self.unlinkings.remove_mut(&name)),
            _ => {}
        }
    }

    pub(crate) fn relationship(&self, trust_domain: &TrustDomain) -> Option<&RelationshipRow> {
        self.relationships.get(trust_domain)
    }

    /// Every relationship, in order of trust domains.
    pub(crate) fn relationships(&self) -> impl Iterator<Item = &Arc<FederationRelationship>> {
        self.relationships.values().map(|row| &row.relationship)
    }

    /// Relationships in order of trust domains, from the first that comes after `name`.
    pub(crate) fn relationships_after(
        &self,
        name: &TrustDomain,
    ) -> impl Iterator<Item = &Arc<FederationRelationship>> {
        self.relationships.range((Bound::Excluded(name), Bound::Unbounded)).map(|(_, row)| &row.relationship)
    }

    /// Store revision at which an entry last began to federate with `trust_domain`.
    pub(crate) fn last_reference(&self, trust_domain: &TrustDomain) -> Option<u64> {
        self.references.get(trust_domain).copied()
    }

    /// What is still to be done with the entries of a trust domain whose bundle is gone.
    pub(crate) fn unlinking(&self, trust_domain: &TrustDomain) -> Option<Unlinking> {
        self.unlinkings.get(trust_domain).copied()
    }

    /// Every trust domain with entries that are still to be unlinked.
    pub(crate) fn unlinkings(&self) -> impl Iterator<Item = &TrustDomain> {
        self.unlinkings.keys()
    }
}

/// The trust domain that a record is filed under.
fn name_in_key(record: &Record) -> Result<TrustDomain, DirectoryError> {
    let name = std::str::from_utf8(&record.key.key).ok().and_then(|text| text.parse().ok());
    name.ok_or_else(|| DirectoryError::Record {
        key: keys::describe(&record.key),
        why: "its key is no trust domain name".into(),
    })
}
