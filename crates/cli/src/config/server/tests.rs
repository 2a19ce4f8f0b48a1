use std::net::SocketAddr;

use spindle_runtime::LogLevel;
use spindle_server::{HealthListener, PruneAgents};

use super::*;
use crate::hcl;

const REQUIRED: &str = "trust_domain = \"example.org\"\n data_dir = \"/d\"\n";

fn load(text: &str) -> Result<ServerSettings, ConfigError> {
    let items = hcl::parse(text).expect("well formed");
    RawServer::read(&items)?.try_into()
}

/// `more` stands inside `server { … }`, `below` under it.
fn with(more: &str, below: &str) -> Result<ServerSettings, ConfigError> {
    load(&format!("server {{\n {REQUIRED} {more}\n}}\n{below}"))
}

fn ready(more: &str, below: &str) -> ServerSettings {
    with(more, below).unwrap_or_else(|fault| panic!("{more} {below}: {fault}"))
}

fn refused(more: &str, below: &str, expected: &str) {
    let fault = with(more, below).expect_err(&format!("{more} {below}")).to_string();
    assert!(fault.contains(expected), "{more} {below}: {fault}");
}

#[test]
fn spires_defaults_hold_when_only_the_required_keys_are_set() {
    let settings = ready("", "");
    assert_eq!(settings.trust_domain.to_string(), "example.org");
    assert_eq!((settings.bind_address.to_string().as_str(), settings.bind_port), ("0.0.0.0", 8081));
    assert_eq!(settings.socket_path, PathBuf::from("/tmp/spire-server/private/api.sock"));
    assert_eq!((settings.ca_ttl_secs, settings.default_x509_svid_ttl_secs), (86_400, 3600));
    assert_eq!(settings.agent_ttl_secs, 3600);
    assert_eq!(settings.store, StoreChoice { kind: StoreKind::Sled, directory: "/d/store".into() });
    assert_eq!(settings.keys, KeyChoice::Disk("/d/keys.json".into()));
    assert_eq!(settings.ca_subject, CaSubject::default());
    assert!(settings.notes.is_empty(), "{:?}", settings.notes);
}

#[test]
fn the_printed_defaults_are_the_defaults() {
    let text = print_defaults().replacen("server {", &format!("server {{\n{REQUIRED}"), 1);
    assert_eq!(load(&text).expect("prints what it reads"), ready("", ""));
}

#[test]
fn every_supported_key_is_obeyed() {
    let settings = ready(
        r#"bind_address = "127.0.0.1" bind_port = "0" socket_path = "/s" ca_key_type = "rsa-2048" ca_ttl = "48h"
           ca_subject { country = ["NO"] organization = ["A", "B"] common_name = "root" }
           default_x509_svid_ttl = "20m" agent_ttl = "2h" admin_ids = ["spiffe://other.org/admin"] ratelimit { signing = false signing_queue = 7 }
           log_level = "DEBUG" log_format = "json" log_file = "/l" log_source_location = true"#,
        r#"plugins { DataStore "redb" { plugin_data { directory = "/r" } } KeyManager "memory" { plugin_data {} } }"#,
    );
    assert_eq!((settings.bind_address.to_string().as_str(), settings.bind_port), ("127.0.0.1", 0));
    assert_eq!(settings.rate_limits, RateLimits { attestation: true, signing: false, signing_queue: 7 });
    assert_eq!(settings.ca_key_type, KeyType::Rsa2048);
    assert_eq!(settings.ca_subject.organization, ["A", "B"]);
    assert_eq!((settings.default_x509_svid_ttl_secs, settings.agent_ttl_secs), (1200, 7200));
    assert_eq!(settings.store, StoreChoice { kind: StoreKind::Redb, directory: "/r".into() });
    assert_eq!((settings.keys, settings.admin_ids.len()), (KeyChoice::Memory, 1));
    assert_eq!(settings.logs.level, LogLevel::Debug);
}

