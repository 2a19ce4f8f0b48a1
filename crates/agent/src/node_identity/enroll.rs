//! The two calls that give the agent an identity: AttestAgent with a proof of the node, and RenewAgent.
//!
//! A certificate is taken only when it is an agent's of the own trust domain, holds the key that was made for it, and is
//! trusted by the bundle that came with it. Start at [`attest`] and [`renew`].

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use spindle_keys::{Key, KeyError, KeyManager, KeyType, certificate_request};
use spindle_proto::convert::bundle_from_proto;
use spindle_proto::spire::api::server::agent::v1 as agent;
use spindle_proto::spire::api::server::agent::v1::agent_client::AgentClient;
use spindle_proto::spire::api::server::agent::v1::{attest_agent_request, attest_agent_response};
use spindle_proto::spire::api::server::bundle::v1::GetBundleRequest;
use spindle_proto::spire::api::server::bundle::v1::bundle_client::BundleClient;
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{
    Clock, Entropy, ErrorChain, Timestamp, TrustDomain, X509Bundle, X509Bundles, X509Svid, verify_x509_svid,
};
use spindle_transport::{TlsDialer, Trust};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracing::{error, warn};

use super::Parts;
use super::keeper::OwedKey;
use super::proof::{Proof, ProofSource};
use crate::call_error::CallError;
use crate::server::{CALL_TIMEOUT, ServerLink};

/// The agent's own keys alternate between these names, SPIRE's, so that the one in use is never overwritten.
const KEY_IDS: [&str; 2] = ["agent-svid-A", "agent-svid-B"];

/// What SPIRE uses for agents, whatever workloads have.
const KEY_TYPE: KeyType = KeyType::EcP256;

/// The most challenges answered in one attestation. The attestors of SPIRE ask once.
const ROUNDS_MAX: usize = 8;

/// How often the bundle is asked for when the token would be lost without it.
const BUNDLE_TRIES: u32 = 5;

/// Pause between those tries.
const BUNDLE_PAUSE: Duration = Duration::from_millis(500);

/// An identity the server has just given.
#[derive(Debug)]
pub(crate) struct Enrolled {
    pub(crate) svid: X509Svid,
    pub(crate) key: Key,
    /// The server's bundle, when it was asked for.
    pub(crate) bundle: Option<X509Bundle>,
    pub(crate) reattestable: bool,
    /// The key again, when it could not be written to disk.
    pub(super) owed_key: Option<OwedKey>,
}

/// The key that belongs to `svid`, if it is kept.
pub(crate) fn key_of(keys: &dyn KeyManager, svid: &X509Svid) -> Option<Key> {
    KEY_IDS.iter().filter_map(|id| keys.get(id)).find(|key| key.spki_der() == svid.spki_der())
}

/// Attests over a connection without a client certificate, and fetches the bundle on it.
pub(super) async fn attest(
    dialer: &TlsDialer,
    parts: &Parts,
    current: Option<&X509Svid>,
    source: ProofSource<'_>,
) -> Result<Enrolled, CallError> {
    let trust_domain = &parts.config.trust_domain;
    let proof = Proof::load(source).await?;
    let Request { key, csr, owed_key } = request(&parts.keys, current).await?;
    let channel = dialer.connect().await?;
    let explain = |status: Status| match (status.code(), dialer.last_fault()) {
        (Code::Unavailable | Code::Unknown | Code::Cancelled, Some(fault)) => CallError::Dial(fault),
        _ => CallError::from(status),
    };
    let talk = exchange(channel.clone(), &proof, csr, parts.entropy.as_ref(), explain);
    let result = timeout(CALL_TIMEOUT, talk).await.unwrap_or_else(|_| Err(late().into()))?;
    let tries = match &dialer.trust {
        Trust::Bundles(_) => 1,
        Trust::InsecureOnce => BUNDLE_TRIES,
    };
    let fetched = fetch_bundle(channel, trust_domain, tries, explain).await;
    // The token is spent by now, so nothing may be given up that can be kept.
    let bundle = match (fetched, &dialer.trust) {
        (Ok(bundle), _) => bundle,
        (Err(error), Trust::Bundles(live)) => {
            warn!(%error, "the server's bundle was not fetched; the one it was recognised by stays");
            live.load().get(trust_domain).cloned().ok_or(error)?
        }
        (Err(error), Trust::InsecureOnce) => return Err(error),
    };
    let svid = verified(&chain(result.svid)?, bundle.clone(), dialer.clock.now())?;
    check(&svid, &key, trust_domain)?;
    Ok(Enrolled { svid, key, bundle: Some(bundle), reattestable: result.reattestable, owed_key })
}

