//! WIT-SVIDs: in batches for agents, one by one for administrators.

use spindle_ca::{SignedToken, Wit, WitSvidRequest};
use spindle_spiffe_core::SpiffeId;
use spindle_spiffe_core::wit_svid::ConfirmationKey;

use super::{Inner, TokenIssueError, WitIssuer};
use crate::config::WitSettings;
use crate::issuer::Urgency;

/// What one token is to say.
#[derive(Clone, Debug)]
pub(crate) struct WitRequest {
    pub(crate) spiffe_id: SpiffeId,
    /// The workload's key.
    pub(crate) confirmation: ConfirmationKey,
    /// Zero or less means the default.
    pub(crate) ttl_secs: i64,
}

impl WitIssuer {
    /// Signs one token when it is its turn, for somebody who waits at a terminal.
    pub(crate) async fn mint(&self, request: WitRequest) -> Result<SignedToken, TokenIssueError> {
        let inner = self.0.clone();
        let signed = self.0.signing.threads.one(Urgency::First, move || inner.sign(&request)).await;
        signed.map_err(Inner::<Wit>::not_signed)?
    }

    /// Signs one token for each request, in order; a refused one does not touch the others.
    ///
    /// # Errors
    /// When there is no room in the line for all of them.
    pub(crate) async fn issue_batch(
        &self,
        requests: Vec<WitRequest>,
    ) -> Result<Vec<Result<SignedToken, TokenIssueError>>, TokenIssueError> {
        let inner = self.0.clone();
        let signed = self.0.signing.threads.each(requests, move |request| inner.sign(request)).await;
        let signed = signed.map_err(Inner::<Wit>::not_signed)?;
        Ok(signed.into_iter().map(|one| one.map_err(Inner::<Wit>::not_signed)?).collect())
    }
}

impl Inner<Wit> {
    fn sign(&self, request: &WitRequest) -> Result<SignedToken, TokenIssueError> {
        let authority = self.active()?;
        let issued_at = self.signing.clock.now();
        let ttl_secs = if request.ttl_secs > 0 { request.ttl_secs } else { WitSettings::TTL_SECS };
        self.signed(authority.sign_wit_svid(&WitSvidRequest {
            spiffe_id: &request.spiffe_id,
            confirmation: &request.confirmation,
            issued_at,
            expires_at: issued_at + ttl_secs,
            issuer: self.issuer.as_deref(),
            token_id: self.token_id(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use spindle_ca::confirmation_key;
    use spindle_keys::{Key, KeyType};
    use spindle_spiffe_core::Reason;
    use spindle_testkit::ManualClock;
    use tonic::Code;

    use super::*;
    use crate::config::ServerConfig;
    use crate::fixtures;

    fn request(path: &str) -> WitRequest {
        let key = Key::generate(KeyType::EcP256).unwrap();
        WitRequest {
            spiffe_id: fixtures::id(path),
            confirmation: confirmation_key(key.spki_der(), "ES256").unwrap(),
            ttl_secs: 0,
        }
    }

    #[tokio::test]
    async fn a_batch_is_signed_in_its_order_and_a_refused_item_touches_no_other() {
        let context = fixtures::context(&ManualClock::default()).await;
        let foreign = WitRequest { spiffe_id: "spiffe://other.org/web".parse().unwrap(), ..request("/x") };
        let mut requests: Vec<_> = (0..100).map(|number| request(&format!("/{number}"))).collect();
        requests.insert(50, foreign);
        let signed = context.wit_issuer.issue_batch(requests.clone()).await.unwrap();
        assert_eq!(signed.len(), 101);
        for (at, (signed, request)) in signed.iter().zip(&requests).enumerate() {
            match signed {
                Ok(signed) => assert_eq!(signed.spiffe_id, request.spiffe_id),
                Err(error) => assert_eq!((at, error.reason()), (50, Reason::WrongTrustDomain)),
            }
        }
        assert!(signed[50].is_err());
    }

    #[tokio::test]
    async fn a_batch_that_finds_no_room_is_turned_away_whole() {
        let context = fixtures::context(&ManualClock::default()).await;
        let crowd = context.issuer.crowd(ServerConfig::SIGNING_QUEUE_MAX - 1);
        let refused = context.wit_issuer.issue_batch(vec![request("/a"), request("/b")]).await;
        let refused = refused.expect_err("there is room for one");
        assert_eq!((refused.code(), refused.reason()), (Code::ResourceExhausted, Reason::Overloaded));
        context.wit_issuer.mint(request("/a")).await.expect("an administrator has room of its own");
        drop(crowd);
        context.wit_issuer.issue_batch(vec![request("/a"), request("/b")]).await.expect("room");
    }
}
