use super::*;
use crate::testing::Screen;

fn state(id: &str, upstream: &str) -> wire::AuthorityState {
    wire::AuthorityState {
        authority_id: id.into(),
        expires_at: 1_790_000_000,
        upstream_authority_subject_key_id: upstream.into(),
    }
}

#[test]
fn x509_authorities_are_shown_in_spires_words() {
    let states = States { active: Some(state("aa", "cc")), prepared: None, old: Some(state("bb", "")) };
    let screen = Screen::show(|console| Ok(Family::X509.print_all(console, &states)?));
    let expected = "Active X.509 authority:\n  Authority ID: aa\n  Expires at: 2026-09-21 14:13:20 +0000 UTC\n  \
                    Upstream authority Subject Key ID: cc\n\nPrepared X.509 authority:\n  \
                    No prepared X.509 authority found\n\nOld X.509 authority:\n  Authority ID: bb\n  \
                    Expires at: 2026-09-21 14:13:20 +0000 UTC\n  Upstream authority ID: No upstream authority\n";
    assert_eq!(screen.out, expected);
    let json = "{\"active\":{\"authority_id\":\"aa\",\"expires_at\":\"1790000000\",\
                \"upstream_authority_subject_key_id\":\"cc\"},\"old\":{\"authority_id\":\"bb\",\
                \"expires_at\":\"1790000000\",\"upstream_authority_subject_key_id\":\"\"}}";
    assert_eq!(states.to_json().to_string(), json);
}

#[test]
fn authorities_of_tokens_are_shown_without_an_upstream_line() {
    let states = States { active: Some(state("aa", "")), prepared: Some(state("bb", "")), old: None };
    for (family, name) in [(Family::Jwt, "JWT"), (Family::Wit, "WIT")] {
        let screen = Screen::show(|console| Ok(family.print_all(console, &states)?));
        let expected = format!(
            "Active {name} authority:\n  Authority ID: aa\n  Expires at: 2026-09-21 14:13:20 +0000 UTC\n\n\
             Prepared {name} authority:\n  Authority ID: bb\n  Expires at: 2026-09-21 14:13:20 +0000 UTC\n\n\
             Old {name} authority:\n  No old {name} authority found\n"
        );
        assert_eq!(screen.out, expected);
    }
    let json = "{\"active\":{\"authority_id\":\"aa\",\"expires_at\":\"1790000000\",\
                \"upstream_authority_subject_key_id\":\"\"},\"prepared\":{\"authority_id\":\"bb\",\
                \"expires_at\":\"1790000000\",\"upstream_authority_subject_key_id\":\"\"}}";
    assert_eq!(states.to_json().to_string(), json);
}

#[test]
fn each_step_names_the_authority_it_was_done_to() {
    let id = || "aa".to_owned();
    for (order, done) in [
        (Order::Prepare, "Prepared"),
        (Order::Activate(id()), "Activated"),
        (Order::Taint(id()), "Tainted"),
        (Order::Revoke(id()), "Revoked"),
    ] {
        let (_, key) = order.names();
        let changed = Changed { done: key, state: Some(state("aa", "")) };
        let screen = Screen::show(|console| Family::Jwt.print_one(console, &changed));
        let expected = format!(
            "{done} JWT authority:\n  Authority ID: aa\n  Expires at: 2026-09-21 14:13:20 +0000 UTC\n"
        );
        assert_eq!(screen.out, expected);
        let json = changed.to_json().to_string();
        assert!(json.starts_with(&format!("{{\"{key}_authority\":{{\"authority_id\":\"aa\"")), "{json}");
    }
    let nothing =
        Screen::show(|console| Family::X509.print_one(console, &Changed { done: "tainted", state: None }));
    assert!(nothing.result.is_err() && nothing.out.is_empty());
}

#[test]
fn a_step_without_an_id_says_which_command_prints_ids() {
    let none = OneArgs { call: Call::default(), authority_id: None };
    for (family, command) in [(Family::X509, "x509"), (Family::Jwt, "jwt"), (Family::Wit, "wit")] {
        let failure = none.id(family).expect_err("no ID");
        let expected = format!("localauthority {command} show");
        assert!(failure.remedies().iter().any(|text| text.contains(&expected)), "{failure:?}");
    }
}
