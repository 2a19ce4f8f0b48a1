use super::*;
use crate::error::Failure;
use crate::hcl;

const REQUIRED: &str = "trust_domain = \"example.org\"\n server_address = \"s\"\n server_port = 8081\n";
const TRUST: &str = "trust_bundle_path = \"/b\"\n";
const UNIX: &str = "plugins { WorkloadAttestor \"unix\" {} }";

fn load(text: &str) -> Result<AgentSettings, ConfigError> {
    RawAgent::read(&hcl::parse(text).expect("well formed"))?.try_into()
}

fn with(more: &str, below: &str) -> Result<AgentSettings, ConfigError> {
    let attestor = if below.contains("WorkloadAttestor") { "" } else { UNIX };
    load(&format!("agent {{\n {REQUIRED} {more}\n}}\n{below}\n{attestor}"))
}

fn ready(more: &str, below: &str) -> AgentSettings {
    with(&format!("{TRUST} {more}"), below).unwrap_or_else(|fault| panic!("{more} {below}: {fault}"))
}

fn refused(more: &str, below: &str, expected: &str) {
    let fault = with(more, below).expect_err(&format!("{more} {below}")).to_string();
    assert!(fault.contains(expected), "{more} {below}: {fault}");
}

#[test]
fn spires_defaults_hold_when_only_the_required_keys_are_set() {
    let settings = ready("", "");
    assert_eq!(settings.sockets.socket_path, PathBuf::from("/tmp/spire-agent/public/api.sock"));
    assert_eq!((settings.data_dir, settings.server_port), (PathBuf::from("."), 8081));
    assert_eq!(settings.bootstrap.trust, TrustChoice::File("/b".into(), BundleFormat::Pem));
    assert_eq!(settings.keys, KeyChoice::Disk(".".into()));
    assert_eq!(settings.workload_key_type, KeyType::EcP256);
    assert_eq!((settings.bootstrap.join_token, settings.unix), (None, UnixChoice::default()));
}

#[test]
fn the_printed_defaults_are_the_defaults() {
    let text = print_defaults().replacen("agent {", &format!("agent {{\n{REQUIRED}{TRUST}"), 1);
    assert_eq!(load(&text).expect("prints what it reads"), ready("", ""));
}

#[test]
fn every_supported_key_is_obeyed() {
    let settings = with(
        r#"data_dir = "/d" socket_path = "/s" trust_bundle_url = "https://x/b" trust_bundle_format = "spiffe"
           join_token_file = "/t" workload_x509_svid_key_type = "rsa-2048" log_level = "trace"
           allow_unauthenticated_verifiers = true experimental { sync_interval = "9s" }"#,
        r#"plugins {
             KeyManager "memory" { plugin_data {} }
             NodeAttestor "join_token" { plugin_data {} }
             WorkloadAttestor "unix" { plugin_data { discover_workload_path = true workload_size_limit = 5 } }
           }"#,
    )
    .expect("all known");
    let (url, format) = ("https://x/b".into(), BundleFormat::Spiffe);
    assert_eq!(settings.bootstrap.trust, TrustChoice::Url { url, unix_socket: None, format });
    assert_eq!(
        (settings.experimental.sync_interval, settings.allow_unauthenticated_verifiers),
        (Duration::from_secs(9), true)
    );
    assert_eq!((settings.keys, settings.workload_key_type), (KeyChoice::Memory, KeyType::Rsa2048));
    assert_eq!(settings.unix, UnixChoice { discover_workload_path: true, workload_size_limit: 5 });
    assert_eq!(settings.bootstrap.join_token_file, Some("/t".into()));
}

#[test]
fn exactly_one_way_to_trust_the_server_is_needed() {
    refused("", "", "is required");
    refused("insecure_bootstrap = false", "", "is required");
    refused("trust_bundle_path = \"/b\" trust_bundle_url = \"https://x\"", "", "cannot both be set");
    refused("trust_bundle_path = \"/b\" insecure_bootstrap = true", "", "cannot both be set");
    refused("trust_bundle_url = \"https://x\" insecure_bootstrap = true", "", "cannot both be set");
    refused("trust_bundle_url = \"http://x\"", "", "does not start with https://");
    refused(
        "trust_bundle_path = \"/b\" trust_bundle_format = \"der\"",
        "",
        "agent.trust_bundle_format: \"der\"",
    );
    refused(
        "trust_bundle_unix_socket = \"/s\" trust_bundle_url = \"https://x\"",
        "",
        "does not start with http://",
    );
    refused(
        "trust_bundle_unix_socket = \"/s\" insecure_bootstrap = true",
        "",
        "agent.trust_bundle_url (beside",
    );
    assert_eq!(with("insecure_bootstrap = true", "").unwrap().bootstrap.trust, TrustChoice::InsecureOnce);
}

