//! When one SVID is renewed, how soon a failed renewal is tried again, and when the SVID is lost.
//!
//! Due at half of its lifetime, counted from the back-dated NotBefore as SPIRE does, shifted by one jitter that is drawn
//! with the SVID and then stays, so that asking twice gives the same answer. A failure backs off; every pause ends while
//! the SVID still lives, or in the first second in which it does not.
//!
//! Clocks that jump: forward, an SVID is due or over at once. Back to before it was received, nobody can tell how much of
//! its life is gone, so it is renewed at once; a clock that was late when it came is outweighed by counting half a
//! lifetime from that moment too. No jump can make a wait longer than that. Start at [`Renewal::step`].

use std::time::Duration;

use spindle_spiffe_core::{Timestamp, Validity};

use crate::backoff::{Backoff, BackoffPolicy};
use crate::jitter::Jitter;

/// The rules of renewal. The default is what the agent and the server use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RenewalPolicy {
    /// The age at which an SVID is due, in percent of its lifetime.
    pub due_percent: u32,
    /// How far that age is shifted at most, in percent of itself.
    pub jitter_percent: u32,
    /// What is to be left of every SVID at any time, so that its holder gets by without a server for so long: an SVID is due
    /// when less than that is left, even before the age above. It counts only for lifetimes longer by more than twelve hours.
    pub availability_target: Option<Duration>,
    /// Pauses between failed tries.
    pub backoff: BackoffPolicy,
}

/// With less than this between target and lifetime an SVID would be renewed all the time, in seconds: SPIRE's bound.
const TARGET_MARGIN_SECS: i64 = 12 * 3600;

/// How much earlier than its target an SVID may be due, in seconds, so that not all are due at once: SPIRE's spread.
const TARGET_SPREAD_SECS: u64 = 600;

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until then, or until something else happens. Later than `now`.
    Wait(Timestamp),
    /// Ask for a new SVID; then tell how that ended.
    Renew,
    /// The SVID is past its end: stop using it. A new one is asked for as if none had been held.
    Expired,
}

/// The state of one SVID's renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    policy: RenewalPolicy,
    validity: Validity,
    received_at: Timestamp,
    due_at: Timestamp,
    backoff: Backoff,
    retry: Option<Retry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Retry {
    failed_at: Timestamp,
    again_at: Timestamp,
}

impl Default for RenewalPolicy {
    fn default() -> Self {
        Self {
            due_percent: 50,
            jitter_percent: 10,
            availability_target: None,
            backoff: BackoffPolicy::default(),
        }
    }
}

impl RenewalPolicy {
    /// The usual rules with an availability target, if there is one.
    pub fn with_availability_target(target: Option<Duration>) -> Self {
        Self { availability_target: target, ..Self::default() }
    }

    /// The age in seconds at which less than the target is left of a lifetime; none when the target does not count for it.
    fn target_age(&self, lifetime_secs: i64, jitter: Jitter) -> Option<i64> {
        let target = i64::try_from(self.availability_target?.as_secs()).unwrap_or(i64::MAX);
        let margin = lifetime_secs.saturating_sub(target);
        let earlier = i64::try_from(jitter.spread(TARGET_SPREAD_SECS / 2, 100)).unwrap_or(0);
        (margin > TARGET_MARGIN_SECS).then(|| margin - earlier)
    }
}

impl Renewal {
    /// For an SVID that was signed just now. `jitter` is drawn once for it.
    ///
    /// Whole seconds and back-dating can make half of a very short lifetime lie in the past. A quarter of what is left,
    /// and at least a second, always passes first, so that no TTL turns renewal into a loop without a pause.
    pub fn issued(policy: RenewalPolicy, validity: Validity, now: Timestamp, jitter: Jitter) -> Self {
        let mut renewal = Self::restored(policy, validity, now, jitter);
        let quarter = validity.not_after.secs_since(now).min(validity.secs()) / 4;
        let least = now + quarter.max(1);
        // The pause is for short lives: what is due by a target has lived for twelve hours, or else it came late.
        let by_target = renewal.due_by_target(jitter).map(|due_at| due_at.max(now + 1));
        renewal.due_at = renewal.due_at.max(by_target.map_or(least, |due_at| due_at.min(least)));
        renewal
    }

    /// For an SVID that was kept from an earlier run; it may be due at once.
    pub fn restored(policy: RenewalPolicy, validity: Validity, now: Timestamp, jitter: Jitter) -> Self {
        let age = validity.secs().unsigned_abs().saturating_mul(u64::from(policy.due_percent)) / 100;
        let age = jitter.spread(age, policy.jitter_percent);
        let age = i64::try_from(age).unwrap_or(i64::MAX);
        let due_at = (validity.not_before + age).min(now + age);
        let mut renewal = Self {
            policy,
            validity,
            received_at: now,
            due_at,
            backoff: Backoff::new(policy.backoff),
            retry: None,
        };
        renewal.due_at = renewal.due_by_target(jitter).map_or(due_at, |by_target| by_target.min(due_at));
        renewal
    }

    /// When the availability target makes the SVID due, by the same two ways of counting as the age.
    fn due_by_target(&self, jitter: Jitter) -> Option<Timestamp> {
        let age = self.policy.target_age(self.validity.secs(), jitter)?;
        Some((self.validity.not_before + age).min(self.received_at + age))
    }

    /// When the SVID is due, failures aside.
    pub fn due_at(&self) -> Timestamp {
        self.due_at
    }

    /// The validity of the SVID.
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// What to do at `now`. Asking changes nothing.
    pub fn step(&self, now: Timestamp) -> Step {
        if self.validity.is_over(now) {
            return Step::Expired;
        }
        let (since, until) = match self.retry {
            Some(retry) => (retry.failed_at, retry.again_at),
            None => (self.received_at, self.due_at),
        };
        // Before `since` the clock has been set back, and `until` says nothing any more. Every wait is cut to the end here.
        if now < since || now >= until { Step::Renew } else { Step::Wait(until.min(self.over_at())) }
    }

    /// A renewal failed at `now`; the SVID stays in use.
    pub fn on_failure(&mut self, now: Timestamp, jitter: Jitter) {
        let pause = self.backoff.next_pause(jitter);
        // Rounded up, so that a pause below a second does not become none.
        let secs = i64::try_from(pause.as_millis().div_ceil(1000)).unwrap_or(i64::MAX).max(1);
        self.retry = Some(Retry { failed_at: now, again_at: now + secs });
    }

    /// As [`Renewal::on_failure`] when the server asked for a pause: the next try is not before it is over.
    pub fn on_asked_to_wait(&mut self, now: Timestamp, jitter: Jitter, asked: Duration) {
        self.on_failure(now, jitter);
        let secs = i64::try_from(asked.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let again_at = now + secs;
        self.retry = self.retry.map(|retry| Retry { again_at: retry.again_at.max(again_at), ..retry });
    }

    /// A new SVID has come and takes the place of this one.
    pub fn on_success(&mut self, validity: Validity, now: Timestamp, jitter: Jitter) {
        *self = Self::issued(self.policy, validity, now, jitter);
    }

    /// The SVID must go before its time, such as when its authority is tainted: due at once, failures forgotten.
    pub fn hurry(&mut self) {
        self.due_at = self.received_at;
        self.backoff.reset();
        self.retry = None;
    }

    /// The first second in which the SVID is over.
    fn over_at(&self) -> Timestamp {
        self.validity.not_after + 1
    }
}

#[cfg(test)]
mod tests;
