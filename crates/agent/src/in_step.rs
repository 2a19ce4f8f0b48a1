//! When the agent was last in step with its server, for those who look inside it.
//!
//! Start at [`InStep::last`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use spindle_spiffe_core::Timestamp;

/// Shared between the task that syncs and those who ask. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct InStep(Arc<State>);

#[derive(Debug, Default)]
struct State {
    /// A stream is open over which all changes come at once.
    is_following: AtomicBool,
    /// Seconds since the Unix epoch; 0 is never.
    last_secs: AtomicI64,
}

impl InStep {
    /// What the server knows was applied at `now`.
    pub(crate) fn applied(&self, now: Timestamp) {
        self.0.last_secs.store(now.unix_secs(), Ordering::Relaxed);
    }

    /// From now on every change comes by itself.
    pub(crate) fn follows(&self) {
        self.0.is_following.store(true, Ordering::Relaxed);
    }

    /// The stream of changes, if there was one, is over.
    pub(crate) fn is_cut_off(&self, now: Timestamp) {
        if self.0.is_following.swap(false, Ordering::Relaxed) {
            self.applied(now);
        }
    }

    /// When the agent was in step last: now, while changes come by themselves; none when it never was.
    pub(crate) fn last(&self, now: Timestamp) -> Option<Timestamp> {
        if self.0.is_following.load(Ordering::Relaxed) {
            return Some(now);
        }
        let secs = self.0.last_secs.load(Ordering::Relaxed);
        (secs != 0).then(|| Timestamp::from_unix_secs(secs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::NOW;

    #[test]
    fn an_agent_was_in_step_at_its_last_poll_or_until_its_stream_broke() {
        let in_step = InStep::default();
        assert_eq!(in_step.last(NOW), None);
        in_step.is_cut_off(NOW);
        assert_eq!(in_step.last(NOW), None, "a first connection that fails is no success");
        in_step.applied(NOW);
        assert_eq!(in_step.last(NOW + 100), Some(NOW));
        in_step.follows();
        assert_eq!(in_step.last(NOW + 200), Some(NOW + 200));
        in_step.is_cut_off(NOW + 300);
        assert_eq!(in_step.last(NOW + 400), Some(NOW + 300));
    }
}
