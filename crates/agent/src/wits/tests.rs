//! The keeper in virtual time: who is signed for, renewal, failure, and the end.

use std::sync::Arc;

use spindle_keys::{Key, KeyType};
use spindle_renewal::RenewalPolicy;
use spindle_runtime::{Shutdown, TaskSet};
use spindle_spiffe_core::{RegistrationEntry, Timestamp, Validity};
use spindle_testkit::TestWitAuthority;
use tonic::Status;
use zeroize::Zeroizing;

use super::*;
use crate::cache::Change;
use crate::fixtures::{Authority, FakeWitIssuer, ManualClock, NOW, entry, selectors, trust_domain};

/// A keeper at work on a cache that the test fills.
struct Bench {
    cache: Arc<Cache>,
    ca: Authority,
    issuer: Arc<FakeWitIssuer>,
    source: WitSource,
    clock: ManualClock,
    _tasks: TaskSet,
}

impl Bench {
    fn new(entries: Vec<RegistrationEntry>) -> Self {
        Self::renewing(RenewalPolicy::default(), entries)
    }

    fn renewing(policy: RenewalPolicy, entries: Vec<RegistrationEntry>) -> Self {
        let (cache, clock) = (Arc::new(Cache::new(trust_domain())), ManualClock::default());
        let issuer = Arc::new(FakeWitIssuer::default());
        let (source, keeper) = issuer.source_by(policy, &cache, &clock);
        let mut tasks = TaskSet::new();
        tasks.spawn_infallible("wits", keeper.run(Shutdown::new()));
        let bench = Self { cache, ca: Authority::new(&trust_domain()), issuer, source, clock, _tasks: tasks };
        bench.publish(entries);
        bench
    }

    /// These entries, signed, and the bundle with the issuer's authority.
    fn publish(&self, entries: Vec<RegistrationEntry>) {
        let put = entries.into_iter().map(|entry| self.ca.identity(&self.cache, entry)).collect();
        let mut own = self.ca.whole();
        self.issuer.add_to(&mut own);
        self.cache.publish(Change { put, own_bundle: Some(own), synced: true, ..Change::default() });
    }

    /// Moves the clock, and has the keeper look at it.
    fn set(&self, now: Timestamp) {
        self.clock.set(now);
        self.cache.publish(Change::default());
    }

    fn want(&self, ids: &[&str]) -> Wants {
        let mut wants = self.source.want();
        wants.set(ids.iter().map(|id| id.parse().unwrap()).collect());
        wants
    }

    fn state(&self, id: &str) -> Result<Arc<HeldWit>, Unready> {
        let shown = self.source.shown(&selectors(&["unix:uid:1"]), None);
        let one = shown.into_iter().find(|one| one.matched.entry.id.as_str() == id);
        one.map_or(Err(Unready::Failed("no such entry".into())), |one| one.state)
    }

    /// Waits until the state of that entry is as wanted.
    async fn until(
        &self,
        id: &str,
        is: impl Fn(&Result<Arc<HeldWit>, Unready>) -> bool,
    ) -> Result<Arc<HeldWit>, Unready> {
        let mut changes = self.source.changes();
        loop {
            changes.borrow_and_update();
            let state = self.state(id);
            if is(&state) {
                return state;
            }
            changes.changed().await.unwrap();
        }
    }

    async fn held(&self, id: &str) -> Arc<HeldWit> {
        self.until(id, Result::is_ok).await.unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.issuer.asked.borrow().clone()
    }
}

fn one(id: &str) -> RegistrationEntry {
    entry(id, &["unix:uid:1"])
}

#[tokio::test]
async fn nothing_is_signed_that_nobody_wants() {
    let bench = Bench::new(vec![one("a"), one("b")]);
    let _wants = bench.want(&["b"]);
    bench.held("b").await;
    assert_eq!(bench.asked(), ["b"]);
    assert_eq!(bench.state("a").unwrap_err(), Unready::Signing, "it would be signed if somebody wanted it");
}