#[test]
fn jwt_svids_are_made_as_the_file_says() {
    let jwt = |more: &str| ready(more, "").jwt;
    assert_eq!(jwt(""), JwtSettings::default());
    let all =
        r#"jwt_key_type = "rsa-4096" default_jwt_svid_ttl = "90s" jwt_issuer = "https://issuer.example""#;
    let issuer = Some("https://issuer.example".to_owned());
    let expected = JwtSettings { enabled: true, key_type: KeyType::Rsa4096, default_ttl_secs: 90, issuer };
    assert_eq!(jwt(all), expected);
    assert_eq!(jwt("ca_key_type = \"ec-p384\"").key_type, KeyType::EcP384, "that of X.509 authorities");
    assert_eq!(jwt("ca_key_type = \"ec-p384\" jwt_key_type = \"ec-p256\"").key_type, KeyType::EcP256);
    assert_eq!(jwt("jwt_issuer = \"\"").issuer, None);
    for (text, enabled) in [("true", false), ("\"true\"", false), ("false", true)] {
        assert_eq!(jwt(&format!("disable_jwt_svids = {text}")).enabled, enabled, "{text}");
    }
    refused("jwt_key_type = \"ec-p521\"", "", "server.jwt_key_type");
    refused("default_jwt_svid_ttl = \"0s\"", "", "server.default_jwt_svid_ttl: a lifetime of zero");
    refused("default_jwt_svid_ttl = \"5\"", "", "server.default_jwt_svid_ttl: duration \"5\" lacks a unit");
    refused("disable_jwt_svids = \"perhaps\"", "", "server.disable_jwt_svids");
    refused("jwt_issuer = []", "", "server.jwt_issuer");
    refused("jwt_key_typ = \"ec-p256\"", "", "did you mean jwt_key_type?");
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text = format!("server {{\n{REQUIRED} bind_port = 1 log_level = \"warn\"\n}}");
    let file = RawServer::read(&hcl::parse(&text).unwrap()).unwrap();
    let flags =
        RawServer { bind_port: Some(2), trust_domain: Some("flag.org".into()), ..RawServer::default() };
    let settings = ServerSettings::try_from(flags.over(file)).unwrap();
    assert_eq!((settings.bind_port, settings.trust_domain.to_string().as_str()), (2, "flag.org"));
    assert_eq!(settings.logs.level, LogLevel::Warn);
}

#[test]
fn a_trust_domain_may_be_written_as_its_id() {
    let settings = load("server {\n trust_domain = \"spiffe://example.org\"\n data_dir = \"/d\"\n}").unwrap();
    assert_eq!(settings.trust_domain.to_string(), "example.org");
}

