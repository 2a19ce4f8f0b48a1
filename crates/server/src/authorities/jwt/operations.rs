//! What operators may do to JWT authorities: look, prepare, activate, taint, revoke.
//!
//! The rules are SPIRE's, and so are the texts of refusals. Orders are carried out one after the other by the task that owns the
//! slots, each as one transaction; what is answered is durable. A prepared authority that is activated by hand skips the wait
//! for agents. Start at [`JwtAuthorities::order`].

use std::sync::Arc;

use spindle_ca::{AuthorityStatus, JournalEntry, JwtPublicKey, SlotError};
use spindle_spiffe_core::{Bundle, JwtAuthority, Reason, Timestamp};
use tonic::Code;
use tracing::{info, warn};

use super::super::AuthoritiesError;
use super::super::rotation::{self, NotTaken, Rotating};
use super::{JwtAuthorities, with_journal};
use crate::bundles;
use crate::directory::CommitError;

/// What an operator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JwtOrder {
    /// Make the next authority and publish it, in place of what stands beside the active one.
    Prepare,
    /// Let the prepared authority of that ID sign now, whether agents have heard of it or not.
    Activate(String),
    /// Mark the authority of that ID, which has signed before, so that what it signed gets replaced.
    Taint(String),
    /// Take the tainted authority of that ID out of the bundle.
    Revoke(String),
}

/// One authority as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthorityState {
    /// Its key ID.
    pub(crate) authority_id: String,
    /// Its end; none when whoever published it did not tell.
    pub(crate) expires_at: Option<Timestamp>,
}

/// The authorities in both slots. Beside the active one there is the next one, or the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuthorityStates {
    pub(crate) active: AuthorityState,
    pub(crate) prepared: Option<AuthorityState>,
    /// Also when it was revoked, as SPIRE shows it.
    pub(crate) old: Option<AuthorityState>,
}

/// Why an operation is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JwtAuthorityError {
    #[error("server is initializing")]
    NoActive,
    #[error("no authority ID provided")]
    NoId,
    /// No authority that can be activated or tainted has that name.
    #[error("unexpected authority ID")]
    UnexpectedId,
    /// Activation of an authority that signed before.
    #[error("only Prepared authorities can be activated: unsupported local authority status: OLD")]
    NotPrepared,
    #[error("unable to taint current local authority")]
    TaintActive,
    #[error("only Old local authorities can be tainted: unsupported local authority status: PREPARED")]
    TaintPrepared,
    #[error("failed to taint JWT authority: key is already tainted")]
    AlreadyTainted,
    #[error("failed to taint JWT authority: no JWT Key found with provided key ID")]
    TaintGone,
    #[error("invalid authority ID: no authority ID provided")]
    RevokeNoId,
    #[error("invalid authority ID: unable to use current authority")]
    RevokeActive,
    #[error("invalid authority ID: unable to use a prepared key")]
    RevokePrepared,
    #[error("invalid authority ID: no JWT authority found with provided authority ID")]
    RevokeUnknown,
    #[error("failed to revoke JWT authority: it is not possible to revoke an untainted key")]
    NotTainted,
    #[error("{0}")]
    NotTaken(#[from] NotTaken),
    #[error("{0}")]
    Failed(#[from] AuthoritiesError),
}

impl JwtAuthorityError {
    /// The status of a refused call. What only the bundle can tell is INTERNAL, as with SPIRE.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::NoActive | Self::NotTaken(NotTaken::Stopping) => Code::Unavailable,
            Self::NotTaken(NotTaken::Busy) => Code::ResourceExhausted,
            Self::NoId
            | Self::RevokeNoId
            | Self::UnexpectedId
            | Self::TaintActive
            | Self::TaintPrepared
            | Self::RevokeActive
            | Self::RevokePrepared
            | Self::RevokeUnknown => Code::InvalidArgument,
            Self::NotPrepared
            | Self::AlreadyTainted
            | Self::TaintGone
            | Self::NotTainted
            | Self::Failed(_) => Code::Internal,
        }
    }

    /// The rule that refused.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::NoActive => Reason::ServerStarting,
            Self::NotTaken(NotTaken::Stopping) => Reason::ServerStopping,
            Self::NotTaken(NotTaken::Busy) => Reason::Overloaded,
            Self::NoId | Self::RevokeNoId => Reason::BadRequest,
            Self::UnexpectedId | Self::RevokeUnknown | Self::TaintGone => Reason::AuthorityNotFound,
            Self::NotPrepared
            | Self::TaintActive
            | Self::TaintPrepared
            | Self::AlreadyTainted
            | Self::RevokeActive
            | Self::RevokePrepared
            | Self::NotTainted => Reason::AuthorityState,
            Self::Failed(AuthoritiesError::Store(_)) => Reason::StoreFailed,
            Self::Failed(AuthoritiesError::Key(_)) => Reason::LocalFailure,
            Self::Failed(_) => Reason::Internal,
        }
    }
}

