//! What goes into a status comes out of it, also when it came from SPIRE or from nobody we know.

use super::*;

fn packed(code: Code, details: Vec<Any>) -> Status {
    status(code, "message", details)
}

fn denied(reason: i32) -> Any {
    pack(PERMISSION_DENIED_DETAILS, &PermissionDeniedDetails { reason })
}

/// Through the headers, as a client sees it.
fn sent(status: &Status) -> Status {
    let mut headers = Default::default();
    status.add_header(&mut headers).unwrap();
    Status::from_header_map(&headers).unwrap()
}

#[test]
fn every_reason_survives_the_trailers() {
    for &reason in Reason::ALL {
        let status = sent(&refusal(Code::InvalidArgument, reason, "no ä\n\0%"));
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "no ä\n\0%"));
        let refusal = Refusal::of(&status).unwrap();
        assert_eq!(refusal.reason(), Some(reason));
        assert_eq!(reason_of(&status).as_deref(), Some(reason.code()));
        assert_eq!(permission_denied_details_of(&status), None);
    }
}

#[test]
fn who_is_turned_away_is_told_when_to_come_back() {
    for millis in [0, 1, 250, 30_000, u64::from(u32::MAX)] {
        let after = Duration::from_millis(millis);
        let status = sent(&come_back("the queue is full", after));
        assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, "the queue is full"));
        assert_eq!(reason_of(&status).as_deref(), Some("overloaded"));
        assert_eq!(retry_after_of(&status), Some(after));
    }
    assert_eq!(retry_after_of(&refusal(Code::ResourceExhausted, Reason::Overloaded, "later")), None);
    let odd = |seconds, nanos| {
        let retry_delay = Some(prost_types::Duration { seconds, nanos });
        packed(Code::ResourceExhausted, vec![pack(RETRY_INFO, &rpc::RetryInfo { retry_delay })])
    };
    for status in [odd(-1, 0), odd(0, -1), odd(i64::MIN, i32::MIN)] {
        assert_eq!(retry_after_of(&status), None, "{status:?}");
    }
    let none = packed(Code::Unavailable, vec![pack(RETRY_INFO, &rpc::RetryInfo { retry_delay: None })]);
    assert_eq!(retry_after_of(&none), None);
}

#[test]
fn bap_47_bap_48_bap_49_bap_50_a_standards_own_reason_stands_before_ours_and_beside_the_code() {
    let facts = [("pid", "7")];
    let (code, reason) = (Code::NotFound, Reason::WorkloadNotFound);
    let status = sent(&refusal_of_standard(code, reason, "WORKLOAD_NOT_FOUND", "gone", facts));
    assert_eq!((status.code(), status.message()), (code, "gone"));
    let first: rpc::ErrorInfo = details(&status).find_map(|any| open(&any, ERROR_INFO)).unwrap();
    assert_eq!((first.reason.as_str(), first.domain.as_str()), ("WORKLOAD_NOT_FOUND", "spiffe.io"));
    assert_eq!(first.metadata, BTreeMap::from([("pid".into(), "7".into())]));
    assert_eq!(standard_reason_of(&status).as_deref(), Some("WORKLOAD_NOT_FOUND"));
    assert_eq!(Refusal::of(&status).unwrap().reason(), Some(reason));
    assert_eq!(standard_reason_of(&Status::new(code, "gone")), None, "the code alone is enough");
}

#[test]
fn facts_travel_by_name() {
    let status =
        refusal_with(Code::NotFound, Reason::EntryNotFound, "no", [("entry_id", "web"), ("at", "7")]);
    let refusal = Refusal::of(&sent(&status)).unwrap();
    assert_eq!(refusal.facts, BTreeMap::from([("at".into(), "7".into()), ("entry_id".into(), "web".into())]));
}

#[test]
fn an_agent_learns_its_standing_in_both_languages() {
    let pairs = [
        (Reason::AgentExpired, Standing::AgentExpired, 1),
        (Reason::AgentNotAttested, Standing::AgentNotAttested, 2),
        (Reason::AgentNotActive, Standing::AgentNotActive, 3),
        (Reason::AgentBanned, Standing::AgentBanned, 4),
        (Reason::AgentMustReattest, Standing::AgentMustReattest, 5),
    ];
    for (reason, standing, number) in pairs {
        let status = sent(&agent_refusal("/a.B/C", reason));
        assert_eq!(
            (status.code(), status.message()),
            (Code::PermissionDenied, "authorization denied for method /a.B/C")
        );
        assert_eq!(permission_denied_details_of(&status), Some(standing));
        assert_eq!(standing as i32, number);
        assert_eq!(Refusal::of(&status).and_then(|refusal| refusal.reason()), Some(reason));
    }
}

