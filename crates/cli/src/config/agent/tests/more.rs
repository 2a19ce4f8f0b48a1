//! The keys of sockets, bootstrapping, limits, SDS, the broker and the kubelet.

use spindle_agent::config::{
    AllowedBroker, AllowedReferenceType, BrokerConfig, RateLimits, Rebootstrap, RebootstrapMode, SdsConfig,
};

use super::*;

#[test]
fn the_sockets_and_what_they_offer_are_as_written() {
    let sockets = ready(
        r#"socket_path = "/run/public/api.sock" admin_socket_path = "/run/private/admin.sock"
           disable_workload_api = true disable_sds_api = false
           authorized_delegates = ["spiffe://example.org/a", "spiffe://example.org/b"]
           sds { default_svid_name = "x" disable_spiffe_cert_validation = true }"#,
        "",
    )
    .sockets;
    assert_eq!(sockets.admin_socket_path, Some("/run/private/admin.sock".into()));
    assert_eq!((sockets.disable_workload_api, sockets.disable_sds_api), (true, false));
    let delegates: Vec<&str> = sockets.authorized_delegates.iter().map(|id| id.as_str()).collect();
    assert_eq!(delegates, ["spiffe://example.org/a", "spiffe://example.org/b"]);
    let sds = SdsConfig {
        default_svid_name: "x".into(),
        disable_spiffe_cert_validation: true,
        ..SdsConfig::default()
    };
    assert_eq!(sockets.sds, sds);
}

#[test]
fn a_delegate_is_a_workload_of_the_own_trust_domain() {
    for id in ["spiffe://other.example/a", "spiffe://example.org", "example.org/a"] {
        refused(&format!("{TRUST} authorized_delegates = [\"{id}\"]"), "", "agent.authorized_delegates");
    }
}

#[test]
fn wep_06_no_workload_is_served_over_the_network_where_nobody_could_tell_who_it_is() {
    for key in ["socket_path", "admin_socket_path"] {
        for address in ["tcp://127.0.0.1:8080", "unix:///run/api.sock"] {
            let text = format!("agent.{key}: \"{address}\" is an address");
            refused(&format!("{TRUST} {key} = \"{address}\""), "", &text);
        }
    }
}

#[test]
fn the_admin_and_the_broker_socket_keep_out_of_the_public_directory() {
    let broker =
        |path: &str| format!("experimental {{ broker {{ socket_path = \"{path}\" brokers = [] }} }}");
    let public = "socket_path = \"/run/agent/api.sock\"";
    for path in [
        "/run/agent/admin.sock",
        "/run/agent/below/admin.sock",
        "/run/./agent//admin.sock",
        "/run/x/../agent/admin.sock",
    ] {
        let refused = |more: &str, key: &str| refused(&format!("{TRUST} {public} {more}"), "", key);
        refused(&format!("admin_socket_path = \"{path}\""), "agent.admin_socket_path: /run/");
        refused(&broker(path), "agent.experimental.broker.socket_path: /run/");
    }
    for path in ["/run/agent-admin/admin.sock", "/run/admin.sock"] {
        ready(&format!("{public} admin_socket_path = \"{path}\" {}", broker(path)), "");
    }
    let off = "disable_workload_api = true disable_sds_api = true";
    ready(&format!("{public} {off} admin_socket_path = \"/run/agent/admin.sock\""), "");
}

#[test]
fn names_of_bundles_that_are_the_same_give_a_note() {
    let notes = ready("sds { default_all_bundles_name = \"ROOTCA\" }", "").notes;
    assert!(notes.len() == 1 && notes[0].contains("agent.sds.default_all_bundles_name"), "{notes:?}");
}

#[test]
fn the_bundle_may_come_from_another_agent_and_from_nowhere_else_then() {
    let api = "trust_bundle_spiffe_workload_api = \"unix:///run/other.sock\"";
    let settings = with(api, "").expect("one way");
    assert_eq!(settings.bootstrap.trust, TrustChoice::WorkloadApi("/run/other.sock".into()));
    for other in [
        "trust_bundle_path = \"/b\"",
        "trust_bundle_url = \"https://x\"",
        "trust_bundle_unix_socket = \"/s\"",
        "insecure_bootstrap = true",
    ] {
        refused(&format!("{api} {other}"), "", "cannot both be set");
    }
    let tcp = "trust_bundle_spiffe_workload_api = \"tcp://127.0.0.1:1\"";
    refused(tcp, "", "agent.trust_bundle_spiffe_workload_api: \"tcp://127.0.0.1:1\" is no socket");
}

