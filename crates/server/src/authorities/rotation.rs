//! The loop that carries out what the slots decide, the same for X.509, JWT and WIT authorities.
//!
//! An authority is in the bundle before it signs, and signs only once every connected agent has acknowledged that bundle
//! or the grace is over. A family ([`Rotating`]) knows how its authorities are made and stored. One task owns a
//! family's slots: it rotates them, and does what operators order in between. Start at [`run`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use spindle_ca::{AuthoritySlots, AuthorityStatus, JournalEntry, Restored, Slot, SlotError, SlotStep};
use spindle_runtime::{Shutdown, sleep_until};
use spindle_spiffe_core::{Clock, ErrorChain, Timestamp, Validity};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use super::{AuthoritiesError, roots};
use crate::metrics::{FamilyMetrics, code_of};
use crate::subscriptions::Subscriptions;

/// How long a prepared authority waits for acknowledgements at most, in seconds: SPIRE's agents poll every five and
/// acknowledge nothing, so several of their rounds fit.
pub(super) const PUBLISH_GRACE_SECS: i64 = 30;

/// How long a prepared authority waits at least, in seconds: agents that poll acknowledge nothing and count after one
/// round. SPIRE's poll every five seconds, up to a tenth late, and their server may answer from what it knew a second
/// before; ten lets even one failed round be made good.
pub(super) const PUBLISH_WAIT_SECS: i64 = 10;

/// How often the slots are asked while they wait for acknowledgements, in seconds.
const PUBLISH_CHECK_SECS: i64 = 1;

/// The longest wait before the slots are asked again, in seconds; SPIRE checks as often.
pub(super) const CHECK_SECS_MAX: i64 = 10;

/// The same by the machine's own counting, whatever the clock shows.
pub(super) const REST_MAX: Duration = Duration::from_secs(CHECK_SECS_MAX.unsigned_abs());

/// So many failures to rotate in a row are nothing to call for help about; SPIRE's number.
const FAILURES_MAX: u32 = 10;

/// One family of authorities, as far as the loop has to know it. `Send` stands at each future because a task runs the loop.
pub(super) trait Rotating: Send + Sync + 'static {
    /// What is public of an authority.
    type Public: Clone + Send;
    /// An authority that signs.
    type Authority: Clone + Send;
    /// As log lines name it.
    const NAME: &'static str;

    /// The ID and the lifetime of an authority.
    fn facts(authority: &Self::Authority) -> (&str, Validity);

    fn rotation(&self) -> &Rotation<Self::Public, Self::Authority>;

    /// Takes up the stored journal: what it has is given to [`take_up`].
    fn restore(&self) -> Result<(), AuthoritiesError>;

    /// Makes a key and an authority, and publishes it: journal and bundle in one transaction.
    fn prepare(&self, slot: Slot) -> impl Future<Output = Result<(), AuthoritiesError>> + Send;

    /// Stores the slots and signs with their active authority from now on.
    fn take_over(
        &self,
        slots: AuthoritySlots<Self::Public>,
    ) -> impl Future<Output = Result<(), AuthoritiesError>> + Send;

    /// Whether the trust domain's bundle holds the authority, so that agents know it.
    fn is_known(&self, entry: &JournalEntry<Self::Public>) -> bool;

    /// What has to be looked at whenever the slots wait; returns when to look again at the latest.
    fn upkeep(&self, now: Timestamp) -> impl Future<Output = Result<Timestamp, AuthoritiesError>> + Send;
}

/// Takes up what a restart found of a family whose bundle is at `revision`, and returns the authority that signs, if it can at
/// `now`; either is told in the log. One that is not valid yet was made by a clock that was ahead of this one.
pub(super) fn take_up<F: Rotating>(
    family: &F,
    restored: Restored<F::Public, F::Authority>,
    prepared_before: &[String],
    revision: u64,
    now: Timestamp,
) -> Option<Arc<F::Authority>> {
    let active = family.rotation().lock().on_restored(
        restored,
        prepared_before,
        |authority| F::facts(authority).0,
        revision,
        now,
    )?;
    let (authority_id, validity) = F::facts(&active);
    if !validity.contains(now) {
        warn!(local_authority_id = authority_id, not_before = %validity.not_before,
              "the {} is not valid yet: check this machine's clock", F::NAME);
        return None;
    }
    info!(local_authority_id = authority_id, expires_at = %validity.not_after, "{} taken up from the journal", F::NAME);
    Some(Arc::new(active))
}

/// Orders that may wait; more are refused rather than piled up. People type them.
pub(super) const ORDERS_MAX: usize = 64;

/// A piece of work on the slots that ends by answering whoever ordered it.
type Order = BoxFuture<'static, ()>;

/// Why an order is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("{ORDERS_MAX} orders for authorities are waiting already")]
    Busy,
    #[error("the server is stopping")]
    Stopping,
}

