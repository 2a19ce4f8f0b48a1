//! Authorities by hand: every order in every state, and what it leaves behind.

use spindle_spiffe_core::Reason;
use tonic::Code;

use super::*;
use crate::authorities::rotation::{NotTaken, ORDERS_MAX};

#[track_caller]
fn refused(outcome: Result<Standing, OrderError>, code: Code, reason: Reason, text: &str) {
    let error = outcome.expect_err("a refusal");
    assert_eq!((error.to_string().as_str(), error.code(), error.reason()), (text, code, reason));
}

/// A bench whose first authority is old, with its id.
async fn rotated() -> (Bench, String) {
    let bench = Bench::new().await;
    let first = bench.active();
    let prepared = bench.order(Order::Prepare).await.unwrap().authority_id;
    bench.order(Order::Activate(prepared)).await.unwrap();
    (bench, first)
}

/// Whether each root of the bundle is tainted, oldest first.
fn taints(bench: &Bench) -> Vec<bool> {
    bench.bundle().x509_authorities.iter().map(X509Authority::is_tainted).collect()
}

#[tokio::test]
async fn prepare_activate_taint_and_revoke_lead_from_one_authority_to_the_next() {
    let bench = Bench::new().await;
    let first = bench.active();
    let prepared = bench.order(Order::Prepare).await.unwrap();
    let next = prepared.authority_id.clone();
    let states = bench.authorities.states().unwrap();
    assert_eq!(
        (&states.active.authority_id, &states.prepared, &states.old),
        (&first, &Some(prepared), &None)
    );
    assert_eq!((bench.trusted(), bench.bundle().sequence), (vec![first.clone(), next.clone()], 2));
    assert_eq!(states.active.expires_at, NOW + CA_TTL_SECS);

    let serial = || bench.authorities.identity().svid().unwrap().serial_decimal();
    let before = serial();
    let activated = bench.order(Order::Activate(next.clone())).await.unwrap();
    assert_eq!((activated.authority_id, bench.active()), (next.clone(), next.clone()));
    assert_ne!(serial(), before, "the server's own SVID hangs from the new one at once");
    let states = bench.authorities.states().unwrap();
    assert_eq!((states.prepared, states.old.unwrap().authority_id), (None, first.clone()));
    check(&bench);

    let after = serial();
    assert_eq!(bench.order(Order::Taint(first.clone())).await.unwrap().authority_id, first);
    assert_eq!((taints(&bench), bench.bundle().sequence), (vec![true, false], 3));
    assert_eq!(serial(), after, "its chain is good");
    check(&bench);

    assert_eq!(bench.order(Order::Revoke(first.clone())).await.unwrap().expires_at, NOW + CA_TTL_SECS);
    assert_eq!((bench.trusted(), bench.bundle().sequence), (vec![next], 4));
    let old = bench.authorities.states().unwrap().old.unwrap();
    assert_eq!(
        old.authority_id, first,
        "it is shown as old for as long as nothing takes its place, as SPIRE does"
    );
    check(&bench);
}

#[tokio::test]
async fn only_the_prepared_authority_is_activated() {
    let bench = Bench::new().await;
    let (first, activate) = (bench.active(), |id: &str| bench.order(Order::Activate(id.into())));
    let unexpected = (Code::InvalidArgument, Reason::AuthorityNotFound);
    refused(activate("").await, unexpected.0, unexpected.1, "no authority ID provided");
    refused(activate(&first).await, unexpected.0, unexpected.1, "unexpected authority ID");
    refused(activate("abcd").await, unexpected.0, unexpected.1, "unexpected authority ID");
    let replaced = bench.order(Order::Prepare).await.unwrap().authority_id;
    let prepared = bench.order(Order::Prepare).await.unwrap().authority_id;
    refused(activate(&replaced).await, unexpected.0, unexpected.1, "unexpected authority ID");
    assert_eq!(bench.active(), first);
    activate(&prepared).await.unwrap();
    let text = "only Prepared authorities can be activated: unsupported local authority status: OLD";
    refused(activate(&first).await, Code::Internal, Reason::AuthorityState, text);
    assert_eq!(bench.active(), prepared);
    check(&bench);
}

