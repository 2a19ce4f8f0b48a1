//! What operators may do to authorities that sign tokens: look, prepare, activate, taint, revoke.
//!
//! The rules are SPIRE's for JWT authorities, and so are the texts of refusals. Orders are carried out one after the other by the task that owns the
//! slots, each as one transaction; what is answered is durable. A prepared authority that is activated by hand skips the wait
//! for agents. Start at [`TokenAuthorities::order`].

use std::sync::Arc;

use spindle_ca::{AuthorityStatus, JournalEntry, SlotError, TokenFamily, TokenPublicKey};
use spindle_spiffe_core::{Bundle, Reason, Timestamp, TokenAuthority};
use tonic::Code;
use tracing::{info, warn};

use super::super::AuthoritiesError;
use super::super::rotation::{self, NotTaken};
use super::{TokenAuthorities, with_journal};
use crate::bundles;
use crate::directory::CommitError;

/// What an operator wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenOrder {
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

/// Why an operation is refused. Some texts name the family.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenAuthorityError {
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
    #[error("failed to taint {0} authority: key is already tainted")]
    AlreadyTainted(&'static str),
    #[error("failed to taint {0} authority: no {0} Key found with provided key ID")]
    TaintGone(&'static str),
    #[error("invalid authority ID: no authority ID provided")]
    RevokeNoId,
    #[error("invalid authority ID: unable to use current authority")]
    RevokeActive,
    #[error("invalid authority ID: unable to use a prepared key")]
    RevokePrepared,
    #[error("invalid authority ID: no {0} authority found with provided authority ID")]
    RevokeUnknown(&'static str),
    #[error("failed to revoke {0} authority: it is not possible to revoke an untainted key")]
    NotTainted(&'static str),
    #[error("{0}")]
    NotTaken(#[from] NotTaken),
    #[error("{0}")]
    Failed(#[from] AuthoritiesError),
}

impl TokenAuthorityError {
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
            | Self::RevokeUnknown(_) => Code::InvalidArgument,
            Self::NotPrepared
            | Self::AlreadyTainted(_)
            | Self::TaintGone(_)
            | Self::NotTainted(_)
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
            Self::UnexpectedId | Self::RevokeUnknown(_) | Self::TaintGone(_) => Reason::AuthorityNotFound,
            Self::NotPrepared
            | Self::TaintActive
            | Self::TaintPrepared
            | Self::AlreadyTainted(_)
            | Self::RevokeActive
            | Self::RevokePrepared
            | Self::NotTainted(_) => Reason::AuthorityState,
            Self::Failed(AuthoritiesError::Store(_)) => Reason::StoreFailed,
            Self::Failed(AuthoritiesError::Key(_)) => Reason::LocalFailure,
            Self::Failed(_) => Reason::Internal,
        }
    }
}

impl From<CommitError> for TokenAuthorityError {
    fn from(error: CommitError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<SlotError> for TokenAuthorityError {
    fn from(error: SlotError) -> Self {
        Self::Failed(error.into())
    }
}

impl<F: TokenFamily> TokenAuthorities<F> {
    /// The authorities as they stand.
    pub(crate) fn state(&self) -> Result<AuthorityStates, TokenAuthorityError> {
        let state = self.rotation.lock();
        let active = state.slots.active().map(state_of).ok_or(TokenAuthorityError::NoActive)?;
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
        order: TokenOrder,
    ) -> Result<AuthorityState, TokenAuthorityError> {
        let this = self.clone();
        self.rotation.order(async move { this.execute(order).await }).await?
    }

    pub(super) async fn execute(&self, order: TokenOrder) -> Result<AuthorityState, TokenAuthorityError> {
        match order {
            TokenOrder::Prepare => self.prepare_next().await,
            TokenOrder::Activate(id) => self.activate(&id).await,
            TokenOrder::Taint(id) => self.taint(&id).await,
            TokenOrder::Revoke(id) => self.revoke(&id).await,
        }
    }

    async fn prepare_next(&self) -> Result<AuthorityState, TokenAuthorityError> {
        let slot = match self.rotation.lock().slots.active() {
            Some(active) => active.slot.other(),
            None => return Err(TokenAuthorityError::NoActive),
        };
        rotation::prepare(self, slot).await?;
        self.state()?.prepared.ok_or(TokenAuthorityError::NoActive)
    }

    async fn activate(&self, authority_id: &str) -> Result<AuthorityState, TokenAuthorityError> {
        let slot = match self.find(authority_id)? {
            Some(entry) if entry.status == AuthorityStatus::Prepared => entry.slot,
            Some(entry) if self.stands_beside_the_active(&entry) => {
                return Err(TokenAuthorityError::NotPrepared);
            }
            _ => return Err(TokenAuthorityError::UnexpectedId),
        };
        warn!(local_authority_id = authority_id, "a {} is activated by hand", F::AUTHORITY);
        rotation::activate(self, slot).await?;
        Ok(self.state()?.active)
    }

    /// Unlike SPIRE, which looks no further back than the last one, this takes any that is still in the bundle.
    async fn taint(&self, authority_id: &str) -> Result<AuthorityState, TokenAuthorityError> {
        match self.find(authority_id)?.ok_or(TokenAuthorityError::UnexpectedId)?.status {
            AuthorityStatus::Active => return Err(TokenAuthorityError::TaintActive),
            AuthorityStatus::Prepared => return Err(TokenAuthorityError::TaintPrepared),
            AuthorityStatus::Old => {}
        }
        let slots = rotation::changed_slots(self, |slots| slots.taint(authority_id))?;
        let trust_domain = &self.settings.trust_domain;
        bundles::edit_own(&self.directory, trust_domain, with_journal(&slots), |bundle| {
            let authority =
                published::<F>(bundle, authority_id).ok_or(TokenAuthorityError::TaintGone(F::NAME))?;
            if authority.is_tainted() {
                return Err(TokenAuthorityError::AlreadyTainted(F::NAME));
            }
            *authority = authority.clone().with_taint(true);
            Ok(())
        })
        .await?;
        self.rotation.lock().slots = slots;
        info!(local_authority_id = authority_id, "{} tainted successfully", F::AUTHORITY);
        let authority_id = authority_id.to_owned();
        let expires_at = self.find(&authority_id)?.map(|entry| entry.not_after);
        Ok(AuthorityState { authority_id, expires_at })
    }

    /// An old one of this server goes, or any that others have published.
    async fn revoke(&self, authority_id: &str) -> Result<AuthorityState, TokenAuthorityError> {
        if authority_id.is_empty() {
            return Err(TokenAuthorityError::RevokeNoId);
        }
        let own = self.find(authority_id)?;
        match own.as_ref().map(|entry| entry.status) {
            Some(AuthorityStatus::Active) => return Err(TokenAuthorityError::RevokeActive),
            Some(AuthorityStatus::Prepared) => return Err(TokenAuthorityError::RevokePrepared),
            Some(AuthorityStatus::Old) | None => {}
        }
        let bundle = bundles::own(&self.directory.view(), &self.settings.trust_domain);
        let authority =
            F::authority(&bundle, authority_id).ok_or(TokenAuthorityError::RevokeUnknown(F::NAME))?;
        if !authority.is_tainted() {
            return Err(TokenAuthorityError::NotTainted(F::NAME));
        }
        let slots = rotation::changed_slots(self, |slots| match own {
            // What counts is the flag in the bundle, which was there a moment ago.
            Some(_) => slots.taint(authority_id).and_then(|()| slots.revoke(authority_id)),
            None => Ok(()),
        })?;
        let trust_domain = &self.settings.trust_domain;
        bundles::edit_own(&self.directory, trust_domain, with_journal(&slots), |bundle| {
            let authority =
                published::<F>(bundle, authority_id).ok_or(TokenAuthorityError::RevokeUnknown(F::NAME))?;
            if !authority.is_tainted() {
                return Err(TokenAuthorityError::NotTainted(F::NAME));
            }
            F::authorities_mut(bundle).retain(|authority| authority.kid() != authority_id);
            Ok(())
        })
        .await?;
        self.rotation.lock().slots = slots;
        info!(local_authority_id = authority_id, "{} revoked successfully", F::AUTHORITY);
        Ok(AuthorityState { authority_id: authority_id.to_owned(), expires_at: authority.expires_at() })
    }

    /// The authority of this server that has that name.
    fn find(
        &self,
        authority_id: &str,
    ) -> Result<Option<JournalEntry<TokenPublicKey<F>>>, TokenAuthorityError> {
        if authority_id.is_empty() {
            return Err(TokenAuthorityError::NoId);
        }
        let state = self.rotation.lock();
        Ok(state.slots.entries().iter().rfind(|entry| entry.authority_id == authority_id).cloned())
    }

    fn stands_beside_the_active(&self, entry: &JournalEntry<TokenPublicKey<F>>) -> bool {
        self.rotation.lock().slots.next().is_some_and(|next| next.authority_id == entry.authority_id)
    }
}

fn state_of<F: TokenFamily>(entry: &JournalEntry<TokenPublicKey<F>>) -> AuthorityState {
    AuthorityState { authority_id: entry.authority_id.clone(), expires_at: Some(entry.not_after) }
}

/// The authority as it stands in the bundle.
fn published<'b, F: TokenFamily>(
    bundle: &'b mut Bundle,
    authority_id: &str,
) -> Option<&'b mut TokenAuthority> {
    F::authorities_mut(bundle).iter_mut().find(|authority| authority.kid() == authority_id)
}
