//! Rotation in virtual time: the clock is moved to wherever the slots want to be asked next.

use spindle_keys::{DiskKeys, MemoryKeys};
use spindle_spiffe_core::{Bundle, Timestamp, Validity, X509Authority, verify_x509_svid};
use spindle_testkit::{ManualClock, NOW, TestFolder};

use super::rotation::{CHECK_SECS_MAX, PUBLISH_GRACE_SECS, PUBLISH_WAIT_SECS, REST_MAX};
use super::*;
use crate::fixtures::{
    SVID_TTL_SECS, authorities, authorities_below, directory, id, selectors, trust_domain,
};
use crate::subscriptions::Subscribed;

mod orders;
mod upstream;

const CA_TTL_SECS: i64 = 24 * 3600;

impl Authorities {
    /// Carries out what is due; returns when to ask again.
    pub(in crate::authorities) async fn advance(&self) -> Result<Timestamp, AuthoritiesError> {
        rotation::advance(self).await
    }
}

/// Authorities on a memory store, and what drives them.
struct Bench {
    clock: ManualClock,
    directory: Directory,
    subscriptions: Subscriptions,
    keys: Arc<dyn KeyManager>,
    authorities: Arc<Authorities>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(CA_TTL_SECS, Arc::new(MemoryKeys::new())).await
    }

    async fn with(ca_ttl_secs: i64, keys: Arc<dyn KeyManager>) -> Self {
        let (clock, directory) = (ManualClock::default(), directory());
        let subscriptions = Subscriptions::of(&directory);
        let authorities = authorities(&directory, &subscriptions, keys.clone(), &clock, ca_ttl_secs);
        authorities.start().await.unwrap();
        Self { clock, directory, subscriptions, keys, authorities }
    }

    /// The same store and clock after a restart, with these keys.
    async fn restarted(self, keys: Arc<dyn KeyManager>) -> Self {
        self.restarted_below(keys, None).await
    }

    /// The same below an upstream authority.
    async fn restarted_below(
        self,
        keys: Arc<dyn KeyManager>,
        upstream: Option<Arc<dyn UpstreamAuthority>>,
    ) -> Self {
        let Self { clock, directory, .. } = self;
        let subscriptions = Subscriptions::of(&directory);
        let authorities =
            authorities_below(&directory, &subscriptions, keys.clone(), &clock, CA_TTL_SECS, upstream);
        authorities.start().await.unwrap();
        Self { clock, directory, subscriptions, keys, authorities }
    }

    /// What an operator orders, and what comes of it.
    async fn order(&self, order: Order) -> Result<Standing, OrderError> {
        self.authorities.execute(order).await
    }

    /// Moves the clock and lets the authorities do what is due; returns when they want to be asked again.
    async fn at(&self, secs: i64) -> Timestamp {
        self.clock.set(NOW + secs);
        self.authorities.advance().await.unwrap()
    }

    fn active(&self) -> String {
        self.authorities.active().unwrap().authority_id().to_owned()
    }

    fn prepared(&self) -> Option<String> {
        self.authorities.rotation.lock().slots.prepared().map(|entry| entry.authority_id.clone())
    }

    fn bundle(&self) -> Arc<Bundle> {
        self.directory.view().bundle(&trust_domain()).unwrap().clone()
    }

    /// Ids of the authorities in the bundle, oldest first.
    fn trusted(&self) -> Vec<String> {
        self.bundle().x509_authorities.iter().map(|authority| authority.subject_key_id().to_owned()).collect()
    }

    /// A connected agent that has acknowledged nothing.
    fn connect(&self) -> Subscribed {
        self.subscriptions.add(id("/spire/agent/x/1"), selectors(&[]))
    }
}

/// What must hold at every moment.
fn check(bench: &Bench) {
    let now = bench.clock.now();
    let active = bench.authorities.active().expect("there is always an active authority");
    assert!(active.validity().contains(now), "the active authority is valid");
    assert!(bench.trusted().contains(&bench.active()), "an authority signs only once it is in the bundle");
    let bundles = X509Bundles::from(bench.bundle().x509_bundle());
    let svid = bench.authorities.identity().svid().expect("the server has an SVID");
    assert!(svid.expires_at() <= active.validity().not_after, "no SVID outlives its authority");
    verify_x509_svid(svid.chain(), &bundles, now).expect("the server's own SVID is trusted");
    assert_eq!(*bench.authorities.bundles().load(), bundles, "the listener trusts what the bundle says");
    assert_eq!(bench.authorities.server_svid()[0].expires_at, svid.expires_at());
}

