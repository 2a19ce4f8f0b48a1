mod trust;

use prost::Message;
use spindle_proto::spire::api::server::{agent::v1 as agent, entry::v1 as entry, svid::v1 as svid};
use spindle_proto::spire::api::types;

use super::records::{messages, of_call, of_items, of_items_sent};
use super::*;
use crate::fixtures;

/// A message behind its prefix.
fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), &message].concat()
}

fn check(fields: &Fields, expected: &str) {
    assert_eq!(Value::Object(fields.clone()).to_string(), expected);
}

#[test]
fn messages_are_taken_apart_and_what_is_cut_off_is_left_out() {
    let two = [
        framed(&types::JoinToken { value: "a".into(), expires_at: 0 }),
        framed(&types::JoinToken::default()),
    ];
    let whole = two.concat();
    assert_eq!(messages(&whole).len(), 2);
    assert_eq!(messages(&whole[..whole.len() - 1]).len(), 1);
    assert!(messages(&[]).is_empty() && messages(&[0, 0, 0]).is_empty());
    assert!(messages(&[1, 0, 0, 0, 0]).is_empty(), "compressed");
    assert!(messages(&[0, 0xff, 0xff, 0xff, 0xff, 1]).is_empty(), "longer than what is there");
}

fn audit() -> Audit {
    Audit {
        live: LiveSettings::new(crate::live::Reloadable::default()),
        entropy: Arc::new(spindle_runtime::SystemEntropy),
        proc_root: ProcRoot::default(),
    }
}

/// A call of nobody in particular; the request is as the service is to see it.
fn call(method: &'static str, message: Option<Bytes>) -> (Call, http::Request<Body>) {
    let body = http_body_util::Full::new(Bytes::from_static(b"from the caller"));
    let mut request = http::Request::new(Body::new(body));
    (audit().admitted(method, None, &Caller::Stranger, message, &mut request), request)
}

#[tokio::test]
async fn of_streams_only_what_an_attestation_brings_is_kept() {
    let streams = super::super::authorization::TABLE
        .iter()
        .filter(|row| row.takes != super::super::authorization::Takes::Message);
    let mut kept = Vec::new();
    for row in streams {
        let (call, request) = call(row.method, None);
        let body = request.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "from the caller", "{}", row.method);
        let Sent::Stream(tap) = &call.sent else { panic!("{} is a stream", row.method) };
        if let Some(tap) = tap {
            kept.push((row.method, tap.bytes()));
        }
    }
    assert_eq!(
        kept,
        [("/spire.api.server.agent.v1.Agent/AttestAgent", Bytes::from_static(b"from the caller"))]
    );
}

