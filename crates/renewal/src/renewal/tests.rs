//! Renewal in virtual time: the cases by hand, then the invariants over random lives.

use proptest::prelude::*;

use super::*;

const DAY: i64 = 86_400;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_unix_secs(secs)
}

/// An SVID signed at `now` with a TTL, back-dated by 10 s as the server does.
fn svid(now: i64, ttl: i64) -> Validity {
    Validity { not_before: at(now - 10), not_after: at(now + ttl) }
}

fn issued(now: i64, ttl: i64) -> Renewal {
    Renewal::issued(RenewalPolicy::default(), svid(now, ttl), at(now), Jitter::NONE)
}

#[test]
fn an_svid_is_due_at_half_of_its_back_dated_lifetime() {
    let renewal = issued(1000, 3590);
    assert_eq!(renewal.due_at(), at(990 + 1800));
    assert_eq!(renewal.step(at(1000)), Step::Wait(at(2790)));
    assert_eq!(renewal.step(at(2789)), Step::Wait(at(2790)));
    assert_eq!(renewal.step(at(2790)), Step::Renew);
    assert_eq!(renewal.step(at(4590)), Step::Renew);
    assert_eq!(renewal.step(at(4591)), Step::Expired);
}

#[test]
fn a_twenty_second_svid_is_due_after_five_seconds_as_with_spire() {
    assert_eq!(issued(1000, 20).due_at(), at(1005));
}

#[test]
fn a_lifetime_shorter_than_the_back_dating_still_waits_a_second() {
    for ttl in 1..10 {
        let renewal = issued(1000, ttl);
        assert!(
            matches!(renewal.step(at(1000)), Step::Wait(until) if until > at(1000)),
            "ttl {ttl}: {renewal:?}"
        );
    }
}

#[test]
fn a_restored_svid_past_its_half_life_is_due_at_once() {
    let renewal = Renewal::restored(RenewalPolicy::default(), svid(1000, 3590), at(4000), Jitter::NONE);
    assert_eq!(renewal.step(at(4000)), Step::Renew);
    let over = Renewal::restored(RenewalPolicy::default(), svid(1000, 3590), at(9000), Jitter::NONE);
    assert_eq!(over.step(at(9000)), Step::Expired);
}

const HOUR: i64 = 3600;

/// When an SVID of so many hours is due, counted from its signing, under a target of so many hours.
fn due_after(ttl_hours: i64, target_hours: i64, jitter: Jitter) -> i64 {
    let policy = RenewalPolicy::with_availability_target(Some(Duration::from_secs(
        u64::try_from(target_hours * HOUR).unwrap(),
    )));
    let now = 100 * DAY;
    let validity = Validity { not_before: at(now), not_after: at(now + ttl_hours * HOUR) };
    let issued = Renewal::issued(policy, validity, at(now), jitter).due_at();
    assert_eq!(Renewal::restored(policy, validity, at(now), jitter).due_at(), issued);
    issued.secs_since(at(now))
}

#[test]
fn with_an_availability_target_that_much_and_up_to_ten_minutes_more_is_always_left() {
    for (ttl, target) in [(48, 30), (100, 87), (72, 48)] {
        let left = |jitter| ttl * HOUR - due_after(ttl, target, jitter) - target * HOUR;
        assert_eq!(left(Jitter::from_number(0)), 0, "{ttl} {target}");
        assert_eq!(left(Jitter::NONE), 300, "{ttl} {target}");
        assert!((598..=600).contains(&left(Jitter::from_number(u64::MAX))), "{ttl} {target}");
    }
}

#[test]
fn half_of_the_life_still_counts_when_it_comes_first() {
    assert_eq!(due_after(7 * 24, 24, Jitter::NONE), 7 * 12 * HOUR);
}

