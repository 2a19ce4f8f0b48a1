//! What operators order, and what comes of it beside the rotation.

use super::*;

#[tokio::test]
async fn an_authority_prepared_by_hand_signs_when_it_is_activated_by_hand() {
    let bench = Bench::new().await;
    let first = bench.active();
    let _silent = bench.connect();
    let prepared = bench.order(TokenOrder::Prepare).await.unwrap();
    assert_eq!(prepared.expires_at, Some(NOW + TTL_SECS));
    assert_eq!((bench.active(), bench.prepared()), (first.clone(), Some(prepared.authority_id.clone())));
    assert_eq!(bench.published(), [first.clone(), prepared.authority_id.clone()]);
    let active = bench.order(TokenOrder::Activate(prepared.authority_id.clone())).await.unwrap();
    assert_eq!((active, bench.active()), (prepared.clone(), prepared.authority_id));
    assert_eq!((bench.prepared(), bench.old()), (None, Some(first)));
    check(&bench);
}

#[tokio::test]
async fn preparing_again_replaces_what_was_prepared() {
    let bench = Bench::new().await;
    let first = bench.active();
    bench.order(TokenOrder::Prepare).await.unwrap();
    let second = bench.order(TokenOrder::Prepare).await.unwrap().authority_id;
    assert_eq!(bench.prepared(), Some(second.clone()));
    assert_eq!(bench.published(), [first, second], "the other one never signed");
}

/// Lets the task run until `work` is done.
async fn while_running<T>(bench: &Bench, work: impl Future<Output = T>) -> T {
    let shutdown = Shutdown::new();
    let work = async {
        let outcome = work.await;
        shutdown.begin();
        outcome
    };
    tokio::join!(work, bench.authorities.clone().run(shutdown.clone())).0
}

#[tokio::test]
async fn what_operators_and_the_rotation_do_at_once_happens_one_after_the_other() {
    let bench = Bench::new().await;
    bench.clock.set(NOW + TTL_SECS / 2 + 1);
    let authorities = &bench.authorities;
    let orders = async {
        tokio::join!(authorities.order(TokenOrder::Prepare), authorities.order(TokenOrder::Prepare))
    };
    let (one, another) = while_running(&bench, orders).await;
    assert_ne!(one.unwrap().authority_id, another.as_ref().unwrap().authority_id);
    assert_eq!(bench.prepared(), Some(another.unwrap().authority_id));
    assert_eq!(bench.published().len(), 2, "those that never signed left again");
    check(&bench);
}

#[tokio::test]
async fn an_order_is_carried_out_to_its_end_when_whoever_placed_it_has_gone() {
    let bench = Bench::new().await;
    assert!(bench.authorities.order(TokenOrder::Prepare).now_or_never().is_none(), "it was placed and left");
    let next = async { bench.authorities.order(TokenOrder::Activate("none".into())).await };
    assert!(while_running(&bench, next).await.is_err());
    assert_eq!(bench.published().last(), bench.prepared().as_ref());
    assert!(bench.prepared().is_some());
}

#[tokio::test]
async fn orders_that_pile_up_and_those_at_the_end_are_refused() {
    let bench = Bench::new().await;
    let authorities = &bench.authorities;
    let place = || authorities.order(TokenOrder::Taint("none".into())).now_or_never();
    while place().is_none() {}
    let busy = place().unwrap().unwrap_err();
    assert_eq!((busy.code(), busy.reason()), (Code::ResourceExhausted, Reason::Overloaded));
    while_running(&bench, async {}).await;
    let stopping = place().unwrap().unwrap_err();
    assert_eq!((stopping.code(), stopping.reason()), (Code::Unavailable, Reason::ServerStopping));
}

