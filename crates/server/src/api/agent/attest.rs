//! The AttestAgent stream: what a node shows, as many challenges as its attestor asks for, and one result.
//!
//! Bounded in rounds, in the size of each message and in time, for whoever calls is a stranger. A refusal of the first
//! message stands in the headers, a later one at the end of the stream.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use spindle_ca::{CSR_BYTES_MAX, CsrError};
use spindle_proto::refusal::refusal;
use spindle_proto::spire::api::server::agent::v1 as wire;
use spindle_spiffe_core::Reason;
use spindle_transport::Peer;
use tokio::time::{Instant, timeout_at};
use tokio_stream::once;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::info;

use super::fault_status;
use crate::api::filter::bad_request;
use crate::api::gate::in_time;
use crate::api::refused::{RefusalLog, reasoned};
use crate::api::svid::svid_to_proto;
use crate::attestation::node::{Conversation, Round};
use crate::attestation::{self, AttestFault};
use crate::context::Context;
use crate::issuer::Issued;

/// The longest payload or answer: a join token is 36 bytes, the largest documents of cloud attestors some 20 KiB.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// The most challenges of one attestation. The attestors of SPIRE ask once.
const ROUNDS_MAX: usize = 8;

/// How long a whole attestation may take: twice what one message may.
const ATTESTATION_WAIT: Duration = Duration::from_secs(60);

const METHOD: &str = "/spire.api.server.agent.v1.Agent/AttestAgent";

/// The server's side of the stream.
pub(crate) type Answers = Pin<Box<dyn Stream<Item = Result<wire::AttestAgentResponse, Status>> + Send>>;

/// Answers a node's first message, with a stream that answers the others.
pub(super) async fn attest(
    context: &Arc<Context>,
    refusals: &Arc<RefusalLog>,
    request: Request<Streaming<wire::AttestAgentRequest>>,
) -> Result<Response<Answers>, Status> {
    let peer = request.extensions().get::<Peer>().cloned();
    let client_ip = match &peer {
        Some(Peer::Tls { addr, .. }) => Some(addr.ip().to_canonical()),
        Some(Peer::Local(_) | Peer::LocalTls { .. }) | None => None,
    };
    let deadline = Instant::now() + ATTESTATION_WAIT;
    let mut requests = request.into_inner();
    let first = in_time(requests.message()).await?.and_then(|request| request.step);
    let Some(wire::attest_agent_request::Step::Params(params)) = first else {
        return Err(bad_request("malformed param: missing params"));
    };
    let (kind, payload, csr) = checked(params)?;
    if kind == "join_token" {
        let issued = join(context, &payload, csr).await.map_err(|fault| status(&fault))?;
        let answer = result("join_token", &issued, false);
        return Ok(Response::new(Box::pin(once(Ok(answer)))));
    }
    let begun = context.node_attestors.begin(context, &kind, payload, client_ip).await;
    let begun = begun.ok_or_else(|| unknown_attestor(&kind))?;
    let (attestor, round) = begun.map_err(|fault| status(&fault))?;
    let talk = Talk {
        context: context.clone(),
        refusals: refusals.clone(),
        peer,
        requests,
        attestor,
        csr,
        rounds: 0,
        deadline,
    };
    let (answer, rest) = talk.say(round).await?;
    let rest = stream::try_unfold(rest, |rest| async move {
        let Some((talk, conversation)) = rest else { return Ok(None) };
        talk.go_on(conversation).await.map(Some)
    });
    Ok(Response::new(Box::pin(once(Ok(answer)).chain(rest))))
}