#[test]
fn the_parameters_of_a_local_bundle_service_are_the_agents_to_set() {
    let url = |url: &str| format!("trust_bundle_unix_socket = \"/s\" trust_bundle_url = \"{url}\"");
    for query in ["a=b&spire-attest-mode=x", "spiffe-trust-domain=x"] {
        refused(&url(&format!("http://local/b?{query}")), "", "is a parameter that the agent sets");
    }
    with(&url("http://local/spire-b?a=spire-b"), "").expect("no such parameter");
}

#[test]
fn bootstrapping_again_has_three_modes_and_ten_minutes_of_patience() {
    let choice = |more: &str| ready(more, "").bootstrap.rebootstrap;
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    assert_eq!(choice(""), Rebootstrap { mode: RebootstrapMode::Never, delay: minutes(10) });
    let given = "rebootstrap_mode = \"auto\" rebootstrap_delay = \"3m\"";
    assert_eq!(choice(given), Rebootstrap { mode: RebootstrapMode::Auto, delay: minutes(3) });
    assert_eq!(choice("rebootstrap_mode = \"always\"").mode, RebootstrapMode::Always);
    refused(&format!("{TRUST} rebootstrap_mode = \"Auto\""), "", "known: never, auto, always");
    refused(&format!("{TRUST} rebootstrap_delay = \"10\""), "", "agent.rebootstrap_delay");
    let insecure = "insecure_bootstrap = true rebootstrap_mode = \"auto\"";
    refused(insecure, "", "cannot be recognised again with agent.insecure_bootstrap");
}

#[test]
fn sizes_targets_and_rates_are_bounded() {
    let limits = ready(
        r#"x509_svid_cache_max_size = 7 availability_target = "24h" jwt_svid_cache_max_size = 0
           experimental { ratelimit { fetch_x509_svid = 5 fetch_secrets = 6 } }"#,
        "",
    )
    .limits;
    let rates = RateLimits { fetch_x509_svid: 5, fetch_secrets: 6, ..RateLimits::default() };
    assert_eq!((limits.x509_svid_cache_max_size, limits.rate_limits), (7, rates));
    assert_eq!(limits.availability_target, Some(Duration::from_secs(86400)));
    let refused = |more: &str, expected: &str| refused(&format!("{TRUST} {more}"), "", expected);
    refused("x509_svid_cache_max_size = -1", "agent.x509_svid_cache_max_size: -1 is less than nothing");
    refused("jwt_svid_cache_max_size = -1", "agent.jwt_svid_cache_max_size: -1 is less than nothing");
    refused("availability_target = \"23h59m\"", "it must be at least 24h");
    refused("experimental { ratelimit { fetch_jwt_svid = -1 } }", "ratelimit.fetch_jwt_svid: -1");
}

#[test]
fn the_wait_for_a_fresh_token_is_at_least_five_and_less_than_thirty_seconds() {
    let timeout = |text: &str| format!("experimental {{ jwt_svid_cache_hit_timeout = \"{text}\" }}");
    for (text, secs) in [("5s", 5), ("29s", 29)] {
        assert_eq!(ready(&timeout(text), "").jwt.cache_hit_timeout, Duration::from_secs(secs));
    }
    for text in ["4999ms", "30s"] {
        refused(&format!("{TRUST} {}", timeout(text)), "", "is not between 5s and 30s");
    }
    let claims = ready("allowed_foreign_jwt_claims = [\"email\"]", "").jwt.allowed_foreign_claims;
    assert_eq!(claims, ["email"]);
}

#[test]
fn feature_flags_are_those_that_spire_knows() {
    let flags = "experimental { feature_flags = [\"wit-svid\", \"i_am_a_test_flag\"] require_pq_kem = true }";
    let settings = ready(flags, "").experimental;
    assert_eq!((settings.feature_flags.len(), settings.require_pq_kem), (2, true));
    let unknown = "experimental { feature_flags = [\"wit_svid\"] }";
    refused(&format!("{TRUST} {unknown}"), "", "\"wit_svid\" is not a feature flag (known: wit-svid,");
}

#[test]
fn brokers_are_named_with_the_references_they_may_use() {
    let id = "spiffe://other.example/broker";
    let text = format!(
        r#"experimental {{ broker {{ socket_path = "/run/broker/b.sock" bind_address = "127.0.0.1:8443"
             brokers = [ {{ id = "{id}"
                 allowed_reference_types = [ {{ type_url = "a" }}, {{ type_url = "b" allow_over_tcp = true }} ] }} ]
           }} }}"#
    );
    let reference =
        |type_url: &str, allow_over_tcp| AllowedReferenceType { type_url: type_url.into(), allow_over_tcp };
    let expected = BrokerConfig {
        socket_path: Some("/run/broker/b.sock".into()),
        bind_address: Some(([127, 0, 0, 1], 8443).into()),
        brokers: vec![AllowedBroker {
            id: id.parse().unwrap(),
            allowed_reference_types: vec![reference("a", false), reference("b", true)],
        }],
    };
    assert_eq!(ready(&text, "").broker, Some(expected));
    assert_eq!(ready("", "").broker, None);
}