#[tokio::test]
async fn a_tainted_key_is_flagged_and_a_revoked_one_is_trusted_no_more() {
    let bench = Bench::new().await;
    let token = bench.sign(300);
    let first = bench.replace_by_hand().await;
    let sequence = bench.bundle().sequence;
    let tainted = bench.order(TokenOrder::Taint(first.clone())).await.unwrap();
    assert_eq!((tainted.authority_id.as_str(), tainted.expires_at), (first.as_str(), Some(NOW + TTL_SECS)));
    assert!(bench.bundle().jwt_authority(&first).unwrap().is_tainted());
    assert!(is_trusted(&bench.bundle(), &token.token), "still trusted until it is revoked");
    assert_eq!(bench.bundle().sequence, sequence + 1);
    let keys = bench.keys.clone();
    let bench = bench.restarted(keys).await;
    assert!(bench.bundle().jwt_authority(&first).unwrap().is_tainted(), "a restart changes nothing");
    let revoked = bench.order(TokenOrder::Revoke(first.clone())).await.unwrap();
    assert_eq!((revoked.authority_id, revoked.expires_at), (first.clone(), Some(NOW + TTL_SECS)));
    assert_eq!(bench.published(), [bench.active()]);
    assert!(!is_trusted(&bench.bundle(), &token.token));
    assert_eq!(bench.bundle().sequence, sequence + 2);
    assert_eq!(bench.old(), Some(first), "it is shown on, as SPIRE does");
    check(&bench);
    // Not even a clock that was set brings it back.
    bench.at(-TTL_SECS - 3600).await;
    bench.at(60).await;
    check(&bench);
}

#[tokio::test]
async fn a_key_that_signed_before_the_last_one_can_still_be_tainted_and_revoked() {
    let bench = Bench::new().await;
    let first = bench.replace_by_hand().await;
    bench.replace_by_hand().await;
    assert_ne!(bench.old(), Some(first.clone()));
    bench.order(TokenOrder::Taint(first.clone())).await.unwrap();
    bench.order(TokenOrder::Revoke(first.clone())).await.unwrap();
    assert!(!bench.published().contains(&first));
}

#[tokio::test]
async fn a_key_that_others_have_published_can_be_revoked_when_it_is_tainted() {
    let bench = Bench::new().await;
    let spki = spindle_keys::Key::generate(KeyType::EcP256).unwrap().spki_der().to_vec();
    let publish = async |tainted| {
        let foreign = JwtAuthority::new("foreign", &spki, None, tainted).unwrap();
        let edit = |bundle: &mut Bundle| {
            bundle.jwt_authorities.retain(|authority| authority.kid() != "foreign");
            bundle.jwt_authorities.push(foreign.clone());
            Ok::<(), CommitError>(())
        };
        bundles::edit_own(&bench.directory, &trust_domain(), Transaction::new(), edit).await.unwrap();
    };
    publish(false).await;
    let refused = bench.order(TokenOrder::Revoke("foreign".into())).await.expect_err("it is not tainted");
    assert!(matches!(refused, TokenAuthorityError::NotTainted("JWT")), "{refused:?}");
    assert!(matches!(
        bench.order(TokenOrder::Taint("foreign".into())).await,
        Err(TokenAuthorityError::UnexpectedId)
    ));
    publish(true).await;
    bench.order(TokenOrder::Revoke("foreign".into())).await.unwrap();
    assert_eq!(bench.published(), [bench.active()]);
}

