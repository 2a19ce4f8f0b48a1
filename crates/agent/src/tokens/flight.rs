//! Requests under way, each shared by all callers who wait for the same token.
//!
//! A request lives as long as somebody waits for it: the last caller who goes takes it along.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use spindle_spiffe_core::EntryId;

use super::error::TokenError;
use super::token::{Token, TokenName};

type Answer = Result<Arc<Token>, TokenError>;

/// A request that can be waited for by many.
pub(super) type Flight = Shared<BoxFuture<'static, Answer>>;

/// Dead requests are looked for when there are this many more than were alive the last time.
const SWEEP_AFTER: usize = 64;

/// The requests under way, by entry and token.
#[derive(Default)]
pub(super) struct Flights {
    by_key: HashMap<(EntryId, TokenName), WeakShared<BoxFuture<'static, Answer>>>,
    alive: usize,
}

impl Flights {
    /// The request under way for `key`, or a new one. Whoever gets it has to wait for it.
    pub(super) fn join<F>(&mut self, key: (EntryId, TokenName), begin: impl FnOnce() -> F) -> Flight
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        // One that has its answer is over: its token may have been found unsound since.
        let under_way = self.by_key.get(&key).and_then(WeakShared::upgrade);
        if let Some(flight) = under_way.filter(|flight| flight.peek().is_none()) {
            return flight;
        }
        let flight = begin().boxed().shared();
        if let Some(weak) = flight.downgrade() {
            self.by_key.insert(key, weak);
        }
        if self.by_key.len() >= self.alive + SWEEP_AFTER {
            self.by_key.retain(|_, weak| weak.upgrade().is_some_and(|flight| flight.peek().is_none()));
            self.alive = self.by_key.len();
        }
        flight
    }
}