impl From<CommitError> for JwtAuthorityError {
    fn from(error: CommitError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<SlotError> for JwtAuthorityError {
    fn from(error: SlotError) -> Self {
        Self::Failed(error.into())
    }
}

impl JwtAuthorities {
    /// The authorities as they stand.
    pub(crate) fn state(&self) -> Result<AuthorityStates, JwtAuthorityError> {
        let state = self.rotation.lock();
        let active = state.slots.active().map(state_of).ok_or(JwtAuthorityError::NoActive)?;
        let next = state.slots.next();
        let with = |status| next.filter(|entry| entry.status == status).map(state_of);
        Ok(AuthorityStates {
            active,
            prepared: with(AuthorityStatus::Prepared),
            old: with(AuthorityStatus::Old),
        })
    }

    /// Hands an order to the task that owns the authorities and waits for its answer.
    pub(crate) async fn order(
        self: &Arc<Self>,
        order: JwtOrder,
    ) -> Result<AuthorityState, JwtAuthorityError> {
        let this = self.clone();
        self.rotation.order(async move { this.execute(order).await }).await?
    }

    pub(super) async fn execute(&self, order: JwtOrder) -> Result<AuthorityState, JwtAuthorityError> {
        match order {
            JwtOrder::Prepare => self.prepare_next().await,
            JwtOrder::Activate(id) => self.activate(&id).await,
            JwtOrder::Taint(id) => self.taint(&id).await,
            JwtOrder::Revoke(id) => self.revoke(&id).await,
        }
    }

    async fn prepare_next(&self) -> Result<AuthorityState, JwtAuthorityError> {
        let slot = match self.rotation.lock().slots.active() {
            Some(active) => active.slot.other(),
            None => return Err(JwtAuthorityError::NoActive),
        };
        self.prepare(slot).await?;
        self.state()?.prepared.ok_or(JwtAuthorityError::NoActive)
    }

    async fn activate(&self, authority_id: &str) -> Result<AuthorityState, JwtAuthorityError> {
        let slot = match self.find(authority_id)? {
            Some(entry) if entry.status == AuthorityStatus::Prepared => entry.slot,
            Some(entry) if self.stands_beside_the_active(&entry) => {
                return Err(JwtAuthorityError::NotPrepared);
            }
            _ => return Err(JwtAuthorityError::UnexpectedId),
        };
        warn!(local_authority_id = authority_id, "a JWT authority is activated by hand");
        rotation::activate(self, slot).await?;
        Ok(self.state()?.active)
    }

    /// Unlike SPIRE, which looks no further back than the last one, this takes any that is still in the bundle.
    async fn taint(&self, authority_id: &str) -> Result<AuthorityState, JwtAuthorityError> {
        match self.find(authority_id)?.ok_or(JwtAuthorityError::UnexpectedId)?.status {
            AuthorityStatus::Active => return Err(JwtAuthorityError::TaintActive),
            AuthorityStatus::Prepared => return Err(JwtAuthorityError::TaintPrepared),
            AuthorityStatus::Old => {}
        }
        let slots = rotation::changed_slots(self, |slots| slots.taint(authority_id))?;
        let trust_domain = &self.settings.trust_domain;
        bundles::edit_own(&self.directory, trust_domain, with_journal(&slots), |bundle| {
            let authority = published(bundle, authority_id).ok_or(JwtAuthorityError::TaintGone)?;
            if authority.is_tainted() {
                return Err(JwtAuthorityError::AlreadyTainted);
            }
            *authority = authority.clone().with_taint(true);
            Ok(())
        })
        .await?;
        self.rotation.lock().slots = slots;
        info!(local_authority_id = authority_id, "JWT authority tainted successfully");
        let authority_id = authority_id.to_owned();
        let expires_at = self.find(&authority_id)?.map(|entry| entry.not_after);
        Ok(AuthorityState { authority_id, expires_at })
    }

    /// An old one of this server goes, or any that others have published.
    async fn revoke(&self, authority_id: &str) -> Result<AuthorityState, JwtAuthorityError> {
        if authority_id.is_empty() {
            return Err(JwtAuthorityError::RevokeNoId);
        }
        let own = self.find(authority_id)?;
        match own.as_ref().map(|entry| entry.status) {
            Some(AuthorityStatus::Active) => return Err(JwtAuthorityError::RevokeActive),
            Some(AuthorityStatus::Prepared) => return Err(JwtAuthorityError::RevokePrepared),
            Some(AuthorityStatus::Old) | None => {}
        }
        let bundle = bundles::own(&self.directory.view(), &self.settings.trust_domain);
        let authority = bundle.jwt_authority(authority_id).ok_or(JwtAuthorityError::RevokeUnknown)?;
        if !authority.is_tainted() {
            return Err(JwtAuthorityError::NotTainted);
        }
        let slots = rotation::changed_slots(self, |slots| match own {
            // What counts is the flag in the bundle, which was there a moment ago.
            Some(_) => slots.taint(authority_id).and_then(|()| slots.revoke(authority_id)),
            None => Ok(()),
        })?;
        let trust_domain = &self.settings.trust_domain;
        bundles::edit_own(&self.directory, trust_domain, with_journal(&slots), |bundle| {
            let authority = published(bundle, authority_id).ok_or(JwtAuthorityError::RevokeUnknown)?;
            if !authority.is_tainted() {
                return Err(JwtAuthorityError::NotTainted);
            }
            bundle.jwt_authorities.retain(|authority| authority.kid() != authority_id);
            Ok(())
        })
        .await?;
        self.rotation.lock().slots = slots;
        info!(local_authority_id = authority_id, "JWT authority revoked successfully");
        Ok(AuthorityState { authority_id: authority_id.to_owned(), expires_at: authority.expires_at() })
    }

    /// The authority of this server that has that name.
    fn find(&self, authority_id: &str) -> Result<Option<JournalEntry<JwtPublicKey>>, JwtAuthorityError> {
        if authority_id.is_empty() {
            return Err(JwtAuthorityError::NoId);
        }
        let state = self.rotation.lock();
        Ok(state.slots.entries().iter().rfind(|entry| entry.authority_id == authority_id).cloned())
    }

    fn stands_beside_the_active(&self, entry: &JournalEntry<JwtPublicKey>) -> bool {
        self.rotation.lock().slots.next().is_some_and(|next| next.authority_id == entry.authority_id)
    }
}

fn state_of(entry: &JournalEntry<JwtPublicKey>) -> AuthorityState {
    AuthorityState { authority_id: entry.authority_id.clone(), expires_at: Some(entry.not_after) }
}

/// The authority as it stands in the bundle.
fn published<'b>(bundle: &'b mut Bundle, authority_id: &str) -> Option<&'b mut JwtAuthority> {
    bundle.jwt_authorities.iter_mut().find(|authority| authority.kid() == authority_id)
}
