//! Keeps an SVID for every entry the agent is authorised for: takes updates, has what is due signed, feeds the cache.
//!
//! One task owns the plan and is the cache's only writer. A new entry is signed at once; nothing on that way waits for a
//! timer. One refused entry waits alone, with a reason; when a whole call fails all its entries stay due and the calls
//! back off. What is due is decided in `plan`, keys and requests are made in `batch`. Start at [`Identities::run`].

mod batch;
pub(crate) mod pace;
pub(crate) mod plan;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use spindle_keys::KeyType;
use spindle_renewal::{Backoff, BackoffPolicy, Jitter, Renewal, RenewalPolicy};
use spindle_runtime::{Shutdown, nap_until};
use spindle_spiffe_core::{
    Bundle, Clock, Entropy, EntryId, RegistrationEntry, Timestamp, TrustDomain, X509Bundle, X509Svid,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::Code;
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use crate::cache::{Cache, Change, HeldSvid, Identity, Unready};
use crate::call_error::drawn_out;
use crate::metrics::{Metrics, code_of, size};
use crate::trust::{is_below, key_ids, lost_authorities};
use pace::Pace;
use plan::{Plan, Put, Ticket};

pub(crate) use batch::{Signer, SigningAnswer, SigningRequest};

/// Batches under way at once, so that one slow call does not hold up a new entry.
const BATCHES_MAX: usize = 4;

/// Requests in one call, SPIRE's bound: about 250 KiB.
const BATCH_MAX: usize = 500;

/// Pauses between failed calls: the first retry comes fast, because most breaks are short.
const CALL_BACKOFF: BackoffPolicy = BackoffPolicy {
    first: Duration::from_millis(100),
    max: Duration::from_secs(30),
    growth_percent: 200,
    jitter_percent: 25,
};

/// How long nothing is let go after so much was in use that the excess stayed: looking costs a look at every view.
const LET_GO_PAUSE: Duration = Duration::from_secs(10);

/// A change of what the agent is authorised for, to be applied as one.
#[derive(Debug)]
pub(crate) struct Update {
    /// Whether this replaces everything, or changes it.
    pub(crate) snapshot: bool,
    /// Entries, new or changed.
    pub(crate) entries: Vec<RegistrationEntry>,
    /// Entries that are gone. Empty in a snapshot.
    pub(crate) removed: Vec<EntryId>,
    /// The own trust domain's bundle, if it may have changed.
    pub(crate) own_bundle: Option<Bundle>,
    /// Foreign bundles, new or changed.
    pub(crate) federated: Vec<Bundle>,
    /// Foreign bundles that are there but cannot be understood: what is held of them stays.
    pub(crate) unreadable_federated: Vec<TrustDomain>,
    /// Foreign bundles that are gone. Empty in a snapshot.
    pub(crate) removed_federated: Vec<TrustDomain>,
    /// Whether it is the first of a connection, so that the server has just come back.
    pub(crate) is_first: bool,
    /// Told once the cache shows the change.
    pub(crate) applied: oneshot::Sender<()>,
}

/// What the task needs from outside.
pub(crate) struct Parts {
    pub(crate) cache: Arc<Cache>,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) updates: mpsc::Receiver<Update>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) key_type: KeyType,
    pub(crate) policy: RenewalPolicy,
    /// How many X509-SVIDs are kept ready, those in use by a stream aside.
    pub(crate) cache_max: usize,
    pub(crate) metrics: Arc<Metrics>,
}

/// The task that owns the plan.
pub(crate) struct Identities {
    parts: Parts,
    plan: Plan,
    under_way: FuturesUnordered<BoxFuture<'static, batch::Outcome>>,
    batch_max: usize,
    backoff: Backoff,
    failed_calls: u32,
    calls_from: Option<Instant>,
    /// Whether it was the server that asked for this pause.
    asked_to_wait: bool,
    pace: Pace,
    let_go_from: Instant,
}