#[tokio::test]
async fn a_first_start_has_one_authority_that_signs() {
    let bench = Bench::new().await;
    check(&bench);
    assert_eq!(bench.trusted(), [bench.active()]);
    assert_eq!((bench.prepared(), bench.bundle().sequence), (None, 1));
    let validity = bench.authorities.active().unwrap().validity();
    assert_eq!(validity, Validity { not_before: NOW - 10, not_after: NOW + CA_TTL_SECS });
}

#[tokio::test]
async fn the_next_authority_is_in_the_bundle_long_before_it_signs() {
    let bench = Bench::new().await;
    let first = bench.active();
    bench.at(CA_TTL_SECS / 2).await;
    assert_eq!(
        (bench.prepared(), bench.trusted().len()),
        (None, 1),
        "up to half of its life nothing happens"
    );
    bench.at(CA_TTL_SECS / 2 + 1).await;
    let next = bench.prepared().unwrap();
    assert_eq!(bench.trusted(), [first.clone(), next.clone()]);
    assert_eq!((bench.active(), bench.bundle().sequence), (first.clone(), 2));
    bench.at(CA_TTL_SECS * 5 / 6).await;
    assert_eq!(bench.active(), first, "a sixth of its life before the end it still signs");
    bench.at(CA_TTL_SECS * 5 / 6 + 1).await;
    assert_eq!((bench.active(), bench.prepared()), (next.clone(), None));
    assert_eq!(bench.trusted(), [first, next], "what the old one signed is still good");
    check(&bench);
}

#[tokio::test]
async fn a_prepared_authority_waits_for_every_connected_agent() {
    let bench = Bench::new().await;
    let first = bench.active();
    let (one, two) = (bench.connect(), bench.connect());
    // Asked so late that both steps are due: it prepares, and may not activate yet.
    let due = CA_TTL_SECS * 5 / 6 + 1;
    let wait = bench.at(due).await;
    assert_eq!(wait, NOW + due + 1, "it looks again soon");
    let revision = bench.directory.view().revision;
    assert!(bench.prepared().is_some());
    one.subscription.acknowledge(revision);
    bench.at(due + PUBLISH_WAIT_SECS).await;
    assert_eq!(bench.active(), first);
    two.subscription.acknowledge(revision - 1);
    bench.at(due + PUBLISH_WAIT_SECS + 1).await;
    assert_eq!(bench.active(), first, "an older revision is not enough");
    two.subscription.acknowledge(revision);
    bench.at(due + PUBLISH_WAIT_SECS + 2).await;
    assert_ne!(bench.active(), first);
    check(&bench);
}

#[tokio::test]
async fn agents_that_only_poll_have_a_round_before_a_new_authority_signs() {
    let due = CA_TTL_SECS * 5 / 6 + 1;
    let bench = Bench::new().await;
    let first = bench.active();
    bench.at(due).await;
    assert!(bench.prepared().is_some());
    bench.at(due + PUBLISH_WAIT_SECS - 1).await;
    assert_eq!(bench.active(), first, "nobody is connected, and somebody may poll");
    // Those who polled before the restart need not be those who poll after it.
    let keys = bench.keys.clone();
    let bench = bench.restarted(keys).await;
    bench.at(due + 2 * PUBLISH_WAIT_SECS - 2).await;
    assert_eq!(bench.active(), first);
    bench.at(due + 2 * PUBLISH_WAIT_SECS - 1).await;
    assert_ne!(bench.active(), first);
    check(&bench);
}

#[tokio::test]
async fn an_agent_that_leaves_or_never_answers_holds_nothing_up_for_long() {
    let due = CA_TTL_SECS * 5 / 6 + 1;
    let bench = Bench::new().await;
    let first = bench.active();
    let agent = bench.connect();
    bench.at(due).await;
    drop(agent);
    bench.at(due + PUBLISH_WAIT_SECS).await;
    assert_ne!(bench.active(), first, "nobody is connected any more");

    let bench = Bench::new().await;
    let (first, _silent) = (bench.active(), bench.connect());
    bench.at(due).await;
    bench.at(due + PUBLISH_GRACE_SECS - 1).await;
    assert_eq!(bench.active(), first);
    bench.at(due + PUBLISH_GRACE_SECS).await;
    assert_ne!(bench.active(), first, "the grace is over");
}

