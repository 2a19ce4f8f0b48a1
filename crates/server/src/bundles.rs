//! Changing the trust domain's own bundle, which several stations write to: the authorities of each
//! SVID type, and operators.
//!
//! Each change is based on the bundle it read and is made anew when somebody else was quicker, so none undoes another.

use spindle_proto::convert::GivenAuthorities;
use spindle_spiffe_core::bundle::BundleError;
use spindle_spiffe_core::{Bundle, TokenAuthority, TrustDomain};
use spindle_store::Transaction;

use crate::directory::{CommitError, Directory, View, bundle_key, encode_bundle};

/// How often readers of the bundle are asked to look for a new one, in seconds; SPIRE's default.
const REFRESH_HINT_SECS: u64 = 300;

/// How often a change is made anew when others keep changing the same bundle.
const TRIES_MAX: usize = 8;

/// The server's own bundle as it stands; one without keys before the first authority is published.
pub(crate) fn own(view: &View, trust_domain: &TrustDomain) -> Bundle {
    view.bundle(trust_domain).map(|bundle| Bundle::clone(bundle)).unwrap_or_else(|| Bundle {
        refresh_hint_secs: Some(REFRESH_HINT_SECS),
        ..Bundle::new(trust_domain.clone())
    })
}

/// Applies `edit` to the server's own bundle and commits the outcome together with `draft`; returns the revision. The
/// sequence number grows by one when the edit changed anything. `edit` may be called several times.
///
/// # Errors
/// What `edit` refuses, or a failing store; a [`CommitError::Conflict`] is one over a precondition of `draft`, or others
/// keep changing the bundle.
pub(crate) async fn edit_own<E: From<CommitError>>(
    directory: &Directory,
    trust_domain: &TrustDomain,
    draft: Transaction,
    edit: impl Fn(&mut Bundle) -> Result<(), E>,
) -> Result<u64, E> {
    let key = bundle_key(trust_domain);
    let mut tries = 1;
    loop {
        let view = directory.view();
        let old = own(&view, trust_domain);
        let mut new = old.clone();
        edit(&mut new)?;
        if new != old {
            new.sequence += 1;
        }
        let based = match view.bundle_revision(trust_domain) {
            Some(revision) => draft.clone().at_revision(key.clone(), revision),
            None => draft.clone().absent(key.clone()),
        };
        match directory.commit(based.put(key.clone(), encode_bundle(&new))).await {
            Err(CommitError::Conflict(_)) if tries < TRIES_MAX => tries += 1,
            outcome => return outcome.map_err(E::from),
        }
    }
}

/// Why authorities were not added to the own bundle.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendFault {
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Adds those of the authorities to the server's own bundle that are not in it yet, whether tainted there or not.
pub(crate) async fn append_own(
    directory: &Directory,
    trust_domain: &TrustDomain,
    given: &GivenAuthorities,
) -> Result<u64, AppendFault> {
    edit_own(directory, trust_domain, Transaction::new(), |bundle| {
        for authority in &given.x509 {
            if bundle.x509_authorities.iter().all(|known| known.der() != authority.der()) {
                bundle.x509_authorities.push(authority.clone());
            }
        }
        append_tokens(&mut bundle.jwt_authorities, &given.jwt);
        append_tokens(&mut bundle.wit_authorities, &given.wit);
        Ok(bundle.check()?)
    })
    .await
}

fn append_tokens(authorities: &mut Vec<TokenAuthority>, given: &[TokenAuthority]) {
    for authority in given {
        let same = |known: &TokenAuthority| {
            (known.kid(), known.spki_der()) == (authority.kid(), authority.spki_der())
        };
        if !authorities.iter().any(same) {
            authorities.push(authority.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use spindle_spiffe_core::X509Authority;
    use spindle_testkit::{NOW, TestAuthority};

    use super::*;
    use crate::fixtures::{directory, trust_domain};

    fn root() -> X509Authority {
        X509Authority::parse(TestAuthority::new("example.org", NOW).ca().certificate().clone()).unwrap()
    }

    async fn add(directory: &Directory, root: X509Authority) -> Result<u64, CommitError> {
        edit_own(directory, &trust_domain(), Transaction::new(), |bundle| {
            bundle.x509_authorities.push(root.clone());
            Ok(())
        })
        .await
    }

    #[tokio::test]
    async fn changes_made_at_once_are_all_there_and_each_counts() {
        let directory = directory();
        let roots: Vec<_> = (0..4).map(|_| root()).collect();
        let added =
            futures_util::future::join_all(roots.iter().map(|root| add(&directory, root.clone()))).await;
        assert!(added.iter().all(Result::is_ok), "{added:?}");
        let bundle = own(&directory.view(), &trust_domain());
        assert_eq!((bundle.x509_authorities.len(), bundle.sequence), (4, 4));
    }

    #[tokio::test]
    async fn an_edit_that_changes_nothing_leaves_the_number_and_a_refused_one_everything() {
        let directory = directory();
        add(&directory, root()).await.unwrap();
        let before = own(&directory.view(), &trust_domain());
        edit_own::<CommitError>(&directory, &trust_domain(), Transaction::new(), |_| Ok(())).await.unwrap();
        assert_eq!(own(&directory.view(), &trust_domain()), before);
        let refused = edit_own(&directory, &trust_domain(), Transaction::new(), |bundle| {
            bundle.x509_authorities.clear();
            Err(CommitError::Store(spindle_store::StoreError::Closed))
        })
        .await;
        assert!(refused.is_err());
        assert_eq!(own(&directory.view(), &trust_domain()), before);
    }
}