#[tokio::test]
async fn only_the_old_authority_is_tainted_and_only_once() {
    let bench = Bench::new().await;
    let (first, taint) = (bench.active(), |id: &str| bench.order(Order::Taint(id.into())));
    let argument = Code::InvalidArgument;
    refused(taint("").await, argument, Reason::AuthorityNotFound, "no authority ID provided");
    refused(taint("abcd").await, argument, Reason::AuthorityNotFound, "unexpected authority ID");
    let current = "unable to taint current local authority";
    refused(taint(&first).await, argument, Reason::AuthorityState, current);
    let prepared = bench.order(Order::Prepare).await.unwrap().authority_id;
    let text = "only Old local authorities can be tainted: unsupported local authority status: PREPARED";
    refused(taint(&prepared).await, argument, Reason::AuthorityState, text);
    bench.order(Order::Activate(prepared.clone())).await.unwrap();
    refused(taint(&prepared).await, argument, Reason::AuthorityState, current);
    taint(&first).await.unwrap();
    let text = "failed to taint X.509 authority: root CA is already tainted";
    refused(taint(&first).await, Code::Internal, Reason::AuthorityState, text);
    assert_eq!(bench.bundle().sequence, 3);
    bench.order(Order::Revoke(first.clone())).await.unwrap();
    let text = "failed to taint X.509 authority: no ca found with provided subject key ID";
    refused(taint(&first).await, Code::Internal, Reason::AuthorityState, text);
}

#[tokio::test]
async fn only_the_tainted_old_authority_is_revoked_and_only_once() {
    let (bench, first) = rotated().await;
    let revoke = |id: &str| bench.order(Order::Revoke(id.into()));
    let invalid = |why: &str| format!("invalid authority ID: {why}");
    let argument = Code::InvalidArgument;
    refused(revoke("").await, argument, Reason::AuthorityNotFound, &invalid("no authority ID provided"));
    let text = invalid("unable to use current authority");
    refused(revoke(&bench.active()).await, argument, Reason::AuthorityState, &text);
    let text = invalid("only Old local authority can be revoked");
    refused(revoke("abcd").await, argument, Reason::AuthorityNotFound, &text);
    let early = "failed to revoke X.509 authority: it is not possible to revoke an untainted root CA";
    refused(revoke(&first).await, Code::Internal, Reason::AuthorityState, early);
    assert_eq!(bench.trusted().len(), 2);
    bench.order(Order::Taint(first.clone())).await.unwrap();
    revoke(&first).await.unwrap();
    let gone = "failed to revoke X.509 authority: no root CA found with provided subject key ID";
    refused(revoke(&first).await, Code::Internal, Reason::AuthorityState, gone);
    let prepared = bench.order(Order::Prepare).await.unwrap().authority_id;
    refused(revoke(&prepared).await, argument, Reason::AuthorityState, &text);
    check(&bench);
}

#[tokio::test]
async fn upstream_orders_are_refused_without_an_upstream_authority() {
    let (bench, first) = rotated().await;
    for order in [Order::TaintUpstream(first.clone()), Order::RevokeUpstream(String::new())] {
        let text = "upstream authority is not configured";
        refused(bench.order(order).await, Code::FailedPrecondition, Reason::NoUpstreamAuthority, text);
    }
    assert_eq!(taints(&bench), [false, false]);
}

#[tokio::test]
async fn an_authority_that_is_replaced_before_it_signed_leaves_the_bundle() {
    let bench = Bench::new().await;
    let first = bench.active();
    for _ in 0..20 {
        bench.order(Order::Prepare).await.unwrap();
    }
    let next = bench.prepared().unwrap();
    assert_eq!(bench.trusted(), [first, next.clone()], "twenty orders leave one root");
    bench.order(Order::Activate(next)).await.unwrap();
    check(&bench);
}

#[tokio::test]
async fn an_operators_activation_waits_for_no_agent_and_a_tainted_one_never_signs_again() {
    let bench = Bench::new().await;
    let (first, _silent) = (bench.active(), bench.connect());
    let next = bench.order(Order::Prepare).await.unwrap().authority_id;
    bench.at(1).await;
    assert_eq!(bench.active(), first, "by itself it would wait");
    bench.order(Order::Activate(next.clone())).await.unwrap();
    assert_eq!(bench.active(), next);
    bench.order(Order::Taint(first.clone())).await.unwrap();
    // The clock goes back to where only the first one would be valid.
    bench.at(-5).await;
    bench.at(-15).await;
    assert_ne!(bench.active(), first);
}

#[tokio::test]
async fn what_was_ordered_is_there_after_a_restart() {
    let (bench, first) = rotated().await;
    let active = bench.active();
    bench.order(Order::Taint(first.clone())).await.unwrap();
    let keys = bench.keys.clone();
    let bench = bench.restarted(keys.clone()).await;
    assert_eq!((bench.active(), taints(&bench)), (active.clone(), vec![true, false]));
    assert_eq!(bench.authorities.states().unwrap().old.unwrap().authority_id, first);
    bench.order(Order::Revoke(first)).await.unwrap();
    let bench = bench.restarted(keys).await;
    assert_eq!((bench.active(), bench.trusted()), (active.clone(), vec![active]));
    check(&bench);
}

