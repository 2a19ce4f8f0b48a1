//! Decides which entries are to be signed next: desired entries against held SVIDs.
//!
//! Pure: callers pass `now` and when to renew or retry. Entries without an SVID come first, then those that expire
//! first. A ticket stands for one signing under way; its result counts only while the entry is still the same. A clock
//! that is set back to before a time was decided makes that time say nothing, so the entry is due at once, as in
//! `spindle-renewal`. Start at [`Plan::put`] and [`Plan::take_due`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use spindle_renewal::{Backoff, Jitter};
use spindle_spiffe_core::{EntryId, RegistrationEntry, Timestamp};

/// Every entry the agent is to hold an SVID for, and where it stands.
#[derive(Debug)]
pub(crate) struct Plan {
    tracked: HashMap<EntryId, Tracked>,
    /// How many entries are signed ahead. Those that somebody asks for may be more.
    ahead_max: usize,
    /// The entries that wait for demand.
    on_demand: BTreeSet<EntryId>,
    due: BTreeSet<(Timestamp, EntryId)>,
    /// The same entries by when that was decided.
    decided: BTreeSet<(Timestamp, EntryId)>,
    expiries: BTreeSet<(Timestamp, EntryId)>,
    tickets: u64,
}

#[derive(Debug)]
struct Tracked {
    entry: Arc<RegistrationEntry>,
    not_after: Option<Timestamp>,
    state: State,
    failures: u32,
    backoff: Backoff,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has asked for it yet.
    OnDemand,
    /// To be signed at a time.
    Due {
        /// This one.
        at: Timestamp,
        /// When that was decided. Before it the clock has been set back.
        decided_at: Timestamp,
    },
    /// Being signed under this ticket number.
    Signing(u64),
}

/// One signing under way.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    number: u64,
    /// The entry as it was when the signing began.
    pub(crate) entry: Arc<RegistrationEntry>,
    /// Whether its SVID is renewed because of its age.
    pub(crate) is_renewal: bool,
}

impl State {
    fn due_at_once(now: Timestamp) -> Self {
        Self::Due { at: now, decided_at: now }
    }

    /// Whether its time was decided before it came.
    fn was_foreseen(self) -> bool {
        matches!(self, Self::Due { at, decided_at } if at > decided_at)
    }
}

/// What a put meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// The same entry was there: nothing to do.
    Unchanged,
    /// The entry is new, or its SVID cannot serve it any more.
    Fresh,
    /// The entry changed; its SVID serves on until a new one is there.
    Changed,
}

impl Plan {
    /// A plan without entries that signs `ahead_max` of them before anybody asks.
    pub(crate) fn new(ahead_max: usize) -> Self {
        Self {
            tracked: HashMap::new(),
            ahead_max,
            on_demand: BTreeSet::new(),
            due: BTreeSet::new(),
            decided: BTreeSet::new(),
            expiries: BTreeSet::new(),
            tickets: 0,
        }
    }

    /// Adds or replaces an entry. It is due at once, unless it waits for demand: because it says so, or because there are
    /// enough others already.
    pub(crate) fn put(&mut self, entry: Arc<RegistrationEntry>, now: Timestamp) -> Put {
        let id = entry.id.clone();
        let old = self.tracked.get(&id);
        if old.is_some_and(|old| *old.entry == *entry) {
            return Put::Unchanged;
        }
        let same_id = old.is_some_and(|old| old.entry.spiffe_id == entry.spiffe_id);
        let not_after = old.and_then(|old| old.not_after).filter(|_| same_id);
        let was_asked_for = old.is_some_and(|old| old.state != State::OnDemand);
        let waits = entry.disable_x509_svid_prefetch || self.active() >= self.ahead_max;
        let state = if waits && !was_asked_for { State::OnDemand } else { State::due_at_once(now) };
        self.forget(&id);
        self.track(id, Tracked { entry, not_after, state, failures: 0, backoff: Backoff::default() });
        if same_id { Put::Changed } else { Put::Fresh }
    }

