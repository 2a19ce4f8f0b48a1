use std::time::Duration;

use prost_types::value::Kind;
use spindle_proto::envoy::config::core::v3::Node;
use spindle_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};

use super::super::exchange::{BadRequest, COMPLETE_WAIT, FIRST_WAIT, NAME_BYTES_MAX, NAMES_MAX, Refused};
use super::super::sotw::Sotw;
use super::super::validation::Validation;
use super::*;

fn names(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(ToString::to_string).collect(),
        type_url: SECRET_TYPE.into(),
        ..DiscoveryRequest::default()
    }
}

/// The reply to an answer: same names, its version and nonce.
fn ack(answer: &DiscoveryResponse, wanted: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        version_info: answer.version_info.clone(),
        response_nonce: answer.nonce.clone(),
        ..names(wanted)
    }
}

fn asking(wanted: &[&str]) -> Sotw {
    let mut exchange = Sotw::new(Validation::Spiffe);
    assert_eq!(exchange.take(names(wanted)), Ok(None));
    exchange
}

fn contents(answer: &DiscoveryResponse) -> Vec<Told> {
    answer.resources.iter().map(told).collect()
}

/// What a proxy is given that asks for these names.
fn given(world: &World, wanted: &[&str]) -> Vec<Told> {
    contents(&world.answer(&mut asking(wanted)).unwrap())
}

