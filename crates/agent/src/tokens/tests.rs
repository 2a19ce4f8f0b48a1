use std::collections::BTreeSet;

use spindle_proto::refusal::{come_back, refusal};
use spindle_spiffe_core::{Bundle, Reason, RegistrationEntry};
use spindle_testkit::TestJwtAuthority;
use tokio::time::{Instant, advance};
use tonic::{Code, Status};

use super::*;
use crate::cache::Change;
use crate::fixtures::{
    Authority, FakeIssuer, HIT_TIMEOUT, ManualClock, NOW, entry, selectors, signing, trust_domain,
};
use futures_util::FutureExt;

struct Rig {
    cache: Arc<Cache>,
    issuer: Arc<FakeIssuer>,
    clock: ManualClock,
    source: TokenSource,
}

fn mine(id: &str) -> RegistrationEntry {
    entry(id, &["unix:uid:1"])
}

/// A source whose agent is in step and has these entries.
fn rig(entries: impl IntoIterator<Item = RegistrationEntry>) -> Rig {
    let (cache, issuer, clock) =
        (Arc::new(Cache::new(trust_domain())), Arc::new(FakeIssuer::default()), ManualClock::default());
    let source = issuer.source(&cache, &clock);
    let rig = Rig { cache, issuer, clock, source };
    let own_bundle = rig.issuer.in_bundle(Authority::new(&trust_domain()).whole());
    let put = entries.into_iter().map(signing).collect();
    rig.cache.publish(Change { put, own_bundle: Some(own_bundle), synced: true, ..Change::default() });
    rig
}

fn audience(values: &[&str]) -> Audience {
    Audience::new(values.iter().map(|value| (*value).to_owned())).unwrap()
}

impl Rig {
    async fn fetch(&self, values: &[&str]) -> Result<Vec<Issued>, TokenError> {
        self.source.fetch(&selectors(&["unix:uid:1"]), None, &audience(values)).await
    }

    async fn token(&self, values: &[&str]) -> Arc<Token> {
        self.fetch(values).await.unwrap().remove(0).token
    }

    fn put(&self, entries: impl IntoIterator<Item = RegistrationEntry>) {
        let put = entries.into_iter().map(signing).collect();
        self.cache.publish(Change { put, ..Change::default() });
    }

    fn remove(&self, id: &str) {
        self.cache.publish(Change { removed: vec![id.parse().unwrap()], ..Change::default() });
    }

    fn set_bundle(&self, change: impl FnOnce(&mut Bundle)) {
        let mut bundle = Bundle::clone(&self.cache.snapshot().own_bundle().whole);
        change(&mut bundle);
        self.cache.publish(Change { own_bundle: Some(bundle), ..Change::default() });
    }

    fn fail(&self, failures: impl IntoIterator<Item = Status>) {
        self.issuer.failures.lock().unwrap().extend(failures);
    }

    /// Past half of a token's life, and its jitter.
    fn to_renewal(&self) {
        self.clock.advance(170);
    }
}

fn away() -> Status {
    Status::unavailable("away")
}

