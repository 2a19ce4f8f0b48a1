//! Rotation of authorities that sign tokens, by the example of JWT authorities, in virtual time, restarts, and what operators do in between.

use futures_util::FutureExt;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::Value;
use spindle_ca::{Family, Jwt, JwtSvidRequest, SignedToken};
use spindle_keys::{DiskKeys, MemoryKeys};
use spindle_proto::convert::GivenAuthorities;
use spindle_spiffe_core::{Audience, Bundle, Entropy, JwtAuthority, Reason};
use spindle_testkit::{ManualClock, NOW, SeededEntropy, TestFolder};
use tonic::Code;

use super::operations::{AuthorityState, TokenAuthorityError, TokenOrder};
use super::*;
use crate::authorities::rotation::{PUBLISH_GRACE_SECS, PUBLISH_WAIT_SECS};
use crate::directory::CommitError;
use crate::fixtures::{authorities, directory, id, jwt_authorities, selectors, trust_domain};
use crate::subscriptions::Subscribed;

mod orders;

const TTL_SECS: i64 = 24 * 3600;

impl<F: TokenFamily> TokenAuthorities<F> {
    /// Carries out what is due; returns when to ask again.
    async fn advance(&self) -> Result<Timestamp, AuthoritiesError> {
        rotation::advance(self).await
    }
}

/// JWT authorities on a memory store, and what drives them.
struct Bench {
    clock: ManualClock,
    directory: Directory,
    subscriptions: Subscriptions,
    keys: Arc<dyn KeyManager>,
    authorities: Arc<TokenAuthorities<Jwt>>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(Arc::new(MemoryKeys::new())).await
    }

    async fn with(keys: Arc<dyn KeyManager>) -> Self {
        Self::on(ManualClock::default(), directory(), keys).await
    }

    async fn on(clock: ManualClock, directory: Directory, keys: Arc<dyn KeyManager>) -> Self {
        let subscriptions = Subscriptions::of(&directory);
        let authorities = jwt_authorities(&directory, &subscriptions, keys.clone(), &clock, TTL_SECS);
        authorities.start().await.unwrap();
        Self { clock, directory, subscriptions, keys, authorities }
    }

    /// The same store and clock after a restart, with these keys.
    async fn restarted(self, keys: Arc<dyn KeyManager>) -> Self {
        Self::on(self.clock, self.directory, keys).await
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
        self.authorities.state().unwrap().prepared.map(|state| state.authority_id)
    }

    fn old(&self) -> Option<String> {
        self.authorities.state().unwrap().old.map(|state| state.authority_id)
    }

    fn bundle(&self) -> Bundle {
        bundles::own(&self.directory.view(), &trust_domain())
    }

    /// Key IDs in the bundle, oldest first.
    fn published(&self) -> Vec<String> {
        self.bundle().jwt_authorities.iter().map(|authority| authority.kid().to_owned()).collect()
    }

    /// A connected agent that has acknowledged nothing.
    fn connect(&self) -> Subscribed {
        self.subscriptions.add(id("/spire/agent/x/1"), selectors(&[]))
    }

    /// What an operator orders, and what comes of it.
    async fn order(&self, order: TokenOrder) -> Result<AuthorityState, TokenAuthorityError> {
        self.authorities.execute(order).await
    }

    fn sign(&self, ttl_secs: i64) -> SignedToken {
        let (spiffe_id, audience) = (id("/web"), Audience::new(["db".to_owned()]).unwrap());
        let issued_at = self.clock.now();
        let request = JwtSvidRequest {
            spiffe_id: &spiffe_id,
            audience: &audience,
            issued_at,
            expires_at: issued_at + ttl_secs,
            issuer: None,
            token_id: None,
        };
        self.authorities.active().unwrap().sign_jwt_svid(&request).unwrap()
    }

    /// Lets the next authority take over by hand; returns the one before.
    async fn replace_by_hand(&self) -> String {
        let before = self.active();
        let next = self.order(TokenOrder::Prepare).await.unwrap();
        self.order(TokenOrder::Activate(next.authority_id.clone())).await.unwrap();
        before
    }
}

