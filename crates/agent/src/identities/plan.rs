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
}

impl State {
    fn due_at_once(now: Timestamp) -> Self {
        Self::Due { at: now, decided_at: now }
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
        let number = self.tickets;
        self.change(id, |tracked| tracked.state = State::Signing(number));
        Some(Ticket { number, entry: self.tracked.get(id)?.entry.clone() })
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
mod tests {
    use super::*;
    use crate::fixtures::{NOW, entry};

    fn plan(ids: &[&str]) -> Plan {
        let mut plan = Plan::new(usize::MAX);
        for id in ids {
            plan.put(Arc::new(entry(id, &["unix:uid:1"])), NOW);
        }
        plan
    }

    fn ids(tickets: &[Ticket]) -> Vec<&str> {
        tickets.iter().map(|ticket| ticket.entry.id.as_str()).collect()
    }

    /// Signs everything that is due, for the given number of seconds each.
    fn sign_all(plan: &mut Plan, ttl_secs: impl Fn(&str) -> i64) {
        for ticket in plan.take_due(NOW, 100) {
            let end = NOW + ttl_secs(ticket.entry.id.as_str());
            assert!(plan.on_signed(&ticket, NOW, end, NOW + 10));
        }
    }

    #[test]
    fn a_new_entry_is_due_at_once_and_only_once() {
        let mut plan = plan(&["a"]);
        assert_eq!(plan.next_due(), Some(NOW));
        assert_eq!(ids(&plan.take_due(NOW, 10)), ["a"]);
        assert!(plan.take_due(NOW, 10).is_empty());
    }

    #[test]
    fn those_without_an_svid_come_first_and_then_those_that_end_first() {
        let mut plan = plan(&["long", "short"]);
        sign_all(&mut plan, |id| if id == "short" { 60 } else { 600 });
        plan.put(Arc::new(entry("new", &["unix:uid:1"])), NOW + 10);
        assert_eq!(ids(&plan.take_due(NOW + 10, 10)), ["new", "short", "long"]);
    }

    #[test]
    fn a_batch_is_cut_to_size_by_urgency() {
        let mut plan = plan(&["a", "b", "c"]);
        sign_all(&mut plan, |id| if id == "c" { 60 } else { 600 });
        assert_eq!(ids(&plan.take_due(NOW + 10, 1)), ["c"]);
        assert_eq!(ids(&plan.take_due(NOW + 10, 10)), ["a", "b"]);
    }

    #[test]
    fn nothing_is_due_before_its_renewal() {
        let mut plan = plan(&["a"]);
        sign_all(&mut plan, |_| 60);
        assert!(!plan.has_due(NOW + 9) && plan.take_due(NOW + 9, 10).is_empty());
        assert!(plan.has_due(NOW + 10));
    }

    #[test]
    fn the_same_entry_again_changes_nothing() {
        let mut plan = plan(&["a"]);
        sign_all(&mut plan, |_| 60);
        assert_eq!(plan.put(Arc::new(entry("a", &["unix:uid:1"])), NOW), Put::Unchanged);
        assert!(!plan.has_due(NOW));
    }

    #[test]
    fn a_result_for_an_entry_that_changed_meanwhile_does_not_count() {
        let mut plan = plan(&["a"]);
        let ticket = plan.take_due(NOW, 1).remove(0);
        let mut changed = entry("a", &["unix:uid:1"]);
        changed.revision_number = 1;
        assert_eq!(plan.put(Arc::new(changed), NOW), Put::Changed);
        assert!(!plan.on_signed(&ticket, NOW, NOW + 60, NOW + 30));
        assert_eq!(ids(&plan.take_due(NOW, 1)), ["a"]);
    }

    #[test]
    fn a_result_for_an_entry_that_is_gone_does_not_count() {
        let mut plan = plan(&["a"]);
        let ticket = plan.take_due(NOW, 1).remove(0);
        assert!(plan.remove(&ticket.entry.id));
        assert!(!plan.on_signed(&ticket, NOW, NOW + 60, NOW + 30));
        assert_eq!(plan.next_expiry(), None);
    }

    #[test]
    fn another_spiffe_id_makes_the_held_svid_useless() {
        let mut plan = plan(&["a"]);
        sign_all(&mut plan, |_| 60);
        let mut renamed = entry("a", &["unix:uid:1"]);
        renamed.spiffe_id = "spiffe://prod.example/b".parse().unwrap();
        assert_eq!(plan.put(Arc::new(renamed), NOW), Put::Fresh);
        assert_eq!(plan.next_expiry(), None);
    }

    #[test]
    fn a_refused_entry_waits_alone_longer_each_time_and_counts_its_failures() {
        let mut plan = plan(&["a", "b"]);
        let tickets = plan.take_due(NOW, 2);
        assert_eq!(plan.on_refused(&tickets[0], NOW, Jitter::NONE), Some(1));
        assert!(plan.on_signed(&tickets[1], NOW, NOW + 600, NOW + 300));
        assert_eq!(plan.next_due(), Some(NOW + 1));
        let again = plan.take_due(NOW + 1, 2);
        assert_eq!(ids(&again), ["a"]);
        assert_eq!(plan.on_refused(&again[0], NOW + 1, Jitter::NONE), Some(2));
        assert_eq!(plan.next_due(), Some(NOW + 3));
    }

    #[test]
    fn no_wait_reaches_past_the_end_of_a_held_svid() {
        let mut plan = plan(&["a"]);
        sign_all(&mut plan, |_| 60);
        let ticket = plan.take_due(NOW + 10, 1).remove(0);
        plan.on_refused(&ticket, NOW + 60, Jitter::NONE);
        assert_eq!(plan.next_due(), Some(NOW + 60));
    }

    #[test]
    fn an_svid_that_must_go_is_due_at_once_and_what_is_being_signed_for_it_does_not_count() {
        let mut plan = plan(&["a"]);
        sign_all(&mut plan, |_| 600);
        plan.hurry(&"a".parse().unwrap(), NOW + 1);
        let ticket = plan.take_due(NOW + 1, 1).remove(0);
        plan.hurry(&ticket.entry.id, NOW + 1);
        assert!(!plan.on_signed(&ticket, NOW + 1, NOW + 600, NOW + 300));
        assert_eq!(ids(&plan.take_due(NOW + 1, 1)), ["a"]);
    }

    #[test]
    fn a_failed_call_leaves_its_entries_due() {
        let mut plan = plan(&["a"]);
        let ticket = plan.take_due(NOW, 1).remove(0);
        plan.on_call_failed(&ticket, NOW);
        assert!(plan.has_due(NOW));
    }

    #[test]
    fn a_clock_that_is_set_back_makes_everything_decided_later_due_at_once() {
        let mut plan = plan(&["held", "refused"]);
        let tickets = plan.take_due(NOW, 2);
        assert!(plan.on_signed(&tickets[0], NOW, NOW + 600, NOW + 300));
        plan.on_refused(&tickets[1], NOW, Jitter::NONE);
        plan.put(Arc::new(entry("new", &["unix:uid:1"])), NOW);
        let earlier = NOW - 3600;
        assert!(plan.has_due(earlier));
        assert_eq!(ids(&plan.take_due(earlier, 10)), ["new", "refused", "held"]);
        assert!(!plan.has_due(earlier) && plan.decided.is_empty());
    }

    #[test]
    fn a_clock_that_is_set_back_a_little_leaves_earlier_decisions_alone() {
        let mut plan = plan(&["a"]);
        sign_all(&mut plan, |_| 600);
        assert!(!plan.has_due(NOW + 5));
        assert!(!plan.has_due(NOW));
        assert!(plan.has_due(NOW - 1));
    }

    #[test]
    fn an_svid_counts_through_its_last_second_and_is_taken_once_after() {
        let mut plan = plan(&["a"]);
        sign_all(&mut plan, |_| 60);
        assert!(plan.take_expired(NOW + 60).is_empty());
        assert_eq!(plan.take_expired(NOW + 61).len(), 1);
        assert!(plan.take_expired(NOW + 61).is_empty());
    }

    #[test]
    fn only_so_many_are_signed_ahead_and_who_leaves_makes_room_for_the_next() {
        let mut plan = Plan::new(2);
        for id in ["a", "b", "c", "d"] {
            plan.put(Arc::new(entry(id, &["unix:uid:1"])), NOW);
        }
        assert_eq!(ids(&plan.take_due(NOW, 10)), ["a", "b"]);
        assert!(plan.is_on_demand(&"c".parse().unwrap()) && plan.fill(NOW).is_empty());
        plan.remove(&"a".parse().unwrap());
        let filled: Vec<_> = plan.fill(NOW).iter().map(|entry| entry.id.to_string()).collect();
        assert_eq!((filled, ids(&plan.take_due(NOW, 10))), (vec!["c".to_owned()], vec!["c"]));
    }

    #[test]
    fn one_that_is_asked_for_is_signed_beyond_the_number_and_another_may_rest() {
        let mut plan = Plan::new(1);
        for id in ["a", "b"] {
            plan.put(Arc::new(entry(id, &["unix:uid:1"])), NOW);
        }
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert_eq!(plan.excess(), 0);
        plan.demand(&b, NOW);
        assert_eq!(plan.excess(), 1);
        let tickets = plan.take_due(NOW, 10);
        assert!(!plan.may_rest(&a), "it is being signed");
        tickets.iter().for_each(|ticket| assert!(plan.on_signed(ticket, NOW, NOW + 60, NOW + 30)));
        assert!(plan.may_rest(&a));
        plan.rest(&a);
        assert_eq!((plan.excess(), plan.is_on_demand(&a)), (0, true));
        assert_eq!(ids(&plan.take_due(NOW + 30, 10)), ["b"]);
        assert!(plan.take_expired(NOW + 61).len() == 1, "what rests has nothing to expire");
    }

    #[test]
    fn an_entry_on_demand_waits_until_somebody_asks() {
        let mut plan = Plan::new(usize::MAX);
        let mut quiet = entry("a", &["unix:uid:1"]);
        quiet.disable_x509_svid_prefetch = true;
        plan.put(Arc::new(quiet), NOW);
        assert!(!plan.has_due(NOW) && plan.is_on_demand(&"a".parse().unwrap()));
        plan.demand(&"a".parse().unwrap(), NOW);
        assert!(plan.has_due(NOW));
    }
}
