//! The task that keeps WIT-SVIDs: follows what streams want and what the cache says, and has what is due signed.
//!
//! What is due is decided by the same plan as for X509-SVIDs. Start at [`WitKeeper::run`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use spindle_renewal::{Backoff, BackoffPolicy, Jitter, Renewal, RenewalPolicy};
use spindle_runtime::Shutdown;
use spindle_spiffe_core::{Bundle, Clock, Entropy, EntryId, Timestamp};
use tokio::time::Instant;
use tonic::Code;
use tracing::{info, warn};

use super::WitSource;
use super::ask::WitIssuer;
use super::batch::{self, Outcome};
use super::token::HeldWit;
use crate::cache::Unready;
use crate::call_error::CallError;
use crate::identities::plan::{Plan, Put, Ticket};
use crate::identities::{instant, moment};

/// Batches under way at once, so that one slow call does not hold up a new stream.
const BATCHES_MAX: usize = 2;

/// Requests in one call.
const BATCH_MAX: usize = 500;

/// Pauses between failed calls.
const CALL_BACKOFF: BackoffPolicy = BackoffPolicy {
    first: Duration::from_millis(200),
    max: Duration::from_secs(30),
    growth_percent: 200,
    jitter_percent: 25,
};

/// What the task needs from outside.
pub(crate) struct Parts {
    pub(crate) source: WitSource,
    pub(crate) issuer: Arc<dyn WitIssuer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// When a WIT-SVID is renewed.
    pub(crate) policy: RenewalPolicy,
}

/// The task that owns the plan.
pub(crate) struct WitKeeper {
    parts: Parts,
    plan: Plan,
    under_way: FuturesUnordered<BoxFuture<'static, Outcome>>,
    backoff: Backoff,
    failed_calls: u32,
    calls_from: Option<Instant>,
    /// WIT-SVIDs whose authority is tainted or gone, by their number.
    replacing: HashSet<u64>,
}

