use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use spindle_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::super::delta::Delta;
use super::super::exchange::{BadRequest, COMPLETE_WAIT, NAMES_MAX, Refused};
use super::super::validation::Validation;
use super::*;

fn change(subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    DeltaDiscoveryRequest {
        type_url: SECRET_TYPE.into(),
        resource_names_subscribe: owned(subscribe),
        resource_names_unsubscribe: owned(unsubscribe),
        ..DeltaDiscoveryRequest::default()
    }
}

fn subscribed(names: &[&str]) -> Delta {
    let mut exchange = Delta::new(Validation::Spiffe);
    assert_eq!(exchange.take(change(names, &[])), Ok(None));
    exchange
}

fn ack(answer: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: answer.nonce.clone(), ..change(&[], &[]) }
}

fn names(answer: &DeltaDiscoveryResponse) -> Vec<&str> {
    answer.resources.iter().map(|one| one.name.as_str()).collect()
}

fn contents(answer: &DeltaDiscoveryResponse) -> Vec<Told> {
    answer.resources.iter().map(|one| told(one.resource.as_ref().unwrap())).collect()
}

#[test]
fn what_is_subscribed_is_sent_once_and_then_what_changes() {
    let world = World::with(&["a"]);
    let mut exchange = subscribed(&["default", "ROOTCA"]);
    let first = world.answer(&mut exchange).unwrap();
    assert_eq!(names(&first), ["ROOTCA", "default"]);
    assert_eq!(first.type_url, SECRET_TYPE);
    exchange.take(ack(&first)).unwrap();
    assert_eq!(world.answer(&mut exchange), None);
    world.sign("a");
    let second = world.answer(&mut exchange).unwrap();
    assert_eq!(contents(&second), [certificate("default", world.serial("a"))]);
    assert_ne!(first.nonce, second.nonce);
    assert_ne!(first.resources[1].version, second.resources[0].version);
    assert!(second.removed_resources.is_empty());
}

#[test]
fn a_name_of_nothing_is_told_as_removed_once_and_sent_when_there_is_something() {
    let world = World::new();
    let mut exchange = subscribed(&["default"]);
    let first = world.answer(&mut exchange).unwrap();
    assert_eq!((names(&first), &first.removed_resources), (vec![], &vec!["default".to_owned()]));
    world.federate("b");
    let second = world.answer(&mut exchange).unwrap();
    assert_eq!(contents(&second), [certificate("default", world.serial("b"))]);
    world.remove("b");
    assert_eq!(world.answer(&mut exchange).unwrap().removed_resources, ["default"]);
    assert_eq!(world.answer(&mut exchange), None);
}

#[test]
fn names_come_and_go_one_by_one() {
    let world = World::with(&["a", "b"]);
    let mut exchange = subscribed(&[A]);
    world.answer(&mut exchange).unwrap();
    exchange.take(change(&[B], &[A])).unwrap();
    assert_eq!(names(&world.answer(&mut exchange).unwrap()), [B]);
    world.sign("a");
    assert_eq!(world.answer(&mut exchange), None);
    exchange.take(change(&[], &[B])).unwrap();
    world.sign("b");
    assert_eq!(world.answer(&mut exchange), None);
}

#[test]
fn what_is_subscribed_again_is_sent_again() {
    let world = World::with(&["a"]);
    let mut exchange = subscribed(&[A]);
    world.answer(&mut exchange).unwrap();
    exchange.take(change(&[A], &[])).unwrap();
    assert_eq!(names(&world.answer(&mut exchange).unwrap()), [A]);
}

#[test]
fn a_new_stream_goes_on_from_what_the_proxy_has() {
    let world = World::with(&["a", "b"]);
    let first = world.answer(&mut subscribed(&[A, B, "ROOTCA"])).unwrap();
    let mut has: BTreeMap<String, String> =
        first.resources.iter().map(|one| (one.name.clone(), one.version.clone())).collect();
    has.insert(PARTNER.into(), "left over".into());
    world.sign("b");
    let mut exchange = Delta::new(Validation::Spiffe);
    let request =
        DeltaDiscoveryRequest { initial_resource_versions: has, ..change(&[A, B, "ROOTCA", PARTNER], &[]) };
    exchange.take(request).unwrap();
    let answer = world.answer(&mut exchange).unwrap();
    assert_eq!((names(&answer), &answer.removed_resources), (vec![B], &vec![PARTNER.to_owned()]));
}

