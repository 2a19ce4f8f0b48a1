//! The agent's own identity: found from an earlier run or attested, renewed at half of its life, kept on disk. An agent that
//! may attest again renews by doing so.
//!
//! A server that is away is waited for; a server that refuses is final, unless the agent may attest again. One task owns
//! all of it. Start at [`NodeIdentity::establish`], then [`NodeIdentity::run`].

mod attestation;
mod enroll;
mod keeper;
mod proof;
mod rebootstrap;
mod state;

use std::sync::Arc;

use spindle_keys::{Key, KeyManager};
use spindle_proto::spire::api::types::permission_denied_details::Reason as Standing;
use spindle_renewal::{Jitter, Renewal, RenewalPolicy, Step};
use spindle_runtime::nap_until;
use spindle_spiffe_core::{Clock, Entropy, Reason, X509Svid};
use spindle_transport::LiveIdentity;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::call_error::{CallError, drawn_out};
use crate::config::AgentConfig;
use crate::error::AgentError;
use crate::identities::pace;
use crate::metrics::{Metrics, code_of_call};
use crate::plugins::LivePlugins;
use crate::server::{Heard, Seen, ServerLink};
use crate::trust::{OwnTrust, is_below, lost_authorities};
use attestation::Attesting;
use enroll::Enrolled;
use keeper::Keeper;
use rebootstrap::{Patience, Verdict};
use state::State;

pub(crate) use enroll::own_bundle;
pub(crate) use proof::{ProofSource, check_files};
pub use state::StateError;
pub(crate) use state::StateFile;

/// What the task needs from outside.
pub(crate) struct Parts {
    pub(crate) config: Arc<AgentConfig>,
    pub(crate) plugins: LivePlugins,
    pub(crate) keys: Arc<dyn KeyManager>,
    pub(crate) file: StateFile,
    pub(crate) identity: LiveIdentity,
    pub(crate) trust: OwnTrust,
    pub(crate) link: ServerLink,
    pub(crate) heard: mpsc::Receiver<Heard>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) metrics: Arc<Metrics>,
}

/// An agent that has an identity.
pub(crate) struct NodeIdentity {
    parts: Parts,
    keeper: Keeper,
    state: State,
    svid: X509Svid,
    renewal: Renewal,
    patience: Patience,
    /// When the SVID is renewed because its authority is tainted.
    replace_at: Option<Instant>,
}

impl NodeIdentity {
    /// Takes up the stored identity if it still serves, or attests.
    ///
    /// # Errors
    /// When neither is possible, or the server refuses.
    pub(crate) async fn establish(parts: Parts) -> Result<Self, AgentError> {
        let mut state = on_disk(&parts.file, StateFile::load).await?;
        let mut keeper = Keeper::new(parts.file.clone(), parts.keys.clone());
        if let Some(bundle) = &state.bundle {
            parts.trust.set(bundle.clone());
        }
        let jitter = Jitter::draw(parts.entropy.as_ref());
        let mut patience = Patience::new(parts.config.rebootstrap);
        let policy = RenewalPolicy::with_availability_target(parts.config.availability_target);
        if state.svid.is_some() {
            patience.require(source_for_another_attestation(&parts, &state).is_some())?;
        }
        match stored(&parts, &state) {
            Ok((svid, key)) => {
                info!(agent_id = %svid.spiffe_id(), expires_at = %svid.validity().not_after,
                    "the stored agent SVID is used");
                present(&parts.identity, &svid, &key)?;
                parts.metrics.bootstrapped();
                let now = parts.clock.now();
                let renewal = Renewal::restored(policy, svid.validity(), now, jitter);
                Ok(Self { parts, keeper, state, svid, renewal, patience, replace_at: None })
            }
            Err(why) => {
                let Some(source) = ProofSource::of(&parts.config, &parts.plugins) else {
                    return Err(AgentError::JoinTokenNeeded { why });
                };
                let who = Attesting {
                    parts: &parts,
                    keeper: &mut keeper,
                    state: &mut state,
                    patience,
                    is_again: false,
                };
                let enrolled = attestation::attest(who, source).await?;
                let svid = adopt(&parts, &mut keeper, &mut state, enrolled).await?;
                // The server may have been waited for: only now is the time that counts.
                let now = parts.clock.now();
                let renewal = Renewal::issued(policy, svid.validity(), now, jitter);
                patience.require(source_for_another_attestation(&parts, &state).is_some())?;
                Ok(Self { parts, keeper, state, svid, renewal, patience, replace_at: None })
            }
        }
    }