#[test]
fn missing_keys_are_named() {
    for (text, key) in [
        ("", "server.trust_domain is required"),
        ("server {}", "server.trust_domain is required"),
        ("server {\n trust_domain = \"\"\n}", "server.trust_domain is required"),
        ("server {\n trust_domain = \"a\"\n}", "server.data_dir is required"),
    ] {
        assert_eq!(load(text).expect_err(text).to_string(), key);
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    refused("bind_prt = 1", "", "server.bind_prt (line 4) is not a known key; did you mean bind_port?");
    refused("quux_and_more = 1", "", "server.quux_and_more (line 4) is not a known key");
    refused("ca_subject { contry = [] }", "", "did you mean country?");
    refused("experimental { cache_reload = 1 }", "", "server.experimental.cache_reload");
    refused("", "servers {}", "did you mean server?");
    refused("", "plugin {}", "did you mean plugins?");
    refused("", "plugins { KeyManger \"disk\" {} }", "did you mean KeyManager?");
    refused("", "plugins { KeyManager \"dsk\" {} }", "did you mean disk?");
    refused("", "plugins { KeyManager \"memory\" { plugin_dta {} } }", "did you mean plugin_data?");
    refused("", "plugins { KeyManager \"memory\" { plugin_data { x = 1 } } }", "plugin_data.x");
    refused(
        "",
        "plugins { KeyManager \"disk\" { plugin_data { key_path = 1 } } }",
        "did you mean keys_path?",
    );
    refused("", "plugins { NodeAttestor \"join_token\" { plugin_data { x = 1 } } }", "plugin_data.x");
    refused("", "health_checks { listener_on = true }", "health_checks.listener_on");
}

#[test]
fn what_spire_has_and_this_version_lacks_is_refused_and_never_ignored() {
    refused("federation { }", "", "server.federation (line 4) is not supported yet: bundles of other trust");
    refused("ratelimit { publish = false }", "", "ratelimit.publish");
    refused("proxy_protocol_trusted_cidrs = [\"10.0.0.0/8\"]", "", "is not supported yet");
    refused("experimental { require_pq_kem = true }", "", "is not supported yet");
    refused("experimental { feature_flags = [\"wit\"] }", "", "unknown feature flag \"wit\"");
    refused("", "telemetry { M3 = [] }", "telemetry.M3 (line 6) is not supported yet");
    refused("", "plugins { KeyManager \"aws_kms\" { } }", "is not supported yet");
    refused("", "plugins { NodeAttestor \"sshpop\" { } }", "use NodeAttestor \"join_token\" or \"x509pop\"");
    refused("", "plugins { UpstreamAuthority \"vault\" { } }", "is not supported yet");
    refused("", "plugins { BundlePublisher \"azure_blob\" { } }", "is not supported yet");
    refused("", "plugins { KeyManager \"mine\" { plugin_cmd = \"/bin/x\" } }", "only built-in plugins");
}

#[test]
fn an_upstream_authority_in_files_needs_certificate_and_key_and_may_have_a_bundle() {
    let disk =
        |data: &str| format!("plugins {{ UpstreamAuthority \"disk\" {{ plugin_data {{ {data} }} }} }}");
    let both = "cert_file_path = \"/c\" key_file_path = \"/k\"";
    let chosen = |bundle: Option<&str>| UpstreamChoice::Disk {
        cert_file_path: "/c".into(),
        key_file_path: "/k".into(),
        bundle_file_path: bundle.map(PathBuf::from),
    };
    assert_eq!(ready("", &disk(both)).upstream, Some(chosen(None)));
    let with_bundle = disk(&format!("{both} bundle_file_path = \"/b\""));
    assert_eq!(ready("", &with_bundle).upstream, Some(chosen(Some("/b"))));
    assert_eq!(ready("", &disk(&format!("{both} bundle_file_path = \"\""))).upstream, Some(chosen(None)));
    assert_eq!(ready("", "").upstream, None);
    refused("", &disk(""), "plugin_data.cert_file_path is required");
    refused(
        "",
        &disk("cert_file_path = \"\" key_file_path = \"/k\""),
        "plugin_data.cert_file_path is required",
    );
    refused("", &disk("cert_file_path = \"/c\""), "plugin_data.key_file_path is required");
    refused("", &disk(&format!("{both} bundle_file_pth = \"/b\"")), "did you mean bundle_file_path?");
    refused("", &disk("cert_file_path = [\"/c\"] key_file_path = \"/k\""), "a text");
    let two = format!("{0} {0}", disk(both));
    refused("", &two, "is set twice");
}

#[test]
fn harmless_keys_are_taken_with_a_note() {
    let settings = ready("profiling_port = 6060 experimental { events_based_cache = true }", "");
    assert_eq!(settings.notes.len(), 2, "{:?}", settings.notes);
    assert!(ready("profiling_enabled = false", "").notes.is_empty());
    let enabled = ready("profiling_enabled = true", "").notes;
    assert!(enabled[0].starts_with("server.profiling_enabled has no effect"), "{enabled:?}");
    assert!(settings.notes[0].starts_with("server.profiling_port has no effect"), "{:?}", settings.notes);
}

#[test]
fn a_switched_off_plugin_is_left_out() {
    let settings = ready(
        "",
        "plugins { KeyManager \"aws_kms\" { enabled = false } KeyManager \"memory\" { plugin_data {} } }",
    );
    assert_eq!(settings.keys, KeyChoice::Memory);
}

#[test]
fn bad_values_are_refused_by_key() {
    refused("bind_port = 70000", "", "server.bind_port: 70000");
    refused("bind_port = \"http\"", "", "server.bind_port: \"http\"");
    refused("bind_port = []", "", "server.bind_port (line 4) must be a whole number, not a list");
    refused("bind_address = \"nowhere\"", "", "server.bind_address");
    refused("ca_ttl = \"24\"", "", "server.ca_ttl: duration \"24\" lacks a unit");
    refused("ca_ttl = \"-1h\"", "", "negative");
    refused("ca_ttl = \"0s\"", "", "server.ca_ttl: a lifetime of zero");
    refused(
        "ratelimit { signing_queue = 0 }",
        "",
        "server.ratelimit.signing_queue: 0 requests leave no room",
    );
    refused("ratelimit { signing_queue = -1 }", "", "server.ratelimit.signing_queue");
    refused("ca_ttl = \"1500ms\"", "", "whole number of seconds");
    refused("ca_key_type = \"ec-p521\"", "", "server.ca_key_type");
    refused("admin_ids = [\"example.org\"]", "", "server.admin_ids: \"example.org\"");
    refused("admin_ids = \"spiffe://a/b\"", "", "must be a list of texts");
    refused("admin_ids = [1]", "", "must be a list of texts");
    refused("log_level = \"loud\"", "", "server.log_level: \"loud\"");
    refused("log_format = \"xml\"", "", "server.log_format: \"xml\"");
    refused("log_source_location = \"maybe\"", "", "server.log_source_location");
    refused("ca_subject = \"x\"", "", "must be a block");
    refused("ca_subject { country = \"US\" }", "", "must be a list of texts");
    refused("trust_domain = \"twice\"", "", "server.trust_domain (line 4) is set twice");
    refused("", "server { }", "server (line 6) is set twice");
    refused("", "plugins = 1", "plugins (line 6) must be a block");
    refused("", "plugins { KeyManager \"memory\" {} KeyManager \"disk\" {} }", "is set twice");
    refused("", "plugins { KeyManager \"disk\" { } }", "plugin_data.keys_path is required");
}

#[test]
fn every_fault_of_a_configuration_says_what_to_try() {
    for (more, remedy) in [
        ("bind_port = 70000", "correct server.bind_port"),
        ("bind_port = []", "write server.bind_port as a whole number"),
        ("trust_domain = \"twice\"", "keep one server.trust_domain"),
        ("bind_prt = 1", "--print-defaults"),
        ("federation { }", "take the key out"),
    ] {
        let failure = crate::error::Failure::from(with(more, "").expect_err(more));
        assert!(
            failure.remedies().iter().any(|text| text.contains(remedy)),
            "{more}: {:?}",
            failure.remedies()
        );
    }
    let (first, second) = ("a".into(), "b".into());
    let failure = crate::error::Failure::from(ConfigError::Exclusive { first, second });
    assert!(failure.remedies()[0].starts_with("take out a or b"));
}

#[test]
fn a_long_svid_lifetime_is_taken_with_a_note() {
    let notes = |more: &str| ready(more, "").notes;
    let guarantee = |more: &str, keys: &[&str], secs: i64| {
        let notes = notes(more);
        assert_eq!(notes.len(), keys.len(), "{more}: {notes:?}");
        for (note, key) in notes.iter().zip(keys) {
            assert!(note.starts_with(key) && note.contains(&format!("guarantees only {secs} s")), "{note}");
        }
    };
    let (svid, agent) = ("server.default_x509_svid_ttl is", "server.agent_ttl is");
    guarantee("default_x509_svid_ttl = \"6h\"", &[svid], 14_400);
    guarantee("ca_ttl = \"1h\"", &[svid], 600);
    let jwt = "server.default_jwt_svid_ttl is";
    guarantee("default_jwt_svid_ttl = \"5h\"", &[jwt], 14_400);
    assert!(notes("default_jwt_svid_ttl = \"5h\" disable_jwt_svids = true").is_empty(), "there are none");
    guarantee("agent_ttl = \"24h\"", &[agent], 14_400);
    guarantee("default_x509_svid_ttl = \"6h\" agent_ttl = \"48h\"", &[svid, agent], 14_400);
    // A sixth of a year would be two months.
    guarantee("ca_ttl = \"8760h\" default_x509_svid_ttl = \"192h\"", &[svid], 604_800);
    assert!(notes("ca_ttl = \"8760h\" default_x509_svid_ttl = \"168h\"").is_empty());
}

/// What stands in `plugin_data` of an x509pop attestor beside a join-token one.
fn x509pop(data: &str) -> String {
    format!(
        "plugins {{ NodeAttestor \"join_token\" {{ plugin_data {{}} }}\n NodeAttestor \"x509pop\" {{ plugin_data {{ {data} }} }} }}"
    )
}

#[test]
fn x509pop_is_read_with_spires_keys_and_defaults() {
    let choice = |data: &str| ready("", &x509pop(data)).node_attestors.x509pop.expect(data);
    let files = |key, paths: &[&str]| CaChoice::Files(key, paths.iter().map(PathBuf::from).collect());
    let plain = X509PopChoice {
        authorities: files("ca_bundle_path", &["/ca.pem"]),
        agent_path_template: None,
        max_intermediates: 4,
        max_rsa_bits: 8192,
        verify_client_ip: false,
    };
    assert_eq!(choice("ca_bundle_path = \"/ca.pem\""), plain);
    assert_eq!(choice("mode = \"external_pki\" ca_bundle_path = \"/ca.pem\""), plain);
    let all = choice(
        "ca_bundle_paths = [\"/a\", \"/b\"] agent_path_template = \"/cn/{{ .Subject.CommonName }}\"
         max_intermediates = 2 max_rsa_key_size = 4096 verify_client_ip = true",
    );
    assert_eq!(all.authorities, files("ca_bundle_paths", &["/a", "/b"]));
    assert!(all.agent_path_template.is_some());
    assert_eq!((all.max_intermediates, all.max_rsa_bits, all.verify_client_ip), (2, 4096, true));
    let prefix = |data: &str| match choice(&format!("mode = \"spiffe\" {data}")).authorities {
        CaChoice::OwnTrustDomain(prefix) => prefix,
        other => panic!("{other:?}"),
    };
    assert_eq!(prefix(""), "/spire-exchange/");
    assert_eq!(prefix("spiffe_prefix = \"/nodes\""), "/nodes/");
    assert_eq!(prefix("svid_prefix = \"/nodes/\""), "/nodes/");
    assert_eq!(prefix("spiffe_prefix = \"\""), "/");
    assert_eq!(ready("", "").node_attestors, NodeAttestorChoices::default());
    assert!(ready("experimental { agent_spiffe_id_as_selector = true }", "").agent_spiffe_id_as_selector);
}

#[test]
fn x509pop_settings_that_cannot_be_obeyed_are_refused_by_key() {
    let refused = |data: &str, expected: &str| refused("", &x509pop(data), expected);
    let with_ca = |data: &str, expected: &str| refused(&format!("ca_bundle_path = \"/c\" {data}"), expected);
    refused("", "plugins.NodeAttestor.x509pop.plugin_data.ca_bundle_path is required");
    refused("ca_bundle_paths = []", "ca_bundle_path is required");
    refused("mode = \"pki\" ca_bundle_path = \"/c\"", "neither external_pki nor spiffe");
    refused("mode = \"spiffe\" ca_bundle_path = \"/c\"", "cannot both be set");
    refused("mode = \"spiffe\" ca_bundle_paths = [\"/c\"]", "ca_bundle_paths");
    refused("mode = \"spiffe\" spiffe_prefix = \"/a\" svid_prefix = \"/b\"", "cannot both be set");
    refused("mode = \"spiffe\" svid_prefix = \"nodes\"", "svid_prefix: \"nodes/\" begins no path");
    with_ca("ca_bundle_paths = [\"/d\"]", "cannot both be set");
    with_ca("max_intermediates = 0", "max_intermediates: 0 is not greater than 0");
    with_ca("max_rsa_key_size = -1", "max_rsa_key_size: -1 is not greater than 0");
    with_ca("max_rsa_key_size = 16384", "at most 8192 bits can be verified");
    with_ca("verify_client_ip = \"maybe\"", "verify_client_ip");
    with_ca("agent_path_template = \"x509pop\"", "a path begins with a slash");
    with_ca("agent_path_template = \"/{{ .Hostname }}\"", "the field .Hostname is not supported");
    with_ca(
        "agent_path_template = \"/{{ snakecase .PluginName }}\"",
        "the function snakecase is not supported",
    );
    with_ca("ca_bundle_pth = \"/d\"", "did you mean ca_bundle_path?");
}

/// A whole file as SPIRE ships it, but for the blocks that others of its parts need.
const SPIRE_SAMPLE: &str = r#"
server {
    bind_address = "127.0.0.1"
    bind_port = "8081"
    socket_path = "/tmp/spire-server/private/api.sock"
    trust_domain = "example.org"
    data_dir = "./.data"
    log_level = "DEBUG"
}
plugins {
    DataStore "sql" {
        plugin_data {
            database_type = "sqlite3"
            connection_string = "./.data/datastore.sqlite3"
        }
    }
    NodeAttestor "join_token" {
        plugin_data {
        }
    }
    KeyManager "memory" {
        plugin_data = {}
    }
}
"#;

#[test]
fn an_sqlite_database_gives_way_to_the_embedded_store_with_one_note() {
    let settings = load(SPIRE_SAMPLE).expect("SPIRE's sample");
    assert_eq!(settings.store, StoreChoice { kind: StoreKind::Sled, directory: "./.data/store".into() });
    assert_eq!(settings.notes.len(), 1, "{:?}", settings.notes);
    for part in ["plugins.DataStore.sql", "sled", "./.data/datastore.sqlite3", "neither read nor changed"] {
        assert!(settings.notes[0].contains(part), "{part}: {:?}", settings.notes);
    }
    let every_key = r#"plugins { DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "f"
        ro_connection_string = "r" root_ca_path = "a" client_cert_path = "b" client_key_path = "c" max_open_conns = 1
        max_idle_conns = "2" conn_max_lifetime = "1h" disable_migration = true log_sql = false } } }"#;
    assert_eq!(ready("", every_key).notes.len(), 1);
}

