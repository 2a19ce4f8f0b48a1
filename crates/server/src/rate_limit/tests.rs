use futures_util::FutureExt;
use futures_util::future::join_all;
use spindle_proto::refusal::{reason_of, retry_after_of};

use super::*;
use crate::config::RateLimitSettings;
use crate::live::Reloadable;

fn limits() -> RateLimits {
    RateLimits::new(LiveSettings::new(Reloadable::default()))
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_for_its_turn_and_one_over_the_admin_socket_does_not() {
    let live = LiveSettings::new(Reloadable::default());
    let limits = RateLimits::new(live.clone());
    let start = Instant::now();
    for _ in 0..3 {
        limits.attestation(Some(Source::stranger(1, 1))).await.unwrap();
    }
    assert_eq!(start.elapsed().as_secs(), 2);
    for _ in 0..100 {
        limits.attestation(None).await.unwrap();
    }
    assert_eq!(start.elapsed().as_secs(), 2);
    let off = RateLimitSettings { attestation: false, signing: false };
    live.replace(Reloadable { rate_limits: off, ..Reloadable::default() });
    for _ in 0..100 {
        limits.attestation(Some(Source::stranger(1, 1))).await.unwrap();
        limits.signing(Some(Source::stranger(1, 1)), 1000).await.unwrap();
        limits.jwt_signing(Some(Source::stranger(1, 1))).await.unwrap();
    }
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_batch_costs_as_much_as_it_holds_and_one_beyond_a_bucket_never_passes() {
    let limits = limits();
    let start = Instant::now();
    let agent = || Some(Source::known("spiffe://example.org/spire/agent/x/1"));
    let status = limits.signing(agent(), 501).await.expect_err("too much");
    assert_eq!(status.message(), "rate (501) exceeds burst size (500)");
    assert_eq!((status.code(), retry_after_of(&status)), (Code::ResourceExhausted, None));
    for _ in 0..3 {
        limits.signing(agent(), 500).await.unwrap();
    }
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn agents_behind_one_address_do_not_wait_for_each_other() {
    let limits = limits();
    let busy = || Some(Source::known("spiffe://example.org/spire/agent/x/busy"));
    // Somebody asks for far more than it may have, and waits for it.
    let flood = join_all((0..20).map(|_| limits.signing(busy(), 500)));
    let mut flood = Box::pin(flood);
    assert!((&mut flood).now_or_never().is_none());
    for n in 0..1000 {
        let other = Some(Source::known(&format!("spiffe://example.org/spire/agent/x/{n}")));
        limits.signing(other, 500).now_or_never().expect("at once").unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_behind_one_address_take_turns_by_connection() {
    let limits = limits();
    limits.attestation(Some(Source::stranger(1, 1))).await.unwrap();
    let start = Instant::now();
    let mut flood = Box::pin(join_all((0..20).map(|_| limits.attestation(Some(Source::stranger(1, 1))))));
    assert!((&mut flood).now_or_never().is_none());
    // Twenty calls of another connection are before it, and it has the turn after the first of them.
    let patient = limits.attestation(Some(Source::stranger(1, 2)));
    tokio::pin!(patient);
    let turn = tokio::select! {
        biased;
        turn = &mut patient => turn,
        _ = &mut flood => panic!("the flood goes first"),
    };
    turn.unwrap();
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_too_long_is_told_when_to_come_back() {
    let limits = limits();
    let mut line: Vec<_> =
        (0..40).map(|port| Box::pin(limits.attestation(Some(Source::stranger(1, port))))).collect();
    let answers: Vec<_> = line.iter_mut().map(|call| call.now_or_never()).collect();
    assert!(matches!(answers[0], Some(Ok(()))));
    assert!(answers[1..=30].iter().all(Option::is_none), "thirty wait");
    for answer in &answers[31..] {
        let Some(Err(status)) = answer else { panic!("{answer:?}") };
        assert_eq!(
            (status.code(), reason_of(status).as_deref()),
            (Code::ResourceExhausted, Some("overloaded"))
        );
        assert!(status.message().contains("more than 1 calls a second"), "{status:?}");
        assert_eq!(retry_after_of(status), Some(Duration::from_secs(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_comes_before_the_turn_is_told_at_once_in_spires_words() {
    let limits = limits();
    let hurried = |millis| {
        Some(Source {
            patience: Some(Duration::from_millis(millis)),
            ..Source::known("spiffe://example.org/a")
        })
    };
    limits.attestation(hurried(10)).await.unwrap();
    let status = limits.attestation(hurried(10)).now_or_never().expect("at once").expect_err("too late");
    assert_eq!(status.message(), "rate: Wait(n=1) would exceed context deadline");
    assert_eq!(retry_after_of(&status), Some(Duration::from_millis(990)));
    limits.attestation(hurried(1000)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_calls_wait_for_each_other_too_long_is_refused() {
    let limits = limits();
    let calls = join_all((0..100).map(|_| limits.attestation(Some(Source::stranger(1, 1)))));
    let answers = calls.await;
    let served = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((30..=31).contains(&served), "{served}");
    assert!(answers.iter().rev().take(60).all(Result::is_err));
}

#[tokio::test(start_paused = true)]
async fn tokens_and_certificates_are_counted_apart() {
    let limits = limits();
    let start = Instant::now();
    let agent = || Some(Source::known("spiffe://example.org/spire/agent/x/1"));
    limits.signing(agent(), 500).await.unwrap();
    for _ in 0..500 {
        limits.jwt_signing(agent()).await.unwrap();
    }
    assert_eq!(start.elapsed().as_secs(), 0);
    for _ in 0..500 {
        limits.jwt_signing(agent()).await.unwrap();
    }
    assert_eq!(start.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_waiting_does_not_stand_behind_its_own_calls() {
    for caller in [|| Source::stranger(1, 1), || Source::known("spiffe://example.org/a")] {
        let limits = limits();
        limits.attestation(Some(caller())).await.unwrap();
        for _ in 0..50 {
            let mut given_up = Box::pin(limits.attestation(Some(caller())));
            assert!((&mut given_up).now_or_never().is_none(), "it waits");
        }
        let start = Instant::now();
        limits.attestation(Some(caller())).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 1);
        limits.attestation(Some(caller())).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 2, "a turn that was used stays used");
    }
}
