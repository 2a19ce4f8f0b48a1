use super::*;
use crate::output::json::ToJson;
use crate::testing::Screen;

fn agent(banned: bool) -> types::Agent {
    let selector = types::Selector { r#type: "spiffe_id".into(), value: "spiffe://example.org/node".into() };
    types::Agent {
        id: Some(types::Spiffeid {
            trust_domain: "example.org".into(),
            path: "/spire/agent/join_token/x".into(),
        }),
        attestation_type: "join_token".into(),
        x509svid_serial_number: "1234".into(),
        x509svid_expires_at: 1_700_000_000,
        selectors: vec![selector],
        banned,
        can_reattest: false,
        agent_version: if banned { String::new() } else { "0.1.0".into() },
    }
}

#[test]
fn agents_are_listed_with_spires_labels() {
    let screen = Screen::show(|console| pretty_list(console, &[agent(false), agent(true)]));
    assert_eq!(
        screen.out,
        "Found 2 attested agents:\n\
         \n\
         SPIFFE ID         : spiffe://example.org/spire/agent/join_token/x\n\
         Attestation type  : join_token\n\
         Expiration time   : 2023-11-14 22:13:20 +0000 UTC\n\
         Serial number     : 1234\n\
         Can re-attest     : false\n\
         Agent version     : 0.1.0\n\
         \n\
         SPIFFE ID         : spiffe://example.org/spire/agent/join_token/x\n\
         Attestation type  : join_token\n\
         Expiration time   : 2023-11-14 22:13:20 +0000 UTC\n\
         Banned            : true\n\
         Can re-attest     : false\n\
         \n"
    );
}

#[test]
fn no_agents_are_said_in_words() {
    assert_eq!(Screen::show(|console| pretty_list(console, &[])).out, "No attested agents found\n");
}

#[test]
fn one_agent_is_shown_with_its_selectors() {
    let screen = Screen::show(|console| pretty_show(console, &agent(false)));
    assert!(
        screen.out.starts_with("Found an attested agent given its SPIFFE ID\n\nSPIFFE ID "),
        "{}",
        screen.out
    );
    assert!(
        screen.out.ends_with("Selectors         : spiffe_id:spiffe://example.org/node\n"),
        "{}",
        screen.out
    );
}

#[test]
fn json_has_proto_names_and_long_numbers_as_text() {
    let response = ListAgentsResponse { agents: vec![agent(false)], next_page_token: String::new() };
    assert_eq!(
        response.to_json().to_string(),
        concat!(
            r#"{"agents":[{"agent_version":"0.1.0","attestation_type":"join_token","banned":false,"#,
            r#""can_reattest":false,"id":{"path":"/spire/agent/join_token/x","trust_domain":"example.org"},"#,
            r#""selectors":[{"type":"spiffe_id","value":"spiffe://example.org/node"}],"#,
            r#""x509svid_expires_at":"1700000000","x509svid_serial_number":"1234"}],"next_page_token":""}"#
        )
    );
    assert_eq!(().to_json().to_string(), "{}");
}

#[test]
fn an_agent_must_be_named() {
    let args = |text: &str| OneArgs {
        socket: Socket::default(),
        spiffe_id: Some(text.into()),
        output: Output { form: crate::args::OutputForm::Pretty },
    };
    assert!(id(&args("")).is_err());
    assert!(id(&args("example.org")).is_err());
    assert!(id(&args("spiffe://example.org/spire/agent/x")).is_ok());
}