#[test]
fn a_target_within_twelve_hours_of_the_lifetime_does_not_count() {
    assert_eq!(due_after(36, 24, Jitter::NONE), 18 * HOUR);
    assert_eq!(due_after(1, 24, Jitter::NONE), HOUR / 2);
    assert_eq!(due_after(37, 24, Jitter::NONE), 13 * HOUR - 300);
}

#[test]
fn a_server_that_asks_for_a_pause_gets_it_and_no_wait_passes_the_end() {
    let mut renewal = issued(1000, 3590);
    renewal.on_asked_to_wait(at(2790), Jitter::NONE, Duration::from_millis(90_500));
    assert_eq!(renewal.step(at(2790)), Step::Wait(at(2790 + 91)));
    renewal.on_asked_to_wait(at(2900), Jitter::NONE, Duration::ZERO);
    assert!(
        matches!(renewal.step(at(2900)), Step::Wait(until) if until > at(2900)),
        "its own pause is longer"
    );
    renewal.on_asked_to_wait(at(4000), Jitter::NONE, Duration::from_secs(1 << 40));
    assert_eq!(renewal.step(at(4000)), Step::Wait(at(4591)));
}

#[test]
fn failures_back_off_and_a_success_starts_anew() {
    let mut renewal = issued(1000, 3590);
    renewal.on_failure(at(2790), Jitter::NONE);
    assert_eq!(renewal.step(at(2790)), Step::Wait(at(2791)));
    assert_eq!(renewal.step(at(2791)), Step::Renew);
    renewal.on_failure(at(2791), Jitter::NONE);
    assert_eq!(renewal.step(at(2791)), Step::Wait(at(2793)), "1.5 s are rounded up");
    renewal.on_success(svid(2793, 3590), at(2793), Jitter::NONE);
    assert_eq!(renewal.step(at(2793)), Step::Wait(at(2783 + 1800)));
    renewal.on_failure(at(4583), Jitter::NONE);
    assert_eq!(renewal.step(at(4583)), Step::Wait(at(4584)));
}

#[test]
fn the_last_tries_end_with_the_svid() {
    let mut renewal = issued(1000, 3590);
    for _ in 0..20 {
        renewal.on_failure(at(4580), Jitter::NONE);
    }
    assert_eq!(renewal.step(at(4580)), Step::Wait(at(4591)));
    renewal.on_failure(at(4590), Jitter::NONE);
    assert_eq!(renewal.step(at(4590)), Step::Wait(at(4591)));
    assert_eq!(renewal.step(at(4591)), Step::Expired);
}

#[test]
fn a_clock_set_back_renews_at_once_instead_of_waiting_for_the_old_time() {
    let mut renewal = issued(10 * DAY, 3590);
    assert_eq!(renewal.step(at(9 * DAY)), Step::Renew);
    renewal.on_failure(at(10 * DAY + 1800), Jitter::NONE);
    assert_eq!(renewal.step(at(9 * DAY)), Step::Renew);
    renewal.on_failure(at(9 * DAY), Jitter::NONE);
    assert!(matches!(renewal.step(at(9 * DAY)), Step::Wait(until) if until <= at(9 * DAY + 2)));
}

#[test]
fn a_clock_that_is_a_day_late_still_renews_after_half_a_lifetime() {
    let renewal = Renewal::issued(RenewalPolicy::default(), svid(10 * DAY, 3590), at(9 * DAY), Jitter::NONE);
    assert_eq!(renewal.due_at(), at(9 * DAY + 1800));
}

#[test]
fn a_clock_that_jumps_forward_finds_the_svid_due_or_over() {
    let renewal = issued(1000, 3590);
    assert_eq!(renewal.step(at(3000)), Step::Renew);
    assert_eq!(renewal.step(at(9 * DAY)), Step::Expired);
}

#[test]
fn a_hurried_svid_is_due_at_once_whatever_failed_before() {
    let mut renewal = issued(1000, 3590);
    renewal.on_failure(at(1001), Jitter::NONE);
    renewal.hurry();
    assert_eq!(renewal.step(at(1001)), Step::Renew);
    renewal.on_failure(at(1001), Jitter::NONE);
    assert_eq!(renewal.step(at(1001)), Step::Wait(at(1002)));
}

