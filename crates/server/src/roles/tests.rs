use spindle_proto::admin::v1 as wire;
use spindle_proto::records::v1 as records;

use super::*;

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn registrar() -> wire::Grant {
    wire::Grant {
        role: "registrar".into(),
        path_prefix: "/ci/".into(),
        verbs: vec!["update".into(), "create".into(), "update".into()],
        max_x509_svid_ttl: 60,
        allow_downstream: true,
        ..Default::default()
    }
}

#[test]
fn a_prefix_counts_whole_segments() {
    let cases = [
        ("/ci/", "/ci/a", true),
        ("/ci/", "/ci/a/b", true),
        ("/ci/", "/ci", false),
        ("/ci/", "/cider", false),
        ("/ci", "/ci", true),
        ("/ci", "/ci/a", true),
        ("/ci", "/cider", false),
        ("/ci/a", "/ci", false),
        ("/ci/a", "/ci/ab", false),
        ("/", "/ci", true),
        ("/", "/spire/server", true),
        ("/", "", false),
        ("/ci", "", false),
    ];
    for (prefix, path, expected) in cases {
        let prefix: PathPrefix = prefix.parse().unwrap();
        assert_eq!(prefix.covers(&id(&format!("spiffe://example.org{path}"))), expected, "{prefix:?} {path}");
    }
    assert!(PathPrefix::all().covers(&id("spiffe://example.org/a")));
}

#[test]
fn what_no_path_begins_with_is_no_prefix() {
    let long = format!("/{}", "a".repeat(ID_BYTES_MAX));
    for text in ["", "ci", "ci/", "//", "/ci//", "/a//b", "/../x", "/.", "/a b", "/ä", "/a%2f", "/*", &long]
    {
        assert!(matches!(text.parse::<PathPrefix>(), Err(RoleError::Prefix(..))), "{text:?}");
    }
}

#[test]
fn a_subject_is_an_identity_or_a_local_user_or_group() {
    for (text, expected) in [
        ("spiffe://other.example/ci", RoleSubject::Identity(id("spiffe://other.example/ci"))),
        ("unix:uid:1001", RoleSubject::Uid(1001)),
        ("unix:gid:0", RoleSubject::Gid(0)),
    ] {
        let subject: RoleSubject = text.parse().unwrap();
        assert_eq!(subject, expected);
        assert_eq!(subject.to_string(), text);
    }
    for text in [
        "",
        "ci",
        "unix:uid:",
        "unix:uid:-1",
        "unix:uid:root",
        "unix:gid:4294967296",
        "unix:user:me",
        "spiffe://A/b",
    ] {
        assert!(text.parse::<RoleSubject>().is_err(), "{text:?}");
    }
}

#[test]
fn a_grant_survives_the_wire_and_the_store() {
    let grant = grant_from_wire(&registrar()).unwrap();
    let Grant::Registrar(rules) = &grant else { panic!("{grant:?}") };
    assert_eq!(rules.verbs, [Verb::Create, Verb::Update]);
    assert_eq!((rules.max_x509_svid_ttl_secs, rules.max_jwt_svid_ttl_secs), (Some(60), None));
    assert_eq!(rules.parent_path_prefix, rules.path_prefix, "parents are not left open");
    assert!(rules.allow_downstream && !rules.allow_admin);
    for grant in [grant, Grant::Reader, Grant::Operator] {
        assert_eq!(grant_from_wire(&grant_to_wire(&grant)).unwrap(), grant);
        assert_eq!(grant_from_record(grant_to_record(&grant)).unwrap(), grant);
    }
    assert!(grant_from_record(records::GrantRecord::default()).is_err());
}

#[test]
fn a_grant_that_says_too_little_or_too_much_is_refused() {
    let refused = |change: fn(&mut wire::Grant)| {
        let mut wire = registrar();
        change(&mut wire);
        grant_from_wire(&wire).expect_err("refused")
    };
    assert!(matches!(refused(|grant| grant.role.clear()), RoleError::Role(_)));
    assert!(matches!(refused(|grant| grant.role = "Reader".into()), RoleError::Role(_)));
    assert!(matches!(refused(|grant| grant.path_prefix.clear()), RoleError::Prefix(..)));
    assert!(matches!(refused(|grant| grant.parent_path_prefix = "ci".into()), RoleError::Prefix(..)));
    assert_eq!(refused(|grant| grant.verbs.clear()), RoleError::NoVerbs);
    assert_eq!(refused(|grant| grant.verbs.push("ban".into())), RoleError::Verb("ban".into()));
    assert_eq!(refused(|grant| grant.role = "reader".into()), RoleError::NoLimits(Role::Reader));
    assert_eq!(refused(|grant| grant.role = "operator".into()), RoleError::NoLimits(Role::Operator));
}
