//! Laws that hold for all values: parsing and printing agree, and extra selectors lose no match.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use spindle_spiffe_core::{DnsName, Selector, Selectors, Serial, SpiffeId, Timestamp, TrustDomain, Validity};

fn set(texts: &BTreeSet<String>) -> Selectors {
    Selectors::new(texts.iter().map(|text| text.parse().expect("made by the pattern"))).expect("few")
}

fn selector_texts() -> impl Strategy<Value = BTreeSet<String>> {
    btree_set("[a-z]{1,2}:[a-z0-9:]{1,3}", 0..20)
}

proptest! {
    #[test]
    fn every_text_of_the_grammar_is_an_id_and_prints_as_itself(
        name in "[a-z0-9._-]{1,255}",
        segments in vec("[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,40}", 0..20),
    ) {
        let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        let text = format!("spiffe://{name}{path}");
        let id: SpiffeId = text.parse()?;
        prop_assert_eq!(id.as_str(), &text);
        prop_assert_eq!((id.trust_domain_name(), id.path()), (name.as_str(), path.as_str()));
        prop_assert_eq!(name.parse::<TrustDomain>()?.member(&path)?, id);
    }

    #[test]
    fn one_strange_byte_anywhere_in_the_name_or_path_is_refused(
        at in 9_usize..18,
        strange in "[^a-zA-Z0-9._/-]",
    ) {
        let mut text = "spiffe://td/abcdef".to_owned();
        text.insert_str(at, &strange);
        prop_assert!(text.parse::<SpiffeId>().is_err(), "{}", text);
    }

    #[test]
    fn a_selector_prints_as_it_was_given(kind in "[^:]{1,20}", value in ".{1,50}") {
        let text = format!("{kind}:{value}");
        let selector: Selector = text.parse()?;
        prop_assert_eq!(selector.to_string(), text);
        prop_assert_eq!((selector.kind(), selector.value()), (kind.as_str(), value.as_str()));
    }

    #[test]
    fn a_set_does_not_depend_on_order_or_repeats(texts in vec("[a-z]:[a-z]", 0..40)) {
        let forward = Selectors::new(texts.iter().map(|text| text.parse().unwrap())).unwrap();
        let twice = texts.iter().rev().chain(&texts);
        let backward = Selectors::new(twice.map(|text| text.parse().unwrap())).unwrap();
        prop_assert_eq!(forward, backward);
    }

    #[test]
    fn extra_selectors_lose_no_match(entry in selector_texts(), workload in selector_texts(), extra in selector_texts()) {
        let more: BTreeSet<String> = workload.union(&extra).cloned().collect();
        let (entry, workload, more) = (set(&entry), set(&workload), set(&more));
        if entry.is_subset_of(&workload) {
            prop_assert!(entry.is_subset_of(&more));
        }
    }

    #[test]
    fn matching_is_what_sets_call_subset(entry in selector_texts(), workload in selector_texts()) {
        let missing: Vec<&String> = entry.difference(&workload).collect();
        let (entry, workload) = (set(&entry), set(&workload));
        prop_assert_eq!(entry.is_subset_of(&workload), missing.is_empty());
        let found: Vec<&str> = entry.missing_from(&workload).map(Selector::as_str).collect();
        prop_assert_eq!(found.len(), missing.len());
        prop_assert!(missing.iter().all(|text| found.contains(&text.as_str())));
    }

    #[test]
    fn dns_names_of_plain_labels_are_taken_with_and_without_a_star(
        labels in vec("[a-zA-Z0-9]([a-zA-Z0-9]{0,20}[a-zA-Z0-9])?", 1..8),
    ) {
        let name = labels.join(".");
        prop_assert_eq!(name.parse::<DnsName>()?.to_string(), name.clone());
        let wildcard: DnsName = format!("*.{name}").parse()?;
        let (below, itself): (DnsName, DnsName) = (format!("web.{name}").parse()?, name.parse()?);
        prop_assert!(wildcard.covers(&below));
        prop_assert!(!wildcard.covers(&itself));
    }

    #[test]
    fn serials_print_in_decimal(number in any::<u128>()) {
        prop_assert_eq!(Serial::new(&number.to_be_bytes()).to_string(), number.to_string());
        let padded = [&[0; 5][..], &number.to_be_bytes()].concat();
        prop_assert_eq!(Serial::new(&padded), Serial::new(&number.to_be_bytes()));
    }

    #[test]
    fn a_validity_is_before_within_or_over(from in any::<i64>(), to in any::<i64>(), now in any::<i64>()) {
        let [from, to, now] = [from, to, now].map(Timestamp::from_unix_secs);
        let validity = Validity { not_before: from, not_after: to };
        prop_assert_eq!(validity.contains(now), now >= from && !validity.is_over(now));
        prop_assert!(validity.secs() >= 0);
    }
}
