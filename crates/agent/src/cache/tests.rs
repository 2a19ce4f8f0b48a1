use proptest::prelude::*;
use prost::Message;
use spindle_keys::Key;
use spindle_proto::workload;
use spindle_spiffe_core::{Hint, X509Bundle, X509Svid};

use super::*;
use crate::fixtures::{Authority, entry, selectors, signing, trust_domain};

fn put(identities: Vec<Identity>) -> Change {
    Change { put: identities, ..Change::default() }
}

fn ids(view: &View) -> Vec<String> {
    view.content.identities.iter().map(|one| one.entry.id.to_string()).collect()
}

fn hints(view: &View) -> Vec<&str> {
    view.content.identities.iter().map(|one| one.hint.as_str()).collect()
}

/// A cache with the authority's bundle in it.
fn cache() -> (Cache, Authority) {
    let (cache, authority) = (Cache::new(trust_domain()), Authority::new(&trust_domain()));
    cache.publish(Change { own_bundle: Some(authority.whole()), synced: true, ..Change::default() });
    (cache, authority)
}

#[test]
fn only_entries_whose_selectors_are_all_shown_match() {
    let (cache, ca) = cache();
    cache.publish(put(vec![
        ca.identity(&cache, entry("one", &["unix:uid:1"])),
        ca.identity(&cache, entry("both", &["unix:uid:1", "unix:gid:1"])),
        ca.identity(&cache, entry("other", &["unix:uid:2"])),
    ]));
    let mut view = cache.subscribe(&selectors(&["unix:uid:1", "unix:user:a"]));
    assert_eq!(ids(&view.borrow_and_update()), ["one"]);
}

#[test]
fn wap_79_entries_come_in_the_order_of_their_ids() {
    let (cache, ca) = cache();
    let mut young = entry("a", &["unix:uid:1"]);
    young.created_at = young.created_at + 1;
    cache.publish(put(vec![
        ca.identity(&cache, entry("c", &["unix:uid:1"])),
        ca.identity(&cache, young),
        ca.identity(&cache, entry("b", &["unix:uid:1"])),
    ]));
    assert_eq!(ids(&cache.subscribe(&selectors(&["unix:uid:1"])).borrow()), ["a", "b", "c"]);
}

#[test]
fn wap_28_of_identities_with_one_hint_all_are_shown_and_the_oldest_has_it() {
    let (cache, ca) = cache();
    let hinted = |id: &str, hint: &str, age_secs: i64| {
        let mut one = entry(id, &["unix:uid:1"]);
        one.hint = hint.parse().unwrap();
        one.created_at = one.created_at - age_secs;
        ca.identity(&cache, one)
    };
    let all =
        [("a", "main", 0), ("b", "main", 9), ("c", "main", 9), ("d", "", 0), ("e", "", 0), ("f", "x", 0)];
    cache.publish(put(all.map(|(id, hint, age_secs)| hinted(id, hint, age_secs)).into()));
    let view = cache.subscribe(&selectors(&["unix:uid:1"])).borrow().clone();
    assert_eq!(ids(&view), ["a", "b", "c", "d", "e", "f"]);
    assert_eq!(hints(&view), ["", "main", "", "", "", "x"]);
    let matched = cache.matching(&selectors(&["unix:uid:1"]));
    assert_eq!(matched.iter().map(|one| one.hint.as_str()).collect::<Vec<_>>(), hints(&view));
}

#[test]
fn a_hint_does_not_move_to_another_identity_while_the_svid_of_its_own_is_late() {
    let (cache, ca) = cache();
    let hinted = |id: &str| RegistrationEntry { hint: "main".parse().unwrap(), ..entry(id, &["unix:uid:1"]) };
    cache.publish(put(vec![signing(hinted("a")), ca.identity(&cache, hinted("b"))]));
    let view = cache.subscribe(&selectors(&["unix:uid:1"])).borrow().clone();
    assert_eq!(ids(&view), ["b"]);
    assert_eq!(hints(&view), [""]);
}

