use super::*;
use crate::roles::PathPrefix;

const DEFAULTS: DefaultTtls = DefaultTtls { x509_svid_secs: 3600, jwt_svid_secs: 300 };

fn id(path: &str) -> SpiffeId {
    format!("spiffe://example.org{path}").parse().unwrap()
}

fn entry(spiffe_id: &str, parent_id: &str) -> EntryFacts {
    EntryFacts {
        spiffe_id: id(spiffe_id),
        parent_id: id(parent_id),
        x509_svid_ttl_secs: 0,
        jwt_svid_ttl_secs: 0,
        admin: false,
        downstream: false,
    }
}

fn rules() -> EntryRules {
    let prefix: PathPrefix = "/ci/".parse().unwrap();
    EntryRules {
        path_prefix: prefix.clone(),
        parent_path_prefix: "/nodes/".parse().unwrap(),
        verbs: Verb::ALL.to_vec(),
        max_x509_svid_ttl_secs: None,
        max_jwt_svid_ttl_secs: None,
        allow_admin: false,
        allow_downstream: false,
    }
}

/// `/ci/root` leads to an administrator, `/ci/sub` to a downstream server.
fn power(of: &SpiffeId) -> Power {
    Power { admin: of.path() == "/ci/root", downstream: of.path() == "/ci/sub" }
}

/// `/ci/cluster` has `/prod/db` below it.
fn below(of: &SpiffeId, prefix: &PathPrefix) -> Result<(), RoleRefusal> {
    let (id_, below) = (of.clone(), id("/prod/db"));
    match of.path() == "/ci/cluster" && !prefix.covers(&below) {
        true => Err(RoleRefusal::Below { id: id_, below, prefix: prefix.as_str().into() }),
        false => Ok(()),
    }
}

const OTHERS: Others<'_> = Others { power_of: &power, check_below: &below };

#[track_caller]
fn check(grants: &[Grant], change: &Change, expected: Result<(), Reason>) {
    let outcome = permits(grants, change, DEFAULTS, OTHERS).map_err(|refusal| refusal.reason());
    assert_eq!(outcome, expected, "{change:?}");
}

#[track_caller]
fn check_one(rules: EntryRules, change: &Change, expected: Result<(), Reason>) {
    check(&[Grant::Registrar(rules)], change, expected);
}

fn good() -> EntryFacts {
    entry("/ci/build", "/nodes/a")
}

#[test]
fn only_the_verbs_that_were_given_are_covered() {
    let changes = || [Change::Create(good()), Change::Update(good(), good()), Change::Delete(good())];
    for given in Verb::ALL {
        for change in changes() {
            let expected = if change.verb() == given { Ok(()) } else { Err(Reason::RoleVerb) };
            check_one(EntryRules { verbs: vec![given], ..rules() }, &change, expected);
        }
    }
    for change in changes() {
        check_one(rules(), &change, Ok(()));
        check(&[Grant::Operator], &change, Ok(()));
        check(&[Grant::Reader], &change, Err(Reason::RoleVerb));
        check(&[], &change, Err(Reason::RoleVerb));
    }
}

#[test]
fn an_entry_lies_within_both_prefixes_before_and_after() {
    let outside = [
        (entry("/web", "/nodes/a"), Reason::RolePath),
        (entry("/ci", "/nodes/a"), Reason::RolePath),
        (entry("/cider/a", "/nodes/a"), Reason::RolePath),
        (entry("/ci/build", "/ci/a"), Reason::RoleParent),
        (entry("/ci/build", "/spire/server"), Reason::RoleParent),
        (entry("/ci/build", "/spire/agent/x/1"), Reason::RoleParent),
        (entry("/ci/build", "/nodes"), Reason::RoleParent),
    ];
    for (entry, reason) in outside {
        check_one(rules(), &Change::Create(entry.clone()), Err(reason));
        check_one(rules(), &Change::Update(good(), entry.clone()), Err(reason));
        check_one(rules(), &Change::Update(entry.clone(), good()), Err(reason));
        check_one(rules(), &Change::Update(entry.clone(), entry.clone()), Err(reason));
        check_one(rules(), &Change::Delete(entry.clone()), Err(reason));
        check(&[Grant::Operator], &Change::Create(entry), Ok(()));
    }
}

#[test]
fn an_entry_is_not_moved_from_one_role_into_another() {
    let grants = ["/a/", "/b/"]
        .map(|prefix| Grant::Registrar(EntryRules { path_prefix: prefix.parse().unwrap(), ..rules() }));
    let (a, b) = (entry("/a/x", "/nodes/a"), entry("/b/x", "/nodes/a"));
    check(&grants, &Change::Create(a.clone()), Ok(()));
    check(&grants, &Change::Create(b.clone()), Ok(()));
    check(&grants, &Change::Update(a, b), Err(Reason::RolePath));
}