#[test]
fn a_broker_that_is_written_wrongly_is_named() {
    let one = |broker: &str| format!("socket_path = \"/b\" brokers = [ {{ {broker} }} ]");
    let types = |types: &str| one(&format!("id = \"spiffe://a/b\" allowed_reference_types = [{types}]"));
    let any = "{ type_url = \"*\" }";
    for (broker, expected) in [
        (String::new(), "agent.experimental.broker.socket_path, bind_address, or both is required"),
        ("bind_address = \"nowhere\"".into(), "agent.experimental.broker.bind_address: \"nowhere\""),
        (one(""), "agent.experimental.broker.brokers[0].id is required"),
        (one("id = \"a\""), "agent.experimental.broker.brokers[0].id: \"a\""),
        (one("name = \"a\""), "agent.experimental.broker.brokers[0].name"),
        (types(""), "needs at least one type"),
        (types("{ allow_over_tcp = true }"), "allowed_reference_types[0].type_url is required"),
        (types("{ type_url = \"a\" over = true }"), "allowed_reference_types[0].over"),
        (types(&format!("{any}, {{ type_url = \"a\" }}")), "must be the only one"),
        ("socket_path = \"/b\" brokers = [ 1 ]".into(), "must be a list of blocks"),
    ] {
        refused(&format!("{TRUST} experimental {{ broker {{ {broker} }} }}"), "", expected);
    }
    let broker = format!("{{ id = \"spiffe://a/b\" allowed_reference_types = [{any}] }}");
    let twice = format!("socket_path = \"/b\" brokers = [ {broker}, {broker} ]");
    refused(&format!("{TRUST} experimental {{ broker {{ {twice} }} }}"), "", "is a broker twice");
}

#[test]
fn health_probes_are_answered_where_the_block_says() {
    let listener = ready("", "health_checks { listener_enabled = true bind_port = \"8080\" }").health_checks;
    assert_eq!(listener.expect("on").address, ([127, 0, 0, 1], 8080).into());
    assert_eq!(ready("", "health_checks { bind_port = 8080 }").health_checks, None);
}

#[test]
fn pods_are_looked_up_at_the_kubelet_for_brokers_alone() {
    use spindle_agent::config::{KubeletConfig, KubeletCredentials, KubeletPort, KubeletTrust};
    let broker = "experimental { broker { socket_path = \"/run/b/b.sock\" brokers = [] } }";
    let k8s = |data: &str| {
        format!(
            "plugins {{ WorkloadAttestor \"unix\" {{}} WorkloadAttestor \"k8s\" {{ plugin_data {{ {data} }} }} }}"
        )
    };
    let secure = |port, trust, credentials| KubeletPort::Secure { port, trust, credentials };
    let account = |file: &str| format!("/var/run/secrets/kubernetes.io/serviceaccount/{file}").into();
    let usual = || KubeletTrust::Authorities(account("ca.crt"));
    let token = || KubeletCredentials::Token(account("token"));
    let certificate = KubeletCredentials::Certificate { certificate: "/c".into(), private_key: "/k".into() };
    for (data, port) in [
        ("", secure(10_250, usual(), token())),
        ("kubelet_read_only_port = 10255", KubeletPort::ReadOnly(10_255)),
        (
            "kubelet_secure_port = 1 skip_kubelet_verification = true",
            secure(1, KubeletTrust::Anyone, token()),
        ),
        (
            "kubelet_ca_path = \"/ca\" use_anonymous_authentication = true",
            secure(10_250, KubeletTrust::Authorities("/ca".into()), KubeletCredentials::Anonymous),
        ),
        ("token_path = \"/t\"", secure(10_250, usual(), KubeletCredentials::Token("/t".into()))),
        ("certificate_path = \"/c\" private_key_path = \"/k\"", secure(10_250, usual(), certificate)),
    ] {
        let node_name = Some("n1".to_owned());
        let read = ready(broker, &k8s(&format!("node_name = \"n1\" {data}"))).kubelet;
        assert_eq!(read, Some(KubeletConfig { node_name, port }), "{data}");
    }
    for (data, expected) in [
        ("kubelet_secure_port = 1 kubelet_read_only_port = 2", "cannot stand beside kubelet_secure_port"),
        ("kubelet_secure_port = 70000", "70000 is no port"),
        ("certificate_path = \"/c\"", "private_key_path is required"),
        ("private_key_path = \"/k\"", "certificate_path is required"),
        ("kubelet_port = 1", "kubelet_port"),
        ("sigstore {}", "is not supported yet"),
    ] {
        refused(broker, &k8s(data), expected);
    }
    refused(TRUST, &k8s(""), "use WorkloadAttestor \"unix\"");
}
