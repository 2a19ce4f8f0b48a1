//! What is signed when, case by case.

use super::*;
use crate::fixtures::{NOW, entry};

fn plan(ids: &[&str]) -> Plan {
    let mut plan = Plan::new(usize::MAX);
    for id in ids {
        plan.put(Arc::new(entry(id, &["unix:uid:1"])), NOW);
    }
    plan
}

fn ids(tickets: &[Ticket]) -> Vec<&str> {
    tickets.iter().map(|ticket| ticket.entry.id.as_str()).collect()
}

/// Signs everything that is due, for the given number of seconds each.
fn sign_all(plan: &mut Plan, ttl_secs: impl Fn(&str) -> i64) {
    for ticket in plan.take_due(NOW, 100) {
        let end = NOW + ttl_secs(ticket.entry.id.as_str());
        assert!(plan.on_signed(&ticket, NOW, end, NOW + 10));
    }
}

#[test]
fn a_new_entry_is_due_at_once_and_only_once() {
    let mut plan = plan(&["a"]);
    assert_eq!(plan.next_due(), Some(NOW));
    assert_eq!(ids(&plan.take_due(NOW, 10)), ["a"]);
    assert!(plan.take_due(NOW, 10).is_empty());
}

#[test]
fn those_without_an_svid_come_first_and_then_those_that_end_first() {
    let mut plan = plan(&["long", "short"]);
    sign_all(&mut plan, |id| if id == "short" { 60 } else { 600 });
    plan.put(Arc::new(entry("new", &["unix:uid:1"])), NOW + 10);
    assert_eq!(ids(&plan.take_due(NOW + 10, 10)), ["new", "short", "long"]);
}

#[test]
fn a_batch_is_cut_to_size_by_urgency() {
    let mut plan = plan(&["a", "b", "c"]);
    sign_all(&mut plan, |id| if id == "c" { 60 } else { 600 });
    assert_eq!(ids(&plan.take_due(NOW + 10, 1)), ["c"]);
    assert_eq!(ids(&plan.take_due(NOW + 10, 10)), ["a", "b"]);
}

#[test]
fn nothing_is_due_before_its_renewal() {
    let mut plan = plan(&["a"]);
    sign_all(&mut plan, |_| 60);
    assert!(!plan.has_due(NOW + 9) && plan.take_due(NOW + 9, 10).is_empty());
    assert!(plan.has_due(NOW + 10));
}

#[test]
fn the_same_entry_again_changes_nothing() {
    let mut plan = plan(&["a"]);
    sign_all(&mut plan, |_| 60);
    assert_eq!(plan.put(Arc::new(entry("a", &["unix:uid:1"])), NOW), Put::Unchanged);
    assert!(!plan.has_due(NOW));
}

#[test]
fn a_result_for_an_entry_that_changed_meanwhile_does_not_count() {
    let mut plan = plan(&["a"]);
    let ticket = plan.take_due(NOW, 1).remove(0);
    let mut changed = entry("a", &["unix:uid:1"]);
    changed.revision_number = 1;
    assert_eq!(plan.put(Arc::new(changed), NOW), Put::Changed);
    assert!(!plan.on_signed(&ticket, NOW, NOW + 60, NOW + 30));
    assert_eq!(ids(&plan.take_due(NOW, 1)), ["a"]);
}

#[test]
fn a_result_for_an_entry_that_is_gone_does_not_count() {
    let mut plan = plan(&["a"]);
    let ticket = plan.take_due(NOW, 1).remove(0);
    assert!(plan.remove(&ticket.entry.id));
    assert!(!plan.on_signed(&ticket, NOW, NOW + 60, NOW + 30));
    assert_eq!(plan.next_expiry(), None);
}

#[test]
fn another_spiffe_id_makes_the_held_svid_useless() {
    let mut plan = plan(&["a"]);
    sign_all(&mut plan, |_| 60);
    let mut renamed = entry("a", &["unix:uid:1"]);
    renamed.spiffe_id = "spiffe://prod.example/b".parse().unwrap();
    assert_eq!(plan.put(Arc::new(renamed), NOW), Put::Fresh);
    assert_eq!(plan.next_expiry(), None);
}

#[test]
fn a_refused_entry_waits_alone_longer_each_time_and_counts_its_failures() {
    let mut plan = plan(&["a", "b"]);
    let tickets = plan.take_due(NOW, 2);
    assert_eq!(plan.on_refused(&tickets[0], NOW, Jitter::NONE), Some(1));
    assert!(plan.on_signed(&tickets[1], NOW, NOW + 600, NOW + 300));
    assert_eq!(plan.next_due(), Some(NOW + 1));
    let again = plan.take_due(NOW + 1, 2);
    assert_eq!(ids(&again), ["a"]);
    assert_eq!(plan.on_refused(&again[0], NOW + 1, Jitter::NONE), Some(2));
    assert_eq!(plan.next_due(), Some(NOW + 3));
}