#[test]
fn flags_are_covered_only_when_the_role_says_so() {
    let admin = EntryFacts { admin: true, ..good() };
    let downstream = EntryFacts { downstream: true, ..good() };
    for flagged in [admin.clone(), downstream.clone()] {
        let changes = [
            Change::Create(flagged.clone()),
            Change::Update(good(), flagged.clone()),
            Change::Update(flagged.clone(), good()),
            Change::Delete(flagged),
        ];
        for change in changes {
            check_one(rules(), &change, Err(Reason::RoleFlag));
            check(&[Grant::Operator], &change, Err(Reason::RoleFlag));
        }
    }
    let (may_admin, may_downstream) =
        (EntryRules { allow_admin: true, ..rules() }, EntryRules { allow_downstream: true, ..rules() });
    check_one(may_admin.clone(), &Change::Create(admin.clone()), Ok(()));
    check_one(may_admin, &Change::Create(downstream.clone()), Err(Reason::RoleFlag));
    check_one(may_downstream.clone(), &Change::Create(downstream), Ok(()));
    check_one(may_downstream, &Change::Create(admin), Err(Reason::RoleFlag));
}

#[test]
fn a_ttl_is_within_the_limit_and_none_is_the_servers_default() {
    let limited = |secs| EntryRules { max_x509_svid_ttl_secs: Some(secs), ..rules() };
    let of = |secs| EntryFacts { x509_svid_ttl_secs: secs, ..good() };
    for (max, secs, expected) in [
        (60, 60, Ok(())),
        (60, 61, Err(Reason::RoleTtl)),
        (3600, 0, Ok(())),
        (3599, 0, Err(Reason::RoleTtl)),
        (1, u32::MAX, Err(Reason::RoleTtl)),
    ] {
        check_one(limited(max), &Change::Create(of(secs)), expected);
        check_one(limited(max), &Change::Update(good(), of(secs)), expected);
    }
    check_one(limited(1), &Change::Update(of(100), of(1)), Ok(()));
    check_one(limited(1), &Change::Delete(of(100)), Ok(()));
    check_one(rules(), &Change::Create(of(u32::MAX)), Ok(()));
    let jwt = EntryRules { max_jwt_svid_ttl_secs: Some(299), ..rules() };
    check_one(jwt.clone(), &Change::Create(good()), Err(Reason::RoleTtl));
    check_one(jwt, &Change::Create(EntryFacts { jwt_svid_ttl_secs: 299, ..good() }), Ok(()));
}

#[test]
fn an_identity_that_leads_to_power_is_covered_by_no_role_that_has_not_that_power() {
    for (path, may) in [
        ("/ci/root", EntryRules { allow_admin: true, ..rules() }),
        ("/ci/sub", EntryRules { allow_downstream: true, ..rules() }),
    ] {
        let powerful = entry(path, "/nodes/a");
        let changes = [
            Change::Create(powerful.clone()),
            Change::Update(good(), powerful.clone()),
            Change::Update(powerful.clone(), good()),
        ];
        for change in changes {
            check_one(rules(), &change, Err(Reason::RolePower));
            check(&[Grant::Operator], &change, Err(Reason::RolePower));
            check_one(may.clone(), &change, Ok(()));
        }
        check_one(rules(), &Change::Delete(powerful), Ok(()));
    }
}

#[test]
fn an_identity_is_not_given_with_one_outside_the_prefix_below_it() {
    let cluster = entry("/ci/cluster", "/nodes/a");
    for change in [
        Change::Create(cluster.clone()),
        Change::Update(good(), cluster.clone()),
        Change::Update(cluster.clone(), cluster.clone()),
    ] {
        check_one(rules(), &change, Err(Reason::RolePath));
        check_one(EntryRules { path_prefix: PathPrefix::all(), ..rules() }, &change, Ok(()));
        check(&[Grant::Operator], &change, Ok(()));
    }
    // It is taken from somebody.
    check_one(rules(), &Change::Update(cluster.clone(), good()), Ok(()));
    check_one(rules(), &Change::Delete(cluster), Ok(()));
}

#[test]
fn the_refusal_is_that_of_the_grant_that_came_closest() {
    let create_only = Grant::Registrar(EntryRules { verbs: vec![Verb::Create], ..rules() });
    let elsewhere = Grant::Registrar(EntryRules { path_prefix: "/web/".parse().unwrap(), ..rules() });
    let short = Grant::Registrar(EntryRules { max_x509_svid_ttl_secs: Some(60), ..rules() });
    let change = Change::Update(good(), good());
    let all = [Grant::Reader, create_only, elsewhere, short];
    for (count, reason) in
        [Reason::RoleVerb, Reason::RoleVerb, Reason::RolePath, Reason::RoleTtl].iter().enumerate()
    {
        check(&all[..=count], &change, Err(*reason));
    }
    let outcome = permits(&all, &change, DEFAULTS, OTHERS).expect_err("too long");
    assert_eq!(outcome.to_string(), "a TTL of 3600 s for X509-SVIDs is beyond the role's limit of 60 s");
}