#[tokio::test]
async fn entries_that_are_signed_on_demand_alone_are_demanded_by_a_stream() {
    let bench = Bench::new(vec![RegistrationEntry { disable_x509_svid_prefetch: true, ..one("a") }]);
    let _wants = bench.want(&["a"]);
    bench.held("a").await;
}

#[tokio::test]
async fn a_wit_svid_is_renewed_at_half_of_its_life_while_it_is_wanted() {
    let bench = Bench::new(vec![one("a")]);
    let wants = bench.want(&["a"]);
    let first = bench.held("a").await;
    bench.set(NOW + 3600 * 4 / 10);
    assert_eq!(bench.state("a").unwrap().number, first.number, "too early by any jitter");
    bench.set(NOW + 3600 * 6 / 10);
    let second = bench.until("a", |state| state.as_ref().is_ok_and(|held| held.number != first.number)).await;
    assert_ne!(second.unwrap().key_jwk, first.key_jwk, "with a new key");
    drop(wants);
    bench.set(NOW + 3600 * 2);
    bench.until("a", Result::is_err).await.unwrap_err();
    assert_eq!(bench.asked().len(), 2, "nobody wants it any more");
}

#[tokio::test]
async fn a_wit_svid_is_renewed_when_less_than_the_availability_target_is_left_of_it() {
    let hour = 3600;
    let policy = RenewalPolicy::with_availability_target(Some(Duration::from_secs(25 * 3600)));
    let bench = Bench::renewing(policy, vec![one("a")]);
    *bench.issuer.ttl_secs.lock().unwrap() = 40 * hour;
    let long = Validity { not_before: NOW, not_after: NOW + 100 * hour };
    *bench.issuer.authority.lock().unwrap() = TestWitAuthority::with_validity("prod.example", "w1", long);
    bench.publish(vec![]);
    let _wants = bench.want(&["a"]);
    let first = bench.held("a").await;
    bench.set(NOW + 14 * hour);
    assert_eq!(bench.state("a").unwrap().number, first.number, "more is left");
    // Half of its life is over at 18 hours at the earliest.
    bench.set(NOW + 15 * hour);
    bench.until("a", |state| state.as_ref().is_ok_and(|held| held.number != first.number)).await.unwrap();
}

#[tokio::test]
async fn the_first_wish_after_a_pause_is_served_from_what_is_held() {
    let bench = Bench::new(vec![one("a")]);
    drop(bench.want(&["a"]));
    let wants = bench.want(&["a"]);
    let first = bench.held("a").await;
    drop(wants);
    let _again = bench.want(&["a"]);
    assert_eq!(bench.held("a").await.number, first.number);
}

#[tokio::test]
async fn what_cannot_be_renewed_serves_to_its_end_and_no_longer() {
    let bench = Bench::new(vec![one("a")]);
    let _wants = bench.want(&["a"]);
    let first = bench.held("a").await;
    bench.issuer.refused.lock().unwrap().insert("a".parse().unwrap(), "no".into());
    bench.set(NOW + 3600 * 6 / 10);
    let mut asked = bench.issuer.asked.subscribe();
    asked.wait_for(|asked| asked.len() > 1).await.unwrap();
    assert_eq!(bench.state("a").unwrap().number, first.number);
    bench.set(NOW + 3600);
    let why = bench.until("a", Result::is_err).await.unwrap_err();
    assert!(matches!(why, Unready::Failed(_)), "{why:?}");
}

#[tokio::test]
async fn a_failed_call_is_made_again() {
    let bench = Bench::new(vec![one("a")]);
    bench.issuer.failures.lock().unwrap().push_back(Status::unavailable("away"));
    let _wants = bench.want(&["a"]);
    bench.held("a").await;
    assert_eq!(bench.asked(), ["a", "a"]);
}

