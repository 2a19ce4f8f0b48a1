use super::*;

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
}

/// An entry for `path` with one selector.
fn entry(entry_id: &str, path: &str, uid: u32) -> types::Entry {
    types::Entry {
        id: entry_id.into(),
        spiffe_id: id(path),
        parent_id: id("/node"),
        selectors: vec![types::Selector { r#type: "unix".into(), value: format!("uid:{uid}") }],
        ..types::Entry::default()
    }
}

fn ttl(secs: i32, entry: types::Entry) -> types::Entry {
    types::Entry { x509_svid_ttl: secs, ..entry }
}

fn unnamed(entry: types::Entry) -> Declared {
    Declared { place: format!("place of {}", text::id(&entry.spiffe_id)), entry, name: None }
}

fn named(name: &str, entry: types::Entry) -> Declared {
    Declared { name: Some(name.into()), ..unnamed(entry) }
}

fn set() -> SetName {
    "team".parse().unwrap()
}

/// The plan in short: verb and ID of each step, then conflicts, then how many are unchanged.
#[track_caller]
fn check(declared: &[Declared], present: &[types::Entry], expected: &[&str]) {
    let set = set();
    let plan = Plan::make(declared, present, Rules { set: Some(&set), prune: true, change: true }).unwrap();
    assert_eq!(short(&plan), expected);
}

fn short(plan: &Plan) -> Vec<String> {
    let steps = plan.steps.iter().map(|step| format!("{} {}", step.verb(), step.entry().id));
    let conflicts = plan.conflicts.iter().map(|conflict| format!("conflict {}", conflict.entry.id));
    steps.chain(conflicts).chain([format!("{} unchanged", plan.unchanged)]).collect()
}

#[test]
fn what_is_not_there_is_created_under_the_name_of_the_set() {
    let declared =
        [named("web", entry("", "/web", 1)), unnamed(entry("", "/db", 1)), unnamed(entry("e9", "/x", 1))];
    check(&declared, &[], &["create team.web", "create ", "create e9", "0 unchanged"]);
    let set = set();
    let mut plan = Plan::make(&declared, &[], Rules { set: Some(&set), prune: false, change: true }).unwrap();
    plan.name_new(&set, || "fresh".into());
    assert_eq!(short(&plan), ["create team.web", "create team.fresh", "create e9", "0 unchanged"]);
}

#[test]
fn a_second_run_finds_nothing_to_do() {
    let declared =
        [named("web", entry("", "/web", 1)), unnamed(entry("", "/db", 1)), unnamed(entry("e9", "/x", 1))];
    let mut present = [entry("team.web", "/web", 1), entry("team.0123", "/db", 1), entry("e9", "/x", 1)];
    // What a server adds is no difference.
    present[0].revision_number = 4;
    present[0].created_at = 77;
    check(&declared, &present, &["3 unchanged"]);
}

#[test]
fn a_named_entry_keeps_its_id_whatever_changes() {
    let present = [entry("team.web", "/web", 1)];
    check(&[named("web", entry("", "/web", 2))], &present, &["update team.web", "0 unchanged"]);
    check(&[named("web", ttl(60, entry("", "/other", 3)))], &present, &["update team.web", "0 unchanged"]);
    // Without a name it is another entry.
    check(&[unnamed(entry("", "/web", 2))], &present, &["create ", "delete team.web", "0 unchanged"]);
}

#[test]
fn an_update_tells_the_fields_that_change_and_keeps_the_counters() {
    let mut old = ttl(60, entry("team.web", "/web", 1));
    old.revision_number = 7;
    let mut new = ttl(90, entry("", "/web", 1));
    new.dns_names = vec!["b".into(), "a".into()];
    let set = set();
    let rules = Rules { set: Some(&set), prune: true, change: true };
    let plan = Plan::make(&[named("web", new)], &[old], rules).unwrap();
    let changes: Vec<_> = plan.steps[0].changes().iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["x509_svid_ttl 60 -> 90", "dns_names [] -> [b a]"]);
    assert_eq!((plan.steps[0].entry().revision_number, plan.steps[0].entry().id.as_str()), (7, "team.web"));
}

#[test]
fn order_matters_where_it_means_something() {
    let differs = |change: fn(&mut types::Entry), other: fn(&mut types::Entry)| {
        let (mut a, mut b) = (entry("", "/web", 1), entry("", "/web", 1));
        change(&mut a);
        other(&mut b);
        !fields::changes(&a, &b).is_empty()
    };
    assert!(differs(
        |e| e.dns_names = vec!["a".into(), "b".into()],
        |e| e.dns_names = vec!["b".into(), "a".into()]
    ));
    assert!(!differs(
        |e| e.federates_with = vec!["a.org".into(), "spiffe://b.org".into()],
        |e| e.federates_with = vec!["b.org".into(), "a.org".into()]
    ));
    assert!(!differs(|e| e.selectors.push(e.selectors[0].clone()), |_| ()));
    assert!(!differs(
        |e| e.additional_attributes = Some(types::entry::AdditionalAttributes::default()),
        |_| ()
    ));
    assert!(differs(|e| e.store_svid = true, |_| ()));
}

#[test]
fn only_what_the_set_made_is_pruned() {
    let present = [
        entry("team.old", "/a", 1),
        entry("team", "/b", 1),
        entry("teamster.x", "/c", 1),
        entry("made-by-hand", "/d", 1),
        entry("other.team.x", "/e", 1),
        entry("team.older", "/f", 1),
    ];
    check(&[], &present, &["delete team.old", "delete team.older", "0 unchanged"]);
    let set = set();
    let keep = Plan::make(&[], &present, Rules { set: Some(&set), prune: false, change: true }).unwrap();
    assert_eq!(short(&keep), ["0 unchanged"]);
}

#[test]
fn an_entry_made_by_hand_is_changed_in_place_and_never_pruned() {
    let present = [ttl(60, entry("made-by-hand", "/web", 1))];
    check(&[named("web", entry("", "/web", 1))], &present, &["update made-by-hand", "0 unchanged"]);
    check(&[named("web", ttl(60, entry("", "/web", 1)))], &present, &["1 unchanged"]);
    check(&[], &present, &["0 unchanged"]);
}

#[test]
fn an_id_that_is_asked_for_is_not_given_up() {
    let declared = [unnamed(entry("e1", "/web", 1))];
    check(&declared, &[entry("e2", "/web", 1)], &["conflict e1", "0 unchanged"]);
    check(&declared, &[entry("e1", "/other", 9)], &["update e1", "0 unchanged"]);
}

#[test]
fn entries_can_take_each_others_place() {
    let present = [entry("team.a", "/x", 1), entry("team.b", "/x", 2)];
    let swapped = [named("a", entry("", "/x", 2)), named("b", entry("", "/x", 1))];
    check(&swapped, &present, &["update team.a", "update team.b", "0 unchanged"]);
    // The new one takes what the old one gives up, so changes come first; deletions come last.
    let moved = [named("a", entry("", "/x", 3)), named("c", entry("", "/x", 1))];
    check(&moved, &present, &["update team.a", "create team.c", "delete team.b", "0 unchanged"]);
}

#[test]
fn of_two_that_are_alike_the_sets_own_is_taken() {
    let present = [entry("hand", "/x", 1), entry("team.1", "/x", 1)];
    check(&[unnamed(entry("", "/x", 1))], &present, &["1 unchanged"]);
}

#[test]
fn two_declarations_of_one_entry_are_refused_with_both_places() {
    let set = set();
    let rules = Rules { set: Some(&set), prune: true, change: true };
    let alike = [unnamed(entry("", "/x", 1)), named("x", entry("", "/x", 1))];
    let fault = Plan::make(&alike, &[], rules).expect_err("alike");
    assert!(
        fault.contains("place of spiffe://example.org/x (spiffe://example.org/x) has the parent"),
        "{fault}"
    );
    let same_id = [unnamed(entry("team.x", "/x", 1)), named("x", entry("", "/y", 1))];
    let fault = Plan::make(&same_id, &[], rules).expect_err("one ID");
    assert!(fault.contains("place of spiffe://example.org/y has the ID team.x of place of"), "{fault}");
}

#[test]
fn without_leave_to_change_a_difference_is_a_conflict() {
    let rules = Rules { set: None, prune: false, change: false };
    let declared = [unnamed(ttl(60, entry("e1", "/web", 1))), unnamed(entry("e2", "/db", 1))];
    let present = [entry("e1", "/web", 1)];
    let plan = Plan::make(&declared, &present, rules).unwrap();
    assert_eq!(short(&plan), ["create e2", "conflict e1", "0 unchanged"]);
    assert_eq!(plan.conflicts[0].what, "entry e1 is there and differs: x509_svid_ttl 0 -> 60");
}

#[test]
fn what_is_set_aside_is_a_conflict_and_deletions_are_not_asked_about() {
    let set = set();
    let rules = Rules { set: Some(&set), prune: true, change: true };
    let present = [entry("team.gone", "/gone", 1), entry("team.a", "/a", 1)];
    let declared = [named("a", entry("", "/a", 2)), named("b", entry("", "/b", 1))];
    let mut plan = Plan::make(&declared, &present, rules).unwrap();
    plan.set_aside(|entry| (entry.id != "team.b").then(|| ("no".into(), "ask".into())));
    assert_eq!(short(&plan), ["create team.b", "delete team.gone", "conflict team.a", "0 unchanged"]);
}

#[test]
fn set_names_have_no_dot() {
    for good in ["team", "a", "A-b_9", &"x".repeat(SET_BYTES_MAX)] {
        assert!(good.parse::<SetName>().is_ok(), "{good}");
    }
    for bad in ["", "a.b", "a b", "é", "a/b", &"x".repeat(SET_BYTES_MAX + 1)] {
        assert!(bad.parse::<SetName>().is_err(), "{bad}");
    }
}

#[test]
fn control_characters_are_not_sent_to_a_terminal() {
    let change = FieldChange { field: "hint", old: "".into(), new: "a\u{1b}[31m\nb".into() };
    assert_eq!(change.to_string(), "hint \"\" -> a\\u{1b}[31m\\nb");
}

/// Carries a plan out on a list, as a server would.
fn apply(plan: &Plan, mut present: Vec<types::Entry>) -> Vec<types::Entry> {
    for step in &plan.steps {
        match step {
            Step::Create(entry) => present.push(entry.clone()),
            Step::Update(pair) => {
                present
                    .iter_mut()
                    .filter(|entry| entry.id == pair[1].id)
                    .for_each(|entry| *entry = pair[1].clone());
            }
            Step::Delete(gone) => present.retain(|entry| entry.id != gone.id),
        }
    }
    present
}

#[test]
fn a_plan_that_is_carried_out_leaves_nothing_to_do() {
    bolero::check!().with_type::<(Vec<(u8, u8, u8)>, Vec<(u8, u8, u8)>)>().for_each(|(wanted, there)| {
        let path = |n: u8| format!("/{}", n % 4);
        let mut likenesses = std::collections::HashSet::new();
        let mut names = std::collections::HashSet::new();
        let declared: Vec<_> = wanted
            .iter()
            .map(|(name, a, b)| (name % 6, ttl(i32::from(b % 2), entry("", &path(*a), u32::from(b % 3)))))
            .filter(|(_, entry)| likenesses.insert(Likeness::of(entry)))
            .map(|(name, entry)| match name {
                0..4 if names.insert(name) => named(&format!("n{name}"), entry),
                _ => unnamed(entry),
            })
            .collect();
        let present: Vec<_> = there
            .iter()
            .enumerate()
            .map(|(at, (kind, a, b))| {
                let id = match kind % 3 {
                    0 => format!("team.n{at}"),
                    1 => format!("team.x{at}"),
                    _ => format!("hand{at}"),
                };
                entry(&id, &path(*a), u32::from(b % 3))
            })
            .collect();
        let set = set();
        let rules = Rules { set: Some(&set), prune: true, change: true };
        let mut plan = Plan::make(&declared, &present, rules).unwrap();
        let mut next = 0;
        plan.name_new(&set, || {
            next += 1;
            format!("fresh{next}")
        });
        let hands = |entries: &[types::Entry]| entries.iter().filter(|entry| !set.owns(&entry.id)).count();
        let after = apply(&plan, present.clone());
        assert_eq!(hands(&after), hands(&present), "what is made by hand stays");
        let again = Plan::make(&declared, &after, rules).unwrap();
        assert_eq!((again.steps.len(), again.conflicts.len()), (0, 0), "{plan:?} then {again:?}");
        assert_eq!(again.unchanged, declared.len());
    });
}