/// What a family's loop works on.
pub(super) struct Rotation<P, A> {
    pub(super) clock: Arc<dyn Clock>,
    subscriptions: Subscriptions,
    state: Mutex<State<P, A>>,
    orders: mpsc::Sender<Order>,
    /// Whoever holds it does what is ordered: the task that rotates, for as long as it runs.
    inbox: tokio::sync::Mutex<mpsc::Receiver<Order>>,
    /// Failures to rotate since it last worked.
    failures: AtomicU32,
    pub(super) metrics: FamilyMetrics,
}

/// The slots, and the authorities whose keys are at hand.
pub(super) struct State<P, A> {
    pub(super) slots: AuthoritySlots<P>,
    /// By id.
    loaded: HashMap<String, A>,
    /// Set while an authority is prepared.
    published: Option<Published>,
    /// Authorities in the bundle that never signed and cannot any more: their keys are gone.
    pub(super) unused: Vec<String>,
}

/// Since when the prepared authority can be known to others.
#[derive(Clone, Copy)]
struct Published {
    /// Store revision that first holds it in the bundle.
    revision: u64,
    /// Agents have had time since then. Counted anew after a restart and when the clock was set back.
    since: Timestamp,
}

impl<P, A: Clone> Rotation<P, A> {
    pub(super) fn new(clock: Arc<dyn Clock>, subscriptions: Subscriptions) -> Self {
        let state = State {
            slots: AuthoritySlots::new(),
            loaded: HashMap::new(),
            published: None,
            unused: Vec::new(),
        };
        let (orders, inbox) = mpsc::channel(ORDERS_MAX);
        Self {
            clock,
            subscriptions,
            state: Mutex::new(state),
            orders,
            inbox: tokio::sync::Mutex::new(inbox),
            failures: AtomicU32::new(0),
            metrics: FamilyMetrics::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State<P, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the task that owns the slots do `work`, and waits for its outcome. Once it is taken it is done to its end, also when
    /// whoever ordered it has gone.
    pub(super) async fn order<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, NotTaken> {
        let (answer, answered) = oneshot::channel();
        let order = Box::pin(async move {
            // Nobody may wait for it any more.
            let _ = answer.send(work.await);
        });
        self.orders.try_send(order).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotTaken::Busy,
            mpsc::error::TrySendError::Closed(_) => NotTaken::Stopping,
        })?;
        answered.await.map_err(|_| NotTaken::Stopping)
    }

    /// Whether authorities rotate when they are due: a failure or a few are made good by the next attempt.
    pub(super) fn works(&self) -> bool {
        self.failures.load(Ordering::Relaxed) <= FAILURES_MAX
    }

    /// Waits until then, but never long: by a clock that was set back, then may be far away.
    pub(super) async fn rest(&self, until: Timestamp) {
        // Reaching the limit is as good as reaching the time.
        let _ = tokio::time::timeout(REST_MAX, sleep_until(self.clock.as_ref(), until)).await;
    }

    /// Whether everybody who must know the prepared authority does, or has had long enough.
    pub(super) fn is_published(&self, now: Timestamp) -> bool {
        let mut state = self.lock();
        let Some(published) = &mut state.published else { return true };
        published.since = published.since.min(now);
        let waited_secs = now.secs_since(published.since);
        waited_secs >= PUBLISH_GRACE_SECS
            || waited_secs >= PUBLISH_WAIT_SECS && self.subscriptions.all_have(published.revision)
    }
}

impl<P, A: Clone> State<P, A> {
    /// Takes up what a restart found, and returns the authority that signs. `prepared_before` are those that the stored
    /// journal has as prepared, `revision` is the one the bundle is at.
    fn on_restored(
        &mut self,
        restored: Restored<P, A>,
        prepared_before: &[String],
        id_of: impl Fn(&A) -> &str,
        revision: u64,
        now: Timestamp,
    ) -> Option<A> {
        let Restored { slots, active, prepared, others, skipped } = restored;
        for (authority_id, why) in &skipped {
            warn!(local_authority_id = authority_id, reason = %why, "a stored authority cannot be used");
        }
        let at_hand = active.iter().cloned().chain(prepared).chain(others);
        self.loaded = at_hand.map(|authority| (id_of(&authority).to_owned(), authority)).collect();
        self.unused = roots::unused(&skipped, prepared_before);
        self.slots = slots;
        self.published = self.slots.prepared().map(|_| Published { revision, since: now });
        active
    }

    /// The prepared authority is stored and in the bundle since `revision`.
    pub(super) fn on_prepared(
        &mut self,
        slots: AuthoritySlots<P>,
        id: &str,
        authority: A,
        revision: u64,
        now: Timestamp,
    ) {
        self.slots = slots;
        self.published = Some(Published { revision, since: now });
        self.loaded.insert(id.to_owned(), authority);
    }

    /// The slots are stored; returns their active authority.
    pub(super) fn on_taken_over(&mut self, slots: AuthoritySlots<P>) -> Option<A> {
        self.slots = slots;
        if self.slots.prepared().is_none() {
            self.published = None;
        }
        let entries = self.slots.entries();
        self.loaded.retain(|id, _| entries.iter().any(|entry| entry.authority_id == *id));
        self.slots.active().and_then(|entry| self.loaded.get(&entry.authority_id).cloned())
    }
}

