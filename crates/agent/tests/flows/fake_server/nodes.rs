//! The fake's side of x509pop: one challenge, whose answer is checked by the rules of the real server.

use spindle_attest::x509pop::{Circumstances, Mode, Roots, Settings, Verifier};

use super::*;

impl Fake {
    /// A challenge, and the SVID when it was answered.
    pub(super) fn prove(
        self: &Arc<Self>,
        payload: &[u8],
        csr: Vec<u8>,
        mut requests: Streaming<agent::AttestAgentRequest>,
    ) -> Result<Answers<agent::AttestAgentResponse>, Status> {
        let roots = Roots::from_pem(self.node_root.pem().as_bytes()).unwrap();
        let (trust_domain, own_bundle) = (self.ca.trust_domain(), &self.ca.x509_bundle());
        let (now, client_ip, nonce) = (SystemClock.now(), None, [7; 32]);
        let circumstances = Circumstances { trust_domain, own_bundle, client_ip, now, nonce };
        let verifier = Verifier::new(Settings::new(Mode::ExternalPki(roots)));
        let refused = |why: String| Status::permission_denied(why);
        let pending = verifier.begin(payload, &circumstances).map_err(|fault| refused(fault.to_string()))?;
        let challenge = agent::attest_agent_response::Step::Challenge(pending.challenge().into());
        let fake = self.clone();
        let result = async move {
            let answer = requests.message().await?.and_then(|request| request.step);
            let Some(agent::attest_agent_request::Step::ChallengeResponse(answer)) = answer else {
                return Err(Status::invalid_argument("no answer"));
            };
            let node = pending.finish(&answer).map_err(|fault| refused(fault.to_string()))?;
            if fake.banned.load(Ordering::SeqCst) {
                fake.turned_away.send_modify(|count| *count += 1);
                let text = "failed to attest: agent is banned";
                return Err(refusal(Code::PermissionDenied, Reason::AgentBanned, text));
            }
            let svid = fake.sign(&node.spiffe_id, &csr, fake.agent_ttl_secs())?;
            fake.proofs.send_modify(|proofs| *proofs += 1);
            let result = agent::attest_agent_response::Result { svid: Some(x509(&svid)), reattestable: true };
            Ok(agent::attest_agent_response::Step::Result(result))
        };
        let steps = tokio_stream::once(Ok(challenge)).chain(futures_util::stream::once(result));
        let message = |step: Result<_, Status>| Ok(agent::AttestAgentResponse { step: Some(step?) });
        Ok(Box::pin(steps.map(message)))
    }
}
