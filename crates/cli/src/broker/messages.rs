//! Answers of the Broker API in the form of the Workload API's, which they share field by field.
//!
//! Pure. Of two that have one hint the first is taken (Broker API 5.2.1, 6.2.1): what comes after it is not passed on, so that
//! nobody further up can take it.

use std::collections::HashSet;

use spindle_proto::broker::{
    FetchJwtsvidResponse, SubscribeToJwtBundlesResponse, SubscribeToX509BundlesResponse,
    SubscribeToX509svidResponse,
};
use spindle_proto::workload::{JwtBundlesResponse, Jwtsvid, X509BundlesResponse, X509svid, X509svidResponse};

/// X509-SVIDs with their bundles.
pub(crate) fn x509(answer: SubscribeToX509svidResponse) -> X509svidResponse {
    let svids = answer.svids.into_iter().map(|one| X509svid {
        spiffe_id: one.spiffe_id,
        x509_svid: one.x509_svid,
        x509_svid_key: one.x509_svid_key,
        bundle: one.bundle,
        hint: one.hint,
    });
    X509svidResponse {
        svids: first_of_each_hint(svids, |one| &one.hint),
        crl: answer.crl,
        federated_bundles: answer.federated_bundles,
    }
}

/// X.509 bundles.
pub(crate) fn x509_bundles(answer: SubscribeToX509BundlesResponse) -> X509BundlesResponse {
    X509BundlesResponse { crl: answer.crl, bundles: answer.bundles }
}

/// JWT bundles.
pub(crate) fn jwt_bundles(answer: SubscribeToJwtBundlesResponse) -> JwtBundlesResponse {
    JwtBundlesResponse { bundles: answer.bundles }
}

/// Tokens.
pub(crate) fn tokens(answer: FetchJwtsvidResponse) -> Vec<Jwtsvid> {
    let svids = answer.svids.into_iter();
    let svids = svids.map(|one| Jwtsvid { spiffe_id: one.spiffe_id, svid: one.svid, hint: one.hint });
    first_of_each_hint(svids, |one| &one.hint)
}

fn first_of_each_hint<T>(all: impl Iterator<Item = T>, hint: impl Fn(&T) -> &str) -> Vec<T> {
    let mut seen = HashSet::new();
    all.filter(|one| {
        let hint = hint(one);
        let is_first = hint.is_empty() || seen.insert(hint.to_owned());
        if !is_first {
            tracing::warn!(hint, "the agent sent two identities with one hint: the first is taken");
        }
        is_first
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use spindle_proto::broker;

    use super::*;

    #[test]
    fn bap_58_bap_75_of_two_with_one_hint_the_first_is_taken_and_the_other_is_not_passed_on() {
        let hints = ["", "web", "db", "web", ""];
        let svid = |(at, hint): (usize, &&str)| broker::X509svid {
            spiffe_id: format!("spiffe://a/{at}"),
            hint: (*hint).to_owned(),
            ..Default::default()
        };
        let svids = hints.iter().enumerate().map(svid).collect();
        let x509 = x509(SubscribeToX509svidResponse { svids, ..Default::default() });
        let ids: Vec<_> = x509.svids.iter().map(|one| one.spiffe_id.as_str()).collect();
        let first = ["spiffe://a/0", "spiffe://a/1", "spiffe://a/2", "spiffe://a/4"];
        assert_eq!(ids, first, "those without a hint are told apart by their IDs");
        let token = |(at, hint): (usize, &&str)| broker::Jwtsvid {
            spiffe_id: format!("spiffe://a/{at}"),
            svid: String::new(),
            hint: (*hint).to_owned(),
        };
        let tokens = tokens(FetchJwtsvidResponse { svids: hints.iter().enumerate().map(token).collect() });
        assert_eq!(tokens.iter().map(|one| one.spiffe_id.as_str()).collect::<Vec<_>>(), first);
    }

    #[test]
    fn nothing_is_lost_on_the_way() {
        let svid = broker::X509svid {
            spiffe_id: "spiffe://a/b".into(),
            x509_svid: "chain".into(),
            x509_svid_key: "key".into(),
            bundle: "bundle".into(),
            hint: "hint".into(),
        };
        let federated = [("spiffe://c".to_owned(), "other".into())].into();
        let answer = SubscribeToX509svidResponse {
            svids: vec![svid],
            crl: vec!["crl".into()],
            federated_bundles: federated,
        };
        let wire = prost::Message::encode_to_vec(&answer);
        let same: X509svidResponse = prost::Message::decode(wire.as_slice()).unwrap();
        assert_eq!(x509(answer), same, "both have the same fields");
    }
}