impl Identities {
    /// A task without entries.
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            plan: Plan::new(parts.cache_max),
            parts,
            under_way: FuturesUnordered::new(),
            batch_max: BATCH_MAX,
            backoff: Backoff::new(CALL_BACKOFF),
            failed_calls: 0,
            calls_from: None,
            asked_to_wait: false,
            pace: Pace::default(),
            let_go_from: Instant::now(),
        }
    }

    /// Works until the shutdown begins or nobody sends updates any more.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let (clock, cache) = (self.parts.clock.clone(), self.parts.cache.clone());
        loop {
            self.drop_expired();
            self.begin_due();
            self.tell_sizes();
            let calls_from = self.calls_from.filter(|_| self.plan.has_due(clock.now()));
            let wake_at = self.next_event();
            // Every arm is cancel-safe: channels and timers by contract, `demand` takes only what it returns.
            tokio::select! {
                () = shutdown.begun() => return,
                update = self.parts.updates.recv() => match update {
                    Some(update) => self.apply(update),
                    None => return,
                },
                Some(outcome) = self.under_way.next() => self.on_outcome(outcome),
                ids = cache.demand() => {
                    let now = clock.now();
                    ids.iter().for_each(|id| self.plan.demand(id, now));
                }
                () = instant(calls_from) => self.calls_from = None,
                () = instant(self.pace.next_at()) => self.replace_tainted(),
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

    fn apply(&mut self, update: Update) {
        let now = self.parts.clock.now();
        let mut change = Change { synced: true, removed: update.removed, ..Change::default() };
        if update.snapshot {
            let kept: HashSet<&EntryId> = update.entries.iter().map(|entry| &entry.id).collect();
            change.removed = self.plan.ids().filter(|id| !kept.contains(id)).cloned().collect();
            let named = update.federated.iter().map(|bundle| &bundle.trust_domain);
            let bundles: HashSet<&TrustDomain> = named.chain(&update.unreadable_federated).collect();
            let snapshot = self.parts.cache.snapshot();
            let gone = snapshot.federated_names().filter(|name| !bundles.contains(name));
            change.removed_federated.extend(gone.cloned());
        } else {
            change.removed_federated = update.removed_federated;
        }
        let removed = change.removed.iter().filter(|id| self.plan.remove(id)).count();
        self.parts.metrics.entries_removed.increment(removed as u64);
        let (mut added, mut updated, mut outdated) = (0, 0, 0);
        for entry in update.entries {
            let is_known = self.plan.has(&entry.id);
            match self.put(entry, now, &mut change) {
                Put::Unchanged => continue,
                Put::Changed => outdated += 1,
                Put::Fresh => {}
            }
            if is_known { updated += 1 } else { added += 1 }
        }
        self.parts.metrics.entries_added.increment(added);
        self.parts.metrics.entries_updated.increment(updated);
        if outdated > 0 {
            self.parts.metrics.outdated_svids.record(outdated);
        }
        // What was removed may have made room for others.
        let signing = |entry| Identity { entry, state: Err(Unready::Signing) };
        change.put.extend(self.plan.fill(now).into_iter().map(signing));
        // An empty one would leave every workload without a way to verify anybody.
        change.own_bundle = update.own_bundle.filter(|bundle| !bundle.x509_authorities.is_empty());
        change.federated = update.federated;
        if let Some(bundle) = &change.own_bundle {
            self.replace_what_lost_its_authority(&bundle.x509_bundle(), now);
        }
        // A poll mostly brings nothing new.
        if !change.put.is_empty() || !change.removed.is_empty() {
            debug!(changed = change.put.len(), removed = change.removed.len(), "authorised entries changed");
        }
        // News means the server is back: what waited for it need not wait longer. A poll that brings none means nothing, and
        // a server that asked for the pause was never away.
        if update.is_first || (!change.put.is_empty() && !self.asked_to_wait) {
            self.calls_from = None;
        }
        let bundles_changed = !change.federated.is_empty() || !change.removed_federated.is_empty();
        self.parts.cache.publish(change);
        if bundles_changed || update.snapshot {
            let federated = self.parts.cache.snapshot().federated_names().count();
            self.parts.metrics.synced_bundles.set(size(federated + 1));
        }
        let _ = update.applied.send(());
    }

    fn tell_sizes(&self) {
        let metrics = &self.parts.metrics;
        let entries = size(self.plan.len());
        metrics.entries.set(entries);
        metrics.synced_entries.set(entries);
        metrics.svids.set(size(self.plan.held()));
    }

    fn put(&mut self, entry: RegistrationEntry, now: Timestamp, change: &mut Change) -> Put {
        if entry.store_svid {
            self.plan.remove(&entry.id);
            change.removed.push(entry.id);
            return Put::Unchanged;
        }
        let entry = Arc::new(entry);
        let put = self.plan.put(entry.clone(), now);
        let state = match put {
            Put::Unchanged => return put,
            Put::Changed => {
                self.parts.cache.snapshot().identity(&entry.id).and_then(|held| held.state.clone().ok())
            }
            Put::Fresh => None,
        };
        let on_demand = self.plan.is_on_demand(&entry.id);
        let unready = if on_demand { Unready::OnDemand } else { Unready::Signing };
        change.put.push(Identity { entry, state: state.ok_or(unready) });
        put
    }

    /// They serve on until the new ones are here: a tainted authority is still trusted, and nothing is better than the
    /// SVID of one that is gone. What is gone is replaced at once, what is tainted at the pace of `pace`.
    fn replace_what_lost_its_authority(&mut self, bundle: &X509Bundle, now: Timestamp) {
        let snapshot = self.parts.cache.snapshot();
        let lost = lost_authorities(&snapshot.own_bundle().bundle, bundle);
        let held = || snapshot.identities().filter_map(|one| Some((&one.entry.id, one.state.as_ref().ok()?)));
        let below = |lost: &X509Bundle| -> Vec<(EntryId, Arc<HeldSvid>)> {
            let concerned = held().filter(|(_, held)| is_below(&held.svid, lost, now));
            concerned.map(|(id, held)| (id.clone(), held.clone())).collect()
        };
        let gone = below(&lost.gone);
        if !gone.is_empty() {
            warn!(
                count = gone.len(),
                subject_key_ids = key_ids(&lost.gone),
                "the authority of X509-SVIDs is gone, replacing them"
            );
        }
        gone.iter().for_each(|(id, _)| self.plan.hurry(id, now));
        if lost.tainted.is_empty() {
            return;
        }
        info!(subject_key_ids = key_ids(&lost.tainted), "New tainted X.509 authorities found");
        let timer = self.parts.metrics.process_tainted.start();
        let mut tainted = below(&lost.tainted);
        self.parts.metrics.tainted_svids.record(size(tainted.len()));
        timer.done(Code::Ok);
        if tainted.is_empty() {
            return;
        }
        tainted.sort_by_key(|(_, held)| held.svid.expires_at());
        let begins_in = pace::start(self.jitter());
        info!(
            count = tainted.len(),
            begins_in_ms = begins_in.as_millis(),
            "Scheduled rotation for SVID entries due to tainted X.509 authorities"
        );
        let svids = tainted.into_iter().map(|(id, held)| (id, held.number));
        self.pace.add(svids, Instant::now() + begins_in);
    }

    /// Has the next few tainted SVIDs replaced, unless that has happened meanwhile or calls fail.
    fn replace_tainted(&mut self) {
        let now = self.parts.clock.now();
        let is_busy = self.calls_from.is_some() || self.plan.has_due(now);
        let snapshot = self.parts.cache.snapshot();
        for (id, number) in self.pace.take(Instant::now(), is_busy) {
            let held = snapshot.identity(&id).and_then(|identity| identity.state.as_ref().ok());
            if held.is_some_and(|held| held.number == number) {
                self.plan.hurry(&id, now);
            }
        }
    }

    fn drop_expired(&mut self) {
        let ended = self.plan.take_expired(self.parts.clock.now());
        if ended.is_empty() {
            return;
        }
        warn!(svids = ended.len(), "X509-SVIDs have expired and are withdrawn");
        let snapshot = self.parts.cache.snapshot();
        let put = ended.iter().filter_map(|id| snapshot.identity(id)).map(|identity| Identity {
            entry: identity.entry.clone(),
            state: Err(Unready::Failed("the SVID has expired".into())),
        });
        self.parts.cache.publish(Change { put: put.collect(), ..Change::default() });
    }

    /// Lets go of SVIDs that are more than are to be kept ready and that nobody has a stream for: they are neither shown nor
    /// renewed until somebody asks for them.
    fn let_go(&mut self) {
        let excess = self.plan.excess();
        if excess == 0 || Instant::now() < self.let_go_from {
            return;
        }
        let resting = self.parts.cache.rest(excess, |id| self.plan.may_rest(id));
        debug!(excess, resting = resting.len(), "X509-SVIDs that nobody uses are let go");
        resting.iter().for_each(|id| self.plan.rest(id));
        if resting.len() < excess {
            self.let_go_from = Instant::now() + LET_GO_PAUSE;
        }
    }

    fn begin_due(&mut self) {
        let now = self.parts.clock.now();
        if self.plan.has_due(now) {
            self.let_go();
        }
        while self.calls_from.is_none() && self.under_way.len() < BATCHES_MAX {
            let tickets = self.plan.take_due(now, self.batch_max);
            if tickets.is_empty() {
                return;
            }
            debug!(entries = tickets.len(), "signing");
            let expiring = tickets.iter().filter(|ticket| ticket.is_renewal).count();
            if expiring > 0 {
                self.parts.metrics.expiring_svids.record(size(expiring));
            }
            let signed = batch::sign(self.parts.signer.clone(), tickets, self.parts.key_type);
            let meter = self.parts.metrics.fetch_svids.clone();
            let code_of = |signed: &batch::Outcome| {
                signed.as_ref().map_or_else(|(_, error)| code_of(error), |_| Code::Ok)
            };
            self.under_way.push(Box::pin(async move { meter.time(signed, code_of).await }));
        }
    }

    fn on_outcome(&mut self, outcome: batch::Outcome) {
        match outcome {
            Ok(signed) => {
                self.backoff.reset();
                if self.failed_calls > 0 {
                    info!(failures = self.failed_calls, "signing works again");
                }
                self.failed_calls = 0;
                self.batch_max = (self.batch_max * 2).min(BATCH_MAX);
                self.on_answers(signed);
            }
            Err((tickets, error)) => {
                let now = self.parts.clock.now();
                tickets.iter().for_each(|ticket| self.plan.on_call_failed(ticket, now));
                // A smaller batch helps against a server that cannot take a large one, not against one that is busy.
                let asked = error.retry_after();
                if !error.is_unreachable() && asked.is_none() {
                    self.batch_max = (tickets.len() / 2).max(1);
                }
                self.failed_calls = self.failed_calls.saturating_add(1);
                if self.failed_calls.is_power_of_two() {
                    warn!(entries = tickets.len(), %error, reason = error.reason_code(),
                        failures = self.failed_calls, "signing failed; X509-SVIDs are tried again");
                }
                let own = self.backoff.next_pause(self.jitter());
                self.asked_to_wait = asked.is_some();
                self.calls_from =
                    Some(Instant::now() + asked.map_or(own, |asked| drawn_out(asked, self.jitter())));
            }
        }
    }

    fn on_answers(&mut self, answers: Vec<(Ticket, Result<batch::Signed, String>)>) {
        let now = self.parts.clock.now();
        let mut put = Vec::new();
        for (ticket, answer) in answers {
            let checked = answer.and_then(|signed| match signed.svid.validity().is_over(now) {
                true => Err("the server answered with an expired certificate".to_owned()),
                false => Ok(signed),
            });
            match checked {
                Ok(signed) => put.extend(self.on_signed(&ticket, signed)),
                Err(why) => put.extend(self.on_refused(&ticket, &why, now)),
            }
        }
        if !put.is_empty() {
            self.parts.cache.publish(Change { put, ..Change::default() });
            self.let_go();
        }
    }

    fn on_signed(&mut self, ticket: &Ticket, signed: batch::Signed) -> Option<Identity> {
        let validity = signed.svid.validity();
        let now = self.parts.clock.now();
        let renewal = Renewal::issued(self.parts.policy, validity, now, self.jitter());
        if !self.plan.on_signed(ticket, now, validity.not_after, renewal.due_at()) {
            return None;
        }
        info!(spiffe_id = %signed.svid.spiffe_id(), entry_id = %ticket.entry.id,
            serial_num = %signed.svid.serial(), expires_at = %validity.not_after, "X509-SVID received");
        Some(self.identity(ticket, signed.svid, signed.key_pkcs8))
    }

    fn identity(&self, ticket: &Ticket, svid: X509Svid, key_pkcs8: Zeroizing<Vec<u8>>) -> Identity {
        let held = HeldSvid { number: self.parts.cache.next_number(), svid, key_pkcs8 };
        Identity { entry: ticket.entry.clone(), state: Ok(Arc::new(held)) }
    }

    /// Drawn once for each SVID or pause.
    fn jitter(&self) -> Jitter {
        Jitter::draw(self.parts.entropy.as_ref())
    }

    /// The entry waits; an SVID it still has serves on, without one the reason is shown.
    fn on_refused(&mut self, ticket: &Ticket, why: &str, now: Timestamp) -> Option<Identity> {
        let jitter = self.jitter();
        let failures = self.plan.on_refused(ticket, now, jitter)?;
        if failures.is_power_of_two() {
            warn!(spiffe_id = %ticket.entry.spiffe_id, entry_id = %ticket.entry.id, failures, why,
                "X509-SVID was refused");
        }
        let snapshot = self.parts.cache.snapshot();
        let held = snapshot.identity(&ticket.entry.id).is_some_and(|identity| identity.state.is_ok());
        (!held).then(|| Identity { entry: ticket.entry.clone(), state: Err(Unready::Failed(why.into())) })
    }
}

pub(crate) async fn instant(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Ends early after each nap, so that the plan is asked anew: the clock may have been set.
pub(crate) async fn moment(clock: &dyn Clock, at: Option<Timestamp>) {
    match at {
        Some(at) => nap_until(clock, at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