#[test]
fn foreign_bundles_stay_while_the_svid_of_their_entry_is_missing() {
    let (cache, _) = cache();
    let partner = Authority::new(&"partner.example".parse().unwrap()).whole();
    let mut one = entry("one", &["unix:uid:1"]);
    one.federates_with = vec!["partner.example".parse().unwrap()];
    cache.publish(Change { put: vec![signing(one)], federated: vec![partner], ..Change::default() });
    let content = cache.subscribe(&selectors(&["unix:uid:1"])).borrow().content.clone();
    let answer = workload::X509BundlesResponse::decode(&content.x509_bundles()[5..]).unwrap();
    assert!(answer.bundles.contains_key("spiffe://partner.example"));
}

#[test]
fn a_stream_is_woken_only_by_a_change_of_its_own_view() {
    let (cache, ca) = cache();
    let mut mine = cache.subscribe(&selectors(&["unix:uid:1"]));
    mine.mark_unchanged();
    cache.publish(put(vec![ca.identity(&cache, entry("other", &["unix:uid:2"]))]));
    assert!(!mine.has_changed().unwrap());
    cache.publish(put(vec![ca.identity(&cache, entry("mine", &["unix:uid:1"]))]));
    assert!(mine.has_changed().unwrap());
}

#[test]
fn a_bundle_that_is_the_same_wakes_nobody_and_a_new_one_everybody() {
    let (cache, ca) = cache();
    let mut mine = cache.subscribe(&selectors(&["unix:uid:1"]));
    mine.mark_unchanged();
    cache.publish(Change { own_bundle: Some(ca.whole()), ..Change::default() });
    assert!(!mine.has_changed().unwrap());
    let next = Authority::new(&trust_domain()).whole();
    cache.publish(Change { own_bundle: Some(next), ..Change::default() });
    assert!(mine.has_changed().unwrap());
}

#[test]
fn different_selectors_with_the_same_matches_share_one_encoded_answer() {
    let (cache, ca) = cache();
    cache.publish(put(vec![ca.identity(&cache, entry("one", &["unix:uid:1"]))]));
    let (a, b) = (
        cache.subscribe(&selectors(&["unix:uid:1", "unix:path:/a"])),
        cache.subscribe(&selectors(&["unix:uid:1", "unix:path:/b"])),
    );
    assert!(Arc::ptr_eq(&a.borrow().content, &b.borrow().content));
    assert_eq!(a.borrow().content.x509_svids().as_ptr(), b.borrow().content.x509_svids().as_ptr());
}

#[test]
fn an_entry_that_is_not_signed_yet_does_not_hold_back_the_others() {
    let (cache, ca) = cache();
    cache.publish(put(vec![
        ca.identity(&cache, entry("ready", &["unix:uid:1"])),
        signing(entry("late", &["unix:uid:1"])),
    ]));
    let view = cache.subscribe(&selectors(&["unix:uid:1"])).borrow().clone();
    assert_eq!(ids(&view), ["ready"]);
    assert!(view.is_signing());
}

#[test]
fn a_removed_entry_leaves_the_view() {
    let (cache, ca) = cache();
    cache.publish(put(vec![ca.identity(&cache, entry("one", &["unix:uid:1"]))]));
    let mut view = cache.subscribe(&selectors(&["unix:uid:1"]));
    view.mark_unchanged();
    cache.publish(Change { removed: vec!["one".parse().unwrap()], ..Change::default() });
    assert!(view.has_changed().unwrap() && ids(&view.borrow()).is_empty());
}

#[test]
fn an_entry_whose_selectors_moved_leaves_one_view_and_joins_another() {
    let (cache, ca) = cache();
    cache.publish(put(vec![ca.identity(&cache, entry("one", &["unix:uid:1"]))]));
    let (first, second) =
        (cache.subscribe(&selectors(&["unix:uid:1"])), cache.subscribe(&selectors(&["unix:uid:2"])));
    cache.publish(put(vec![ca.identity(&cache, entry("one", &["unix:uid:2"]))]));
    assert_eq!((ids(&first.borrow()).len(), ids(&second.borrow())), (0, vec!["one".to_owned()]));
}