/// Asks for the bundle, and again on the same connection: an agent that believed its server once must have it from there.
async fn fetch_bundle(
    channel: Channel,
    trust_domain: &TrustDomain,
    tries: u32,
    explain: impl Fn(Status) -> CallError,
) -> Result<X509Bundle, CallError> {
    let mut client = BundleClient::new(channel);
    let mut left = tries;
    loop {
        let fetched = in_time(client.get_bundle(GetBundleRequest::default())).await;
        let error = match fetched.map_err(&explain) {
            Ok(answer) => match own_bundle(&answer.into_inner(), trust_domain) {
                Ok(bundle) => return Ok(bundle),
                Err(error) => error,
            },
            Err(error) => error,
        };
        left = left.saturating_sub(1);
        if left == 0 {
            return Err(error);
        }
        warn!(%error, reason = error.reason_code(), "the server's bundle was not fetched, trying again");
        sleep(BUNDLE_PAUSE).await;
    }
}

/// Has a new key certified under the identity of the link's connection.
///
/// The chain is not held against the bundle: the server has proved itself on this connection, and a new authority may
/// reach us a moment later in its bundle.
pub(crate) async fn renew(
    link: &ServerLink,
    keys: &Arc<dyn KeyManager>,
    current: &X509Svid,
    clock: &dyn Clock,
) -> Result<Enrolled, CallError> {
    let Request { key, csr, owed_key } = request(keys, Some(current)).await?;
    let request = agent::RenewAgentRequest { params: Some(agent::AgentX509svidParams { csr: csr.into() }) };
    let answer =
        link.call(|channel| async move { AgentClient::new(channel).renew_agent(request).await }).await?;
    let svid = X509Svid::parse(chain(answer.svid)?)
        .map_err(|error| CallError::answer(format!("agent SVID: {error}")))?;
    check(&svid, &key, &current.spiffe_id().trust_domain())?;
    // Read after the answer: the call may have taken long.
    refuse_if_over(&svid, clock.now())?;
    if svid.spiffe_id() != current.spiffe_id() {
        return Err(CallError::answer(format!("it renewed the SVID as {}", svid.spiffe_id())));
    }
    Ok(Enrolled { svid, key, bundle: None, reattestable: false, owed_key })
}

