//! The agent's own identity: found from an earlier run or attested, renewed at half of its life, kept on disk. An agent that
//! may attest again renews by doing so.
//!
//! A server that is away is waited for; a server that refuses is final, unless the agent may attest again. One task owns
//! all of it. Start at [`NodeIdentity::establish`], then [`NodeIdentity::run`].

mod attestation;
mod enroll;
mod keeper;
mod proof;
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

use crate::call_error::CallError;
use crate::config::AgentConfig;
use crate::error::AgentError;
use crate::identities::pace;
use crate::server::{Heard, ServerLink};
use crate::trust::{OwnTrust, is_below, lost_authorities};
use enroll::Enrolled;
use keeper::Keeper;
use state::State;

pub(crate) use enroll::own_bundle;
pub(crate) use proof::{ProofSource, check_files};
pub use state::StateError;
pub(crate) use state::StateFile;

/// What the task needs from outside.
pub(crate) struct Parts {
    pub(crate) config: Arc<AgentConfig>,
    pub(crate) keys: Arc<dyn KeyManager>,
    pub(crate) file: StateFile,
    pub(crate) identity: LiveIdentity,
    pub(crate) trust: OwnTrust,
    pub(crate) link: ServerLink,
    pub(crate) heard: mpsc::Receiver<Heard>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

/// An agent that has an identity.
pub(crate) struct NodeIdentity {
    parts: Parts,
    keeper: Keeper,
    state: State,
    svid: X509Svid,
    renewal: Renewal,
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
        match stored(&parts, &state) {
            Ok((svid, key)) => {
                info!(agent_id = %svid.spiffe_id(), expires_at = %svid.validity().not_after,
                    "the stored agent SVID is used");
                present(&parts.identity, &svid, &key)?;
                let now = parts.clock.now();
                let renewal = Renewal::restored(RenewalPolicy::default(), svid.validity(), now, jitter);
                Ok(Self { parts, keeper, state, svid, renewal, replace_at: None })
            }
            Err(why) => {
                let Some(source) = ProofSource::of(&parts.config) else {
                    return Err(AgentError::JoinTokenNeeded { why });
                };
                let enrolled = attestation::attest(&parts, &state, source).await?;
                let svid = adopt(&parts, &mut keeper, &mut state, enrolled).await?;
                // The server may have been waited for: only now is the time that counts.
                let now = parts.clock.now();
                let renewal = Renewal::issued(RenewalPolicy::default(), svid.validity(), now, jitter);
                Ok(Self { parts, keeper, state, svid, renewal, replace_at: None })
            }
        }
    }

    /// Keeps the identity good until it is lost for good.
    ///
    /// # Errors
    /// When the server refuses the agent, or the SVID ends and is not replaced.
    pub(crate) async fn run(mut self) -> Result<(), AgentError> {
        let mut bundles = self.parts.trust.changes();
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
            // Cancel-safe: all four only wait. After each nap the step is decided anew, for the clock may have been set.
            tokio::select! {
                Some(heard) = self.parts.heard.recv() => self.on_heard(heard).await?,
                Ok(()) = bundles.changed() => self.keep_bundle().await,
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
                self.renewal.on_failure(self.parts.clock.now(), self.jitter());
                match error.standing() {
                    Some(standing) => self.on_standing(standing).await,
                    None => Ok(()),
                }
            }
        }
    }

    async fn ask_for_renewal(&self) -> Result<Enrolled, CallError> {
        if let Some(source) = self.source_for_another_attestation() {
            // Boxed, as what it is made of is large.
            return Box::pin(attestation::again(&self.parts, &self.state, source)).await;
        }
        let Parts { link, keys, clock, .. } = &self.parts;
        let mut enrolled = enroll::renew(link, keys, &self.svid, clock.as_ref()).await?;
        enrolled.reattestable = self.state.reattestable;
        Ok(enrolled)
    }

    /// By this clock the SVID is over, which may be the clock's fault or the night's: one try to get another. When it
    /// fails the agent ends, as SPIRE's does, but the identity is kept for a start with a better clock. Only the server's
    /// word deletes it.
    async fn on_expired(&mut self) -> Result<(), AgentError> {
        warn!(agent_id = %self.svid.spiffe_id(), expires_at = %self.svid.validity().not_after,
            now = %self.parts.clock.now(), "the agent SVID has expired by this clock, trying once to replace it");
        if let Some(source) = self.source_for_another_attestation() {
            let enrolled = attestation::attest(&self.parts, &self.state, source).await?;
            return self.adopt(enrolled).await;
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

    fn source_for_another_attestation(&self) -> Option<ProofSource<'_>> {
        ProofSource::of(&self.parts.config).filter(|_| self.state.reattestable)
    }

    async fn on_heard(&mut self, heard: Heard) -> Result<(), AgentError> {
        match heard {
            Heard::Standing(standing) => self.on_standing(standing).await,
            // SPIRE's agent goes on to show the dead certificate. An alert is nobody's word, so nothing is deleted for it.
            Heard::CertificateRefused if self.source_for_another_attestation().is_some() => {
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
        let Some(source) = self.source_for_another_attestation() else {
            self.forget().await;
            return Err(lost);
        };
        info!(agent_id = %self.svid.spiffe_id(), why = %lost, "attesting again");
        match attestation::attest(&self.parts, &self.state, source).await {
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