#[tokio::test]
async fn an_authority_that_has_ended_is_replaced_at_once() {
    let bench = Bench::new().await;
    let (first, _silent) = (bench.active(), bench.connect());
    bench.at(CA_TTL_SECS + 1).await;
    assert_ne!(bench.active(), first);
    check(&bench);
}

#[tokio::test]
async fn a_prepared_authority_takes_over_by_force_when_the_active_one_ends() {
    let bench = Bench::with(60, Arc::new(MemoryKeys::new())).await;
    let (first, _silent) = (bench.active(), bench.connect());
    bench.at(31).await;
    let next = bench.prepared().unwrap();
    bench.at(59).await;
    assert_eq!(bench.active(), first, "28 seconds of grace have passed");
    bench.at(60).await;
    assert_eq!(bench.active(), next);
}

#[tokio::test]
async fn rotation_goes_on_for_ten_lifetimes() {
    let bench = Bench::new().await;
    let (mut seen, mut trusted) = (vec![bench.active()], bench.trusted());
    let mut sequence = bench.bundle().sequence;
    loop {
        let wait = bench.authorities.advance().await.unwrap();
        let now = bench.clock.now();
        check(&bench);
        if bench.active() != *seen.last().unwrap() {
            assert!(trusted.contains(&bench.active()), "it was in the bundle at the step before");
            seen.push(bench.active());
        }
        if bench.trusted() != trusted {
            sequence += 1;
            trusted = bench.trusted();
            assert!(trusted.len() <= 4, "ended authorities leave the bundle: {trusted:?}");
        }
        assert_eq!(bench.bundle().sequence, sequence, "the number grows by one with each change");
        assert!(wait > now && wait <= now + CHECK_SECS_MAX);
        if now > NOW + 10 * CA_TTL_SECS {
            break;
        }
        // Half an hour at a time is sparse enough to be quick and dense enough to meet every threshold.
        bench.clock.set(now + 1800);
    }
    // Each is made at half of the life of the one before, at the latest half an hour after.
    assert_eq!(seen.len(), 19, "{seen:?}");
    let journal = bench.directory.view().journal().unwrap().authorities.len();
    assert!(journal <= spindle_ca::journal::JOURNAL_ENTRIES_MAX, "{journal}");
}

#[tokio::test]
async fn the_servers_own_svid_is_replaced_at_half_of_its_life() {
    let bench = Bench::new().await;
    let serial = || bench.authorities.identity().svid().unwrap().serial_decimal();
    let first = serial();
    bench.at(SVID_TTL_SECS / 2 - 1).await;
    assert_eq!(serial(), first);
    bench.at(SVID_TTL_SECS / 2).await;
    assert_ne!(serial(), first);
    check(&bench);
}

#[tokio::test]
async fn the_servers_own_svid_has_the_lifetime_that_holds_when_it_is_renewed() {
    let bench = Bench::new().await;
    let live = &bench.authorities.settings.live;
    let settings = crate::live::Reloadable::clone(&live.load());
    live.replace(crate::live::Reloadable { default_x509_svid_ttl_secs: 600, ..settings });
    bench.at(SVID_TTL_SECS / 2).await;
    let svid = bench.authorities.identity().svid().unwrap();
    assert_eq!(svid.expires_at(), bench.clock.now() + 600);
}

#[tokio::test]
async fn a_restart_with_the_keys_goes_on_with_the_same_authority() {
    let folder = TestFolder::new();
    let open = || Arc::new(DiskKeys::open(folder.join("keys.json")).unwrap());
    let bench = Bench::with(CA_TTL_SECS, open()).await;
    let (first, sequence) = (bench.active(), bench.bundle().sequence);
    let bench = bench.restarted(open()).await;
    assert_eq!((bench.active(), bench.bundle().sequence), (first.clone(), sequence));
    bench.at(CA_TTL_SECS / 2 + 1).await;
    let next = bench.prepared().unwrap();
    let bench = bench.restarted(open()).await;
    assert_eq!((bench.active(), bench.prepared()), (first, Some(next.clone())), "a prepared one is kept too");
    bench.at(CA_TTL_SECS * 5 / 6 + 1).await;
    assert_eq!(bench.active(), next);
    check(&bench);
}

