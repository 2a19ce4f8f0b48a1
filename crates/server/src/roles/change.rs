//! Giving and taking roles in the store. What others do to the same identity's roles meanwhile is never lost.

use std::sync::Arc;

use spindle_spiffe_core::{Reason, SpiffeId};
use spindle_store::{StoreError, Transaction};

use super::{Grant, Role};
use crate::directory::{CommitError, Directory, RoleHolder, power_key, roles_key};

/// Roles of one identity: three, and some more prefixes.
const GRANTS_MAX: usize = 32;

/// How often a change is tried again when others changed the same identity's roles in between.
const TRIES_MAX: usize = 8;

/// Why roles stay as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrantFault {
    #[error("{0} has {GRANTS_MAX} roles already, which is the most")]
    TooMany(SpiffeId),
    #[error("{id} was given no {} here", .role.map_or("role", Role::as_str))]
    NotFound { id: SpiffeId, role: Option<Role> },
    #[error("the roles of {0} are being changed by others")]
    Contended(SpiffeId),
    #[error("the change could not be stored: {0}")]
    Store(StoreError),
}

impl GrantFault {
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::TooMany(_) => Reason::BadRequest,
            Self::NotFound { .. } => Reason::RoleNotFound,
            Self::Contended(_) => Reason::Overloaded,
            Self::Store(_) => Reason::StoreFailed,
        }
    }
}

/// Gives a role, and returns all that the identity has by the store. Giving the same again changes nothing.
pub(crate) async fn grant(
    directory: &Directory,
    id: &SpiffeId,
    grant: Grant,
) -> Result<Vec<Grant>, GrantFault> {
    change(directory, id, |grants| {
        if grants.contains(&grant) {
            return Ok(());
        }
        if grants.len() >= GRANTS_MAX {
            return Err(GrantFault::TooMany(id.clone()));
        }
        grants.push(grant.clone());
        Ok(())
    })
    .await
}

/// Takes all grants of `role`, or of any, and returns what is left.
pub(crate) async fn revoke(
    directory: &Directory,
    id: &SpiffeId,
    role: Option<Role>,
) -> Result<Vec<Grant>, GrantFault> {
    change(directory, id, |grants| {
        let before = grants.len();
        grants.retain(|grant| role.is_some_and(|role| grant.role() != role));
        match grants.len() == before {
            true => Err(GrantFault::NotFound { id: id.clone(), role }),
            false => Ok(()),
        }
    })
    .await
}

async fn change(
    directory: &Directory,
    id: &SpiffeId,
    with: impl Fn(&mut Vec<Grant>) -> Result<(), GrantFault>,
) -> Result<Vec<Grant>, GrantFault> {
    let key = roles_key(id);
    for _ in 0..TRIES_MAX {
        let view = directory.view();
        let old: Option<&Arc<RoleHolder>> = view.roles_of(id);
        let mut grants = old.map(|holder| holder.grants.clone()).unwrap_or_default();
        with(&mut grants)?;
        if old.is_some_and(|old| old.grants == grants) {
            return Ok(grants);
        }
        let based = match old {
            Some(old) => Transaction::new().at_revision(key.clone(), old.revision),
            None => Transaction::new().absent(key.clone()),
        };
        let transaction = match grants.is_empty() {
            true => based.delete(key.clone()),
            false => based.put(key.clone(), RoleHolder::encode(id, &grants)).put(power_key(), b"".as_slice()),
        };
        match directory.commit(transaction).await {
            Ok(_) => return Ok(grants),
            Err(CommitError::Store(error)) => return Err(GrantFault::Store(error)),
            Err(CommitError::Conflict(_)) => {}
        }
    }
    Err(GrantFault::Contended(id.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{self, id};

    #[tokio::test]
    async fn roles_are_given_once_and_taken_by_kind() {
        let directory = fixtures::directory();
        let who = id("/ci");
        assert_eq!(grant(&directory, &who, Grant::Reader).await.unwrap(), [Grant::Reader]);
        let at = directory.view().revision;
        assert_eq!(grant(&directory, &who, Grant::Reader).await.unwrap(), [Grant::Reader]);
        assert_eq!(directory.view().revision, at, "the same again is no change");
        grant(&directory, &who, Grant::Operator).await.unwrap();
        let fault = revoke(&directory, &who, Some(Role::Registrar)).await.expect_err("not given");
        assert_eq!(fault.reason(), Reason::RoleNotFound);
        assert_eq!(fault.to_string(), "spiffe://example.org/ci was given no registrar here");
        assert_eq!(revoke(&directory, &who, Some(Role::Reader)).await.unwrap(), [Grant::Operator]);
        assert!(revoke(&directory, &who, None).await.unwrap().is_empty());
        assert!(directory.view().role_holders().next().is_none(), "nothing is left of it");
        let fault = revoke(&directory, &who, None).await.expect_err("nothing to take");
        assert_eq!(fault.to_string(), "spiffe://example.org/ci was given no role here");
    }

    #[tokio::test]
    async fn the_roles_of_one_identity_are_bounded() {
        let directory = fixtures::directory();
        let registrar = |n: usize| {
            let wire = spindle_proto::admin::v1::Grant {
                role: "registrar".into(),
                path_prefix: format!("/p{n}"),
                verbs: vec!["create".into()],
                ..Default::default()
            };
            crate::roles::grant_from_wire(&wire).unwrap()
        };
        for n in 0..GRANTS_MAX {
            grant(&directory, &id("/ci"), registrar(n)).await.unwrap();
        }
        let fault = grant(&directory, &id("/ci"), Grant::Reader).await.expect_err("too many");
        assert_eq!(fault.reason(), Reason::BadRequest);
    }

    #[tokio::test]
    async fn of_roles_that_are_given_at_once_none_is_lost() {
        let directory = fixtures::directory();
        let who = id("/ci");
        let (one, two) =
            tokio::join!(grant(&directory, &who, Grant::Reader), grant(&directory, &who, Grant::Operator));
        one.unwrap();
        two.unwrap();
        assert_eq!(directory.view().roles_of(&who).unwrap().grants.len(), 2);
    }
}