/// A refused operation leaves slots and bundle as they were and says why, in SPIRE's words.
#[tokio::test]
async fn operations_out_of_order_are_refused_and_change_nothing() {
    let bench = Bench::new().await;
    let (active, authorities) = (bench.active(), &bench.authorities);
    let old = bench.replace_by_hand().await;
    let (now_active, bundle) = (bench.active(), bench.bundle());
    assert_eq!(active, old);
    let check = |error: TokenAuthorityError, code: Code, reason: Reason, says: &str| {
        assert_eq!((error.code(), error.reason()), (code, reason), "{error}");
        assert_eq!(error.to_string(), says);
        assert_eq!((bench.active(), bench.bundle()), (now_active.clone(), bundle.clone()));
    };
    let (bad, not_found, state) = (Reason::BadRequest, Reason::AuthorityNotFound, Reason::AuthorityState);
    let argument = Code::InvalidArgument;
    let no_id = "no authority ID provided";
    check(authorities.execute(TokenOrder::Activate("".into())).await.unwrap_err(), argument, bad, no_id);
    check(authorities.execute(TokenOrder::Taint("".into())).await.unwrap_err(), argument, bad, no_id);
    let no_id = "invalid authority ID: no authority ID provided";
    check(authorities.execute(TokenOrder::Revoke("".into())).await.unwrap_err(), argument, bad, no_id);
    let unexpected = "unexpected authority ID";
    check(
        authorities.execute(TokenOrder::Activate("none".into())).await.unwrap_err(),
        argument,
        not_found,
        unexpected,
    );
    check(
        authorities.execute(TokenOrder::Activate(now_active.clone())).await.unwrap_err(),
        argument,
        not_found,
        unexpected,
    );
    check(
        authorities.execute(TokenOrder::Activate(old.clone())).await.unwrap_err(),
        Code::Internal,
        state,
        "only Prepared authorities can be activated: unsupported local authority status: OLD",
    );
    check(
        authorities.execute(TokenOrder::Taint("none".into())).await.unwrap_err(),
        argument,
        not_found,
        unexpected,
    );
    check(
        authorities.execute(TokenOrder::Taint(now_active.clone())).await.unwrap_err(),
        argument,
        state,
        "unable to taint current local authority",
    );
    check(
        authorities.execute(TokenOrder::Revoke("none".into())).await.unwrap_err(),
        argument,
        not_found,
        "invalid authority ID: no JWT authority found with provided authority ID",
    );
    check(
        authorities.execute(TokenOrder::Revoke(now_active.clone())).await.unwrap_err(),
        argument,
        state,
        "invalid authority ID: unable to use current authority",
    );
    check(
        authorities.execute(TokenOrder::Revoke(old.clone())).await.unwrap_err(),
        Code::Internal,
        state,
        "failed to revoke JWT authority: it is not possible to revoke an untainted key",
    );
}

#[tokio::test]
async fn a_prepared_key_is_neither_tainted_nor_revoked_and_a_tainted_one_not_twice() {
    let bench = Bench::new().await;
    let authorities = &bench.authorities;
    let prepared = authorities.execute(TokenOrder::Prepare).await.unwrap().authority_id;
    let error = authorities.execute(TokenOrder::Taint(prepared.clone())).await.unwrap_err();
    assert!(matches!(error, TokenAuthorityError::TaintPrepared), "{error:?}");
    let error = authorities.execute(TokenOrder::Revoke(prepared.clone())).await.unwrap_err();
    assert!(matches!(error, TokenAuthorityError::RevokePrepared), "{error:?}");
    let old = bench.active();
    authorities.execute(TokenOrder::Activate(prepared.clone())).await.unwrap();
    authorities.execute(TokenOrder::Taint(old.clone())).await.unwrap();
    let sequence = bench.bundle().sequence;
    let error = authorities.execute(TokenOrder::Taint(old.clone())).await.unwrap_err();
    assert!(matches!(error, TokenAuthorityError::AlreadyTainted("JWT")), "{error:?}");
    authorities.execute(TokenOrder::Revoke(old.clone())).await.unwrap();
    let error = authorities.execute(TokenOrder::Taint(old.clone())).await.unwrap_err();
    assert!(matches!(error, TokenAuthorityError::TaintGone("JWT")), "{error:?}");
    let error = authorities.execute(TokenOrder::Revoke(old.clone())).await.unwrap_err();
    assert!(matches!(error, TokenAuthorityError::RevokeUnknown("JWT")), "{error:?}");
    assert_eq!(bench.bundle().sequence, sequence + 1, "the refused ones changed nothing");
}

#[tokio::test]
async fn before_the_first_authority_there_is_nothing_to_see_or_do() {
    let (clock, directory) = (ManualClock::default(), directory());
    let subscriptions = Subscriptions::of(&directory);
    let authorities =
        jwt_authorities(&directory, &subscriptions, Arc::new(MemoryKeys::new()), &clock, TTL_SECS);
    let error = authorities.state().unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), (Code::Unavailable, "server is initializing"));
    assert!(matches!(authorities.execute(TokenOrder::Prepare).await, Err(TokenAuthorityError::NoActive)));
}