#[tokio::test]
async fn a_restart_gives_agents_the_grace_anew() {
    let bench = Bench::new().await;
    let first = bench.active();
    let silent = bench.connect();
    let due = CA_TTL_SECS * 5 / 6 + 1;
    bench.at(due).await;
    drop(silent);
    let keys = bench.keys.clone();
    bench.clock.advance(PUBLISH_GRACE_SECS - 1);
    // The agent is connected before the first step after the restart, as one that was quick to come back.
    let Bench { clock, directory, .. } = bench;
    let subscriptions = Subscriptions::of(&directory);
    let authorities = authorities(&directory, &subscriptions, keys.clone(), &clock, CA_TTL_SECS);
    let bench = Bench { clock, directory, subscriptions, keys, authorities };
    let _silent = bench.connect();
    bench.authorities.start().await.unwrap();
    bench.at(due + 2 * PUBLISH_GRACE_SECS - 2).await;
    assert_eq!(bench.active(), first);
    bench.at(due + 2 * PUBLISH_GRACE_SECS - 1).await;
    assert_ne!(bench.active(), first);
}

#[tokio::test]
async fn a_restart_without_the_keys_makes_a_new_authority_and_keeps_trusting_the_old_one() {
    let bench = Bench::new().await;
    let first = bench.active();
    let bench = bench.restarted(Arc::new(MemoryKeys::new())).await;
    assert_ne!(bench.active(), first);
    assert_eq!(bench.trusted(), [first, bench.active()]);
    check(&bench);
}

#[tokio::test]
async fn a_clock_set_back_by_a_little_changes_nothing() {
    let bench = Bench::new().await;
    bench.at(CA_TTL_SECS / 2 + 1).await;
    let (active, prepared, trusted) = (bench.active(), bench.prepared(), bench.trusted());
    bench.at(1).await;
    assert_eq!((bench.active(), bench.prepared(), bench.trusted()), (active, prepared, trusted));
    check(&bench);
}

#[tokio::test]
async fn an_authority_that_a_clock_set_back_makes_invalid_is_replaced_until_the_clock_is_right_again() {
    let bench = Bench::new().await;
    let first = bench.active();
    bench.at(-CA_TTL_SECS - 3600).await;
    let second = bench.active();
    assert_ne!(second, first);
    check(&bench);
    bench.at(60).await;
    assert_eq!(bench.active(), first, "it is the one that agents know");
    assert_eq!(bench.trusted(), [first, second], "what the other one signed is still good");
    check(&bench);
}

#[tokio::test]
async fn after_a_jump_forward_and_back_the_authority_from_before_signs_again() {
    let bench = Bench::new().await;
    let first = bench.active();
    bench.at(CA_TTL_SECS + 3600).await;
    assert_ne!(bench.active(), first);
    check(&bench);
    bench.at(60).await;
    assert_eq!(bench.active(), first);
    check(&bench);
}

#[tokio::test]
async fn after_a_jump_so_far_that_the_old_authority_left_the_bundle_a_new_one_is_made() {
    let bench = Bench::new().await;
    let first = bench.active();
    bench.at(30 * CA_TTL_SECS).await;
    let second = bench.active();
    assert_eq!(bench.trusted(), [second.as_str()]);
    bench.at(60).await;
    assert!(![first, second].contains(&bench.active()));
    check(&bench);
}

#[tokio::test]
async fn a_restart_by_a_late_clock_costs_no_authority() {
    let folder = TestFolder::new();
    let open = || Arc::new(DiskKeys::open(folder.join("keys.json")).unwrap());
    let bench = Bench::with(CA_TTL_SECS, open()).await;
    let first = bench.active();
    bench.clock.set(NOW - 3 * CA_TTL_SECS);
    let bench = bench.restarted(open()).await;
    let second = bench.active();
    assert_ne!(second, first);
    check(&bench);
    let bench = bench.restarted(open()).await;
    assert_eq!(bench.active(), second, "one replacement is enough");
    bench.at(60).await;
    assert_eq!(bench.active(), first);
    check(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_rest_is_short_however_far_the_clock_was_set_back() {
    let bench = Bench::new().await;
    let until = bench.clock.now() + 1;
    bench.clock.set(NOW - 30 * CA_TTL_SECS);
    let rested = tokio::time::timeout(2 * REST_MAX, bench.authorities.rotation.rest(until)).await;
    assert!(rested.is_ok(), "it would have slept for a month");
}

#[tokio::test]
async fn a_store_that_fails_leaves_the_active_authority_signing() {
    let bench = Bench::new().await;
    let first = bench.active();
    bench.directory.close();
    bench.clock.set(NOW + CA_TTL_SECS / 2 + 1);
    let error = bench.authorities.advance().await.expect_err("the store is closed");
    assert!(error.to_string().contains("the store is closed"), "{error}");
    assert_eq!((bench.active(), bench.prepared(), bench.trusted()), (first.clone(), None, vec![first]));
}