#[test]
fn missing_keys_are_named() {
    for (text, key) in [
        ("", "agent.trust_domain is required"),
        ("agent {\n trust_domain = \"a\"\n}", "agent.server_address is required"),
        ("agent {\n trust_domain = \"a\" server_address = \"s\"\n}", "agent.server_port is required"),
    ] {
        assert_eq!(load(text).expect_err(text).to_string(), key);
    }
}

#[test]
fn unknown_and_unsupported_keys_are_refused() {
    refused("trust_bundel_path = \"/b\"", "", "did you mean trust_bundle_path?");
    refused("bind_port = 1", "", "agent.bind_port (line 5) is not a known key");
    refused("", "server {}", "server (line 7) is not a known key");
    refused("sds { default_name = \"x\" }", "", "agent.sds.default_name");
    refused("experimental { nosuch = 1 }", "", "agent.experimental.nosuch");
    refused("caller_limits { calls = 1 }", "", "agent.caller_limits.calls");
    refused("caller_limits { calls_per_user = 0 }", "", "0 leaves callers no room");
    refused("experimental { ratelimit { fetch = 1 } }", "", "agent.experimental.ratelimit.fetch");
    refused("experimental { broker { socketpath = 1 } }", "", "did you mean socket_path?");
    refused("experimental { named_pipe_name = \"x\" }", "", "use socket_path");
    refused("", "health_checks { port = 1 }", "health_checks.port");
    refused("", "telemetry { Prometheus { prt = 1 } }", "telemetry.Prometheus.prt");
    refused("", "plugins { WorkloadAttestor \"docker\" {} }", "use WorkloadAttestor \"unix\"");
    refused("", "plugins { WorkloadAttestor \"unx\" {} }", "did you mean unix?");
    refused(
        "",
        "plugins { WorkloadAttestor \"unix\" { plugin_data { discover_path = 1 } } }",
        "discover_path",
    );
    refused("", "plugins { WorkloadAttestor \"unix\" {} WorkloadAttestor \"unix\" {} }", "is set twice");
    refused("", "plugins { KeyManager \"disk\" {} }", "plugin_data.directory is required");
    refused("", "plugins { DataStore \"sled\" {} }", "plugins.DataStore (line 7) is not a known key");
}

#[test]
fn an_agent_needs_a_workload_attestor_that_is_switched_on() {
    let without = [
        "",
        "plugins { KeyManager \"memory\" {} }",
        "plugins { WorkloadAttestor \"unix\" { enabled = false plugin_data {} } }",
        "plugins { WorkloadAttestor \"unix\" { enabled = \"false\" } WorkloadAttestor \"k8s\" { enabled = false } }",
    ];
    for plugins in without {
        let text = format!("agent {{\n {REQUIRED} {TRUST}\n}}\n{plugins}");
        let failure = Failure::from(load(&text).expect_err(plugins));
        assert!(failure.what().starts_with("no WorkloadAttestor is configured"), "{plugins}: {failure}");
        assert!(failure.remedies()[0].contains("WorkloadAttestor \"unix\""), "{:?}", failure.remedies());
    }
}

#[test]
fn a_disabled_plugin_may_be_one_that_is_not_there_yet_but_not_a_misspelt_one() {
    let k8s = |block: &str| format!("{UNIX} plugins {{ WorkloadAttestor \"k8s\" {{ {block} }} }}");
    ready("", &k8s("enabled = false plugin_cmd = \"/x\" plugin_data { token_path = \"/t\" }"));
    refused(TRUST, &k8s("enabled = false plugin_dta {}"), "did you mean plugin_data?");
    let nearly = format!("{UNIX} plugins {{ WorkloadAttestor \"dokcer\" {{ enabled = false }} }}");
    refused(TRUST, &nearly, "did you mean docker?");
}

