use super::*;

const AGENT: &str = "/spire/agent/x509pop/a1";
const NOW: i64 = 1_000_000;

fn id(path: &str) -> Option<types::Spiffeid> {
    Some(types::Spiffeid { trust_domain: "example.org".into(), path: path.into() })
}

/// An entry for `path` below `parent`; its label is the path.
fn entry(parent: &str, path: &str, selectors: &[&str]) -> Subject {
    let selector = |text: &&str| {
        let (kind, value) = text.split_once(':').unwrap();
        types::Selector { r#type: kind.into(), value: value.into() }
    };
    let entry = types::Entry {
        spiffe_id: id(path),
        parent_id: id(parent),
        selectors: selectors.iter().map(selector).collect(),
        ..types::Entry::default()
    };
    Subject { label: path.into(), entry }
}

/// An entry that nothing is wrong with, changed.
fn changed(change: impl FnOnce(&mut types::Entry)) -> Subject {
    let mut subject = entry(AGENT, "/web", &["unix:uid:1"]);
    change(&mut subject.entry);
    subject
}

fn agent(path: &str, selectors: &[&str]) -> AgentFact {
    AgentFact {
        id: format!("spiffe://example.org{path}"),
        expires_at: Timestamp::from_unix_secs(NOW + 60),
        banned: false,
        selectors: selectors.iter().map(|text| (*text).to_owned()).collect(),
    }
}

fn facts() -> Facts {
    Facts {
        trust_domain: Some("example.org".parse().unwrap()),
        agents: Some(vec![agent(AGENT, &["x509pop:subject:cn:a1", "own_plugin:rack:7"])]),
        authority_secs: Some(24 * 3600),
        now: Some(Timestamp::from_unix_secs(NOW)),
        ..Facts::default()
    }
}

/// Findings in short: severity, rule and label.
#[track_caller]
fn check_with(facts: &Facts, subjects: &[Subject], expected: &[&str]) {
    let found: Vec<_> = lint(subjects, facts)
        .iter()
        .map(|finding| {
            assert!(!finding.what.is_empty() && !finding.remedy.is_empty(), "{finding:?}");
            format!("{} {} {}", finding.severity, finding.rule, finding.entry)
        })
        .collect();
    assert_eq!(found, expected, "{:#?}", lint(subjects, facts));
}

#[track_caller]
fn check(subjects: &[Subject], expected: &[&str]) {
    check_with(&facts(), subjects, expected);
}

#[test]
fn ordinary_entries_give_no_findings() {
    check(
        &[
            entry("/spire/server", "/node", &["x509pop:subject:cn:a1"]),
            entry("/node", "/web", &["k8s:ns:prod", "k8s:sa:web"]),
            entry("/web", "/below", &["docker:label:a:b"]),
            entry(AGENT, "/db", &["unix:uid:1"]),
            entry(AGENT, "/named", &[&format!("spiffe_id:spiffe://example.org{AGENT}")]),
            changed(|entry| {
                entry.x509_svid_ttl = 4 * 3600;
                entry.jwt_svid_ttl = 300;
                entry.dns_names = vec!["web.example.org".into(), "*.example.com".into()];
                entry.expires_at = NOW + 1;
                entry.federates_with = vec!["other.org".into()];
            }),
        ],
        &[],
    );
}

#[test]
fn selector_types_that_nobody_makes_are_told_with_the_nearest() {
    let typo = [entry(AGENT, "/web", &["unx:uid:1"])];
    check(&typo, &["warning selector_type /web"]);
    assert!(lint(&typo, &facts())[0].what.contains("did you mean unix?"));
    check(&[entry(AGENT, "/web", &["something_else:x"])], &["warning selector_type /web"]);
    // An agent shows selectors of that type, so a plugin makes them.
    check(&[entry("/spire/server", "/node", &["own_plugin:rack:7"])], &[]);
}

#[test]
fn selectors_that_cannot_reach_an_entry_are_errors() {
    check(
        &[entry("/spire/server", "/node", &["unix:uid:1"])],
        &["error selector_place /node", "note alias_unmatched /node"],
    );
    check(&[entry(AGENT, "/web", &["aws_iid:tag:a:b", "unix:uid:1"])], &["error selector_place /web"]);
    check(&[entry(AGENT, "/web", &["spiffe_id:spiffe://example.org/other"])], &["error selector_place /web"]);
}

#[test]
fn stored_svids_need_one_store() {
    let stored = |selectors: &[&str]| {
        let mut subject = entry(AGENT, "/web", selectors);
        subject.entry.store_svid = true;
        subject
    };
    check(&[stored(&["aws_secretsmanager:secretname:x", "aws_secretsmanager:region:y"])], &[]);
    check(&[stored(&["own_store:name:x"])], &["warning selector_type /web"]);
    check(&[stored(&["k8s:ns:x"])], &["error store_plugin /web"]);
    check(
        &[stored(&["aws_secretsmanager:a", "gcp_secretmanager:b"])],
        &["error invalid /web", "error store_plugin /web"],
    );
    check(&[entry(AGENT, "/web", &["gcp_secretmanager:b"])], &["error store_plugin /web"]);
}

#[test]
fn duplicates_and_needless_entries_are_found() {
    let twin =
        |label: &str| Subject { label: label.into(), ..entry(AGENT, "/web", &["unix:uid:1", "unix:gid:2"]) };
    let wide = Subject { label: "wide".into(), ..entry(AGENT, "/web", &["unix:uid:1"]) };
    check(&[twin("a"), twin("b")], &["error duplicate b"]);
    check(&[twin("a"), wide.clone()], &["warning shadowed a"]);
    check(
        &[wide, entry("/spire/agent/x/b2", "/web", &["unix:uid:1", "unix:gid:2"])],
        &["warning parent_unattested /web"],
    );
    check(&[entry(AGENT, "/web", &["unix:uid:1"]), entry(AGENT, "/web", &["unix:uid:2"])], &[]);
}

#[test]
fn of_two_entries_with_one_hint_the_newer_is_told_of() {
    let hinted = |path: &str, selectors: &[&str], created_at: i64| {
        let mut subject = entry(AGENT, path, selectors);
        subject.entry.hint = "internal".into();
        subject.entry.created_at = created_at;
        subject
    };
    let (wide, narrow) = (&["unix:uid:1"][..], &["unix:uid:1", "unix:gid:2"][..]);
    check(&[hinted("/a", wide, 5), hinted("/b", narrow, 6)], &["warning hint_hidden /b"]);
    check(&[hinted("/a", wide, 7), hinted("/b", narrow, 6)], &["warning hint_hidden /a"]);
    check(&[hinted("/a", wide, 7), hinted("/b", wide, 6)], &["warning hint_hidden /a"]);
    check(&[hinted("/a", wide, 7), hinted("/b", &["unix:uid:2"], 6)], &[]);
}

#[test]
fn parents_that_nothing_leads_to_are_errors() {
    check(&[entry("/nowhere", "/web", &["unix:uid:1"])], &["error parent_unreachable /web"]);
    check(
        &[entry("/a", "/b", &["unix:uid:1"]), entry("/b", "/a", &["unix:uid:1"])],
        &["error parent_unreachable /a", "error parent_unreachable /b"],
    );
    // In a file alone it may be the server that knows the parent.
    check_with(
        &Facts::default(),
        &[entry("/nowhere", "/web", &["unix:uid:1"])],
        &["warning parent_unreachable /web"],
    );
    let known = Facts { others: vec![entry("/spire/server", "/nowhere", &["a:b"]).entry], ..facts() };
    check_with(&known, &[entry("/nowhere", "/web", &["unix:uid:1"])], &[]);
    let circle = Facts { others: vec![entry("/web", "/nowhere", &["a:b"]).entry], ..facts() };
    check_with(&circle, &[entry("/nowhere", "/web", &["unix:uid:1"])], &["error parent_unreachable /web"]);
}

#[test]
fn agents_that_are_gone_or_kept_out_are_told() {
    let web = [entry(AGENT, "/web", &["unix:uid:1"])];
    let standing = |change: fn(&mut AgentFact)| {
        let mut facts = facts();
        facts.agents.iter_mut().flatten().for_each(change);
        facts
    };
    check_with(&standing(|agent| agent.banned = true), &web, &["warning agent_banned /web"]);
    let ended = |agent: &mut AgentFact| agent.expires_at = Timestamp::from_unix_secs(NOW);
    check_with(&standing(ended), &web, &["warning agent_expired /web"]);
    check(
        &[entry("/spire/agent/x509pop/other", "/web", &["unix:uid:1"])],
        &["warning parent_unattested /web"],
    );
    check_with(&Facts::default(), &web, &[]);
    check(&[entry("/spire/server", "/node", &["x509pop:subject:cn:b"])], &["note alias_unmatched /node"]);
}

#[test]
fn lifetimes_are_held_against_the_authority() {
    let ttl = |secs: i32| [changed(|entry| entry.x509_svid_ttl = secs)];
    check(&ttl(24 * 3600), &["warning ttl_beyond_ca /web"]);
    check(&ttl(24 * 3600 + 1), &["error ttl_beyond_ca /web"]);
    check(&ttl(59), &["warning ttl_short /web"]);
    check(&[changed(|entry| entry.jwt_svid_ttl = 5)], &["warning ttl_short /web"]);
    check_with(&Facts::default(), &ttl(1 << 30), &[]);
}

#[test]
fn odd_dns_names_are_told() {
    let names =
        |names: &[&str]| [changed(|entry| entry.dns_names = names.iter().map(|n| (*n).into()).collect())];
    check(&names(&["10.0.0.1"]), &["warning dns_name /web"]);
    check(&names(&["*.com"]), &["warning dns_name /web"]);
    check(&names(&["Web.example.org"]), &["warning dns_name /web"]);
    check(&names(&["a.example.org", "A.example.org"]), &["warning dns_name /web"]);
    check(&names(&["a.example.org", "*.example.org"]), &["note dns_name /web"]);
    check(&names(&["a_b.example.org"]), &["error invalid /web"]);
}

#[test]
fn what_has_ended_or_cannot_be_stored_or_verified_is_told() {
    check(&[changed(|entry| entry.expires_at = NOW)], &["warning entry_expired /web"]);
    check(&[changed(|entry| entry.selectors.clear())], &["error invalid /web"]);
    check(&[changed(|entry| entry.spiffe_id = id("/spire/x"))], &["error invalid /web"]);
    let facts = Facts { without_bundle: ["other.org".to_owned()].into(), ..facts() };
    let federated = [changed(|entry| entry.federates_with = vec!["other.org".into(), "third.org".into()])];
    check_with(&facts, &federated, &["error bundle_missing /web"]);
    let foreign = Facts { trust_domain: Some("other.org".parse().unwrap()), ..Facts::default() };
    check_with(&foreign, &[changed(|_| ())], &["error invalid /web"]);
}

#[test]
fn the_gravest_come_first() {
    let subjects = [
        entry("/spire/server", "/alias", &["x509pop:subject:cn:b"]),
        entry(AGENT, "/b", &["unx:uid:1"]),
        entry("/nowhere", "/a", &["unix:uid:1"]),
    ];
    check(
        &subjects,
        &["error parent_unreachable /a", "warning selector_type /b", "note alias_unmatched /alias"],
    );
}