fn refused(world: &World, wanted: &[&str], waited: Duration) -> Refused {
    match world.step(&asking(wanted), waited) {
        Step::Refuse(refused) => refused,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_name_stands_for_what_it_does_with_spire() {
    let world = World::with(&["a", "b"]);
    world.federate("c");
    assert_eq!(given(&world, &[A]), [certificate(A, world.serial("a"))]);
    assert_eq!(given(&world, &[B]), [certificate(B, world.serial("b"))]);
    assert_eq!(given(&world, &["default"]), [certificate("default", world.serial("a"))]);
    assert_eq!(given(&world, &[OWN]), [validator(OWN, &["prod.example"])]);
    assert_eq!(given(&world, &["ROOTCA"]), [validator("ROOTCA", &["prod.example"])]);
    assert_eq!(given(&world, &[PARTNER]), [validator(PARTNER, &["partner.example"])]);
    assert_eq!(given(&world, &["ALL"]), [validator("ALL", &["partner.example", "prod.example"])]);
}

#[test]
fn any_number_of_names_for_one_thing_can_be_asked_for_at_once() {
    let world = World::with(&["a"]);
    assert_eq!(
        given(&world, &["ROOTCA", "ALL", OWN, "default", A]),
        [
            validator("ALL", &["prod.example"]),
            validator("ROOTCA", &["prod.example"]),
            certificate("default", world.serial("a")),
            validator(OWN, &["prod.example"]),
            certificate(A, world.serial("a")),
        ]
    );
}

#[test]
fn without_names_everything_is_given_under_its_proper_name() {
    let world = World::with(&["a"]);
    world.federate("b");
    let everything = [
        validator(OWN, &["prod.example"]),
        validator(PARTNER, &["partner.example"]),
        certificate(A, world.serial("a")),
        certificate(B, world.serial("b")),
    ];
    for wanted in [&[][..], &[""], &["*"]] {
        assert_eq!(given(&world, wanted), everything, "{wanted:?}");
    }
}

#[test]
fn two_entries_of_one_id_are_one_resource() {
    let world = World::with(&["a"]);
    let mut twin = one("b");
    twin.spiffe_id = A.parse().unwrap();
    world.put(world.ca.identity(&world.cache, twin));
    let everything = [validator(OWN, &["prod.example"]), certificate(A, world.serial("a"))];
    assert_eq!(given(&world, &[]), everything);
}

#[test]
fn configured_names_replace_the_usual_ones() {
    let world = World::with(&["a"]);
    let config = SdsConfig {
        default_svid_name: "me".into(),
        default_bundle_name: "ours".into(),
        default_all_bundles_name: "theirs".into(),
        ..SdsConfig::default()
    };
    let view = world.view();
    let catalog = Catalog::new(&view, &config, Validation::Spiffe);
    let told_of = |name| catalog.find(name).ok().map(|resource| told(&resource.encode()));
    assert_eq!(told_of("me"), Some(certificate("me", world.serial("a"))));
    assert_eq!(told_of("ours"), Some(validator("ours", &["prod.example"])));
    assert_eq!(told_of("theirs"), Some(validator("theirs", &["prod.example"])));
    for usual in ["default", "ROOTCA", "ALL"] {
        assert_eq!(told_of(usual), None);
    }
}

#[test]
fn names_of_nothing_refuse_the_whole_request_and_are_all_told() {
    let world = World::with(&["a"]);
    let unknown = ["spiffe://else.example", "spiffe://prod.example/z"];
    let expected = Refused::Unknown(unknown.map(String::from).to_vec());
    assert_eq!(refused(&world, &["default", unknown[0], unknown[1]], Duration::ZERO), expected);
    // A bundle that the agent has for others is none of this workload's.
    assert_eq!(refused(&world, &[PARTNER], Duration::ZERO), Refused::Unknown(vec![PARTNER.into()]));
}

#[test]
fn the_own_bundle_needs_no_entry_but_an_identity_does() {
    let world = World::new();
    assert_eq!(given(&world, &["ROOTCA"]), [validator("ROOTCA", &["prod.example"])]);
    assert_eq!(given(&world, &[]), [validator(OWN, &["prod.example"])]);
    assert_eq!(refused(&world, &["default"], FIRST_WAIT), Refused::Unknown(vec!["default".into()]));
}

#[test]
fn before_the_agent_has_its_bundle_nothing_is_given() {
    let world = World { cache: Cache::new(trust_domain()), ..World::new() };
    for wanted in [&[][..], &["ROOTCA"], &["default"], &[OWN]] {
        assert_eq!(refused(&world, wanted, Duration::ZERO), Refused::Starting, "{wanted:?}");
    }
}

#[test]
fn an_answer_that_was_taken_is_not_sent_again() {
    let world = World::with(&["a"]);
    let mut exchange = asking(&["default"]);
    let first = world.answer(&mut exchange).unwrap();
    assert_eq!((&*first.version_info, &*first.type_url), ("1", SECRET_TYPE));
    assert!(!first.nonce.is_empty());
    assert_eq!(world.answer(&mut exchange), None);
    assert_eq!(exchange.take(ack(&first, &["default"])), Ok(None));
    assert_eq!(world.answer(&mut exchange), None);
}

#[test]
fn a_rotated_svid_is_sent_under_a_new_version_and_nonce() {
    let world = World::with(&["a"]);
    let mut exchange = asking(&["default"]);
    let first = world.answer(&mut exchange).unwrap();
    world.sign("a");
    let second = world.answer(&mut exchange).unwrap();
    assert_eq!(contents(&second), [certificate("default", world.serial("a"))]);
    assert_eq!(second.version_info, "2");
    assert_ne!((first.nonce, &first.resources), (second.nonce.clone(), &second.resources));
}

#[test]
fn what_changes_for_others_is_not_sent() {
    let world = World::with(&["a", "b"]);
    let mut exchange = asking(&["ROOTCA", A]);
    world.answer(&mut exchange).unwrap();
    world.sign("b");
    world.federate("c");
    assert_eq!(world.answer(&mut exchange), None);
}

#[test]
fn a_reply_to_an_answer_before_the_last_is_passed_over() {
    let world = World::with(&["a", "b"]);
    let mut exchange = asking(&[A]);
    let first = world.answer(&mut exchange).unwrap();
    world.sign("a");
    let second = world.answer(&mut exchange).unwrap();
    assert_eq!(exchange.take(ack(&first, &[B])), Ok(None));
    assert_eq!(world.answer(&mut exchange), None);
    assert_eq!(exchange.take(ack(&second, &[B])), Ok(None));
    assert_eq!(contents(&world.answer(&mut exchange).unwrap()), [certificate(B, world.serial("b"))]);
}

#[test]
fn a_refusing_proxy_is_heard_and_not_sent_the_same_again() {
    let world = World::with(&["a"]);
    let mut exchange = asking(&[A]);
    let first = world.answer(&mut exchange).unwrap();
    let error = Message::decode(&b"\x08\x0d\x12\x03bad"[..]).unwrap();
    let nack =
        DiscoveryRequest { version_info: String::new(), error_detail: Some(error), ..ack(&first, &[A]) };
    assert_eq!(exchange.take(nack.clone()), Ok(Some("bad".into())));
    assert_eq!(world.answer(&mut exchange), None);
    let stale = DiscoveryRequest { response_nonce: "old".into(), ..nack.clone() };
    assert_eq!(exchange.take(stale), Ok(Some("bad".into())));
    // A refusal may change what is asked for.
    let other = DiscoveryRequest { resource_names: vec!["ROOTCA".into()], ..nack };
    assert_eq!(exchange.take(other), Ok(Some("bad".into())));
    assert!(world.answer(&mut exchange).is_some());
}

#[test]
fn the_first_request_of_a_stream_may_tell_of_an_earlier_one() {
    let world = World::with(&["a"]);
    let mut exchange = Sotw::new(Validation::Spiffe);
    let request =
        DiscoveryRequest { version_info: "7".into(), response_nonce: "00000007".into(), ..names(&[A]) };
    exchange.take(request).unwrap();
    assert_eq!(world.answer(&mut exchange).unwrap().resources.len(), 1);
}

#[test]
fn an_empty_list_after_names_asks_for_nothing_more() {
    let world = World::with(&["a"]);
    let mut exchange = asking(&[A]);
    let first = world.answer(&mut exchange).unwrap();
    exchange.take(ack(&first, &[])).unwrap();
    world.sign("a");
    assert_eq!(world.answer(&mut exchange), None);
}

/// A proxy that wants no SPIFFE validator.
fn plain_node() -> Node {
    let value = prost_types::Value { kind: Some(Kind::BoolValue(true)) };
    let fields = [("disable_spiffe_cert_validation".to_owned(), value)].into();
    Node { metadata: Some(prost_types::Struct { fields }), ..Node::default() }
}

#[test]
fn a_proxy_without_validator_gets_authorities_and_is_remembered() {
    let world = World::with(&["a"]);
    let mut exchange = Sotw::new(Validation::Spiffe);
    exchange.take(DiscoveryRequest { node: Some(plain_node()), ..names(&["ROOTCA"]) }).unwrap();
    let first = world.answer(&mut exchange).unwrap();
    assert_eq!(contents(&first), [Told::Authorities("ROOTCA".into())]);
    exchange.take(ack(&first, &[OWN])).unwrap();
    assert_eq!(contents(&world.answer(&mut exchange).unwrap()), [Told::Authorities(OWN.into())]);
}

#[test]
fn all_bundles_at_once_need_the_validator() {
    let world = World::with(&["a"]);
    let mut exchange = Sotw::new(Validation::PlainCa);
    exchange.take(names(&["ALL"])).unwrap();
    assert_eq!(world.step(&exchange, Duration::ZERO), Step::Refuse(Refused::NeedsValidator("ALL".into())));
}

#[test]
fn an_identity_that_is_being_signed_is_waited_for_but_not_for_ever() {
    let world = World::new();
    world.put(signing(one("a")));
    for name in [A, "default"] {
        let exchange = asking(&[name]);
        assert_eq!(world.step(&exchange, Duration::ZERO), Step::WaitUpTo(FIRST_WAIT));
        assert_eq!(world.step(&exchange, FIRST_WAIT), Step::Refuse(Refused::NotReady));
    }
    // Unknown beside it: no waiting helps.
    let unknown = Refused::Unknown(vec![B.into()]);
    assert_eq!(refused(&world, &[A, B], Duration::ZERO), unknown);
}

#[test]
fn what_may_become_another_identity_waits_a_moment_and_only_at_first() {
    let world = World::with(&["b"]);
    world.put(signing(one("a")));
    for wanted in [&["default"][..], &[]] {
        let mut exchange = asking(wanted);
        assert_eq!(world.step(&exchange, Duration::ZERO), Step::WaitUpTo(COMPLETE_WAIT));
        let Step::Send { sent, .. } = world.step(&exchange, COMPLETE_WAIT) else { panic!("must be sent") };
        exchange.note(sent);
        assert_eq!(world.answer(&mut exchange), None);
    }
    for wanted in [&["ROOTCA"][..], &[B]] {
        assert!(world.answer(&mut asking(wanted)).is_some(), "{wanted:?}");
    }
}

#[test]
fn an_identity_that_cannot_be_signed_is_not_waited_for() {
    let world = World::new();
    world.put(failed("a"));
    for name in [A, "default"] {
        assert_eq!(refused(&world, &[name], Duration::ZERO), Refused::NotReady);
    }
}

#[test]
fn a_single_question_has_neither_version_nor_nonce() {
    let world = World::with(&["a"]);
    let mut exchange = Sotw::single(Validation::Spiffe);
    exchange.take(names(&[A])).unwrap();
    let answer = world.answer(&mut exchange).unwrap();
    assert_eq!((&*answer.version_info, &*answer.nonce), ("", ""));
}

#[test]
fn requests_are_bounded_and_ask_for_secrets_only() {
    let check = |request| Sotw::new(Validation::Spiffe).take(request);
    let many: Vec<String> = (0..=NAMES_MAX).map(|number| number.to_string()).collect();
    let request = DiscoveryRequest { resource_names: many, ..names(&[]) };
    assert_eq!(check(request), Err(BadRequest::TooMany));
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    assert_eq!(check(names(&[&long])), Err(BadRequest::Length(NAME_BYTES_MAX + 1)));
    assert_eq!(check(names(&[&long[1..]])), Ok(None));
    let cluster = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    let request = DiscoveryRequest { type_url: cluster.into(), ..names(&[]) };
    assert_eq!(check(request), Err(BadRequest::Type(cluster.into())));
    let request = DiscoveryRequest { type_url: String::new(), ..names(&[]) };
    assert_eq!(check(request), Ok(None));
}