    /// Forgets an entry; a signing under way for it no longer counts. False when it was not there.
    pub(crate) fn remove(&mut self, id: &EntryId) -> bool {
        self.forget(id).is_some()
    }

    /// Has more entries signed ahead while there is room, and returns them.
    pub(crate) fn fill(&mut self, now: Timestamp) -> Vec<Arc<RegistrationEntry>> {
        let room = self.ahead_max.saturating_sub(self.active());
        if room == 0 {
            return Vec::new();
        }
        let waiting = self.on_demand.iter().filter_map(|id| Some(self.tracked.get(id)?.entry.clone()));
        let filled: Vec<_> = waiting.filter(|one| !one.disable_x509_svid_prefetch).take(room).collect();
        filled.iter().for_each(|entry| self.demand(&entry.id, now));
        filled
    }

    /// How many entries there are beyond those signed ahead.
    pub(crate) fn excess(&self) -> usize {
        self.active().saturating_sub(self.ahead_max)
    }

    /// Whether the entry has an SVID that it could do without until somebody asks: none is being signed for it.
    pub(crate) fn may_rest(&self, id: &EntryId) -> bool {
        self.tracked.get(id).is_some_and(|tracked| matches!(tracked.state, State::Due { .. }))
    }

    /// The entry waits for demand again, and its SVID is forgotten.
    pub(crate) fn rest(&mut self, id: &EntryId) {
        self.change(id, |tracked| {
            tracked.not_after = None;
            tracked.state = State::OnDemand;
        });
    }

    fn active(&self) -> usize {
        self.tracked.len() - self.on_demand.len()
    }

    /// Whether there is such an entry.
    pub(crate) fn has(&self, id: &EntryId) -> bool {
        self.tracked.contains_key(id)
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.tracked.len()
    }

    /// How many of them have an SVID.
    pub(crate) fn held(&self) -> usize {
        self.expiries.len()
    }