/// The type, the payload and the request of a first message that has all three.
fn checked(params: wire::attest_agent_request::Params) -> Result<(String, bytes::Bytes, Vec<u8>), Status> {
    let data = params.data.ok_or_else(|| bad_request("malformed param: missing attestation data"))?;
    let csr = params.params.map(|params| params.csr).unwrap_or_default();
    if data.r#type.is_empty() {
        return Err(bad_request("malformed param: missing attestation data type"));
    }
    if data.payload.is_empty() || data.payload.len() > PAYLOAD_BYTES_MAX {
        return Err(bad_request(&format!(
            "malformed param: the attestation payload has 1 to {PAYLOAD_BYTES_MAX} bytes, this one has {}",
            data.payload.len()
        )));
    }
    if csr.is_empty() {
        return Err(bad_request("malformed param: missing CSR"));
    }
    // It is kept through all rounds, and looked into after the last.
    if csr.len() > CSR_BYTES_MAX {
        return Err(status(&AttestFault::Issue(CsrError::TooLarge(csr.len()).into())));
    }
    Ok((data.r#type, data.payload, csr.to_vec()))
}

async fn join(context: &Context, payload: &[u8], csr: Vec<u8>) -> Result<Issued, AttestFault> {
    let token =
        std::str::from_utf8(payload).map_err(|_| AttestFault::TokenMalformed("it is not text".into()))?;
    attestation::attest_join_token(context, token, csr).await
}

fn unknown_attestor(kind: &str) -> Status {
    let shown: String = kind.chars().take(80).collect();
    let message = format!("failed to attest: node attestor {shown:?} is not configured");
    refusal(Code::FailedPrecondition, Reason::AttestorUnknown, &message)
}

fn status(fault: &AttestFault) -> Status {
    fault_status(fault, "failed to attest")
}

/// The last message: the SVID.
fn result(attestor: &str, issued: &Issued, reattestable: bool) -> wire::AttestAgentResponse {
    info!(agent_id = %issued.spiffe_id, attestor, serial_num = issued.serial,
          expires_at = %issued.validity.not_after, "agent attested");
    let svid = Some(svid_to_proto(issued, ""));
    let result = wire::attest_agent_response::Result { svid, reattestable };
    wire::AttestAgentResponse { step: Some(wire::attest_agent_response::Step::Result(result)) }
}

/// An attestation under way.
struct Talk {
    context: Arc<Context>,
    refusals: Arc<RefusalLog>,
    peer: Option<Peer>,
    requests: Streaming<wire::AttestAgentRequest>,
    attestor: &'static str,
    csr: Vec<u8>,
    rounds: usize,
    deadline: Instant,
}

/// What remains to be said: nothing after a result.
type Rest = Option<(Talk, Box<dyn Conversation>)>;

impl Talk {
    /// The message for `round`, and what comes after it.
    async fn say(mut self, round: Round) -> Result<(wire::AttestAgentResponse, Rest), Status> {
        match round {
            Round::Challenge { .. } if self.rounds == ROUNDS_MAX => {
                Err(bad_request(&format!("an attestation has at most {ROUNDS_MAX} challenges")))
            }
            Round::Challenge { bytes, then } => {
                self.rounds += 1;
                let step = Some(wire::attest_agent_response::Step::Challenge(bytes.into()));
                Ok((wire::AttestAgentResponse { step }, Some((self, then))))
            }
            Round::Attested(node) => {
                let reattestable = node.can_reattest;
                let issued = attestation::attest_node(&self.context, self.attestor, node, self.csr).await;
                let issued = issued.map_err(|fault| status(&fault))?;
                Ok((result(self.attestor, &issued, reattestable), None))
            }
        }
    }

    /// Takes the answer to the last challenge. Whoever is refused here is logged here, for the gate has let go already.
    async fn go_on(
        self,
        conversation: Box<dyn Conversation>,
    ) -> Result<(wire::AttestAgentResponse, Rest), Status> {
        let (refusals, peer) = (self.refusals.clone(), self.peer.clone());
        self.next(conversation).await.map_err(|status| {
            let status = reasoned(status);
            refusals.write(METHOD, peer.as_ref(), &status);
            status
        })
    }

    async fn next(
        mut self,
        conversation: Box<dyn Conversation>,
    ) -> Result<(wire::AttestAgentResponse, Rest), Status> {
        let message = timeout_at(self.deadline, in_time(self.requests.message())).await;
        let message = message.map_err(|_| late())??.and_then(|request| request.step);
        let response = match message {
            Some(wire::attest_agent_request::Step::ChallengeResponse(response)) => response,
            Some(wire::attest_agent_request::Step::Params(_)) => {
                return Err(bad_request(
                    "malformed param: params were sent where a challenge response is due",
                ));
            }
            None => return Err(bad_request("the stream ended before the challenge was answered")),
        };
        if response.len() > PAYLOAD_BYTES_MAX {
            return Err(bad_request(&format!(
                "a challenge response has at most {PAYLOAD_BYTES_MAX} bytes, this one has {}",
                response.len()
            )));
        }
        let round = self.context.node_attestors.answer(conversation, response).await;
        self.say(round.map_err(|fault| status(&fault))?).await
    }
}

fn late() -> Status {
    let message = format!("the attestation took more than {} seconds", ATTESTATION_WAIT.as_secs());
    refusal(Code::DeadlineExceeded, Reason::MessageLate, &message)
}

#[cfg(test)]
mod tests;
