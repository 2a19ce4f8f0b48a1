//! Agents: how they attest, renew and report.

use super::*;

#[tonic::async_trait]
impl agent::agent_server::Agent for Service {
    type AttestAgentStream = Answers<agent::AttestAgentResponse>;

    async fn attest_agent(
        &self,
        request: Request<Streaming<agent::AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|request| request.step);
        let Some(agent::attest_agent_request::Step::Params(params)) = first else {
            return Err(Status::invalid_argument("no params"));
        };
        let data = params.data.unwrap_or_default();
        if data.r#type == "x509pop" {
            let csr = params.params.unwrap_or_default().csr.to_vec();
            return Ok(Response::new(self.0.prove(&data.payload, csr, requests)?));
        }
        assert_eq!(data.r#type, "join_token");
        let token = String::from_utf8_lossy(&data.payload).into_owned();
        let mut tokens = self.0.tokens.lock().unwrap();
        let Some(at) = tokens.iter().position(|one| *one == token) else {
            let text = "failed to attest: join token does not exist or has already been used";
            return Err(refusal(Code::InvalidArgument, Reason::JoinTokenUnknown, text));
        };
        tokens.remove(at);
        let id = self.0.ca.id(&format!("/spire/agent/join_token/{token}"));
        let svid = self.0.sign(&id, &params.params.unwrap_or_default().csr, self.0.agent_ttl_secs())?;
        let result = agent::attest_agent_response::Result { svid: Some(x509(&svid)), reattestable: false };
        let step = Some(agent::attest_agent_response::Step::Result(result));
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(agent::AttestAgentResponse { step })))))
    }

    async fn renew_agent(
        &self,
        request: Request<agent::RenewAgentRequest>,
    ) -> Result<Response<agent::RenewAgentResponse>, Status> {
        let peer = self.0.agent(&request, "RenewAgent")?;
        let csr = request.into_inner().params.unwrap_or_default().csr;
        let svid = self.0.sign(peer.spiffe_id(), &csr, self.0.agent_ttl_secs())?;
        Ok(Response::new(agent::RenewAgentResponse { svid: Some(x509(&svid)) }))
    }

    async fn post_status(
        &self,
        request: Request<agent::PostStatusRequest>,
    ) -> Result<Response<agent::PostStatusResponse>, Status> {
        self.0.agent(&request, "PostStatus")?;
        self.0.versions.lock().unwrap().push(request.into_inner().agent_version);
        Ok(Response::new(agent::PostStatusResponse::default()))
    }

    async fn count_agents(
        &self,
        _: Request<agent::CountAgentsRequest>,
    ) -> Result<Response<agent::CountAgentsResponse>, Status> {
        Err(not_faked())
    }

    async fn list_agents(
        &self,
        _: Request<agent::ListAgentsRequest>,
    ) -> Result<Response<agent::ListAgentsResponse>, Status> {
        Err(not_faked())
    }

    async fn get_agent(&self, _: Request<agent::GetAgentRequest>) -> Result<Response<types::Agent>, Status> {
        Err(not_faked())
    }

    async fn delete_agent(&self, _: Request<agent::DeleteAgentRequest>) -> Result<Response<()>, Status> {
        Err(not_faked())
    }

    async fn ban_agent(&self, _: Request<agent::BanAgentRequest>) -> Result<Response<()>, Status> {
        Err(not_faked())
    }

    async fn create_join_token(
        &self,
        _: Request<agent::CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        Err(not_faked())
    }
}
