//! Decides when a thing with a lifetime is due, retried or lost.
//!
//! Pure: callers pass `now` and jitter; nothing here sleeps, logs or reads a clock. Invariant: no wait reaches past the
//! first second in which the thing is over, and no backoff grows past its maximum. Start at [`Renewal::step`].

pub mod backoff;
pub mod jitter;
pub mod renewal;

pub use backoff::{Backoff, BackoffPolicy};
pub use jitter::Jitter;
pub use renewal::{Renewal, RenewalPolicy, Step};