#[test]
fn a_reason_that_spire_does_not_know_travels_alone() {
    let status = agent_refusal("/a.B/C", Reason::StoreFailed);
    assert_eq!(permission_denied_details_of(&status), None);
    assert_eq!(reason_of(&status).as_deref(), Some("store_failed"));
}

#[test]
fn the_bytes_are_those_of_the_standard() {
    // google.rpc.Status { code: 7, details: [Any { type_url, value: { reason: 4 } }] }, written by hand.
    let url = b"type.googleapis.com/spire.api.types.PermissionDeniedDetails";
    let mut any = vec![0x0a, u8::try_from(url.len()).unwrap()];
    any.extend(url);
    any.extend([0x12, 2, 0x08, 4]);
    let mut body = vec![0x08, 7, 0x1a, u8::try_from(any.len()).unwrap()];
    body.extend(any);
    let status = Status::with_details(Code::PermissionDenied, "", body.into());
    assert_eq!(permission_denied_details_of(&status), Some(Standing::AgentBanned));
    assert_eq!(reason_of(&status), None);
}

#[test]
fn a_standing_counts_only_with_permission_denied() {
    let status = packed(Code::Unavailable, vec![denied(4)]);
    assert_eq!(permission_denied_details_of(&status), None);
}

#[test]
fn an_unknown_standing_is_none() {
    assert_eq!(permission_denied_details_of(&packed(Code::PermissionDenied, vec![denied(99)])), None);
}

#[test]
fn a_reason_of_another_domain_is_not_ours() {
    let info =
        rpc::ErrorInfo { reason: "AGENT_BANNED".into(), domain: "example.org".into(), ..Default::default() };
    assert_eq!(reason_of(&packed(Code::PermissionDenied, vec![pack(ERROR_INFO, &info)])), None);
}

#[test]
fn a_newer_reason_keeps_its_code() {
    let info =
        rpc::ErrorInfo { reason: "FROM_THE_FUTURE".into(), domain: DOMAIN.into(), ..Default::default() };
    let refusal = Refusal::of(&packed(Code::Internal, vec![pack(ERROR_INFO, &info)])).unwrap();
    assert_eq!((refusal.code.as_str(), refusal.reason()), ("from_the_future", None));
}

#[test]
fn details_beyond_the_bound_are_not_read() {
    let other = Any { type_url: "type.googleapis.com/other".into(), value: vec![] };
    let mut many = vec![other; DETAILS_MAX];
    many.push(denied(4));
    assert_eq!(permission_denied_details_of(&packed(Code::PermissionDenied, many)), None);
}

#[test]
fn a_status_without_details_has_no_reason() {
    let status = Status::permission_denied("no");
    assert_eq!((reason_of(&status), permission_denied_details_of(&status)), (None, None));
}

#[test]
fn broken_details_have_no_reason() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let status = Status::with_details(Code::PermissionDenied, "no", bytes.to_vec().into());
        // Any answer will do, as long as there is one.
        let _ = (reason_of(&status), permission_denied_details_of(&status));
    });
}

#[test]
fn a_long_message_is_cut_between_characters() {
    let status = refusal(Code::Internal, Reason::BadRequest, &format!("x{}", "ä".repeat(MESSAGE_BYTES_MAX)));
    assert_eq!(status.message().len(), MESSAGE_BYTES_MAX - 1);
    assert!(status.message().ends_with('ä'));
}

#[test]
fn an_item_carries_its_reason_in_a_field_that_spires_clients_skip() {
    /// The message as SPIRE has it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct SpireStatus {
        #[prost(int32, tag = "1")]
        code: i32,
        #[prost(string, tag = "2")]
        message: String,
    }
    let refused = item_refusal(Code::Internal, Reason::BundleNotFound, "no bundle".into());
    assert_eq!(Refusal::of_item(&refused).and_then(|refusal| refusal.reason()), Some(Reason::BundleNotFound));
    let seen = SpireStatus::decode(refused.encode_to_vec().as_slice()).unwrap();
    assert_eq!(seen, SpireStatus { code: 13, message: "no bundle".into() });
    let from_spire = types::Status::decode(seen.encode_to_vec().as_slice()).unwrap();
    assert_eq!(Refusal::of_item(&from_spire), None);
    assert_eq!(Refusal::of_item(&item_ok()), None);
}
