//! Decides when a server that no trusted authority vouches for is a reason to bootstrap again.
//!
//! Pure: callers pass `now` and keep the moment of the first sighting, also over restarts. One that is trusted again before
//! the delay is over changes nothing. Start at [`Patience::on_untrusted`].

use std::time::Duration;

use spindle_spiffe_core::Timestamp;
use tracing::warn;

use crate::config::{Rebootstrap, RebootstrapMode};
use crate::error::AgentError;

/// How long an agent that may bootstrap again tries to attest to a server that answers wrongly: SPIRE's bound.
const ATTEST_MAX: Duration = Duration::from_secs(24 * 3600);

/// How long a server that is not trusted is borne.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    mode: RebootstrapMode,
    delay: Duration,
}

/// What to do about a server that is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: the agent never bootstraps again.
    Never,
    /// Wait: it was seen for the first time, which is to be kept.
    First,
    /// Wait.
    Wait,
    /// Bootstrap again.
    Over,
}

impl Patience {
    pub(super) fn new(settings: Rebootstrap) -> Self {
        Self { mode: settings.mode, delay: settings.delay }
    }

    /// Gives up bootstrapping again when the node may not attest again, for without that it is of no use.
    ///
    /// # Errors
    /// When it is not to be given up.
    pub(super) fn require(&mut self, may_attest_again: bool) -> Result<(), AgentError> {
        if may_attest_again {
            return Ok(());
        }
        match self.mode {
            RebootstrapMode::Never => Ok(()),
            RebootstrapMode::Always => Err(AgentError::CannotRebootstrap),
            RebootstrapMode::Auto => {
                warn!(
                    "this node may not attest again, so the agent will not bootstrap again (rebootstrap_mode)"
                );
                self.mode = RebootstrapMode::Never;
                Ok(())
            }
        }
    }

    /// The server is not trusted at `now`; `since` is when that was first seen.
    pub(super) fn on_untrusted(&self, since: &mut Option<Timestamp>, now: Timestamp) -> Verdict {
        if self.mode == RebootstrapMode::Never {
            return Verdict::Never;
        }
        let elapsed = match *since {
            // A clock that was set back says nothing of how long it has been.
            Some(first) if first <= now => now.secs_since(first),
            _ => {
                *since = Some(now);
                return if self.delay.is_zero() { Verdict::Over } else { Verdict::First };
            }
        };
        let is_over = u64::try_from(elapsed).is_ok_and(|secs| secs >= self.delay.as_secs());
        if is_over { Verdict::Over } else { Verdict::Wait }
    }

    /// How long an attestation goes on while the server answers wrongly; `usual` for an agent that never bootstraps again.
    pub(super) fn attest_max(&self, usual: Duration) -> Duration {
        if self.mode == RebootstrapMode::Never { usual } else { ATTEST_MAX }
    }

    /// The delay, for the log.
    pub(super) fn delay(&self) -> Duration {
        self.delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::NOW;

    fn patience(mode: RebootstrapMode) -> Patience {
        Patience::new(Rebootstrap { mode, delay: Duration::from_secs(600) })
    }

    #[test]
    fn the_clock_starts_at_the_first_sighting_and_runs_for_the_delay() {
        let (patience, mut since) = (patience(RebootstrapMode::Auto), None);
        assert_eq!(patience.on_untrusted(&mut since, NOW), Verdict::First);
        assert_eq!(since, Some(NOW));
        assert_eq!(patience.on_untrusted(&mut since, NOW + 599), Verdict::Wait);
        assert_eq!(patience.on_untrusted(&mut since, NOW + 600), Verdict::Over);
        assert_eq!(since, Some(NOW));
    }

    #[test]
    fn without_a_delay_it_is_over_at_once_and_with_never_it_never_is() {
        let at_once = Patience::new(Rebootstrap { mode: RebootstrapMode::Always, delay: Duration::ZERO });
        assert_eq!(at_once.on_untrusted(&mut None, NOW), Verdict::Over);
        let (never, mut since) = (patience(RebootstrapMode::Never), None);
        assert_eq!(never.on_untrusted(&mut since, NOW), Verdict::Never);
        assert_eq!(since, None);
        assert_eq!(never.attest_max(Duration::from_secs(60)), Duration::from_secs(60));
    }

    #[test]
    fn a_clock_that_is_set_back_starts_anew() {
        let (patience, mut since) = (patience(RebootstrapMode::Auto), Some(NOW));
        assert_eq!(patience.on_untrusted(&mut since, NOW - 3600), Verdict::First);
        assert_eq!(since, Some(NOW - 3600));
    }

    #[test]
    fn a_node_that_may_not_attest_again_does_not_bootstrap_again_and_always_is_an_error_then() {
        let mut auto = patience(RebootstrapMode::Auto);
        auto.require(true).unwrap();
        assert_eq!(auto.on_untrusted(&mut None, NOW), Verdict::First);
        auto.require(false).unwrap();
        assert_eq!(auto.on_untrusted(&mut None, NOW), Verdict::Never);
        let always = patience(RebootstrapMode::Always).require(false);
        assert!(matches!(always, Err(AgentError::CannotRebootstrap)));
        patience(RebootstrapMode::Never).require(false).unwrap();
    }
}
