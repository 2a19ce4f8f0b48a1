//! Making, changing and deleting federation relationships. A bundle that comes with one is stored in the same transaction.

use spindle_spiffe_core::{Bundle, FederationRelationship, TrustDomain};
use spindle_store::Transaction;

use super::{FederationFault, write};
use crate::directory::{Directory, bundle_key, encode_bundle, encode_relationship, relationship_key};

/// Stores a relationship where there is none yet, and `bundle` in the place of what there is.
pub(crate) async fn create(
    directory: &Directory,
    relationship: &FederationRelationship,
    bundle: Option<&Bundle>,
) -> Result<(), FederationFault> {
    let name = &relationship.trust_domain;
    let key = relationship_key(name);
    write(directory, name, |view, draft| match view.federation().relationship(name) {
        Some(_) => Err(FederationFault::RelationshipExists),
        None => {
            let draft = draft.absent(key.clone()).put(key.clone(), encode_relationship(relationship));
            Ok((with_bundle(draft, bundle), ()))
        }
    })
    .await
}

/// Replaces a relationship by what `change` makes of it, stores `bundle` in the place of what there is, and returns the
/// relationship.
pub(crate) async fn update(
    directory: &Directory,
    name: &TrustDomain,
    change: impl Fn(&FederationRelationship) -> FederationRelationship,
    bundle: Option<&Bundle>,
) -> Result<FederationRelationship, FederationFault> {
    write(directory, name, |view, draft| {
        let old = view.federation().relationship(name).ok_or(FederationFault::RelationshipNotFound)?;
        let (new, key) = (change(&old.relationship), relationship_key(name));
        let draft = draft.at_revision(key.clone(), old.revision).put(key, encode_relationship(&new));
        Ok((with_bundle(draft, bundle), new))
    })
    .await
}

/// Deletes a relationship; the bundle of its trust domain stays.
pub(crate) async fn delete(directory: &Directory, name: &TrustDomain) -> Result<(), FederationFault> {
    write(directory, name, |view, draft| match view.federation().relationship(name) {
        Some(row) => {
            let key = relationship_key(name);
            Ok((draft.at_revision(key.clone(), row.revision).delete(key), ()))
        }
        None => Err(FederationFault::RelationshipNotFound),
    })
    .await
}

fn with_bundle(draft: Transaction, bundle: Option<&Bundle>) -> Transaction {
    match bundle {
        Some(bundle) => draft.put(bundle_key(&bundle.trust_domain), encode_bundle(bundle)),
        None => draft,
    }
}
