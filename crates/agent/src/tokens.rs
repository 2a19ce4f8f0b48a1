//! JWT-SVIDs for local workloads: from memory while they serve, else from the server, each asked for once.
//!
//! A token serves until half of its life. After that a new one is asked for, and the old one is given when the server
//! fails or is slow. Never given: a token of an entry that is gone or changed, and one whose key is tainted or gone from
//! the own bundle. Entries with `jwt_svid_include_jti` have a new token at each call. Tokens are secrets and never logged.
//! Start at [`TokenSource::fetch`].

mod ask;
mod error;
mod flight;
mod held;
mod token;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use spindle_renewal::Jitter;
use spindle_spiffe_core::{Audience, Clock, Entropy, Hint, RegistrationEntry, Selectors, SpiffeId};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::cache::{Cache, Matched};
use crate::call_error::CallError;
use crate::metrics::{Metrics, size};
use ask::Tries;
use flight::Flights;
use held::{Found, HeldTokens};
use token::TokenName;

pub(crate) use ask::TokenIssuer;
pub(crate) use error::TokenError;
pub(crate) use token::Token;

/// Calls to the server at once, of all workloads together.
const CALLS_MAX: usize = 32;

/// Calls under way or waiting for their turn; beyond that a caller is turned away.
const WAITING_MAX: usize = 1000;

/// Identities of one caller that are asked for at once, so that one with many does not take all of [`CALLS_MAX`].
const CALLER_CALLS_MAX: usize = 8;

/// What the source needs from outside.
pub(crate) struct Parts {
    pub(crate) cache: Arc<Cache>,
    pub(crate) issuer: Arc<dyn TokenIssuer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// The most tokens kept.
    pub(crate) held_max: usize,
    /// How long a caller waits for a new token when an old one still serves.
    pub(crate) hit_timeout: Duration,
    pub(crate) metrics: Arc<Metrics>,
}

/// One token of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    /// The entry it is of.
    pub(crate) entry: Arc<RegistrationEntry>,
    /// The hint it is shown with, unique among the caller's identities.
    pub(crate) hint: Hint,
    /// The token.
    pub(crate) token: Arc<Token>,
}

/// Where tokens come from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct TokenSource(Arc<Shared>);

struct Shared {
    parts: Parts,
    state: Mutex<State>,
    calls: Semaphore,
    room: Semaphore,
}

struct State {
    held: HeldTokens,
    flights: Flights,
}

impl TokenSource {
    /// A source that holds nothing yet.
    pub(crate) fn new(parts: Parts) -> Self {
        let state = State { held: HeldTokens::new(parts.held_max), flights: Flights::default() };
        let (calls, room) = (Semaphore::new(CALLS_MAX), Semaphore::new(WAITING_MAX));
        Self(Arc::new(Shared { parts, state: Mutex::new(state), calls, room }))
    }

    /// One token for each entry that a workload with `selectors` matches, or for those of `spiffe_id`; the default identity
    /// first. For callers who come over no socket too: nothing but the selectors counts.
    ///
    /// # Errors
    /// When the agent is not in step yet, nothing matches, or the server has not signed one of the tokens. It is all or
    /// nothing, for the standard promises all identities (Workload API 6.2.1).
    pub(crate) async fn fetch(
        &self,
        selectors: &Selectors,
        spiffe_id: Option<&SpiffeId>,
        audience: &Audience,
    ) -> Result<Vec<Issued>, TokenError> {
        let wanted = |entry: &RegistrationEntry| spiffe_id.is_none_or(|id| entry.spiffe_id == *id);
        self.fetch_where(selectors, wanted, audience).await
    }

    /// As [`TokenSource::fetch`], for those of the matching entries that are `wanted`.
    ///
    /// # Errors
    /// As [`TokenSource::fetch`].
    pub(crate) async fn fetch_where(
        &self,
        selectors: &Selectors,
        wanted: impl Fn(&RegistrationEntry) -> bool,
        audience: &Audience,
    ) -> Result<Vec<Issued>, TokenError> {
        if !*self.0.parts.cache.synced().borrow() {
            return Err(TokenError::AgentStarting);
        }
        let entitled = || {
            let matching = self.0.parts.cache.matching(selectors).into_iter();
            matching.filter(|one| wanted(&one.entry))
        };
        let asked = stream::iter(entitled()).map(|one| self.issued(one, audience));
        let mut issued: Vec<Issued> = asked.buffered(CALLER_CALLS_MAX).try_collect().await?;
        // What is gone by now is not given.
        let still: Vec<Matched> = entitled().collect();
        issued.retain(|one| still.iter().any(|matched| matched.entry.id == one.entry.id));
        if issued.is_empty() { Err(TokenError::NoIdentity) } else { Ok(issued) }
    }