/// Whether that bundle vouches for the token; its lifetime is not looked at.
fn is_trusted(bundle: &Bundle, token: &str) -> bool {
    let header = decode_header(token).unwrap();
    let Some(authority) = bundle.jwt_authority(&header.kid.unwrap()) else { return false };
    let jwk = serde_json::to_value(authority.key().to_jwk()).unwrap();
    let key = DecodingKey::from_jwk(&serde_json::from_value(jwk).unwrap()).unwrap();
    let mut validation = Validation::new(header.alg);
    validation.validate_exp = false;
    validation.set_audience(&["db"]);
    decode::<Value>(token, &key, &validation).is_ok()
}

/// What must hold at every moment.
fn check(bench: &Bench) {
    let now = bench.clock.now();
    let active = bench.authorities.active().expect("there is always an active authority");
    assert!(active.validity().contains(now), "the active authority is valid");
    let published = bench.bundle().jwt_authority(active.authority_id()).cloned();
    let published = published.expect("an authority signs only once it is in the bundle");
    assert_eq!(published.expires_at(), Some(active.validity().not_after), "and with its end");
    bench.bundle().check().unwrap();
    if now < active.validity().not_after {
        let token = bench.sign(300);
        assert!(is_trusted(&bench.bundle(), &token.token));
        assert!(token.expires_at <= active.validity().not_after, "no token outlives its key");
    }
}