#[test]
fn versions_survive_a_restart_of_the_agent() {
    let world = World::with(&["a"]);
    let before = world.answer(&mut subscribed(&[A, "ALL", OWN])).unwrap();
    let identity = world.cache.snapshot().identity(&"a".parse().unwrap()).cloned().unwrap();
    let after = World { cache: Cache::new(trust_domain()), ca: world.ca, partner: world.partner };
    // Numbers of the process differ.
    after.cache.next_number();
    let own_bundle = Some(after.ca.whole());
    after.cache.publish(Change { own_bundle, synced: true, ..Change::default() });
    after.put(Identity::clone(&identity));
    let answer = after.answer(&mut subscribed(&[A, "ALL", OWN])).unwrap();
    assert_eq!(before.resources, answer.resources);
}

#[test]
fn a_wildcard_follows_everything_there_is() {
    let world = World::with(&["a"]);
    for mut exchange in [subscribed(&[]), subscribed(&["*"])] {
        assert_eq!(names(&world.answer(&mut exchange).unwrap()), [OWN, A]);
        world.federate("b");
        assert_eq!(names(&world.answer(&mut exchange).unwrap()), [PARTNER, B]);
        world.remove("b");
        assert_eq!(world.answer(&mut exchange).unwrap().removed_resources, [PARTNER, B]);
        assert_eq!(world.answer(&mut exchange), None);
    }
}

#[test]
fn a_name_taken_from_under_a_wildcard_is_told_anew() {
    let world = World::with(&["a"]);
    let mut exchange = subscribed(&["*", A]);
    world.answer(&mut exchange).unwrap();
    exchange.take(change(&[], &[A])).unwrap();
    assert_eq!(names(&world.answer(&mut exchange).unwrap()), [A]);
}

#[test]
fn without_the_wildcard_only_names_are_followed() {
    let world = World::with(&["a", "b"]);
    let mut exchange = subscribed(&["*", A]);
    world.answer(&mut exchange).unwrap();
    exchange.take(change(&[], &["*"])).unwrap();
    world.sign("b");
    assert_eq!(world.answer(&mut exchange), None);
    world.sign("a");
    assert_eq!(names(&world.answer(&mut exchange).unwrap()), [A]);
}

#[test]
fn an_empty_list_is_a_wildcard_in_the_first_request_only() {
    let world = World::with(&["a"]);
    let mut exchange = subscribed(&["ROOTCA"]);
    let first = world.answer(&mut exchange).unwrap();
    exchange.take(ack(&first)).unwrap();
    assert_eq!(world.answer(&mut exchange), None);
}

#[test]
fn an_identity_that_is_being_signed_is_not_told_as_removed() {
    let world = World::with(&["a"]);
    let mut exchange = subscribed(&[A, B]);
    world.put(signing(one("b")));
    assert_eq!(names(&world.answer(&mut exchange).unwrap()), [A]);
    world.put(signing(one("a")));
    assert_eq!(world.answer(&mut exchange), None);
    world.sign("b");
    let second = world.answer(&mut exchange).unwrap();
    assert_eq!((names(&second), second.removed_resources.len()), (vec![B], 0));
}

#[test]
fn the_default_identity_is_waited_for_a_moment_only_at_first() {
    let world = World::with(&["b"]);
    world.put(signing(one("a")));
    let exchange = subscribed(&["default"]);
    assert_eq!(world.step(&exchange, Duration::ZERO), Step::WaitUpTo(COMPLETE_WAIT));
    assert!(matches!(world.step(&exchange, COMPLETE_WAIT), Step::Send { .. }));
}

#[test]
fn a_refusing_proxy_is_heard_and_not_sent_the_same_again() {
    let world = World::with(&["a"]);
    let mut exchange = subscribed(&[A]);
    let first = world.answer(&mut exchange).unwrap();
    let error = Message::decode(&b"\x08\x0d\x12\x03bad"[..]).unwrap();
    let nack = DeltaDiscoveryRequest { error_detail: Some(error), ..ack(&first) };
    assert_eq!(exchange.take(nack), Ok(Some("bad".into())));
    assert_eq!(world.answer(&mut exchange), None);
    world.sign("a");
    assert_eq!(names(&world.answer(&mut exchange).unwrap()), [A]);
}