#[tokio::test]
async fn rotation_goes_on_after_orders_and_prunes_what_has_ended() {
    let (bench, first) = rotated().await;
    bench.order(Order::Taint(first.clone())).await.unwrap();
    for half_hours in 1..200 {
        bench.at(half_hours * 1800).await;
        check(&bench);
    }
    assert!(!bench.trusted().contains(&first), "a tainted one leaves a day after its end like any other");
}

#[tokio::test]
async fn an_order_to_a_store_that_fails_changes_nothing() {
    let (bench, first) = rotated().await;
    let (active, states) = (bench.active(), bench.authorities.states().unwrap());
    bench.directory.close();
    for order in [Order::Prepare, Order::Taint(first.clone()), Order::Revoke(first)] {
        let error = bench.order(order.clone()).await.expect_err("the store is closed");
        let expected =
            if matches!(order, Order::Revoke(_)) { Reason::AuthorityState } else { Reason::AuthorityFailed };
        assert_eq!((error.code(), error.reason()), (Code::Internal, expected), "{order:?}: {error}");
    }
    assert_eq!((bench.active(), bench.authorities.states().unwrap()), (active, states));
}

#[tokio::test]
async fn orders_are_carried_out_one_after_the_other_while_rotation_runs_and_end_with_the_server() {
    let bench = Bench::new().await;
    let shutdown = Shutdown::new();
    let running = bench.authorities.clone().run(shutdown.clone());
    let ordering = async {
        let placed = (0..20).map(|_| bench.authorities.order(Order::Prepare));
        let outcomes = futures_util::future::join_all(placed).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        let last = outcomes.last().unwrap().as_ref().unwrap().authority_id.clone();
        assert_eq!(bench.prepared(), Some(last.clone()));
        let twice = [Order::Activate(last.clone()), Order::Activate(last.clone())];
        let [one, two] = twice.map(|order| bench.authorities.order(order));
        let (one, two) = tokio::join!(one, two);
        assert_eq!(one.unwrap().authority_id, last);
        assert_eq!(two.unwrap_err().to_string(), "unexpected authority ID", "it signs already");
        let many = (0..2 * ORDERS_MAX).map(|_| bench.authorities.order(Order::Taint(String::new())));
        let outcomes = futures_util::future::join_all(many).await;
        let busy =
            outcomes.iter().filter(|one| matches!(one, Err(OrderError::NotTaken(NotTaken::Busy)))).count();
        assert_eq!(busy, ORDERS_MAX, "more than wait at most are refused");
        shutdown.begin();
    };
    tokio::join!(running, ordering);
    assert!(matches!(
        bench.authorities.order(Order::Prepare).await,
        Err(OrderError::NotTaken(NotTaken::Stopping))
    ));
    check(&bench);
}

/// A small generator, so that a run can be repeated from its seed.
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

#[tokio::test]
async fn no_order_of_orders_and_hours_leaves_the_domain_without_a_trusted_authority() {
    for seed in 0..12 {
        let (bench, mut rng) = (Bench::new().await, Rng(seed));
        let (mut secs, mut sequence) = (0, bench.bundle().sequence);
        for step in 0..80 {
            let states = bench.authorities.states().unwrap();
            let known = [Some(states.active), states.prepared, states.old];
            let known: Vec<String> = known.into_iter().flatten().map(|one| one.authority_id).collect();
            let id = known[rng.below(known.len())].clone();
            let order = match rng.below(6) {
                0 => Order::Prepare,
                1 => Order::Activate(id),
                2 => Order::Taint(id),
                3 => Order::Revoke(id),
                _ => {
                    secs += i64::try_from(rng.below(4 * 3600)).unwrap();
                    bench.at(secs).await;
                    check(&bench);
                    sequence = bench.bundle().sequence;
                    continue;
                }
            };
            let outcome = bench.order(order.clone()).await;
            check(&bench);
            let now_sequence = bench.bundle().sequence;
            let grows = outcome.is_ok() && !matches!(order, Order::Activate(_));
            assert_eq!(
                now_sequence,
                sequence + u64::from(grows),
                "seed {seed} step {step}: {order:?} {outcome:?}"
            );
            sequence = now_sequence;
            let active = bench.active();
            let bundle = bench.bundle();
            let root = bundle.x509_authorities.iter().find(|root| root.subject_key_id() == active).unwrap();
            assert!(!root.is_tainted(), "seed {seed} step {step}: what signs is not tainted");
        }
    }
}