#[tokio::test]
async fn wap_41_every_identity_gets_its_token_in_the_order_of_entry_ids() {
    let rig = rig([mine("c"), mine("a"), entry("other", &["unix:uid:2"]), mine("b")]);
    let issued = rig.fetch(&["x"]).await.unwrap();
    let ids: Vec<&str> = issued.iter().map(|one| one.entry.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    for one in &issued {
        assert_eq!(*one.token.spiffe_id(), one.entry.spiffe_id);
    }
}

#[tokio::test]
async fn wap_42_wap_47_only_the_identity_asked_for_is_given_and_anothers_is_denied() {
    let rig = rig([mine("a"), mine("b"), entry("other", &["unix:uid:2"])]);
    let fetch = async |id: &str| {
        let id = trust_domain().member(id).unwrap();
        rig.source.fetch(&selectors(&["unix:uid:1"]), Some(&id), &audience(&["x"])).await
    };
    let issued = fetch("/b").await.unwrap();
    assert_eq!((issued.len(), issued[0].entry.id.as_str()), (1, "b"));
    for denied in ["/other", "/nobody"] {
        let error = fetch(denied).await.unwrap_err();
        assert_eq!(
            (error.status().code(), error.reason()),
            (Code::PermissionDenied, Reason::NoMatchingEntry)
        );
        assert_eq!(error.status().message(), "no identity issued");
    }
    assert_eq!(rig.issuer.calls(), 1, "the server is not asked for what is not given");
}

#[tokio::test]
async fn wap_43_without_an_identity_there_is_an_error_and_no_empty_answer() {
    let error = rig([entry("other", &["unix:uid:2"])]).fetch(&["x"]).await.unwrap_err();
    assert_eq!(error.status().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn before_the_first_sync_nobody_is_told_that_he_has_no_identity() {
    let (cache, issuer) = (Arc::new(Cache::new(trust_domain())), Arc::new(FakeIssuer::default()));
    let source = issuer.source(&cache, &ManualClock::default());
    let error = source.fetch(&selectors(&["unix:uid:1"]), None, &audience(&["x"])).await.unwrap_err();
    assert_eq!((error.status().code(), error.reason()), (Code::Unavailable, Reason::AgentStarting));
}

#[tokio::test]
async fn a_token_serves_until_half_of_its_life_and_is_then_replaced() {
    let rig = rig([mine("a")]);
    let first = rig.token(&["x"]).await;
    rig.clock.advance(130);
    assert!(Arc::ptr_eq(&first, &rig.token(&["x"]).await));
    assert_eq!(rig.issuer.calls(), 1);
    rig.clock.advance(40);
    let second = rig.token(&["x"]).await;
    assert!(second.expires_at() > first.expires_at());
    assert_eq!((rig.issuer.calls(), second.issued_at()), (2, NOW + 170));
}

#[tokio::test]
async fn wap_40_a_token_from_memory_is_of_exactly_the_audiences_asked_for() {
    let rig = rig([mine("a")]);
    let both = rig.token(&["x", "y"]).await;
    assert!(Arc::ptr_eq(&both, &rig.token(&["y", "x", "y"]).await), "an audience is a set");
    for other in [&["x"][..], &["y"], &["x", "y", "z"], &["X", "y"]] {
        assert!(!Arc::ptr_eq(&both, &rig.token(other).await), "{other:?}");
    }
    let asked: Vec<Vec<String>> =
        rig.issuer.asked.borrow().iter().map(|(_, audience)| audience.clone()).collect();
    assert_eq!(asked, [vec!["x", "y"], vec!["x"], vec!["y"], vec!["x", "y", "z"], vec!["X", "y"]]);
}

#[tokio::test]
async fn callers_who_wait_for_the_same_token_share_one_request() {
    let rig = rig([mine("a")]);
    rig.issuer.open.send_replace(false);
    let all = futures_util::future::join_all((0..50).map(|_| rig.fetch(&["x"])));
    let (tokens, ()) = tokio::join!(all, async {
        let mut asked = rig.issuer.asked.subscribe();
        asked.wait_for(|asked| !asked.is_empty()).await.unwrap();
        rig.issuer.open.send_replace(true);
    });
    let texts: BTreeSet<String> =
        tokens.iter().map(|one| one.as_ref().unwrap()[0].token.text().into()).collect();
    assert_eq!((texts.len(), rig.issuer.calls()), (1, 1));
}

#[tokio::test]
async fn a_request_outlives_the_caller_who_began_it_but_not_the_last_one() {
    let rig = rig([mine("a")]);
    rig.issuer.open.send_replace(false);
    let (mut first, mut second) = (Box::pin(rig.fetch(&["x"])), Box::pin(rig.fetch(&["x"])));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    drop(first);
    rig.issuer.open.send_replace(true);
    second.await.unwrap();
    assert_eq!(rig.issuer.calls(), 1);

    rig.issuer.open.send_replace(false);
    let mut last = Box::pin(rig.fetch(&["y"]));
    assert!((&mut last).now_or_never().is_none());
    assert_eq!(rig.source.0.room.available_permits(), WAITING_MAX - 1);
    drop(last);
    assert_eq!(rig.source.0.room.available_permits(), WAITING_MAX);
}

#[tokio::test]
async fn an_entry_with_jti_has_a_new_token_at_each_call() {
    let rig = rig([RegistrationEntry { jwt_svid_include_jti: true, ..mine("a") }]);
    let (first, second) = (rig.token(&["x"]).await, rig.token(&["x"]).await);
    assert_ne!(first.text(), second.text());
    let (third, fourth) = tokio::join!(rig.token(&["x"]), rig.token(&["x"]));
    assert_ne!(third.text(), fourth.text(), "not even at one time");
    assert_eq!((rig.issuer.calls(), rig.source.held()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn an_old_token_is_given_when_the_server_fails_and_the_next_try_waits_a_while() {
    let rig = rig([mine("a")]);
    let first = rig.token(&["x"]).await;
    rig.to_renewal();
    rig.fail([away()]);
    assert!(Arc::ptr_eq(&first, &rig.token(&["x"]).await));
    assert!(Arc::ptr_eq(&first, &rig.token(&["x"]).await));
    assert_eq!(rig.issuer.calls(), 2, "one failed try is enough for a while");
    rig.clock.advance(2);
    assert!(!Arc::ptr_eq(&first, &rig.token(&["x"]).await));
}

#[tokio::test(start_paused = true)]
async fn an_old_token_is_given_when_the_server_is_slow() {
    let rig = rig([mine("a")]);
    let first = rig.token(&["x"]).await;
    rig.to_renewal();
    rig.issuer.open.send_replace(false);
    let begin = Instant::now();
    assert!(Arc::ptr_eq(&first, &rig.token(&["x"]).await));
    assert_eq!(begin.elapsed(), HIT_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_token_is_not_given_in_the_second_in_which_it_ends() {
    let rig = rig([mine("a")]);
    let first = rig.token(&["x"]).await;
    rig.clock.set(first.expires_at());
    rig.fail(std::iter::repeat_n(away(), 100));
    let error = rig.fetch(&["x"]).await.unwrap_err();
    assert_eq!((error.status().code(), error.reason()), (Code::Unavailable, Reason::Unreachable));
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_tried_again_within_the_time_of_one_call() {
    let rig = rig([mine("a")]);
    rig.fail([away(), away()]);
    rig.token(&["x"]).await;
    assert_eq!(rig.issuer.calls(), 3);
    rig.fail(std::iter::repeat_n(away(), 100));
    let begin = Instant::now();
    let error = rig.fetch(&["y"]).await.unwrap_err();
    assert!(begin.elapsed() <= crate::server::CALL_TIMEOUT, "{:?}", begin.elapsed());
    assert_eq!(error.to_string(), "could not fetch JWT-SVID: away");
    assert!((4..20).contains(&(rig.issuer.calls() - 3)), "{}", rig.issuer.calls());
}

#[tokio::test(start_paused = true)]
async fn the_pause_that_the_server_asks_for_is_kept() {
    let rig = rig([mine("a")]);
    rig.fail([come_back("busy", Duration::from_secs(12))]);
    let begin = Instant::now();
    rig.token(&["x"]).await;
    assert_eq!(begin.elapsed(), Duration::from_secs(12));
    rig.fail([come_back("busy", Duration::from_secs(60))]);
    let begin = Instant::now();
    let error = rig.fetch(&["y"]).await.unwrap_err();
    assert_eq!((error.reason(), begin.elapsed()), (Reason::Overloaded, Duration::ZERO), "no use in waiting");
}

#[tokio::test]
async fn a_refusal_by_the_server_is_told_at_once_and_is_unavailable_with_its_reason() {
    let rig = rig([mine("a")]);
    rig.fail([refusal(Code::Unimplemented, Reason::JwtSvidsDisabled, "JWT functionality is disabled")]);
    let error = rig.fetch(&["x"]).await.unwrap_err();
    assert_eq!((error.status().code(), error.reason()), (Code::Unavailable, Reason::JwtSvidsDisabled));
    assert_eq!(rig.issuer.calls(), 1);
}

#[tokio::test]
async fn tokens_of_a_key_that_is_tainted_or_gone_are_not_given_any_more() {
    let rig = rig([mine("a")]);
    let first = rig.token(&["x"]).await;
    rig.set_bundle(|bundle| bundle.jwt_authorities[0] = bundle.jwt_authorities[0].clone().with_taint(true));
    assert_eq!(rig.source.held(), 0);
    let next = TestJwtAuthority::new("prod.example", "k2", NOW);
    rig.set_bundle(|bundle| bundle.jwt_authorities.push(next.authority()));
    *rig.issuer.authority.lock().unwrap() = next;
    let second = rig.token(&["x"]).await;
    assert_eq!((first.kid(), second.kid()), (Some("k1"), Some("k2")));
    assert!(Arc::ptr_eq(&second, &rig.token(&["x"]).await));
    rig.set_bundle(|bundle| bundle.jwt_authorities.clear());
    assert!(!Arc::ptr_eq(&second, &rig.token(&["x"]).await));
}

#[tokio::test]
async fn tokens_of_entries_that_are_gone_or_changed_are_not_given_any_more() {
    let twin = || RegistrationEntry { spiffe_id: mine("a").spiffe_id, ..mine("twin") };
    let rig = rig([mine("a")]);
    rig.issuer.ids.lock().unwrap().insert(twin().id, twin().spiffe_id);
    let first = rig.token(&["x"]).await;
    rig.put([twin()]);
    assert!(
        rig.fetch(&["x"]).await.unwrap().iter().all(|one| Arc::ptr_eq(&one.token, &first)),
        "one identity"
    );
    rig.remove("a");
    let second = rig.token(&["x"]).await;
    assert!(!Arc::ptr_eq(&first, &second), "the entry it was signed for is gone");
    rig.put([RegistrationEntry { jwt_svid_ttl_secs: 60, ..twin() }]);
    assert!(!Arc::ptr_eq(&second, &rig.token(&["x"]).await), "it has another lifetime now");
}

#[tokio::test]
async fn wap_82_an_entry_that_goes_while_its_token_is_signed_gets_none() {
    let rig = rig([mine("a"), mine("b")]);
    rig.issuer.open.send_replace(false);
    let (issued, ()) = tokio::join!(rig.fetch(&["x"]), async {
        let mut asked = rig.issuer.asked.subscribe();
        asked.wait_for(|asked| asked.len() == 2).await.unwrap();
        rig.remove("a");
        rig.issuer.open.send_replace(true);
    });
    let issued = issued.unwrap();
    assert_eq!((issued.len(), issued[0].entry.id.as_str()), (1, "b"));
}

#[tokio::test]
async fn the_token_used_longest_ago_makes_room() {
    let rig = rig([mine("a")]);
    for service in ["1", "2", "3", "4"] {
        rig.token(&[service]).await;
    }
    rig.token(&["1"]).await;
    rig.token(&["5"]).await;
    assert_eq!((rig.source.held(), rig.issuer.calls()), (4, 5));
    rig.token(&["1"]).await;
    assert_eq!(rig.issuer.calls(), 5);
    rig.token(&["2"]).await;
    assert_eq!(rig.issuer.calls(), 6);
}

#[tokio::test(start_paused = true)]
async fn too_many_that_wait_are_turned_away_and_the_others_get_theirs() {
    let rig = rig([mine("a")]);
    rig.issuer.open.send_replace(false);
    let values: Vec<String> = (0..=WAITING_MAX).map(|number| number.to_string()).collect();
    let mut waiting: Vec<_> =
        values.iter().map(|value| Box::pin(async { rig.fetch(&[value]).await })).collect();
    let mut last = waiting.pop().unwrap();
    assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
    let error = (&mut last).await.unwrap_err();
    assert_eq!((error.status().code(), error.reason()), (Code::Unavailable, Reason::Overloaded));
    assert_eq!(rig.issuer.calls(), CALLS_MAX, "the rest waits here and not at the server");
    rig.issuer.open.send_replace(true);
    advance(Duration::from_millis(1)).await;
    assert!(futures_util::future::join_all(waiting).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn hints_are_those_of_all_identities_also_when_one_is_asked_for() {
    let hinted = |id: &str, age_secs: i64| RegistrationEntry {
        hint: "web".parse().unwrap(),
        created_at: NOW - age_secs,
        ..mine(id)
    };
    let rig = rig([hinted("a", 0), hinted("b", 5)]);
    let hints =
        |issued: Vec<Issued>| issued.iter().map(|one| one.hint.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(hints(rig.fetch(&["x"]).await.unwrap()), ["", "web"], "wap_45");
    let id = mine("a").spiffe_id;
    let one = rig.source.fetch(&selectors(&["unix:uid:1"]), Some(&id), &audience(&["x"])).await;
    assert_eq!(hints(one.unwrap()), [""]);
}