#[tokio::test]
async fn a_first_start_has_one_authority_that_signs() {
    let bench = Bench::new().await;
    check(&bench);
    assert_eq!(bench.published(), [bench.active()]);
    assert_eq!((bench.prepared(), bench.old()), (None, None));
    let kid = bench.active();
    assert!(kid.len() == 32 && kid.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{kid}");
    assert!(bench.keys.get("JWT-Signer-A").is_some() && bench.keys.get("JWT-Signer-B").is_none());
    let state = bench.authorities.state().unwrap();
    assert_eq!(state.active.expires_at, Some(NOW + TTL_SECS));
}

#[tokio::test]
async fn the_next_key_is_in_the_bundle_long_before_it_signs() {
    let bench = Bench::new().await;
    let first = bench.active();
    bench.at(TTL_SECS / 2).await;
    assert_eq!(
        (bench.prepared(), bench.published().len()),
        (None, 1),
        "up to half of its life nothing happens"
    );
    bench.at(TTL_SECS / 2 + 1).await;
    let next = bench.prepared().unwrap();
    assert_eq!(bench.published(), [first.clone(), next.clone()]);
    bench.at(TTL_SECS * 5 / 6).await;
    assert_eq!(bench.active(), first, "a sixth of its life before the end it still signs");
    bench.at(TTL_SECS * 5 / 6 + 1).await;
    assert_eq!((bench.active(), bench.old()), (next.clone(), Some(first.clone())));
    assert_eq!(bench.published(), [first, next], "what the old one signed is still good");
    check(&bench);
}

#[tokio::test]
async fn a_prepared_key_waits_for_connected_agents_and_for_those_that_poll() {
    let due = TTL_SECS * 5 / 6 + 1;
    let bench = Bench::new().await;
    let (first, agent) = (bench.active(), bench.connect());
    bench.at(due).await;
    bench.at(due + PUBLISH_WAIT_SECS).await;
    assert_eq!(bench.active(), first, "the agent has not answered");
    agent.subscription.acknowledge(bench.directory.view().revision);
    bench.at(due + PUBLISH_WAIT_SECS).await;
    assert_ne!(bench.active(), first);

    let bench = Bench::new().await;
    let (first, _silent) = (bench.active(), bench.connect());
    bench.at(due).await;
    bench.at(due + PUBLISH_GRACE_SECS - 1).await;
    assert_eq!(bench.active(), first);
    bench.at(due + PUBLISH_GRACE_SECS).await;
    assert_ne!(bench.active(), first, "the grace is over");
}

/// Tokens of every length are signed on the way through ten lifetimes with restarts. Each is vouched for by the bundle at
/// every moment of its life.
#[tokio::test]
async fn a_token_is_trusted_at_every_moment_of_its_life() {
    let mut bench = Bench::new().await;
    // The bundle is pruned by the X.509 authorities, which live on the same store.
    let x509 = |bench: &Bench| {
        let (directory, subscriptions) = (&bench.directory, &bench.subscriptions);
        authorities(directory, subscriptions, Arc::new(MemoryKeys::new()), &bench.clock, TTL_SECS)
    };
    let mut pruner = x509(&bench);
    pruner.start().await.unwrap();
    let chance = SeededEntropy::new(7);
    let (mut tokens, mut signers, mut checked) = (Vec::new(), Vec::new(), 0_u64);
    while bench.clock.now() < NOW + 10 * TTL_SECS {
        bench.authorities.advance().await.unwrap();
        pruner.advance().await.unwrap();
        check(&bench);
        if signers.last() != Some(&bench.active()) {
            signers.push(bench.active());
        }
        let longest = 1 + i64::try_from(chance.number() % (2 * TTL_SECS).unsigned_abs()).unwrap();
        tokens.push(bench.sign(longest));
        bench.clock.advance(600 + i64::try_from(chance.number() % 3000).unwrap());
        let (now, bundle) = (bench.clock.now(), bench.bundle());
        tokens.retain(|token| now < token.expires_at);
        assert!(tokens.iter().all(|token| is_trusted(&bundle, &token.token)), "after {checked} looks");
        checked += tokens.len() as u64;
        assert!(bundle.jwt_authorities.len() <= 4, "ended keys leave the bundle: {:?}", bench.published());
        if chance.number().is_multiple_of(16) {
            let keys = bench.keys.clone();
            bench = bench.restarted(keys).await;
            pruner = x509(&bench);
            pruner.start().await.unwrap();
        }
    }
    assert!(signers.len() >= 15, "{signers:?}");
    assert!(checked > 1000, "{checked}");
    let journal = bench.directory.view().token_journal(Family::Jwt).unwrap().authorities.len();
    assert!(journal <= spindle_ca::journal::JOURNAL_ENTRIES_MAX, "{journal}");
}

#[tokio::test]
async fn a_restart_with_the_keys_goes_on_with_the_same_authorities() {
    let folder = TestFolder::new();
    let open = || Arc::new(DiskKeys::open(folder.join("keys.json")).unwrap());
    let bench = Bench::with(open()).await;
    let (first, bundle) = (bench.active(), bench.bundle());
    let token = bench.sign(300);
    let bench = bench.restarted(open()).await;
    assert_eq!((bench.active(), bench.bundle()), (first.clone(), bundle));
    assert!(is_trusted(&bench.bundle(), &token.token));
    bench.at(TTL_SECS / 2 + 1).await;
    let next = bench.prepared();
    let bench = bench.restarted(open()).await;
    assert_eq!((bench.active(), bench.prepared()), (first, next.clone()), "a prepared one is kept too");
    bench.at(TTL_SECS * 5 / 6 + 1).await;
    assert_eq!(Some(bench.active()), next);
    check(&bench);
}

#[tokio::test]
async fn a_restart_without_the_keys_makes_a_new_one_and_keeps_trusting_the_old_one() {
    let bench = Bench::new().await;
    let (first, token) = (bench.active(), bench.sign(300));
    let bench = bench.restarted(Arc::new(MemoryKeys::new())).await;
    assert_eq!(bench.published(), [first, bench.active()]);
    assert!(is_trusted(&bench.bundle(), &token.token));
    check(&bench);
}

#[tokio::test]
async fn a_key_that_is_not_in_the_bundle_any_more_does_not_sign_after_a_restart() {
    let bench = Bench::new().await;
    let first = bench.active();
    bundles::edit_own::<CommitError>(&bench.directory, &trust_domain(), Transaction::new(), |bundle| {
        bundle.jwt_authorities.clear();
        Ok(())
    })
    .await
    .unwrap();
    let keys = bench.keys.clone();
    let bench = bench.restarted(keys).await;
    assert_ne!(bench.active(), first);
    check(&bench);
}

#[tokio::test]
async fn prepared_keys_that_are_lost_at_restarts_do_not_pile_up_in_the_bundle() {
    let mut bench = Bench::new().await;
    bench.at(TTL_SECS / 2 + 1).await;
    for _ in 0..3 {
        bench = bench.restarted(Arc::new(MemoryKeys::new())).await;
        bench.order(TokenOrder::Prepare).await.unwrap();
    }
    // The first and those of the restarts have signed; of the others only the last prepared one is there.
    assert_eq!(bench.published().len(), 5, "{:?}", bench.published());
}

#[tokio::test]
async fn after_a_jump_of_the_clock_and_back_the_key_from_before_signs_again() {
    let bench = Bench::new().await;
    let first = bench.active();
    bench.at(TTL_SECS + 3600).await;
    assert_ne!(bench.active(), first);
    check(&bench);
    bench.at(60).await;
    assert_eq!(bench.active(), first);
    check(&bench);

    let bench = Bench::new().await;
    let first = bench.active();
    bench.at(-TTL_SECS - 3600).await;
    assert_ne!(bench.active(), first, "it is not valid yet");
    check(&bench);
    bench.at(90).await;
    assert_eq!(bench.active(), first);
    check(&bench);
}

#[tokio::test]
async fn a_store_that_fails_leaves_the_active_key_signing() {
    let bench = Bench::new().await;
    let first = bench.active();
    bench.directory.close();
    bench.clock.set(NOW + TTL_SECS / 2 + 1);
    bench.authorities.advance().await.expect_err("the store is closed");
    assert_eq!((bench.active(), bench.prepared(), bench.published()), (first.clone(), None, vec![first]));
    let error = bench.order(TokenOrder::Prepare).await.expect_err("the store is closed");
    assert_eq!((error.code(), error.reason()), (Code::Internal, Reason::StoreFailed));
}

#[tokio::test]
async fn x509_and_jwt_authorities_rotate_apart_on_one_store() {
    let bench = Bench::new().await;
    let x509 =
        authorities(&bench.directory, &bench.subscriptions, bench.keys.clone(), &bench.clock, 2 * TTL_SECS);
    x509.start().await.unwrap();
    let before = x509.active().unwrap().authority_id().to_owned();
    let first = bench.active();
    bench.clock.set(NOW + TTL_SECS + 1);
    let both = tokio::join!(x509.advance(), bench.authorities.advance());
    assert!(both.0.is_ok() && both.1.is_ok(), "{both:?}");
    assert_ne!(bench.active(), first);
    assert_eq!(x509.active().unwrap().authority_id(), before);
    let bundle = bench.bundle();
    assert_eq!((bundle.x509_authorities.len(), bundle.jwt_authorities.len()), (2, 2));
    assert_eq!(bundle.sequence, 4, "each publication counts");
}

#[tokio::test]
async fn a_key_from_below_leaves_the_bundle_a_day_after_its_end_also_without_jwt_svids() {
    let (clock, directory) = (ManualClock::default(), directory());
    let subscriptions = Subscriptions::of(&directory);
    let x509 = authorities(&directory, &subscriptions, Arc::new(MemoryKeys::new()), &clock, TTL_SECS);
    x509.start().await.unwrap();
    let key = spindle_keys::Key::generate(KeyType::EcP256).unwrap();
    let ends = [("short", Some(NOW + 60)), ("long", Some(NOW + 10 * TTL_SECS)), ("endless", None)];
    let keys = ends.map(|(kid, end)| JwtAuthority::new(kid, key.spki_der(), end, false).unwrap());
    let given = GivenAuthorities { jwt: keys.to_vec(), ..Default::default() };
    bundles::append_own(&directory, &trust_domain(), &given).await.unwrap();
    let left = || {
        let bundle = bundles::own(&directory.view(), &trust_domain());
        bundle.jwt_authorities.iter().map(|authority| authority.kid().to_owned()).collect::<Vec<_>>()
    };
    for (secs, expected) in [
        (60 + 24 * 3600 - 1, &["short", "long", "endless"][..]),
        (60 + 24 * 3600, &["long", "endless"]),
        (11 * TTL_SECS, &["endless"]),
    ] {
        clock.set(NOW + secs);
        x509.advance().await.unwrap();
        assert_eq!(left(), expected, "after {secs} s");
    }
}
