//! What operators order by hand, and how it is answered: SPIRE's rules of the LocalAuthority service.
//!
//! An order is checked and carried out by the task that owns the slots, between two rotations, so no order meets a state
//! that another one is changing. It is carried out to its end even when whoever placed it has gone.

use std::sync::Arc;

use spindle_ca::{AuthorityStatus, JournalEntry, Slot};
use spindle_spiffe_core::{Reason, Timestamp};
use tonic::Code;
use tracing::{info, warn};

use super::rotation::{self, NotTaken};
use super::{Authorities, AuthoritiesError};

/// What an operator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Make the next authority and publish it.
    Prepare,
    /// Let the prepared authority of that id sign.
    Activate(String),
    /// Have everything replaced that the old authority of that id signed.
    Taint(String),
    /// Take the tainted old authority of that id out of the bundle.
    Revoke(String),
    /// Have everything replaced below the root of that key identifier.
    TaintUpstream(String),
    /// Take the tainted root of that key identifier out of the bundle.
    RevokeUpstream(String),
}

/// An authority as the operator is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) authority_id: String,
    pub(crate) expires_at: Timestamp,
    /// Empty when the authority is its own root.
    pub(crate) upstream_authority_id: String,
}

/// The authorities that operators act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct States {
    pub(crate) active: Standing,
    pub(crate) prepared: Option<Standing>,
    pub(crate) old: Option<Standing>,
}

/// Why an order is not carried out; texts and codes are SPIRE's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// There is no active authority.
    #[error("server is initializing")]
    NotActive,
    /// The task that owns the authorities takes no more.
    #[error("{0}")]
    NotTaken(#[from] NotTaken),
    /// It names no authority, or one it may not be about.
    #[error("{0}")]
    Subject(String),
    /// The authority stands elsewhere in its life.
    #[error("{0}")]
    State(String),
    /// As `State`, by the code SPIRE answers with.
    #[error("only Prepared authorities can be activated: unsupported local authority status: {0}")]
    NotPrepared(&'static str),
    /// It is about the server's own root, and there is none.
    #[error("{0}")]
    HasUpstream(&'static str),
    /// It is about an upstream root, and there is none.
    #[error("upstream authority is not configured")]
    NoUpstream,
    /// The bundle says otherwise.
    #[error("{what}: {why}")]
    Bundle {
        /// What was to be done.
        what: &'static str,
        /// What the bundle says.
        why: &'static str,
    },
    /// It was tried and failed.
    #[error("{what}: {source}", source = spindle_spiffe_core::ErrorChain(source))]
    Failed {
        /// What was to be done.
        what: &'static str,
        /// What stopped it.
        source: AuthoritiesError,
    },
}

impl OrderError {
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NotActive | Self::NotTaken(NotTaken::Stopping) => Code::Unavailable,
            Self::NotTaken(NotTaken::Busy) => Code::ResourceExhausted,
            Self::Subject(_) | Self::State(_) => Code::InvalidArgument,
            Self::HasUpstream(_) | Self::NoUpstream => Code::FailedPrecondition,
            Self::NotPrepared(_) | Self::Bundle { .. } | Self::Failed { .. } => Code::Internal,
        }
    }

    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::NotActive => Reason::ServerStarting,
            Self::NotTaken(NotTaken::Stopping) => Reason::ServerStopping,
            Self::NotTaken(NotTaken::Busy) => Reason::Overloaded,
            Self::Subject(_) => Reason::AuthorityNotFound,
            Self::State(_) | Self::NotPrepared(_) | Self::Bundle { .. } => Reason::AuthorityState,
            Self::HasUpstream(_) => Reason::UpstreamAuthority,
            Self::NoUpstream => Reason::NoUpstreamAuthority,
            Self::Failed { .. } => Reason::AuthorityFailed,
        }
    }
}

impl Standing {
    pub(super) fn of(entry: &JournalEntry) -> Self {
        Self {
            authority_id: entry.authority_id.clone(),
            expires_at: entry.not_after,
            upstream_authority_id: entry.upstream_authority_id(),
        }
    }
}

impl Authorities {
    /// Where the authorities stand.
    pub(crate) fn states(&self) -> Result<States, OrderError> {
        let state = self.rotation.lock();
        let active = Standing::of(state.slots.active().ok_or(OrderError::NotActive)?);
        let next = |status| state.slots.next().filter(|entry| entry.status == status).map(Standing::of);
        let (prepared, old) = (next(AuthorityStatus::Prepared), next(AuthorityStatus::Old));
        Ok(States { active, prepared, old })
    }

    /// Hands an order to the task that owns the authorities and waits for its answer.
    pub(crate) async fn order(self: &Arc<Self>, order: Order) -> Result<Standing, OrderError> {
        let this = self.clone();
        self.rotation.order(async move { this.execute(order).await }).await?
    }

    pub(super) async fn execute(&self, order: Order) -> Result<Standing, OrderError> {
        match order {
            Order::Prepare => self.prepare_next().await,
            Order::Activate(id) => self.activate_prepared(&id).await,
            Order::Taint(id) => self.taint(&id).await,
            Order::Revoke(id) => self.revoke(&id).await,
            Order::TaintUpstream(id) => self.taint_upstream(&id.to_ascii_lowercase()).await,
            Order::RevokeUpstream(id) => self.revoke_upstream(&id.to_ascii_lowercase()).await,
        }
    }

    async fn prepare_next(&self) -> Result<Standing, OrderError> {
        let slot = self.rotation.lock().slots.active().ok_or(OrderError::NotActive)?.slot.other();
        let failed = |source| OrderError::Failed { what: "failed to prepare X.509 authority", source };
        rotation::prepare(self, slot).await.map_err(failed)?;
        self.standing_in(slot)
    }

    /// An operator's word goes before the grace: who has not heard of the new authority yet hears of it with its first SVID.
    async fn activate_prepared(&self, id: &str) -> Result<Standing, OrderError> {
        let slot = {
            let state = self.rotation.lock();
            let next = state.slots.next();
            match next.filter(|entry| entry.authority_id == id) {
                _ if id.is_empty() => return Err(OrderError::Subject("no authority ID provided".into())),
                None => return Err(OrderError::Subject("unexpected authority ID".into())),
                Some(entry) if entry.status != AuthorityStatus::Prepared => {
                    return Err(OrderError::NotPrepared(status_name(entry.status)));
                }
                Some(entry) => entry.slot,
            }
        };
        if !self.rotation.is_published(self.rotation.clock.now()) {
            warn!(
                local_authority_id = id,
                "an operator activates an authority before every agent has acknowledged it"
            );
        }
        let failed = |source| OrderError::Failed { what: "failed to activate X.509 authority", source };
        rotation::activate(self, slot).await.map_err(failed)?;
        info!(local_authority_id = id, "Successfully rotated X.509 CA");
        self.standing_in(slot)
    }

    /// The newest authority of `slot`.
    fn standing_in(&self, slot: Slot) -> Result<Standing, OrderError> {
        let state = self.rotation.lock();
        let entry = state.slots.entries().iter().rfind(|entry| entry.slot == slot);
        entry.map(Standing::of).ok_or(OrderError::NotActive)
    }
}

/// A status as SPIRE's journal spells it.
pub(super) fn status_name(status: AuthorityStatus) -> &'static str {
    match status {
        AuthorityStatus::Prepared => "PREPARED",
        AuthorityStatus::Active => "ACTIVE",
        AuthorityStatus::Old => "OLD",
    }
}