/// The SVID in `chain`, trusted by `bundle`. One that is not valid yet is taken: this clock is behind the server's, and
/// the token it was paid with does not come back.
fn verified(
    chain: &[CertificateDer<'static>],
    bundle: X509Bundle,
    now: Timestamp,
) -> Result<X509Svid, CallError> {
    let bad = |error: &dyn std::error::Error| CallError::answer(format!("agent SVID: {}", ErrorChain(error)));
    let svid = X509Svid::parse(chain.to_vec()).map_err(|error| bad(&error))?;
    refuse_if_over(&svid, now)?;
    let at = now.max(svid.validity().not_before);
    verify_x509_svid(chain, &X509Bundles::from(bundle), at).map_err(|error| bad(&error))
}

fn refuse_if_over(svid: &X509Svid, now: Timestamp) -> Result<(), CallError> {
    let validity = svid.validity();
    if validity.is_over(now) {
        let end = validity.not_after;
        return Err(CallError::answer(format!("an SVID that ended at {end}, while this clock shows {now}")));
    }
    if now < validity.not_before {
        warn!(agent_id = %svid.spiffe_id(), not_before = %validity.not_before, %now,
            "the new agent SVID is not valid yet by this clock, which is behind the server's; set it right");
    }
    Ok(())
}

/// The own trust domain's bundle out of an answer.
pub(crate) fn own_bundle(wire: &types::Bundle, trust_domain: &TrustDomain) -> Result<X509Bundle, CallError> {
    let bundle = bundle_from_proto(wire).map_err(|error| CallError::answer(format!("bundle: {error}")))?;
    if bundle.trust_domain != *trust_domain {
        return Err(CallError::answer(format!("bundle of trust domain {}", bundle.trust_domain)));
    }
    Ok(bundle.x509_bundle())
}

/// A new key and what to have signed for it.
struct Request {
    key: Key,
    csr: Vec<u8>,
    owed_key: Option<OwedKey>,
}

/// A new key under the name that `current` does not use, and a request for it. A disk that is full does not stop it: the
/// running agent needs no more than the key in memory.
async fn request(keys: &Arc<dyn KeyManager>, current: Option<&X509Svid>) -> Result<Request, CallError> {
    let (keys, spki) = (keys.clone(), current.map(|svid| svid.spki_der().to_vec()));
    let made = tokio::task::spawn_blocking(move || {
        let in_use = |id: &&&str| {
            keys.get(id).is_some_and(|key| spki.as_deref().is_some_and(|spki| key.spki_der() == spki))
        };
        let id = KEY_IDS.iter().find(|id| !in_use(id)).unwrap_or(&KEY_IDS[0]);
        let (key, owed_key) = match keys.generate(id, KEY_TYPE) {
            Ok(key) => (key, None),
            Err(error @ KeyError::Io { .. }) => {
                error!(error = %ErrorChain(&error), "the agent's new key cannot be written; it is used from memory");
                let key = Key::generate(KEY_TYPE)?;
                (key.clone(), Some((*id, key)))
            }
            Err(error) => return Err(error),
        };
        let csr = certificate_request(&key, None, &[])?;
        Ok(Request { key, csr, owed_key })
    });
    match made.await {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) => Err(CallError::local(&error)),
        Err(error) => Err(CallError::local(&error)),
    }
}

async fn in_time<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| Err(late()))
}

fn late() -> Status {
    Status::deadline_exceeded("the server did not answer in time")
}

/// Shows the proof, and answers challenges until the server is content.
async fn exchange(
    channel: Channel,
    proof: &Proof,
    csr: Vec<u8>,
    entropy: &dyn Entropy,
    explain: impl Fn(Status) -> CallError,
) -> Result<attest_agent_response::Result, CallError> {
    let params = attest_agent_request::Params {
        data: Some(types::AttestationData { r#type: proof.kind().into(), payload: proof.payload().into() }),
        params: Some(agent::AgentX509svidParams { csr: csr.into() }),
    };
    let message = |step| agent::AttestAgentRequest { step: Some(step) };
    // The stream stays open until the answer is here: some servers take its end for a withdrawal.
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let _ = sender.send(message(attest_agent_request::Step::Params(params))).await;
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let mut answers = AgentClient::new(channel).attest_agent(requests).await.map_err(&explain)?.into_inner();
    for _ in 0..=ROUNDS_MAX {
        let answer = answers.message().await.map_err(&explain)?;
        let challenge = match answer.and_then(|answer| answer.step) {
            Some(attest_agent_response::Step::Result(result)) => return Ok(result),
            Some(attest_agent_response::Step::Challenge(challenge)) => challenge,
            None => return Err(CallError::answer("it ended the attestation without a result")),
        };
        let response = proof.answer(&challenge, entropy).await?;
        // When nobody takes it, the stream has ended, and the next look at it says why.
        let _ = sender.send(message(attest_agent_request::Step::ChallengeResponse(response.into()))).await;
    }
    Err(CallError::answer(format!("it asked more than {ROUNDS_MAX} times")))
}

fn chain(wire: Option<types::X509svid>) -> Result<Vec<CertificateDer<'static>>, CallError> {
    let wire = wire.ok_or_else(|| CallError::answer("no certificate"))?;
    Ok(wire.cert_chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect())
}

fn check(svid: &X509Svid, key: &Key, trust_domain: &TrustDomain) -> Result<(), CallError> {
    if !svid.spiffe_id().is_member_of(trust_domain) || !svid.spiffe_id().is_agent() {
        return Err(CallError::answer(format!("{} is no agent of {trust_domain}", svid.spiffe_id())));
    }
    if svid.spki_der() != key.spki_der() {
        return Err(CallError::answer("the agent SVID holds another key"));
    }
    Ok(())
}