#[test]
fn bad_values_are_refused_by_key() {
    let refused = |more: &str, expected: &str| refused(&format!("{TRUST} {more}"), "", expected);
    refused("join_token = \"a\" join_token_file = \"b\"", "cannot both be set");
    refused("workload_x509_svid_key_type = \"dsa\"", "agent.workload_x509_svid_key_type");
    refused("log_level = \"loud\"", "agent.log_level");
    refused("experimental { sync_interval = \"0s\" }", "would never rest");
    refused("experimental { sync_interval = \"5\" }", "lacks a unit");
    refused("insecure_bootstrap = \"maybe\"", "agent.insecure_bootstrap");
    let text = "agent {\n trust_domain = \"a\" server_address = \"s\" server_port = 0\n}";
    assert!(load(text).expect_err(text).to_string().contains("0 is no port to call"));
}

#[test]
fn harmless_keys_are_taken_with_a_note() {
    let settings = ready(
        "rebootstrap_mode = \"never\" profiling_enabled = true experimental { sync_interval = \"5s\" }",
        "",
    );
    assert_eq!(settings.notes.len(), 1, "{:?}", settings.notes);
    assert!(ready("profiling_enabled = false", "").notes.is_empty());
}

#[test]
fn a_join_token_never_shows_in_debug_output() {
    let settings = ready("join_token = \"secret-token\"", "");
    assert!(!format!("{settings:?}").contains("secret-token"));
    assert_eq!(settings.bootstrap.join_token.unwrap().reveal(), "secret-token");
}

/// What stands in `plugin_data` of the agent's x509pop attestor.
fn x509pop(data: &str) -> String {
    format!("{UNIX} plugins {{ NodeAttestor \"x509pop\" {{ plugin_data {{ {data} }} }} }}")
}

#[test]
fn a_node_with_a_certificate_names_its_files_or_a_workload_api() {
    let choice = |data: &str| ready("", &x509pop(data)).x509pop.expect(data);
    let files = |intermediates: Option<&str>| X509PopChoice::Files {
        private_key: "/k".into(),
        certificate: "/c".into(),
        intermediates: intermediates.map(PathBuf::from),
    };
    assert_eq!(choice("private_key_path = \"/k\" certificate_path = \"/c\""), files(None));
    let all = "private_key_path = \"/k\" certificate_path = \"/c\" intermediates_path = \"/i\"";
    assert_eq!(choice(all), files(Some("/i")));
    for endpoint in ["unix:///s", "unix:/s", "/s"] {
        let data = format!("spiffe_endpoint_socket = \"{endpoint}\"");
        assert_eq!(choice(&data), X509PopChoice::WorkloadApi("/s".into()), "{endpoint}");
    }
    assert_eq!(ready("", "").x509pop, None);
    let both = format!("{all} spiffe_endpoint_socket = \"/s\"");
    let notes = ready("", &x509pop(&both)).notes;
    assert!(notes.len() == 1 && notes[0].contains("the certificate files have no effect"), "{notes:?}");
    let notes = ready("join_token = \"t\"", &x509pop(all)).notes;
    assert!(notes.len() == 1 && notes[0].contains("NodeAttestor \"x509pop\" has no effect"), "{notes:?}");
}

#[test]
fn x509pop_without_a_certificate_and_two_attestors_are_refused() {
    let refused = |data: &str, expected: &str| refused(TRUST, &x509pop(data), expected);
    refused("", "plugins.NodeAttestor.x509pop.plugin_data.private_key_path is required");
    refused("private_key_path = \"/k\"", "plugin_data.certificate_path is required");
    refused("spiffe_endpoint_socket = \"tcp://127.0.0.1:1\"", "is no socket; write unix://");
    refused("spiffe_endpoint_socket = \"unix:relative\"", "is no socket");
    refused("private_key = \"/k\"", "is not a known key");
    let two = "plugins { NodeAttestor \"join_token\" {} NodeAttestor \"x509pop\" {} }";
    let fault = with(TRUST, &format!("{UNIX} {two}")).expect_err("an agent has one").to_string();
    assert!(fault.contains("plugins.NodeAttestor") && fault.contains("is set twice"), "{fault}");
}

mod more;
