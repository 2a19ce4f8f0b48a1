//! The trust domain's own bundle: what comes in, and what may go. The authorities of all SVID types follow the same rules.

use spindle_ca::journal::SkipReason;
use spindle_spiffe_core::{Bundle, Timestamp, TokenAuthority, X509Authority};
use spindle_store::Transaction;
use tracing::info;

use super::{Authorities, AuthoritiesError};
use crate::bundles;
use crate::metrics::code_of;

/// The most authorities of one family a bundle is let grow to: far more than live at one time, and half of what agents take.
const ROOTS_MAX: usize = 512;

/// An authority as it stands in a bundle.
pub(super) trait Root {
    /// Its name in the journal.
    fn id(&self) -> &str;

    /// Its last valid second; the end of time when nobody told.
    fn not_after(&self) -> Timestamp;
}

impl Root for X509Authority {
    fn id(&self) -> &str {
        self.subject_key_id()
    }

    fn not_after(&self) -> Timestamp {
        self.validity().not_after
    }
}

impl Root for TokenAuthority {
    fn id(&self) -> &str {
        self.kid()
    }

    fn not_after(&self) -> Timestamp {
        self.expires_at().unwrap_or(Timestamp::from_unix_secs(i64::MAX))
    }
}

impl Authorities {
    /// Drops authorities that ended a day ago from the bundle, but never the last one. JWT and WIT authorities go here too,
    /// so that they go also when JWT-SVIDs or WIT-SVIDs were switched off.
    pub(super) async fn prune_bundle(&self, now: Timestamp) -> Result<(), AuthoritiesError> {
        let trust_domain = &self.settings.trust_domain;
        let view = self.directory.view();
        let Some(bundle) = view.bundle(trust_domain) else { return Ok(()) };
        let tokens = [&bundle.jwt_authorities, &bundle.wit_authorities];
        if gone(&bundle.x509_authorities, now).is_empty()
            && tokens.iter().all(|all| gone(all, now).is_empty())
        {
            return Ok(());
        }
        let prune = |bundle: &mut Bundle| {
            drop_gone(&mut bundle.x509_authorities, now);
            drop_gone(&mut bundle.jwt_authorities, now);
            drop_gone(&mut bundle.wit_authorities, now);
            Ok::<(), AuthoritiesError>(())
        };
        let metrics = &self.rotation.metrics;
        let edited = bundles::edit_own(&self.directory, trust_domain, Transaction::new(), prune);
        metrics.prune_bundle.time(edited, code_of).await?;
        metrics.pruned.increment(1);
        info!("ended authorities left the bundle");
        Ok(())
    }

    pub(super) fn own_bundle(&self) -> Bundle {
        bundles::own(&self.directory.view(), &self.settings.trust_domain)
    }
}

/// The authorities that the bundle needs no more. Whole values, not names: a root from outside may have no key identifier.
fn gone<T: Root + Clone>(roots: &[T], now: Timestamp) -> Vec<T> {
    spindle_ca::prunable(roots, T::not_after, now).into_iter().cloned().collect()
}

fn drop_gone<T: Root + Clone + PartialEq>(roots: &mut Vec<T>, now: Timestamp) {
    let gone = gone(roots, now);
    roots.retain(|root| !gone.contains(root));
}

/// Adds the roots that are not there yet. One that is there stays as it is: what an operator has tainted is tainted.
pub(super) fn add(roots: &mut Vec<X509Authority>, new: &[X509Authority]) {
    for root in new {
        if !roots.iter().any(|known| known.der() == root.der()) {
            roots.push(root.clone());
        }
    }
}

/// Tainted roots that the upstream authority does not name any more go, as with SPIRE.
pub(super) fn drop_tainted_unless_named(roots: &mut Vec<X509Authority>, upstream: &[X509Authority]) {
    let is_named = |root: &X509Authority| upstream.iter().any(|named| named.der() == root.der());
    roots.retain(|root| !root.is_tainted() || is_named(root));
}

/// Of the authorities that were `prepared` when the journal was written, those whose keys are gone.
pub(super) fn unused(skipped: &[(String, SkipReason)], prepared: &[String]) -> Vec<String> {
    let gone = skipped.iter().filter(|(id, why)| *why == SkipReason::KeyMissing && prepared.contains(id));
    gone.map(|(id, _)| id.clone()).collect()
}

/// Makes room for one more root: those that never signed go at once, and those that have ended go before their day is over
/// when there are very many.
pub(super) fn make_room<T: Root>(
    roots: &mut Vec<T>,
    unused: &[String],
    now: Timestamp,
) -> Result<(), AuthoritiesError> {
    roots.retain(|root| !unused.iter().any(|id| id == root.id()));
    if roots.len() >= ROOTS_MAX {
        roots.retain(|root| now <= root.not_after());
    }
    if roots.len() >= ROOTS_MAX { Err(AuthoritiesError::TooManyRoots(roots.len())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use spindle_testkit::{NOW, TestAuthority};

    use super::*;

    fn root(at: Timestamp) -> X509Authority {
        X509Authority::parse(TestAuthority::new("example.org", at).ca().certificate().clone()).unwrap()
    }

    #[test]
    fn a_full_bundle_lets_go_of_what_has_ended_and_of_nothing_else() {
        let (old, new) = (root(NOW), root(NOW + 100));
        let later = old.validity().not_after + 1;
        let mut roots = vec![old; ROOTS_MAX - 1];
        make_room(&mut roots, &[], later).unwrap();
        assert_eq!(roots.len(), ROOTS_MAX - 1, "there is room");
        roots.push(new.clone());
        make_room(&mut roots, &[], later).unwrap();
        assert_eq!(roots, std::slice::from_ref(&new));
        let mut roots = vec![new; ROOTS_MAX];
        let full = make_room(&mut roots, &[], later);
        assert!(matches!(full, Err(AuthoritiesError::TooManyRoots(ROOTS_MAX))), "{full:?}");
    }

    #[test]
    fn roots_are_added_once_and_a_tainted_one_goes_when_nobody_names_it() {
        let (kept, tainted, new) = (root(NOW), root(NOW).with_taint(true), root(NOW));
        let mut roots = vec![kept.clone(), tainted.clone()];
        add(&mut roots, &[tainted.clone().with_taint(false), new.clone(), new.clone()]);
        assert_eq!(roots, [kept.clone(), tainted.clone(), new.clone()]);
        drop_tainted_unless_named(&mut roots, std::slice::from_ref(&tainted));
        assert_eq!(roots.len(), 3);
        drop_tainted_unless_named(&mut roots, std::slice::from_ref(&new));
        assert_eq!(roots, [kept, new]);
    }

    #[test]
    fn what_never_signed_and_has_lost_its_key_goes_at_once() {
        let (active, prepared) = (root(NOW), root(NOW));
        let id = |root: &X509Authority| root.subject_key_id().to_owned();
        let skipped = [(id(&active), SkipReason::KeyMissing), (id(&prepared), SkipReason::KeyMissing)];
        let unused = unused(&skipped, &[id(&prepared)]);
        let mut roots = vec![active.clone(), prepared];
        make_room(&mut roots, &unused, NOW).unwrap();
        assert_eq!(roots, [active]);
    }
}