    /// Keeps the identity good until it is lost for good.
    ///
    /// # Errors
    /// When the server refuses the agent, or the SVID ends and is not replaced.
    pub(crate) async fn run(mut self) -> Result<(), AgentError> {
        let mut bundles = self.parts.trust.changes();
        let mut seen = self.parts.link.seen();
        self.keep_bundle().await;
        loop {
            self.keeper.catch_up(&self.state).await;
            let now = self.parts.clock.now();
            let wake_at = match self.renewal.step(now) {
                Step::Renew => {
                    self.renew().await?;
                    continue;
                }
                Step::Expired => {
                    self.on_expired().await?;
                    continue;
                }
                Step::Wait(until) => until,
            };
            let replace_at = self.replace_at;
            // Cancel-safe: all of them only wait. After each nap the step is decided anew, for the clock may have been set.
            tokio::select! {
                Some(heard) = self.parts.heard.recv() => self.on_heard(heard).await?,
                Ok(()) = bundles.changed() => self.keep_bundle().await,
                Ok(()) = seen.changed() => {
                    let seen = *seen.borrow_and_update();
                    self.on_seen(seen).await?;
                }
                () = nap_until(self.parts.clock.as_ref(), wake_at) => {}
                () = moment(replace_at) => {
                    self.replace_at = None;
                    self.renewal.hurry();
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<(), AgentError> {
        match self.ask_for_renewal().await {
            Ok(enrolled) => self.adopt(enrolled).await,
            Err(error) => {
                warn!(agent_id = %self.svid.spiffe_id(), %error, reason = error.reason_code(),
                    expires_at = %self.svid.validity().not_after, "the agent SVID was not renewed, trying again");
                let (now, jitter) = (self.parts.clock.now(), self.jitter());
                match error.retry_after() {
                    Some(asked) => {
                        self.renewal.on_asked_to_wait(now, jitter, drawn_out(asked, self.jitter()));
                    }
                    None => self.renewal.on_failure(now, jitter),
                }
                if error.is_untrusted_server() {
                    self.on_seen(Seen::Untrusted).await?;
                }
                match error.standing() {
                    Some(standing) => self.on_standing(standing).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn ask_for_renewal(&self) -> Result<Enrolled, CallError> {
        if let Some(source) = source_for_another_attestation(&self.parts, &self.state) {
            // Boxed, as what it is made of is large.
            let again = Box::pin(attestation::again(&self.parts, &self.state, source));
            return self.parts.metrics.reattest.time(again, code_of_call).await;
        }
        let Parts { link, keys, clock, metrics, .. } = &self.parts;
        // Boxed, as it is rare.
        let renewed = Box::pin(enroll::renew(link, keys, &self.svid, clock.as_ref()));
        let mut enrolled = metrics.rotate.time(renewed, code_of_call).await?;
        enrolled.reattestable = self.state.reattestable;
        Ok(enrolled)
    }

    /// By this clock the SVID is over, which may be the clock's fault or the night's: one try to get another. When it
    /// fails the agent ends, as SPIRE's does, but the identity is kept for a start with a better clock. Only the server's
    /// word deletes it.
    async fn on_expired(&mut self) -> Result<(), AgentError> {
        warn!(agent_id = %self.svid.spiffe_id(), expires_at = %self.svid.validity().not_after,
            now = %self.parts.clock.now(), "the agent SVID has expired by this clock, trying once to replace it");
        if let Some(attested) = self.attest(false).await {
            return self.adopt(attested?).await;
        }
        match self.ask_for_renewal().await {
            Ok(enrolled) => self.adopt(enrolled).await,
            Err(error) => {
                error!(agent_id = %self.svid.spiffe_id(), %error, reason = error.reason_code(),
                    "the expired agent SVID was not renewed");
                if let Some(standing) = error.standing() {
                    self.on_standing(standing).await?;
                }
                Err(AgentError::SvidExpired)
            }
        }
    }

    /// Attests in place; none when that is not allowed. Whoever does it again fetches a bundle first.
    async fn attest(&mut self, is_again: bool) -> Option<Result<Enrolled, AgentError>> {
        let Self { parts, keeper, state, patience, .. } = self;
        let source = source_for_another_attestation(parts, state)?;
        let who = Attesting { parts, keeper, state, patience: *patience, is_again };
        Some(Box::pin(attestation::attest(who, source)).await)
    }

    async fn on_seen(&mut self, seen: Seen) -> Result<(), AgentError> {
        let now = self.parts.clock.now();
        match seen {
            Seen::Nothing => Ok(()),
            Seen::Trusted => {
                if self.state.untrusted_since.take().is_some() {
                    info!("the server is trusted again");
                    self.keeper.keep(&self.state).await;
                }
                Ok(())
            }
            Seen::Untrusted => match self.patience.on_untrusted(&mut self.state.untrusted_since, now) {
                Verdict::Never | Verdict::Wait => Ok(()),
                Verdict::First => {
                    warn!(
                        server = self.parts.link.target(),
                        delay_secs = self.patience.delay().as_secs(),
                        "the server is not trusted by the agent's bundle; if that goes on, the agent bootstraps again"
                    );
                    self.keeper.keep(&self.state).await;
                    Ok(())
                }
                Verdict::Over => self.bootstrap_again().await,
            },
        }
    }

    /// Fetches a bundle anew and attests to whom it vouches for. Until that has worked, everything stays as it is and
    /// workloads are served from it.
    async fn bootstrap_again(&mut self) -> Result<(), AgentError> {
        warn!(server = self.parts.link.target(), "the server is not trusted any more, bootstrapping again");
        match self.attest(true).await {
            Some(attested) => self.adopt(attested?).await,
            None => Ok(()),
        }
    }

    async fn on_heard(&mut self, heard: Heard) -> Result<(), AgentError> {
        match heard {
            Heard::Standing(standing) => self.on_standing(standing).await,
            // SPIRE's agent goes on to show the dead certificate. An alert is nobody's word, so nothing is deleted for it.
            Heard::CertificateRefused
                if source_for_another_attestation(&self.parts, &self.state).is_some() =>
            {
                warn!(agent_id = %self.svid.spiffe_id(), "the server does not trust the agent SVID any more, attesting again");
                self.renewal.hurry();
                Ok(())
            }
            Heard::CertificateRefused => Ok(()),
        }
    }

    async fn on_standing(&mut self, standing: Standing) -> Result<(), AgentError> {
        let reason = match standing {
            Standing::Unknown => {
                warn!("the server refused the agent without a reason");
                return Ok(());
            }
            Standing::AgentExpired => Reason::AgentExpired,
            Standing::AgentNotAttested => Reason::AgentNotAttested,
            Standing::AgentNotActive => Reason::AgentNotActive,
            Standing::AgentMustReattest => Reason::AgentMustReattest,
            Standing::AgentBanned => {
                self.forget().await;
                return Err(AgentError::StandingLost { reason: Reason::AgentBanned });
            }
        };
        self.start_over(AgentError::StandingLost { reason }).await
    }

    /// Attests again if that is allowed; else the identity is deleted and `lost` is why the agent ends.
    async fn start_over(&mut self, lost: AgentError) -> Result<(), AgentError> {
        if source_for_another_attestation(&self.parts, &self.state).is_some() {
            info!(agent_id = %self.svid.spiffe_id(), why = %lost, "attesting again");
        }
        match self.attest(false).await.unwrap_or(Err(lost)) {
            Ok(enrolled) => self.adopt(enrolled).await,
            Err(error) => {
                self.forget().await;
                Err(error)
            }
        }
    }

    async fn adopt(&mut self, enrolled: Enrolled) -> Result<(), AgentError> {
        self.svid = adopt(&self.parts, &mut self.keeper, &mut self.state, enrolled).await?;
        let (now, jitter) = (self.parts.clock.now(), self.jitter());
        self.renewal.on_success(self.svid.validity(), now, jitter);
        self.replace_at = None;
        self.parts.link.reopen();
        // What was said about the identity before this one does not count.
        while self.parts.heard.try_recv().is_ok() {}
        Ok(())
    }

    /// Deletes the identity: the server will not take it again. The bundle stays.
    async fn forget(&mut self) {
        warn!(agent_id = %self.svid.spiffe_id(), "the agent's identity is deleted");
        self.parts.identity.clear();
        self.state.svid = None;
        self.keeper.keep(&self.state).await;
    }

    async fn keep_bundle(&mut self) {
        let bundle = Some(self.parts.trust.bundle()).filter(|bundle| !bundle.is_empty());
        if self.state.bundle != bundle {
            if let (Some(old), Some(new)) = (&self.state.bundle, &bundle) {
                let (lost, now) = (lost_authorities(old, new), self.parts.clock.now());
                if is_below(&self.svid, &lost.gone, now) {
                    warn!(agent_id = %self.svid.spiffe_id(), "the authority of the agent SVID is gone, renewing it");
                    self.renewal.hurry();
                } else if is_below(&self.svid, &lost.tainted, now) {
                    // Every agent hears of it in the same moment, so each takes one of its own.
                    let begins_in = pace::start(self.jitter());
                    info!(agent_id = %self.svid.spiffe_id(), begins_in_ms = begins_in.as_millis(),
                        "Agent SVID is tainted by a root authority, forcing rotation");
                    self.replace_at = Some(Instant::now() + begins_in);
                }
            }
            self.state.bundle = bundle;
            self.keeper.keep(&self.state).await;
        }
    }

    fn jitter(&self) -> Jitter {
        Jitter::draw(self.parts.entropy.as_ref())
    }
}

async fn moment(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn source_for_another_attestation<'a>(parts: &'a Parts, state: &State) -> Option<ProofSource<'a>> {
    ProofSource::of(&parts.config, &parts.plugins).filter(|_| state.reattestable)
}

/// The stored SVID with its key, or why it does not serve.
fn stored(parts: &Parts, state: &State) -> Result<(X509Svid, Key), String> {
    let svid = state.svid.clone().ok_or("no identity is stored")?;
    if svid.validity().is_over(parts.clock.now()) {
        return Err(format!("the stored SVID expired at {}", svid.validity().not_after));
    }
    if state.bundle.is_none() {
        return Err("no trust bundle is stored".into());
    }
    match enroll::key_of(parts.keys.as_ref(), &svid) {
        Some(key) => Ok((svid, key)),
        None => Err("the key of the stored SVID is not there any more".into()),
    }
}

/// Keeps what the server gave, then presents it.
async fn adopt(
    parts: &Parts,
    keeper: &mut Keeper,
    state: &mut State,
    enrolled: Enrolled,
) -> Result<X509Svid, AgentError> {
    let Enrolled { svid, key, bundle, reattestable, owed_key } = enrolled;
    info!(agent_id = %svid.spiffe_id(), serial_num = %svid.serial(),
        expires_at = %svid.validity().not_after, reattestable, "the agent has a new SVID");
    if let Some(bundle) = bundle {
        state.bundle = Some(bundle.clone());
        parts.trust.set(bundle);
    }
    state.svid = Some(svid.clone());
    state.reattestable = reattestable;
    state.untrusted_since = None;
    parts.metrics.bootstrapped();
    keeper.keep_with(state, owed_key).await;
    present(&parts.identity, &svid, &key)?;
    Ok(svid)
}

fn present(identity: &LiveIdentity, svid: &X509Svid, key: &Key) -> Result<(), AgentError> {
    identity
        .set(svid.chain().to_vec(), &key.pkcs8_der())
        .map_err(|error| AgentError::TaskEnded { task: "node identity", why: error.to_string() })
}

async fn on_disk<T: Send + 'static>(
    file: &StateFile,
    work: impl FnOnce(&StateFile) -> Result<T, StateError> + Send + 'static,
) -> Result<T, AgentError> {
    let file = file.clone();
    match tokio::task::spawn_blocking(move || work(&file)).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(AgentError::TaskEnded { task: "state file", why: error.to_string() }),
    }
}

#[cfg(test)]
mod tests;