#[test]
fn an_entry_for_a_store_is_not_served() {
    let (cache, ca) = cache();
    let mut stored = entry("stored", &["unix:uid:1"]);
    stored.store_svid = true;
    cache.publish(put(vec![ca.identity(&cache, stored)]));
    assert!(ids(&cache.subscribe(&selectors(&["unix:uid:1"])).borrow()).is_empty());
}

#[test]
fn wap_27_wap_34_wap_35_encoded_answers_read_back_with_the_generated_code_and_have_no_revocation_lists() {
    let (cache, ca) = cache();
    let foreign = Authority::new(&"partner.example".parse().unwrap());
    let mut one = entry("one", &["unix:uid:1"]);
    one.hint = "main".parse().unwrap();
    one.federates_with = vec!["partner.example".parse().unwrap(), "unknown.example".parse().unwrap()];
    let mut two = entry("two", &["unix:uid:1"]);
    two.hint = "other".parse().unwrap();
    cache.publish(Change {
        put: vec![ca.identity(&cache, one), ca.identity(&cache, two)],
        federated: vec![foreign.whole()],
        ..Change::default()
    });
    let content = cache.subscribe(&selectors(&["unix:uid:1"])).borrow().content.clone();

    let frame = content.x509_svids();
    assert_eq!(frame[0], 0);
    assert_eq!(u32::from_be_bytes(frame[1..5].try_into().unwrap()) as usize, frame.len() - 5);
    let answer = workload::X509svidResponse::decode(&frame[5..]).unwrap();
    assert_eq!(answer.svids.len(), 2);
    let (first, held) = (&answer.svids[0], &content.identities[0].held);
    assert_eq!(first.spiffe_id, "spiffe://prod.example/one");
    assert_eq!(first.x509_svid, held.svid.to_der());
    assert_eq!(first.x509_svid_key[..], held.key_pkcs8[..]);
    assert_eq!(first.bundle, ca.bundle.to_der());
    assert_eq!((first.hint.as_str(), answer.svids[1].hint.as_str()), ("main", "other"));
    assert_eq!(answer.federated_bundles.len(), 1);
    assert_eq!(answer.federated_bundles["spiffe://partner.example"], foreign.bundle.to_der());
    assert!(answer.crl.is_empty());

    let bundles = workload::X509BundlesResponse::decode(&content.x509_bundles()[5..]).unwrap();
    assert!(bundles.crl.is_empty(), "no bundle has a revocation list");
    assert_eq!(bundles.bundles.len(), 2);
    assert_eq!(bundles.bundles["spiffe://prod.example"], ca.bundle.to_der());
}

#[test]
fn wap_22_wap_23_wap_24_wap_25_wap_26_each_svid_is_complete_and_its_parts_belong_together() {
    let (cache, ca) = cache();
    let mut own = ca.whole();
    own.x509_authorities.extend(Authority::new(&trust_domain()).whole().x509_authorities);
    let put = vec![ca.identity(&cache, entry("one", &["unix:uid:1"]))];
    cache.publish(Change { put, own_bundle: Some(own.clone()), ..Change::default() });
    let content = cache.subscribe(&selectors(&["unix:uid:1"])).borrow().content.clone();
    let answer = workload::X509svidResponse::decode(&content.x509_svids()[5..]).unwrap();
    let told = &answer.svids[0];
    let svid = X509Svid::from_der(&told.x509_svid).unwrap();
    assert_eq!(svid.spiffe_id().as_str(), told.spiffe_id, "the leaf comes first and names the identity");
    let key = Key::from_pkcs8_der(&told.x509_svid_key).unwrap();
    assert_eq!(key.spki_der(), svid.spki_der(), "the key is the leaf's");
    let bundle = X509Bundle::from_der(trust_domain(), &told.bundle).unwrap();
    assert_eq!(bundle, own.x509_bundle(), "both authorities, back to back");
}

#[tokio::test]
async fn a_match_of_an_on_demand_entry_is_reported_once() {
    let (cache, _) = cache();
    let quiet = Identity { entry: Arc::new(entry("quiet", &["unix:uid:1"])), state: Err(Unready::OnDemand) };
    cache.publish(put(vec![quiet]));
    let _view = cache.subscribe(&selectors(&["unix:uid:1"]));
    assert_eq!(cache.demand().await, ["quiet".parse().unwrap()].into());
    assert!(cache.lock().demanded.is_empty());
}

