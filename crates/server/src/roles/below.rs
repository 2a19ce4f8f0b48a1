//! What is below an identity: who has it has that, too.
//!
//! The walk goes downwards, as an agent's does, and ends after so many identities: whoever asks waits for it, in the loop of
//! a transaction. Start at [`check_below`].

use std::collections::HashSet;

use spindle_spiffe_core::SpiffeId;

use super::PathPrefix;
use super::rules::RoleRefusal;
use crate::directory::View;

/// More than an administrator keeps below one identity by hand, and still looked through within some milliseconds.
const BELOW_MAX: usize = 10_000;

/// An identity has more below it than is looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMuchBelow;

/// Walks an identity and everything below it, each identity once.
pub(crate) struct Descent<'a> {
    view: &'a View,
    seen: HashSet<SpiffeId>,
    open: Vec<SpiffeId>,
}

impl<'a> Descent<'a> {
    pub(crate) fn from(view: &'a View, id: &SpiffeId) -> Self {
        Self { view, seen: HashSet::from([id.clone()]), open: vec![id.clone()] }
    }
}

impl Iterator for Descent<'_> {
    type Item = Result<SpiffeId, TooMuchBelow>;

    fn next(&mut self) -> Option<Self::Item> {
        let id = self.open.pop()?;
        for child in self.view.children(&id).map(|row| &row.entry.spiffe_id) {
            if !self.seen.insert(child.clone()) {
                continue;
            }
            self.open.push(child.clone());
            // The first one seen is the identity itself.
            if self.seen.len() > BELOW_MAX + 1 {
                self.open.clear();
                return Some(Err(TooMuchBelow));
            }
        }
        Some(Ok(id))
    }
}

/// Whether everything below `id`, which is within `prefix`, is so too.
pub(crate) fn check_below(view: &View, id: &SpiffeId, prefix: &PathPrefix) -> Result<(), RoleRefusal> {
    if prefix.is_all() {
        return Ok(());
    }
    Descent::from(view, id).try_for_each(|below| match below {
        Ok(below) if prefix.covers(&below) => Ok(()),
        Ok(below) => Err(RoleRefusal::Below { id: id.clone(), below, prefix: prefix.as_str().into() }),
        Err(TooMuchBelow) => Err(RoleRefusal::TooMuchBelow { id: id.clone(), max: BELOW_MAX }),
    })
}

#[cfg(test)]
mod tests {
    use spindle_spiffe_core::Reason;
    use spindle_testkit::ManualClock;

    use super::*;
    use crate::fixtures::{context, create, entry, id};

    #[tokio::test]
    async fn what_is_below_an_identity_is_within_the_prefix_or_the_first_outside_is_named() {
        let context = context(&ManualClock::default()).await;
        let directory = &context.directory;
        for (parent, path) in [
            ("/ci/a", "/ci/b"),
            ("/ci/b", "/ci/a"),
            ("/ci/cluster", "/ci/deep"),
            ("/ci/deep", "/prod/db"),
            ("/ci/loop", "/ci/loop"),
        ] {
            create(directory, entry(&id(parent), path, &["a:1"])).await;
        }
        let view = directory.view();
        let prefix: PathPrefix = "/ci/".parse().unwrap();
        let outcome = |path: &str, prefix: &PathPrefix| check_below(&view, &id(path), prefix);
        for path in ["/ci/a", "/ci/b", "/ci/loop", "/ci/nobody"] {
            assert_eq!(outcome(path, &prefix), Ok(()), "{path}");
        }
        for path in ["/ci/cluster", "/ci/deep"] {
            let refusal = outcome(path, &prefix).expect_err(path);
            assert_eq!(refusal.reason(), Reason::RolePath);
            assert!(refusal.to_string().contains("/prod/db"), "{refusal}");
        }
        assert_eq!(outcome("/ci/cluster", &PathPrefix::all()), Ok(()));
    }

    #[tokio::test]
    async fn the_walk_ends_and_what_it_has_not_seen_is_not_covered() {
        let context = context(&ManualClock::default()).await;
        let new = |index: usize| {
            create(&context.directory, entry(&id("/ci/root"), &format!("/ci/{index}"), &["a:1"]))
        };
        futures_util::future::join_all((0..BELOW_MAX).map(new)).await;
        let prefix: PathPrefix = "/ci/".parse().unwrap();
        assert_eq!(check_below(&context.directory.view(), &id("/ci/root"), &prefix), Ok(()));
        new(BELOW_MAX).await;
        let refusal = check_below(&context.directory.view(), &id("/ci/root"), &prefix).expect_err("too many");
        assert_eq!(refusal, RoleRefusal::TooMuchBelow { id: id("/ci/root"), max: BELOW_MAX });
    }
}