#[test]
fn a_database_on_another_machine_is_refused_in_plain_words() {
    let sql = |data: &str| format!("plugins {{ DataStore \"sql\" {{ plugin_data {{ {data} }} }} }}");
    for name in ["postgres", "mysql"] {
        let data = format!("database_type = \"{name}\" connection_string = \"host=db\"");
        refused(
            "",
            &sql(&data),
            &format!("database_type: {name} cannot be used: this version keeps its state"),
        );
    }
    let managed = "database_type \"aws_postgres\" { region = \"r\" } connection_string = \"host=db\"";
    refused("", &sql(managed), "database_type: aws_postgres cannot be used");
    refused(
        "",
        &sql("database_type = \"oracle\" connection_string = \"x\""),
        "\"oracle\" is not a database type",
    );
    refused("", &sql("connection_string = \"x\""), "plugin_data.database_type is required");
    refused("", &sql("database_type = \"sqlite3\""), "plugin_data.connection_string is required");
    refused("", &sql("database_typ = \"sqlite3\""), "did you mean database_type?");
    refused("", "plugins { DataStore \"sql\" { } }", "plugin_data.database_type is required");
    refused("", "plugins { DataStore \"sql\" { plugin_cmd = \"/bin/x\" } }", "only built-in plugins");
}