#[test]
fn a_filter_is_told_by_spires_names() {
    let selectors = types::SelectorMatch {
        selectors: vec![
            types::Selector { r#type: "a".into(), value: "1".into() },
            types::Selector { r#type: "b".into(), value: "2".into() },
        ],
        r#match: 2,
    };
    let filter = agent::list_agents_request::Filter {
        by_attestation_type: "x509pop".into(),
        by_banned: Some(false),
        by_selector_match: Some(selectors.clone()),
        ..Default::default()
    };
    let sent = framed(&agent::ListAgentsRequest { filter: Some(filter), ..Default::default() });
    check(
        &of_call("/spire.api.server.agent.v1.Agent/ListAgents", &sent, &[], ""),
        r#"{"by_banned":false,"by_selector_match":"MATCH_SUPERSET","by_selectors":"a:1,b:2","node_attestor_type":"x509pop"}"#,
    );
    let filter = entry::count_entries_request::Filter {
        by_hint: Some("h".into()),
        by_parent_id: Some(types::Spiffeid { trust_domain: "not a name".into(), path: "/x".into() }),
        by_downstream: Some(true),
        ..Default::default()
    };
    let sent = framed(&entry::CountEntriesRequest { filter: Some(filter) });
    let told = of_call("/spire.api.server.entry.v1.Entry/CountEntries", &sent, &[], "");
    check(&told, r#"{"downstream":true,"hint":"h"}"#);
}

#[test]
fn a_secret_is_told_by_its_hash_or_not_at_all() {
    let params = agent::attest_agent_request::Params {
        data: Some(types::AttestationData { r#type: "join_token".into(), payload: b"secret"[..].into() }),
        params: None,
    };
    let step = Some(agent::attest_agent_request::Step::Params(params));
    let sent = framed(&agent::AttestAgentRequest { step });
    let told = of_call("/spire.api.server.agent.v1.Agent/AttestAgent", &sent, &[], "");
    check(&told, r#"{"node_attestor_type":"join_token"}"#);
    let request = agent::CreateJoinTokenRequest { ttl: 60, token: "secret".into(), agent_id: None };
    let told = of_call("/spire.api.server.agent.v1.Agent/CreateJoinToken", &framed(&request), &[], "");
    check(&told, r#"{"ttl":60}"#);
    let params = Some(agent::AgentX509svidParams { csr: b"abc"[..].into() });
    let sent = framed(&agent::RenewAgentRequest { params });
    check(
        &of_call("/spire.api.server.agent.v1.Agent/RenewAgent", &sent, &[], ""),
        r#"{"csr":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}"#,
    );
}

#[test]
fn each_item_of_a_batch_has_its_own_outcome_and_only_the_fields_of_the_mask() {
    let wire =
        |id: &str| types::Entry { id: id.into(), ..fixtures::entry(&fixtures::id("/n"), "/web", &["a:1"]) };
    let mask = types::EntryMask { selectors: true, hint: true, ..Default::default() };
    let request = entry::BatchUpdateEntryRequest {
        entries: vec![wire("one"), wire("two")],
        input_mask: Some(mask),
        output_mask: None,
    };
    let outcome = |code: i32, message: &str| entry::batch_update_entry_response::Result {
        status: Some(types::Status { code, message: message.into(), ..Default::default() }),
        entry: None,
    };
    let answer = entry::BatchUpdateEntryResponse { results: vec![outcome(0, "OK"), outcome(5, "not found")] };
    let method = "/spire.api.server.entry.v1.Entry/BatchUpdateEntry";
    let items = of_items(method, &framed(&request), &framed(&answer)).expect("a batch");
    assert_eq!(items.iter().map(|item| item.status.code).collect::<Vec<_>>(), [0, 5]);
    check(&items[0].fields, r#"{"entry_id":"one","hint":"","selectors":"a:1"}"#);
    let all = framed(&entry::BatchCreateEntryRequest { entries: vec![wire("")], output_mask: None });
    let answer = framed(&entry::BatchUpdateEntryResponse { results: vec![outcome(0, "OK")] });
    let items =
        of_items("/spire.api.server.entry.v1.Entry/BatchCreateEntry", &all, &answer).expect("a batch");
    check(
        &items[0].fields,
        concat!(
            r#"{"admin":false,"created_at":0,"downstream":false,"expires_at":0,"hint":"","jwt_svid_ttl":0,"#,
            r#""parent_id":"spiffe://example.org/n","revision_number":0,"selectors":"a:1","#,
            r#""spiffe_id":"spiffe://example.org/web","store_svid":false,"x509_svid_ttl":0}"#
        ),
    );
}

#[test]
fn a_batch_that_nobody_described_still_has_a_record_for_each_item() {
    let outcome = svid::batch_new_x509svid_response::Result {
        status: Some(types::Status { code: 7, message: "no".into(), ..Default::default() }),
        svid: None,
    };
    let answer = framed(&svid::BatchNewX509svidResponse { results: vec![outcome.clone(), outcome] });
    let items = of_items("/some.other.v1.Thing/BatchMakeThing", &[], &answer).expect("a batch");
    assert!(items.len() == 2 && items.iter().all(|item| item.fields.is_empty() && item.status.code == 7));
    assert!(of_items("/some.other.v1.Thing/MakeThing", &[], &answer).is_none());
    assert!(of_items("/some.other.v1.Thing/BatchMakeThing", &[], &[]).is_none(), "nothing that can be read");
}

#[test]
fn a_malformed_message_has_no_fields_and_harms_nothing() {
    let garbage = [&[0, 0, 0, 0, 3][..], &[0xff, 0xff, 0xff]].concat();
    for row in super::super::authorization::TABLE {
        let fields = of_call(row.method, &garbage, &garbage, "");
        assert!(fields.values().all(|value| value != "secret"), "{}", row.method);
        assert!(of_items(row.method, &garbage, &garbage).is_none(), "{}", row.method);
        assert!(of_items_sent(row.method, &garbage).is_empty(), "{}", row.method);
    }
}

proptest::proptest! {
    /// Messages come from anybody: whatever they hold, a record is written and nothing breaks.
    #[test]
    fn no_message_breaks_a_record(sent: Vec<u8>, answer: Vec<u8>, length: u32, row in 0..super::super::authorization::TABLE.len()) {
        let method = super::super::authorization::TABLE[row].method;
        let prefix = [&[0][..], &length.to_be_bytes()].concat();
        let whole = |message: &[u8]| [&[0][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat();
        for (sent, answer) in [
            (sent.clone(), answer.clone()),
            ([&prefix[..], &sent].concat(), [&prefix[..], &answer].concat()),
            (whole(&sent), whole(&answer)),
        ] {
            of_call(method, &sent, &answer, "");
            of_items(method, &sent, &answer);
            of_items_sent(method, &sent);
        }
    }
}