#[test]
fn views_of_callers_that_left_are_dropped_in_the_end() {
    let (cache, _) = cache();
    for uid in 0..3 * IDLE_VIEWS_MAX {
        let _ = cache.subscribe(&selectors(&[&format!("unix:uid:{uid}")]));
    }
    assert!(cache.lock().by_selectors.len() <= IDLE_VIEWS_MAX + 1);
}

fn some_selectors(most: usize) -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(
        (0..4u8, 0..4u8).prop_map(|(kind, value)| format!("k{kind}:v{value}")),
        1..=most,
    )
}

proptest! {
    /// Showing more never loses an identity, and the index finds exactly what a plain scan finds.
    #[test]
    fn extra_selectors_lose_no_match(
        entries in proptest::collection::vec(some_selectors(4), 1..12),
        shown in some_selectors(6),
        extra in some_selectors(6),
    ) {
        let mut snapshot = Snapshot::empty(trust_domain());
        for (number, needs) in entries.iter().enumerate() {
            let needs: Vec<&str> = needs.iter().map(String::as_str).collect();
            snapshot.put(Arc::new(signing(entry(&format!("e{number}"), &needs))));
        }
        let matches = |texts: &[String]| {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let shown = selectors(&texts);
            let found: BTreeSet<EntryId> =
                snapshot.matching(&shown).iter().map(|one| one.entry.id.clone()).collect();
            let scanned: BTreeSet<EntryId> = snapshot
                .identities()
                .filter(|one| one.entry.selectors.is_subset_of(&shown))
                .map(|one| one.entry.id.clone())
                .collect();
            assert_eq!(found, scanned);
            found
        };
        let more: Vec<String> = shown.iter().chain(&extra).cloned().collect();
        prop_assert!(matches(&shown).is_subset(&matches(&more)));
    }

    /// No two identities of one answer carry the same hint (Workload API 5.2.1).
    #[test]
    fn hints_are_unique_in_every_answer(hints in proptest::collection::vec(0..3u8, 1..6)) {
        let (cache, ca) = cache();
        let identities = hints.iter().enumerate().map(|(number, hint)| {
            let mut one = entry(&format!("e{number}"), &["unix:uid:1"]);
            one.hint = if *hint == 0 { Hint::default() } else { format!("h{hint}").parse().unwrap() };
            ca.identity(&cache, one)
        }).collect();
        cache.publish(put(identities));
        let view = cache.subscribe(&selectors(&["unix:uid:1"])).borrow().clone();
        let shown = view.content.identities.iter().filter(|one| !one.hint.is_empty()).count();
        let distinct: BTreeSet<u8> = hints.iter().copied().filter(|hint| *hint != 0).collect();
        prop_assert_eq!((shown, view.content.identities.len()), (distinct.len(), hints.len()));
    }
}

#[test]
fn svids_without_a_stream_rest_the_longest_unused_first_and_those_in_use_never() {
    let (cache, ca) = cache();
    let all = ["never", "old", "new", "used", "busy"];
    cache.publish(put(all.map(|id| ca.identity(&cache, entry(id, &[&format!("unix:path:/{id}")]))).into()));
    let subscribe = |id: &str| cache.subscribe(&selectors(&[&format!("unix:path:/{id}")]));
    let used = subscribe("used");
    ["old", "busy", "new"].into_iter().for_each(|id| drop(subscribe(id)));
    let rest = |most| -> Vec<String> {
        cache.rest(most, |id| id.as_str() != "busy").iter().map(ToString::to_string).collect()
    };
    assert_eq!(rest(2), ["never", "old"]);
    assert_eq!(rest(9), ["new"], "one is in use, one is being signed");
    assert_eq!(ids(&used.borrow()), ["used"]);
    let again = subscribe("old");
    assert_eq!(again.borrow().unready[0].2, Unready::OnDemand);
    assert_eq!(cache.lock().demanded, ["old".parse().unwrap()].into(), "only who subscribes asks");
}