#[test]
fn json_says_the_same_as_hcl() {
    let json = r#"{"server": {"bind_address": "127.0.0.1", "bind_port": 8081,
        "socket_path": "/tmp/spire-server/private/api.sock", "trust_domain": "example.org", "data_dir": "./.data",
        "log_level": "DEBUG"},
        "plugins": {"DataStore": {"sql": {"plugin_data":
            {"database_type": "sqlite3", "connection_string": "./.data/datastore.sqlite3"}}},
          "NodeAttestor": [{"join_token": {"plugin_data": {}}}], "KeyManager": {"memory": {"plugin_data": {}}}}}"#;
    assert_eq!(load(json).expect("well formed"), load(SPIRE_SAMPLE).expect("SPIRE's sample"));
}

#[test]
fn agents_are_pruned_only_when_it_is_said_after_how_long() {
    let prune = |more: &str| ready(more, "").operations.prune_agents;
    assert_eq!(prune(""), None);
    let usual = PruneAgents { expired_for_secs: 720 * 3600, tofu: false, batch_size: 1000 };
    assert_eq!(prune("prune_attested_nodes_expired_for = \"720h\""), Some(usual));
    let all = "prune_attested_nodes_expired_for = \"1m\" prune_tofu_nodes = true prune_attested_nodes_batch_size = 7";
    assert_eq!(prune(all), Some(PruneAgents { expired_for_secs: 60, tofu: true, batch_size: 7 }));
    let without = ready("prune_tofu_nodes = true", "");
    assert_eq!(without.operations.prune_agents, None);
    assert!(without.notes[0].contains("prune_attested_nodes_expired_for is not set"), "{:?}", without.notes);
    refused("prune_attested_nodes_expired_for = \"0s\"", "", "server.prune_attested_nodes_expired_for");
    refused("prune_attested_nodes_expired_for = \"-1h\"", "", "negative");
    refused("prune_attested_nodes_expired_for = \"month\"", "", "server.prune_attested_nodes_expired_for");
    refused("prune_attested_nodes_batch_size = -1", "", "less than nothing");
    refused("prune_tofu_nodes = 2", "", "server.prune_tofu_nodes");
    refused("audit_log_enabled = []", "", "must be true or false");
}

#[test]
fn the_health_listener_has_spires_defaults_and_is_off_unless_switched_on() {
    let listener = |below: &str| ready("", below).operations.health_checks;
    assert_eq!(listener("health_checks { listener_enabled = false bind_port = \"1\" }"), None);
    assert_eq!(listener("health_checks { }"), None);
    let usual = HealthListener {
        address: SocketAddr::from(([127, 0, 0, 1], 80)),
        live_path: "/live".into(),
        ready_path: "/ready".into(),
    };
    assert_eq!(listener("health_checks { listener_enabled = true }"), Some(usual));
    let own = r#"health_checks { listener_enabled = true bind_address = "[::]" bind_port = 8080 live_path = "/l" ready_path = "/r" }"#;
    let address = listener(own).expect("on").address;
    assert_eq!(address.to_string(), "[::]:8080");
    refused("", "health_checks { bind_port = \"http\" }", "health_checks.bind_port");
    refused("", "health_checks { live_path = \"live\" }", "health_checks.live_path: \"live\" is not a path");
    refused("", "health_checks { ready_path = \"/live\" }", "each needs its own");
    refused("", "health_checks { ready_path = \"/a b\" }", "is not a path");
}