#[tokio::test]
async fn an_entry_that_goes_takes_its_wit_svid_along_and_one_that_changes_its_identity_too() {
    let bench = Bench::new(vec![one("a"), one("b")]);
    let _wants = bench.want(&["a", "b"]);
    bench.held("a").await;
    let other = trust_domain().member("/other").unwrap();
    bench.issuer.ids.lock().unwrap().insert("b".parse().unwrap(), other.clone());
    bench.held("b").await;
    bench.cache.publish(Change { removed: vec!["a".parse().unwrap()], ..Change::default() });
    assert!(bench.state("a").is_err());
    bench.publish(vec![RegistrationEntry { spiffe_id: other.clone(), ..one("b") }]);
    let held = bench.until("b", |state| state.as_ref().is_ok_and(|held| held.spiffe_id == other)).await;
    assert_eq!(held.unwrap().spiffe_id, other);
    bench.publish(vec![one("a")]);
    bench.held("a").await;
    assert_eq!(bench.asked().iter().filter(|id| *id == "a").count(), 2, "it was forgotten");
}

#[tokio::test]
async fn what_a_revoked_authority_signed_is_not_shown_again_and_replaced() {
    let bench = Bench::new(vec![one("a")]);
    let _wants = bench.want(&["a"]);
    bench.held("a").await;
    bench.issuer.open.send_replace(false);
    *bench.issuer.authority.lock().unwrap() = TestWitAuthority::new("prod.example", "w2", NOW);
    bench.publish(vec![]);
    assert_eq!(bench.state("a").unwrap_err(), Unready::Signing, "peers refuse it from now on");
    bench.issuer.open.send_replace(true);
    bench.held("a").await;
}

#[tokio::test]
async fn a_replacement_that_is_refused_is_not_asked_for_again_at_once() {
    let bench = Bench::new(vec![one("a")]);
    let _wants = bench.want(&["a"]);
    let first = bench.held("a").await;
    bench.issuer.refused.lock().unwrap().insert("a".parse().unwrap(), "no".into());
    let mut own = bench.ca.whole();
    own.wit_authorities.push(bench.issuer.authority.lock().unwrap().authority().with_taint(true));
    bench.cache.publish(Change { own_bundle: Some(own), ..Change::default() });
    let mut asked = bench.issuer.asked.subscribe();
    asked.wait_for(|asked| asked.len() > 1).await.unwrap();
    for _ in 0..10 {
        bench.cache.publish(Change::default());
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.asked().len(), 2);
    assert_eq!(bench.state("a").unwrap().number, first.number, "a tainted authority is still trusted");
}

#[test]
fn an_answer_that_is_no_living_wit_svid_of_entry_and_key_is_refused_in_words() {
    let (key, other) = (Key::generate(KeyType::EcP256).unwrap(), Key::generate(KeyType::EcP384).unwrap());
    let another = Key::generate(KeyType::EcP256).unwrap();
    let authority = TestWitAuthority::new("prod.example", "w1", NOW);
    let id = one("a").spiffe_id;
    let life = Validity { not_before: NOW, not_after: NOW + 60 };
    let token = |id, key: &Key, algorithm| authority.sign(id, key.spki_der(), algorithm, life, 1).token;
    let received = |token: String, now| {
        HeldWit::received(1, &one("a"), &key, Zeroizing::new(token), now).map(|held| held.validity)
    };
    let good = token(&id, &key, "ES256");
    assert_eq!(received(good.clone(), NOW), Ok(Validity { not_before: NOW, not_after: NOW + 59 }));
    let check = |token: String, now, word: &str| {
        let why = received(token, now).expect_err(word);
        assert!(why.contains(word), "{why}");
    };
    check(good.clone(), NOW + 60, "ends at");
    let foreign = one("b").spiffe_id;
    check(token(&foreign, &key, "ES256"), NOW, "spiffe://prod.example/b");
    check(token(&id, &another, "ES256"), NOW, "another key");
    check(token(&id, &other, "ES384"), NOW, "another key");
    for bad in ["", "a.b", "e30.e30.c2ln", &format!("{good}.x")] {
        check(bad.to_owned(), NOW, "compact form");
    }
    check("e".repeat(64 * 1024 + 1), NOW, "bytes");
}