#[test]
fn no_wait_reaches_past_the_end_of_a_held_svid() {
    let mut plan = plan(&["a"]);
    sign_all(&mut plan, |_| 60);
    let ticket = plan.take_due(NOW + 10, 1).remove(0);
    plan.on_refused(&ticket, NOW + 60, Jitter::NONE);
    assert_eq!(plan.next_due(), Some(NOW + 60));
}

#[test]
fn an_svid_that_must_go_is_due_at_once_and_what_is_being_signed_for_it_does_not_count() {
    let mut plan = plan(&["a"]);
    sign_all(&mut plan, |_| 600);
    plan.hurry(&"a".parse().unwrap(), NOW + 1);
    let ticket = plan.take_due(NOW + 1, 1).remove(0);
    plan.hurry(&ticket.entry.id, NOW + 1);
    assert!(!plan.on_signed(&ticket, NOW + 1, NOW + 600, NOW + 300));
    assert_eq!(ids(&plan.take_due(NOW + 1, 1)), ["a"]);
}

#[test]
fn a_failed_call_leaves_its_entries_due() {
    let mut plan = plan(&["a"]);
    let ticket = plan.take_due(NOW, 1).remove(0);
    plan.on_call_failed(&ticket, NOW);
    assert!(plan.has_due(NOW));
}

#[test]
fn a_clock_that_is_set_back_makes_everything_decided_later_due_at_once() {
    let mut plan = plan(&["held", "refused"]);
    let tickets = plan.take_due(NOW, 2);
    assert!(plan.on_signed(&tickets[0], NOW, NOW + 600, NOW + 300));
    plan.on_refused(&tickets[1], NOW, Jitter::NONE);
    plan.put(Arc::new(entry("new", &["unix:uid:1"])), NOW);
    let earlier = NOW - 3600;
    assert!(plan.has_due(earlier));
    assert_eq!(ids(&plan.take_due(earlier, 10)), ["new", "refused", "held"]);
    assert!(!plan.has_due(earlier) && plan.decided.is_empty());
}

#[test]
fn a_clock_that_is_set_back_a_little_leaves_earlier_decisions_alone() {
    let mut plan = plan(&["a"]);
    sign_all(&mut plan, |_| 600);
    assert!(!plan.has_due(NOW + 5));
    assert!(!plan.has_due(NOW));
    assert!(plan.has_due(NOW - 1));
}

#[test]
fn an_svid_counts_through_its_last_second_and_is_taken_once_after() {
    let mut plan = plan(&["a"]);
    sign_all(&mut plan, |_| 60);
    assert!(plan.take_expired(NOW + 60).is_empty());
    assert_eq!(plan.take_expired(NOW + 61).len(), 1);
    assert!(plan.take_expired(NOW + 61).is_empty());
}

#[test]
fn only_so_many_are_signed_ahead_and_who_leaves_makes_room_for_the_next() {
    let mut plan = Plan::new(2);
    for id in ["a", "b", "c", "d"] {
        plan.put(Arc::new(entry(id, &["unix:uid:1"])), NOW);
    }
    assert_eq!(ids(&plan.take_due(NOW, 10)), ["a", "b"]);
    assert!(plan.is_on_demand(&"c".parse().unwrap()) && plan.fill(NOW).is_empty());
    plan.remove(&"a".parse().unwrap());
    let filled: Vec<_> = plan.fill(NOW).iter().map(|entry| entry.id.to_string()).collect();
    assert_eq!((filled, ids(&plan.take_due(NOW, 10))), (vec!["c".to_owned()], vec!["c"]));
}

#[test]
fn one_that_is_asked_for_is_signed_beyond_the_number_and_another_may_rest() {
    let mut plan = Plan::new(1);
    for id in ["a", "b"] {
        plan.put(Arc::new(entry(id, &["unix:uid:1"])), NOW);
    }
    let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
    assert_eq!(plan.excess(), 0);
    plan.demand(&b, NOW);
    assert_eq!(plan.excess(), 1);
    let tickets = plan.take_due(NOW, 10);
    assert!(!plan.may_rest(&a), "it is being signed");
    tickets.iter().for_each(|ticket| assert!(plan.on_signed(ticket, NOW, NOW + 60, NOW + 30)));
    assert!(plan.may_rest(&a));
    plan.rest(&a);
    assert_eq!((plan.excess(), plan.is_on_demand(&a)), (0, true));
    assert_eq!(ids(&plan.take_due(NOW + 30, 10)), ["b"]);
    assert!(plan.take_expired(NOW + 61).len() == 1, "what rests has nothing to expire");
}

#[test]
fn an_entry_on_demand_waits_until_somebody_asks() {
    let mut plan = Plan::new(usize::MAX);
    let mut quiet = entry("a", &["unix:uid:1"]);
    quiet.disable_x509_svid_prefetch = true;
    plan.put(Arc::new(quiet), NOW);
    assert!(!plan.has_due(NOW) && plan.is_on_demand(&"a".parse().unwrap()));
    plan.demand(&"a".parse().unwrap(), NOW);
    assert!(plan.has_due(NOW));
}