    /// The ids of all entries.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &EntryId> {
        self.tracked.keys()
    }

    /// A workload asks for an entry that waited for demand: it is due now.
    pub(crate) fn demand(&mut self, id: &EntryId, now: Timestamp) {
        if self.tracked.get(id).is_some_and(|tracked| tracked.state == State::OnDemand) {
            self.change(id, |tracked| tracked.state = State::due_at_once(now));
        }
    }

    /// The SVID of this entry must be replaced before its time. A signing under way does not count: it may bring the same.
    pub(crate) fn hurry(&mut self, id: &EntryId, now: Timestamp) {
        if self.tracked.get(id).is_some_and(|tracked| tracked.state != State::OnDemand) {
            self.change(id, |tracked| tracked.state = State::due_at_once(now));
        }
    }

    /// Whether the entry waits for demand.
    pub(crate) fn is_on_demand(&self, id: &EntryId) -> bool {
        self.tracked.get(id).is_some_and(|tracked| tracked.state == State::OnDemand)
    }

    /// Takes up to `most` entries that are due at `now`, the most urgent first, and marks them as being signed.
    pub(crate) fn take_due(&mut self, now: Timestamp, most: usize) -> Vec<Ticket> {
        let reached = self.due.iter().take_while(|(at, _)| *at <= now);
        let set_back = self.decided.iter().rev().take_while(|(decided_at, _)| *decided_at > now);
        let mut ids: Vec<(Option<Timestamp>, EntryId)> = reached
            .chain(set_back)
            .filter_map(|(_, id)| Some((self.tracked.get(id)?.not_after, id.clone())))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids.truncate(most);
        ids.into_iter().filter_map(|(_, id)| self.begin(&id)).collect()
    }

    /// Whether anything is due at `now`.
    pub(crate) fn has_due(&self, now: Timestamp) -> bool {
        self.due.first().is_some_and(|(at, _)| *at <= now)
            || self.decided.last().is_some_and(|(decided_at, _)| *decided_at > now)
    }

    /// When the next entry is due, now or later.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The last second of the SVID that ends first.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// An SVID is here. True when it counts: the entry is still there and is what it was.
    pub(crate) fn on_signed(
        &mut self,
        ticket: &Ticket,
        now: Timestamp,
        not_after: Timestamp,
        renew_at: Timestamp,
    ) -> bool {
        self.settle(ticket, |tracked| {
            tracked.not_after = Some(not_after);
            tracked.state = State::Due { at: renew_at, decided_at: now };
            tracked.failures = 0;
            tracked.backoff.reset();
        })
    }

    /// This entry was refused: it waits longer each time, but never past the end of an SVID it still has. Returns how
    /// often in a row, or none when the ticket no longer counts.
    pub(crate) fn on_refused(&mut self, ticket: &Ticket, now: Timestamp, jitter: Jitter) -> Option<u32> {
        let mut failures = 0;
        let counts = self.settle(ticket, |tracked| {
            tracked.failures = tracked.failures.saturating_add(1);
            failures = tracked.failures;
            let pause_ms = tracked.backoff.next_pause(jitter).as_millis();
            let at = now + i64::try_from(pause_ms.div_ceil(1000)).unwrap_or(i64::MAX);
            let at = tracked.not_after.map_or(at, |end| end.min(at));
            tracked.state = State::Due { at, decided_at: now };
        });
        counts.then_some(failures)
    }

    /// The whole call failed, which says nothing about this entry: it is due again at once.
    pub(crate) fn on_call_failed(&mut self, ticket: &Ticket, now: Timestamp) {
        self.settle(ticket, |tracked| tracked.state = State::due_at_once(now));
    }

    /// Takes the entries whose SVID has ended before `now`. They are due if they were not already.
    pub(crate) fn take_expired(&mut self, now: Timestamp) -> Vec<EntryId> {
        let ended: Vec<EntryId> =
            self.expiries.iter().take_while(|(at, _)| *at < now).map(|(_, id)| id.clone()).collect();
        for id in &ended {
            self.change(id, |tracked| tracked.not_after = None);
        }
        ended
    }

    fn begin(&mut self, id: &EntryId) -> Option<Ticket> {
        self.tickets += 1;
        let (number, mut is_renewal) = (self.tickets, false);
        self.change(id, |tracked| {
            is_renewal = tracked.not_after.is_some() && tracked.state.was_foreseen();
            tracked.state = State::Signing(number);
        });
        Some(Ticket { number, entry: self.tracked.get(id)?.entry.clone(), is_renewal })
    }

    fn settle(&mut self, ticket: &Ticket, with: impl FnOnce(&mut Tracked)) -> bool {
        let id = &ticket.entry.id;
        let counts = self.tracked.get(id).is_some_and(|one| one.state == State::Signing(ticket.number));
        if counts {
            self.change(id, with);
        }
        counts
    }

    /// Every change of a tracked entry goes through here, so that orders and sets always agree with it.
    fn change(&mut self, id: &EntryId, with: impl FnOnce(&mut Tracked)) {
        if let Some(mut tracked) = self.forget(id) {
            with(&mut tracked);
            self.track(id.clone(), tracked);
        }
    }

    fn track(&mut self, id: EntryId, tracked: Tracked) {
        if let State::Due { at, decided_at } = tracked.state {
            self.due.insert((at, id.clone()));
            self.decided.insert((decided_at, id.clone()));
        }
        if tracked.state == State::OnDemand {
            self.on_demand.insert(id.clone());
        }
        if let Some(end) = tracked.not_after {
            self.expiries.insert((end, id.clone()));
        }
        self.tracked.insert(id, tracked);
    }

    fn forget(&mut self, id: &EntryId) -> Option<Tracked> {
        let (id, tracked) = self.tracked.remove_entry(id)?;
        if let Some(end) = tracked.not_after {
            self.expiries.remove(&(end, id.clone()));
        }
        if tracked.state == State::OnDemand {
            self.on_demand.remove(&id);
        }
        if let State::Due { at, decided_at } = tracked.state {
            self.due.remove(&(at, id.clone()));
            self.decided.remove(&(decided_at, id));
        }
        Some(tracked)
    }
}

#[cfg(test)]
mod tests;