#[test]
fn absurd_validities_do_not_overflow() {
    for (from, to) in [(i64::MIN, i64::MAX), (0, i64::MAX), (i64::MAX, i64::MIN), (0, 0)] {
        let validity = Validity { not_before: at(from), not_after: at(to) };
        for now in [i64::MIN, 0, i64::MAX] {
            let mut renewal = Renewal::issued(RenewalPolicy::default(), validity, at(now), Jitter::NONE);
            renewal.on_failure(at(now), Jitter::from_number(u64::MAX));
            renewal.step(at(now));
        }
    }
}

/// Something that happens to a renewal.
#[derive(Clone, Debug)]
enum Event {
    /// Time passes, or the clock jumps when negative.
    Pass(i64),
    Fail(u64),
    Succeed(u64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0i64..5000).prop_map(Event::Pass),
        1 => (-2 * DAY..2 * DAY).prop_map(Event::Pass),
        4 => any::<u64>().prop_map(Event::Fail),
        1 => any::<u64>().prop_map(Event::Succeed),
    ]
}

proptest! {
    #[test]
    fn the_due_time_keeps_within_its_jitter_and_never_moves(ttl in 60i64..90 * DAY, draw: u64, later in 0i64..DAY) {
        let now = 1_000_000;
        let validity = svid(now, ttl);
        let renewal = Renewal::issued(RenewalPolicy::default(), validity, at(now), Jitter::from_number(draw));
        let half = validity.secs() / 2;
        let age = renewal.due_at().secs_since(validity.not_before);
        prop_assert!(age >= half - half / 10 - 1 && age <= half + half / 10 + 1, "{age} of {half}");
        renewal.step(at(now + later));
        prop_assert_eq!(renewal.due_at().secs_since(validity.not_before), age);
    }

    #[test]
    fn no_wait_passes_the_end_and_every_wait_ends(
        ttl in 1i64..3 * DAY,
        draw: u64,
        events in prop::collection::vec(event(), 0..60),
    ) {
        let mut now = 100 * DAY;
        let mut renewal =
            Renewal::issued(RenewalPolicy::default(), svid(now, ttl), at(now), Jitter::from_number(draw));
        for event in events {
            match event {
                Event::Pass(secs) => now += secs,
                Event::Fail(draw) => renewal.on_failure(at(now), Jitter::from_number(draw)),
                Event::Succeed(draw) => renewal.on_success(svid(now, ttl), at(now), Jitter::from_number(draw)),
            }
            match renewal.step(at(now)) {
                Step::Wait(until) => {
                    prop_assert!(until > at(now) && until <= renewal.validity().not_after + 1);
                    prop_assert!(until <= at(now) + ttl + 10, "no wait is longer than a lifetime");
                    prop_assert!(!matches!(renewal.step(until), Step::Wait(_)));
                }
                Step::Renew => prop_assert!(!renewal.validity().is_over(at(now))),
                Step::Expired => prop_assert!(renewal.validity().is_over(at(now))),
            }
        }
    }

    #[test]
    fn with_a_server_that_answers_no_svid_ever_expires(
        ttl in 2i64..DAY,
        draws in prop::collection::vec(any::<u64>(), 30),
    ) {
        let mut now = at(1_000_000);
        let mut renewal = Renewal::issued(RenewalPolicy::default(), svid(1_000_000, ttl), now, Jitter::NONE);
        for draw in draws {
            match renewal.step(now) {
                Step::Wait(until) => now = until,
                Step::Renew => renewal.on_success(svid(now.unix_secs(), ttl), now, Jitter::from_number(draw)),
                Step::Expired => prop_assert!(false, "expired at {now}"),
            }
        }
    }
}