/// The ids of authorities that a stored journal has as prepared.
pub(super) fn prepared_ids<P>(journal: &[JournalEntry<P>]) -> Vec<String> {
    let prepared = journal.iter().filter(|entry| entry.status == AuthorityStatus::Prepared);
    prepared.map(|entry| entry.authority_id.clone()).collect()
}

/// Takes up the stored journal, or makes the first authority. Returns once there is an active one.
pub(super) async fn start<F: Rotating>(family: &F) -> Result<(), AuthoritiesError> {
    family.restore()?;
    advance(family).await?;
    Ok(())
}

/// Rotates a family's authorities, and does what operators order, until the shutdown begins.
pub(super) async fn run<F: Rotating>(family: Arc<F>, shutdown: Shutdown) {
    let rotation = family.rotation();
    let mut inbox = rotation.inbox.lock().await;
    loop {
        let wait_until = match advance(family.as_ref()).await {
            Ok(until) => {
                rotation.failures.store(0, Ordering::Relaxed);
                until
            }
            Err(error) => {
                rotation.failures.fetch_add(1, Ordering::Relaxed);
                warn!(error = %ErrorChain(&error), "cannot rotate the {}; trying again", F::NAME);
                rotation.clock.now() + CHECK_SECS_MAX
            }
        };
        // All arms only wait, so each is cancel-safe.
        tokio::select! {
            () = rotation.rest(wait_until) => {}
            Some(order) = inbox.recv() => order.await,
            () = shutdown.begun() => break,
        }
    }
    // Whoever waits for an answer is told by the end of its channel.
    inbox.close();
    while inbox.try_recv().is_ok() {}
}

/// Carries out steps until the slots wait; returns when to ask again.
pub(super) async fn advance<F: Rotating>(family: &F) -> Result<Timestamp, AuthoritiesError> {
    let rotation = family.rotation();
    loop {
        let now = rotation.clock.now();
        let published = rotation.is_published(now);
        let (step, waiting_for_agents) = {
            let state = rotation.lock();
            (state.slots.step(now, published), state.slots.prepared().is_some() && !published)
        };
        match step {
            SlotStep::PrepareAndActivate(slot) => {
                if !resume(family, now).await? {
                    prepare(family, slot).await?;
                    activate(family, slot).await?;
                }
            }
            SlotStep::Prepare(slot) => prepare(family, slot).await?,
            SlotStep::Activate { slot, forced } => {
                if forced {
                    warn!("a {} is activated before every agent has acknowledged it", F::NAME);
                }
                activate(family, slot).await?;
            }
            SlotStep::Wait(until) => {
                let active_until = rotation.lock().slots.active().map(|entry| entry.not_after);
                if let Some(not_after) = active_until {
                    rotation.metrics.active_until(not_after, now);
                }
                let look_again = family.upkeep(now).await?;
                let check = if waiting_for_agents { PUBLISH_CHECK_SECS } else { CHECK_SECS_MAX };
                return Ok(until.min(look_again).min(now + check).max(now + 1));
            }
        }
    }
}

/// Makes an authority that is to sign with the key of `slot`, and counts it.
pub(super) async fn prepare<F: Rotating>(family: &F, slot: Slot) -> Result<(), AuthoritiesError> {
    family.rotation().metrics.prepare.time(family.prepare(slot), code_of).await
}

/// Lets the authority that is prepared in `slot` sign.
pub(super) async fn activate<F: Rotating>(family: &F, slot: Slot) -> Result<(), AuthoritiesError> {
    let slots = changed_slots(family, |slots| slots.on_activated(slot))?;
    family.take_over(slots).await?;
    family.rotation().metrics.is_activated();
    Ok(())
}

/// Lets an authority sign again that agents know already, if there is one: none of those in place is valid by a clock
/// that was set. Returns whether one does.
async fn resume<F: Rotating>(family: &F, now: Timestamp) -> Result<bool, AuthoritiesError> {
    let found = {
        let state = family.rotation().lock();
        let at_hand = |entry: &&JournalEntry<F::Public>| state.loaded.contains_key(&entry.authority_id);
        let mut known = state.slots.resumable(now).filter(at_hand).filter(|entry| family.is_known(entry));
        known.next().map(|entry| entry.authority_id.clone())
    };
    let Some(authority_id) = found else { return Ok(false) };
    let slots = changed_slots(family, |slots| slots.on_resumed(&authority_id, now))?;
    warn!("no {} in place is valid by this clock; one from before signs again", F::NAME);
    family.take_over(slots).await?;
    Ok(true)
}

/// A copy of the slots after `change`, to be stored before it counts.
pub(super) fn changed_slots<F: Rotating>(
    family: &F,
    change: impl FnOnce(&mut AuthoritySlots<F::Public>) -> Result<(), SlotError>,
) -> Result<AuthoritySlots<F::Public>, SlotError> {
    let mut slots = family.rotation().lock().slots.clone();
    change(&mut slots)?;
    Ok(slots)
}
