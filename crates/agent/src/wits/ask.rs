//! Asks the server for WIT-SVIDs.

use futures_util::future::BoxFuture;
use spindle_proto::refusal::Refusal;
use spindle_proto::spire::api::server::svid::v1 as svid;
use spindle_proto::spire::api::server::svid::v1::svid_client::SvidClient;
use spindle_spiffe_core::{EntryId, SignatureAlgorithm};
use zeroize::Zeroizing;

use crate::call_error::CallError;
use crate::server::{ANSWER_BYTES_MAX, ServerLink};

/// One WIT-SVID asked for.
#[derive(Debug)]
pub(crate) struct WitRequest {
    /// The entry it is for.
    pub(crate) entry_id: EntryId,
    /// The key it is to be bound to, as `SubjectPublicKeyInfo` in DER.
    pub(crate) public_key: Vec<u8>,
    /// What that key signs by.
    pub(crate) algorithm: SignatureAlgorithm,
}

/// The token in JWS compact form, or why this entry was refused.
pub(crate) type WitAnswer = Result<Zeroizing<String>, String>;

/// Whoever signs WIT-SVIDs: the server, or a stand-in of a test.
pub(crate) trait WitIssuer: Send + Sync {
    /// One answer for each request, in their order.
    fn issue(&self, requests: Vec<WitRequest>) -> BoxFuture<'static, Result<Vec<WitAnswer>, CallError>>;
}

impl WitIssuer for ServerLink {
    fn issue(&self, requests: Vec<WitRequest>) -> BoxFuture<'static, Result<Vec<WitAnswer>, CallError>> {
        let link = self.clone();
        let params = requests.into_iter().map(|one| svid::NewWitsvidParams {
            entry_id: one.entry_id.as_str().into(),
            public_key: one.public_key.into(),
            signing_algorithm: one.algorithm.name().into(),
        });
        let request = svid::BatchNewWitsvidRequest { params: params.collect() };
        Box::pin(async move {
            let answer = link.call(|channel| async move {
                SvidClient::new(channel)
                    .max_decoding_message_size(ANSWER_BYTES_MAX)
                    .batch_new_witsvid(request)
                    .await
            });
            Ok(answer.await?.results.into_iter().map(wit_answer).collect())
        })
    }
}

/// A server of SPIRE leaves the status of a good item out.
fn wit_answer(result: svid::batch_new_witsvid_response::Result) -> WitAnswer {
    let status = result.status.unwrap_or_default();
    match result.svid {
        Some(svid) if status.code == 0 => Ok(Zeroizing::new(svid.token)),
        _ if status.code == 0 => Err("the server answered without a token".into()),
        _ => Err(match Refusal::of_item(&status) {
            Some(refusal) => format!("{} (reason: {})", status.message, refusal.code),
            None => status.message,
        }),
    }
}

#[cfg(test)]
mod tests {
    use spindle_proto::spire::api::types;

    use super::*;

    #[test]
    fn a_good_item_may_lack_its_status_and_a_bad_one_tells_its_reason() {
        let item = |status: Option<(i32, &str)>, token: Option<&str>| {
            let status = status.map(|(code, reason)| types::Status {
                code,
                message: "no".into(),
                reason: reason.into(),
            });
            let svid = token.map(|token| types::Witsvid { token: token.into(), ..Default::default() });
            wit_answer(svid::batch_new_witsvid_response::Result { status, svid })
                .map(|token| token.to_string())
        };
        assert_eq!(item(None, Some("t")), Ok("t".into()));
        assert_eq!(item(Some((0, "")), Some("t")), Ok("t".into()));
        assert_eq!(item(Some((0, "")), None), Err("the server answered without a token".into()));
        assert_eq!(
            item(Some((5, "entry_not_authorized")), Some("t")),
            Err("no (reason: entry_not_authorized)".into())
        );
        assert_eq!(item(Some((5, "")), None), Err("no".into()));
    }
}
