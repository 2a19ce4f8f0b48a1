//! SVIDs of workloads.

use super::*;

#[tonic::async_trait]
impl svid::svid_server::Svid for Service {
    async fn new_downstream_x509ca(
        &self,
        _: Request<svid::NewDownstreamX509caRequest>,
    ) -> Result<Response<svid::NewDownstreamX509caResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_new_x509svid(
        &self,
        request: Request<svid::BatchNewX509svidRequest>,
    ) -> Result<Response<svid::BatchNewX509svidResponse>, Status> {
        self.0.agent(&request, "BatchNewX509SVID")?;
        let content = self.0.content.borrow().clone();
        let sign = |params: svid::NewX509svidParams| match content.entries.get(&params.entry_id) {
            Some(entry) => {
                let ttl_secs = match entry.x509_svid_ttl_secs {
                    0 => 3600,
                    secs => i64::from(secs),
                };
                let svid = self.0.sign(&entry.spiffe_id, &params.csr, ttl_secs).unwrap();
                svid::batch_new_x509svid_response::Result { status: Some(item_ok()), svid: Some(x509(&svid)) }
            }
            None => svid::batch_new_x509svid_response::Result {
                status: Some(item_refusal(
                    Code::NotFound,
                    Reason::EntryNotAuthorized,
                    "entry not found or not authorized".into(),
                )),
                svid: None,
            },
        };
        let results = request.into_inner().params.into_iter().map(sign).collect();
        Ok(Response::new(svid::BatchNewX509svidResponse { results }))
    }

    async fn mint_x509svid(
        &self,
        _: Request<svid::MintX509svidRequest>,
    ) -> Result<Response<svid::MintX509svidResponse>, Status> {
        Err(not_faked())
    }

    async fn mint_jwtsvid(
        &self,
        _: Request<svid::MintJwtsvidRequest>,
    ) -> Result<Response<svid::MintJwtsvidResponse>, Status> {
        Err(not_faked())
    }

    async fn mint_witsvid(
        &self,
        _: Request<svid::MintWitsvidRequest>,
    ) -> Result<Response<svid::MintWitsvidResponse>, Status> {
        Err(not_faked())
    }

    async fn batch_new_witsvid(
        &self,
        _: Request<svid::BatchNewWitsvidRequest>,
    ) -> Result<Response<svid::BatchNewWitsvidResponse>, Status> {
        Err(not_faked())
    }

    async fn new_jwtsvid(
        &self,
        request: Request<svid::NewJwtsvidRequest>,
    ) -> Result<Response<svid::NewJwtsvidResponse>, Status> {
        self.0.agent(&request, "NewJWTSVID")?;
        Ok(Response::new(self.0.new_token(&request.into_inner())?))
    }
}