#[test]
fn requests_are_bounded_over_the_whole_stream() {
    let name = |number: usize| number.to_string();
    let all: Vec<String> = (0..NAMES_MAX).map(name).collect();
    let mut exchange = Delta::new(Validation::Spiffe);
    let request = DeltaDiscoveryRequest { resource_names_subscribe: all, ..change(&[], &[]) };
    assert_eq!(exchange.take(request), Ok(None));
    assert_eq!(exchange.take(change(&["one more"], &[])), Err(BadRequest::TooMany));
    let versions = (0..=NAMES_MAX).map(|number| (name(number), String::new())).collect();
    let request = DeltaDiscoveryRequest { initial_resource_versions: versions, ..change(&[], &[]) };
    assert_eq!(Delta::new(Validation::Spiffe).take(request), Err(BadRequest::TooMany));
}

#[test]
fn all_bundles_at_once_need_the_validator() {
    let world = World::with(&["a"]);
    let mut exchange = Delta::new(Validation::PlainCa);
    exchange.take(change(&["ALL"], &[])).unwrap();
    let refused = Step::Refuse(Refused::NeedsValidator("ALL".into()));
    assert_eq!(world.step(&exchange, Duration::ZERO), refused);
}

/// What can happen to a stream.
#[derive(Clone, Debug)]
enum Event {
    Sign(usize),
    Remove(usize),
    Federate(usize),
    Subscribe(usize),
    Unsubscribe(usize),
}

const IDS: [&str; 3] = ["a", "b", "c"];
const NAMES: [&str; 7] = [A, B, "default", "ROOTCA", "ALL", PARTNER, "*"];

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = prop_oneof![
        (0..IDS.len()).prop_map(Event::Sign),
        (0..IDS.len()).prop_map(Event::Remove),
        (0..IDS.len()).prop_map(Event::Federate),
        (0..NAMES.len()).prop_map(Event::Subscribe),
        (0..NAMES.len()).prop_map(Event::Unsubscribe),
    ];
    prop::collection::vec(one, 1..20)
}

/// What a proxy holds that has applied every answer.
#[derive(Default)]
struct Proxy {
    wanted: BTreeSet<&'static str>,
    holds: BTreeMap<String, Any>,
}

impl Proxy {
    fn apply(&mut self, answer: DeltaDiscoveryResponse) {
        for one in answer.resources {
            self.holds.insert(one.name, one.resource.unwrap());
        }
        for name in &answer.removed_resources {
            self.holds.remove(name);
        }
    }

    /// Everything wanted that there is, as the catalogue has it.
    fn should_hold(&self, world: &World) -> BTreeMap<String, Any> {
        let (view, config) = (world.view(), SdsConfig::default());
        let catalog = Catalog::new(&view, &config, Validation::Spiffe);
        let named = self.wanted.iter().filter_map(|name| catalog.find(name).ok());
        let all = if self.wanted.contains("*") { catalog.all() } else { Vec::new() };
        named.chain(all).map(|one| (one.name.clone(), one.encode())).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whoever_applies_all_differences_holds_exactly_what_there_is(events in events()) {
        let (world, mut exchange, mut proxy) = (World::with(&["a"]), subscribed(&["ROOTCA"]), Proxy::default());
        proxy.wanted.insert("ROOTCA");
        for event in events {
            match event {
                Event::Sign(at) => world.sign(IDS[at]),
                Event::Remove(at) => world.remove(IDS[at]),
                Event::Federate(at) => world.federate(IDS[at]),
                Event::Subscribe(at) => {
                    proxy.wanted.insert(NAMES[at]);
                    exchange.take(change(&[NAMES[at]], &[])).unwrap();
                }
                Event::Unsubscribe(at) => {
                    proxy.wanted.remove(NAMES[at]);
                    exchange.take(change(&[], &[NAMES[at]])).unwrap();
                    // A proxy drops by itself what it no longer asks for.
                    let kept = proxy.should_hold(&world);
                    proxy.holds.retain(|name, _| kept.contains_key(name));
                }
            }
            if let Some(answer) = world.answer(&mut exchange) {
                proxy.apply(answer);
            }
            prop_assert_eq!(&proxy.holds, &proxy.should_hold(&world));
            prop_assert!(world.answer(&mut exchange).is_none());
        }
    }
}