impl WitKeeper {
    /// A task that holds nothing.
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts,
            plan: Plan::new(usize::MAX),
            under_way: FuturesUnordered::new(),
            backoff: Backoff::new(CALL_BACKOFF),
            failed_calls: 0,
            calls_from: None,
            replacing: HashSet::new(),
        }
    }

    /// Works until the shutdown begins.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let (clock, source) = (self.parts.clock.clone(), self.parts.source.clone());
        let mut published = source.0.cache.published();
        loop {
            published.borrow_and_update();
            self.follow();
            self.drop_expired();
            self.begin_due();
            let calls_from = self.calls_from.filter(|_| self.plan.has_due(clock.now()));
            let wake_at = self.next_event();
            // Every arm is cancel-safe: channels, permits and timers by contract.
            tokio::select! {
                () = shutdown.begun() => return,
                Some(outcome) = self.under_way.next() => self.on_outcome(outcome),
                // The cache lives as long as the source.
                _ = published.changed() => {}
                () = source.0.wanted.notified() => {}
                () = instant(calls_from) => self.calls_from = None,
                () = moment(clock.as_ref(), wake_at) => {}
            }
        }
    }

    /// When the plan wants attention next; none while only a batch's end can change anything.
    fn next_event(&self) -> Option<Timestamp> {
        let may_call = self.under_way.len() < BATCHES_MAX && self.calls_from.is_none();
        let due = self.plan.next_due().filter(|_| may_call);
        let expiry = self.plan.next_expiry().map(|last| last + 1);
        due.into_iter().chain(expiry).min()
    }

    /// Takes over what streams want and what became of the entries and of the authorities.
    fn follow(&mut self) {
        let (now, source) = (self.parts.clock.now(), self.parts.source.clone());
        let snapshot = source.0.cache.snapshot();
        let mut ids: HashSet<EntryId> = self.plan.ids().cloned().collect();
        ids.extend(source.lock().wants.keys().cloned());
        let bundle = &snapshot.own_bundle().whole;
        for id in ids {
            let Some(identity) = snapshot.identity(&id) else {
                if self.plan.remove(&id) {
                    source.hold(&id, None);
                }
                continue;
            };
            let put = self.plan.put(identity.entry.clone(), now);
            // Whoever is here was asked for.
            self.plan.demand(&id, now);
            if put == Put::Fresh {
                source.hold(&id, Some(Err(Unready::Signing)));
            }
        }
        self.replace_what_lost_its_authority(bundle, now);
    }

    /// Each WIT-SVID is hurried once: when its replacement is refused, the entry waits as any other.
    fn replace_what_lost_its_authority(&mut self, bundle: &Bundle, now: Timestamp) {
        let lost: HashMap<u64, EntryId> = {
            let state = self.parts.source.lock();
            let held = state.held.iter().filter_map(|(id, held)| Some((id, held.as_ref().ok()?)));
            let lost = held.filter(|(_, held)| held.has_lost_its_authority(bundle));
            lost.map(|(id, held)| (held.number, id.clone())).collect()
        };
        self.replacing.retain(|number| lost.contains_key(number));
        for (number, id) in lost {
            if self.replacing.insert(number) {
                info!(entry_id = %id, "the authority of a WIT-SVID is tainted or gone, replacing it");
                self.plan.hurry(&id, now);
            }
        }
    }

    fn drop_expired(&mut self) {
        for id in self.plan.take_expired(self.parts.clock.now()) {
            warn!(entry_id = %id, "a WIT-SVID has expired and is withdrawn");
            self.parts.source.hold(&id, Some(Err(Unready::Failed("the WIT-SVID has expired".into()))));
        }
    }

    fn begin_due(&mut self) {
        let now = self.parts.clock.now();
        while self.calls_from.is_none() && self.under_way.len() < BATCHES_MAX {
            let (wanted, idle): (Vec<Ticket>, Vec<Ticket>) = {
                let tickets = self.plan.take_due(now, BATCH_MAX);
                let state = self.parts.source.lock();
                tickets.into_iter().partition(|ticket| state.wants.contains_key(&ticket.entry.id))
            };
            for ticket in &idle {
                self.plan.remove(&ticket.entry.id);
                self.parts.source.hold(&ticket.entry.id, None);
            }
            if wanted.is_empty() {
                return;
            }
            let (issuer, cache) = (self.parts.issuer.clone(), self.parts.source.0.cache.clone());
            let clock = self.parts.clock.clone();
            self.under_way.push(Box::pin(batch::sign(issuer, cache, wanted, move || clock.now())));
        }
    }

    fn on_outcome(&mut self, outcome: Outcome) {
        let now = self.parts.clock.now();
        match outcome {
            Ok(received) => {
                self.backoff.reset();
                if self.failed_calls > 0 {
                    info!(failures = self.failed_calls, "WIT-SVIDs are signed again");
                }
                self.failed_calls = 0;
                for (ticket, held) in received {
                    match held {
                        Ok(held) => self.on_received(&ticket, held, now),
                        Err(why) => self.on_refused(&ticket, &why, now),
                    }
                }
            }
            Err((tickets, error)) => {
                tickets.iter().for_each(|ticket| self.plan.on_call_failed(ticket, now));
                self.on_call_failed(tickets.len(), &error);
            }
        }
    }

    fn on_call_failed(&mut self, entries: usize, error: &CallError) {
        self.failed_calls = self.failed_calls.saturating_add(1);
        if self.failed_calls.is_power_of_two() {
            warn!(entries, %error, reason = error.reason_code(), failures = self.failed_calls,
                "signing failed; WIT-SVIDs are tried again");
        }
        let own = self.backoff.next_pause(self.jitter());
        let pause = error.retry_after().map_or(own, |asked| asked.clamp(own, CALL_BACKOFF.max.max(own)));
        self.calls_from = Some(Instant::now() + pause);
        if error.code() == Some(Code::Unimplemented) {
            self.parts.source.doubt();
        }
    }

    fn on_received(&mut self, ticket: &Ticket, held: HeldWit, now: Timestamp) {
        let renewal = Renewal::issued(self.parts.policy, held.validity, now, self.jitter());
        if !self.plan.on_signed(ticket, now, held.validity.not_after, renewal.due_at()) {
            return;
        }
        info!(spiffe_id = %held.spiffe_id, entry_id = %ticket.entry.id,
            expires_at = %(held.validity.not_after + 1), "WIT-SVID received");
        self.parts.source.hold(&ticket.entry.id, Some(Ok(Arc::new(held))));
    }

    /// The entry waits; a WIT-SVID it still has serves on, without one the reason is shown.
    fn on_refused(&mut self, ticket: &Ticket, why: &str, now: Timestamp) {
        let jitter = self.jitter();
        let Some(failures) = self.plan.on_refused(ticket, now, jitter) else { return };
        if failures.is_power_of_two() {
            warn!(spiffe_id = %ticket.entry.spiffe_id, entry_id = %ticket.entry.id, failures, why,
                "WIT-SVID was refused");
        }
        let source = &self.parts.source;
        let is_held = matches!(source.lock().held.get(&ticket.entry.id), Some(Ok(_)));
        if !is_held {
            source.hold(&ticket.entry.id, Some(Err(Unready::Failed(why.into()))));
        }
    }

    /// Drawn once for each WIT-SVID or pause.
    fn jitter(&self) -> Jitter {
        Jitter::draw(self.parts.entropy.as_ref())
    }
}
