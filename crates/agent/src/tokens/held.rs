//! The tokens at hand: which one serves a request, which one is due, which one makes room.
//!
//! Pure: callers pass `now` and jitter. A token serves until half of its life; after that, and after a failed renewal until
//! the pause is over, see [`spindle_renewal::Renewal`]. Start at [`HeldTokens::find`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use spindle_renewal::{Jitter, Renewal, RenewalPolicy, Step};
use spindle_spiffe_core::Timestamp;

use super::token::{Token, TokenName};

/// What is at hand for a request.
#[derive(Debug)]
pub(super) enum Found {
    /// This serves.
    Fresh(Arc<Token>),
    /// A new one is due; this still serves when there is none.
    Due(Arc<Token>),
    /// Nothing that serves.
    Nothing,
}

/// At most so many tokens as it is told; the one used longest ago makes room.
#[derive(Debug)]
pub(super) struct HeldTokens {
    max: usize,
    slots: HashMap<Arc<TokenName>, Slot>,
    /// Names by their last use, the oldest first.
    by_use: BTreeMap<u64, Arc<TokenName>>,
    uses: u64,
}

#[derive(Debug)]
struct Slot {
    token: Arc<Token>,
    renewal: Renewal,
    used: u64,
}

impl HeldTokens {
    /// Holds nothing yet, and never more than `max` tokens.
    pub(super) fn new(max: usize) -> Self {
        Self { max, slots: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// What is at hand under `name`. One that `is_sound` refuses, or whose life is over, is forgotten.
    pub(super) fn find(
        &mut self,
        name: &TokenName,
        now: Timestamp,
        is_sound: impl FnOnce(&Token) -> bool,
    ) -> Found {
        let Some(slot) = self.slots.get_mut(name) else { return Found::Nothing };
        let step = slot.renewal.step(now);
        if step == Step::Expired || !is_sound(&slot.token) {
            self.remove(name);
            return Found::Nothing;
        }
        self.uses += 1;
        if let Some(name) = self.by_use.remove(&slot.used) {
            self.by_use.insert(self.uses, name);
        }
        slot.used = self.uses;
        let token = slot.token.clone();
        if step == Step::Renew { Found::Due(token) } else { Found::Fresh(token) }
    }

    /// Keeps a token that came just now.
    pub(super) fn put(&mut self, name: TokenName, token: Arc<Token>, now: Timestamp, jitter: Jitter) {
        self.remove(&name);
        while self.slots.len() >= self.max {
            let Some((_, oldest)) = self.by_use.pop_first() else { return };
            self.slots.remove(&oldest);
        }
        let renewal = Renewal::issued(RenewalPolicy::default(), token.validity(), now, jitter);
        let name = Arc::new(name);
        self.uses += 1;
        self.by_use.insert(self.uses, name.clone());
        self.slots.insert(name, Slot { token, renewal, used: self.uses });
    }

    /// The renewal of the token under `name` failed; it serves on for a while before the next try. False when that is
    /// known already, for many may have waited for the same answer.
    pub(super) fn on_failure(&mut self, name: &TokenName, now: Timestamp, jitter: Jitter) -> bool {
        let Some(slot) = self.slots.get_mut(name) else { return false };
        let is_news = slot.renewal.step(now) == Step::Renew;
        if is_news {
            slot.renewal.on_failure(now, jitter);
        }
        is_news
    }

    /// Forgets what `is_sound` refuses and what is over.
    pub(super) fn tidy(&mut self, now: Timestamp, is_sound: impl Fn(&Token) -> bool) {
        let serves = |slot: &Slot| !slot.token.validity().is_over(now) && is_sound(&slot.token);
        self.slots.retain(|_, slot| serves(slot));
        self.by_use.retain(|_, name| self.slots.contains_key(name));
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    fn remove(&mut self, name: &TokenName) {
        if let Some(slot) = self.slots.remove(name) {
            self.by_use.remove(&slot.used);
        }
    }
}

#[cfg(test)]
mod tests;