    /// How many tokens are held that still serve.
    pub(crate) fn held(&self) -> usize {
        let now = self.0.parts.clock.now();
        let mut state = self.lock();
        state.held.tidy(now, |token| self.is_sound(token));
        state.held.len()
    }

    async fn issued(&self, matched: Matched, audience: &Audience) -> Result<Issued, TokenError> {
        let Matched { entry, hint } = matched;
        let token = self.one(&entry, audience).await?;
        Ok(Issued { entry, hint, token })
    }

    async fn one(
        &self,
        entry: &Arc<RegistrationEntry>,
        audience: &Audience,
    ) -> Result<Arc<Token>, TokenError> {
        let name = TokenName::new(entry.spiffe_id.clone(), audience);
        if entry.jwt_svid_include_jti {
            return self.clone().ask(entry.clone(), name, Tries::Many).await;
        }
        let (flight, old) = {
            let mut state = self.lock();
            let now = self.0.parts.clock.now();
            let old = match state.held.find(&name, now, |token| self.is_sound(token)) {
                Found::Fresh(token) => return Ok(token),
                Found::Due(token) => Some(token),
                Found::Nothing => None,
            };
            let tries = if old.is_some() { Tries::One } else { Tries::Many };
            let key = (entry.id.clone(), name.clone());
            let flight =
                state.flights.join(key, || self.clone().ask_and_keep(entry.clone(), name.clone(), tries));
            (flight, old)
        };
        let Some(old) = old else { return flight.await };
        let failure = match timeout(self.0.parts.hit_timeout, flight).await {
            Ok(Ok(token)) => return Ok(token),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the server is slow".to_owned(),
        };
        let jitter = Jitter::draw(self.0.parts.entropy.as_ref());
        if self.lock().held.on_failure(&name, self.0.parts.clock.now(), jitter) {
            warn!(spiffe_id = %name.spiffe_id, error = failure, expires_at = %old.expires_at(),
                "Unable to renew JWT; returning cached copy");
        }
        Ok(old)
    }

    async fn ask_and_keep(
        self,
        entry: Arc<RegistrationEntry>,
        name: TokenName,
        tries: Tries,
    ) -> Result<Arc<Token>, TokenError> {
        let token = self.clone().ask(entry, name.clone(), tries).await?;
        let jitter = Jitter::draw(self.0.parts.entropy.as_ref());
        let mut state = self.lock();
        state.held.put(name, token.clone(), self.0.parts.clock.now(), jitter);
        self.0.parts.metrics.jwt_svids.set(size(state.held.len()));
        drop(state);
        Ok(token)
    }

    async fn ask(
        self,
        entry: Arc<RegistrationEntry>,
        name: TokenName,
        tries: Tries,
    ) -> Result<Arc<Token>, TokenError> {
        let Parts { issuer, entropy, clock, .. } = &self.0.parts;
        let _room = self.0.room.try_acquire().map_err(|_| TokenError::Overloaded)?;
        let _turn = self.0.calls.acquire().await.map_err(|_| TokenError::Overloaded)?;
        let svid = ask::ask(issuer.clone(), entropy.as_ref(), &entry.id, name.audience(), tries).await?;
        let token = Token::received(&entry, svid, clock.now()).map_err(CallError::answer)?;
        debug!(entry_id = %entry.id, spiffe_id = %entry.spiffe_id, expires_at = %token.expires_at(),
            "JWT-SVID received");
        Ok(Arc::new(token))
    }

    /// Whether peers take the token and its entry is still what it was.
    fn is_sound(&self, token: &Token) -> bool {
        let snapshot = self.0.parts.cache.snapshot();
        let trusted = |kid: &str| {
            snapshot.own_bundle().whole.jwt_authority(kid).is_some_and(|authority| !authority.is_tainted())
        };
        let entry = snapshot.identity(token.entry_id()).map(|identity| &identity.entry);
        token.kid().is_none_or(trusted) && entry.is_some_and(|entry| token.is_of(entry))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
