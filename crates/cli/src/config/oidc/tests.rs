use super::*;
use crate::hcl;

const MINIMAL: &str = r#"
domains = ["oidc.test"]
insecure_addr = "127.0.0.1:8080"
file { path = "/bundle.json" }
"#;

fn read(text: &str) -> Result<OidcSettings, ConfigError> {
    OidcSettings::read(&hcl::parse(text).expect("HCL"))
}

/// The minimal file with these lines put in the place of its listener or source.
fn with(listener: &str, source: &str) -> Result<OidcSettings, ConfigError> {
    read(&format!("domains = [\"oidc.test\"]\n{listener}\n{source}\n"))
}

const HTTP: &str = "insecure_addr = \":8080\"";
const FILE: &str = "file { path = \"/b\" }";

#[track_caller]
fn refused(text: &str, fault: &str) {
    let error = read(text).expect_err(text).to_string();
    assert!(error.contains(fault), "{error}");
}

#[test]
fn what_is_not_set_has_the_defaults_of_spire() {
    let settings = read(MINIMAL).unwrap();
    let provider = settings.provider;
    assert_eq!(
        provider.source,
        Source { kind: SourceKind::File("/bundle.json".into()), poll_interval: POLL_INTERVAL }
    );
    assert_eq!(provider.listener, Listener::Insecure("127.0.0.1:8080".parse().unwrap()));
    assert!(provider.health.is_none() && !provider.set_key_use && !provider.log_requests);
    assert!(
        provider.site.jwt_issuer.is_none()
            && !provider.site.allow_insecure_scheme
            && settings.notes.is_empty()
    );
    assert_eq!(settings.logs, LogSettings::default());
}

#[test]
fn every_key_is_taken_over() {
    let settings = read(
        r#"
        domains = ["a.test", "b.test", "a.test"]
        jwt_issuer = "https://issuer.test/x"
        jwks_uri = "https://keys.test/y"
        server_path_prefix = "/td"
        allow_insecure_scheme = true
        set_key_use = true
        log_level = "DEBUG"
        log_format = "JSON"
        log_path = "/log"
        log_requests = true
        listen_socket_path = "/run/oidc.sock"
        workload_api {
            socket_path = "/agent.sock"
            trust_domain = "example.org"
            poll_interval = "1m"
        }
        health_checks { bind_port = "9000" ready_path = "/r" live_path = "/l" }
        "#,
    )
    .unwrap();
    let provider = settings.provider;
    let domains: Vec<_> = provider.site.domains.iter().map(Domain::as_str).collect();
    assert_eq!(domains, ["a.test", "b.test"]);
    assert_eq!(
        provider.site.jwt_issuer.map(|url| url.as_str().to_owned()).as_deref(),
        Some("https://issuer.test/x")
    );
    assert_eq!(
        provider.site.jwks_uri.map(|url| url.as_str().to_owned()).as_deref(),
        Some("https://keys.test/y")
    );
    assert_eq!(provider.site.path_prefix, "/td".parse().unwrap());
    assert!(provider.site.allow_insecure_scheme && provider.set_key_use && provider.log_requests);
    assert_eq!(provider.listener, Listener::Unix("/run/oidc.sock".into()));
    let kind = SourceKind::WorkloadApi("/agent.sock".into(), "example.org".parse().unwrap());
    assert_eq!(provider.source, Source { kind, poll_interval: Duration::from_secs(60) });
    let health =
        Health { address: ListenAddress::all(9000), ready_path: "/r".into(), live_path: "/l".into() };
    assert_eq!(provider.health, Some(health));
    assert_eq!(settings.notes.len(), 1, "{:?}", settings.notes);
}

#[test]
fn the_server_is_named_as_grpc_names_unix_sockets() {
    for (address, path) in [("unix:///a/b", "/a/b"), ("unix:/a/b", "/a/b"), ("unix:a", "a")] {
        let settings = with(HTTP, &format!("server_api {{ address = \"{address}\" }}")).unwrap();
        assert_eq!(settings.provider.source.kind, SourceKind::ServerApi(path.into()));
    }
    for address in ["/a/b", "dns:///a", "localhost:8081", "unix:", "unix://"] {
        let error = with(HTTP, &format!("server_api {{ address = \"{address}\" }}")).expect_err(address);
        assert!(error.to_string().starts_with("server_api.address: "), "{error}");
    }
}

#[test]
fn intervals_of_zero_mean_the_default_and_nonsense_is_refused() {
    let source = |interval: &str| format!("file {{\n path = \"/b\"\n poll_interval = \"{interval}\" }}");
    assert_eq!(with(HTTP, &source("0s")).unwrap().provider.source.poll_interval, POLL_INTERVAL);
    assert!(with(HTTP, &source("10")).expect_err("no unit").to_string().contains("file.poll_interval"));
    assert!(with(HTTP, &source("-1s")).is_err());
}

fn acme(lines: &str) -> Result<Listener, ConfigError> {
    with(&format!("acme {{\n{lines}\n}}"), FILE).map(|settings| settings.provider.listener)
}

#[test]
fn acme_needs_consent_and_an_email_address() {
    let consent = "tos_accepted = true\nemail = \"a@b.test\"\n";
    let Ok(Listener::Acme(config)) = acme(consent) else { panic!("refused") };
    assert_eq!(config.directory_url, spindle_oidc::DIRECTORY_URL);
    assert_eq!((config.cache_dir, config.address), (Some("./.acme-cache".into()), ListenAddress::all(443)));
    assert_eq!(config.domains.len(), 1);
    let Ok(Listener::Acme(config)) = acme(&format!(
        "{consent}cache_dir = \"\"\ndirectory_url = \"https://ca.test/dir\"\naddr = \":8443\""
    )) else {
        panic!("refused")
    };
    assert_eq!((config.cache_dir, config.directory_url.as_str()), (None, "https://ca.test/dir"));
    for (lines, fault) in [
        ("email = \"a@b.test\"", "acme.tos_accepted: must be set to true"),
        ("tos_accepted = false\nemail = \"a@b.test\"", "acme.tos_accepted"),
        ("tos_accepted = true", "acme.email is required"),
        ("tos_accepted = true\nemail = \"b.test\"", "acme.email"),
        (
            "tos_accepted = true\nemail = \"a@b.test\"\ndirectory_url = \"http://ca.test\"",
            "acme.directory_url",
        ),
    ] {
        let error = acme(lines).expect_err(lines).to_string();
        assert!(error.contains(fault), "{error}");
    }
}

#[test]
fn certificate_files_are_both_needed() {
    let serving = |lines: &str| with(&format!("serving_cert_file {{\n{lines}\n}}"), FILE);
    let settings = serving("cert_file_path = \"/c\"\nkey_file_path = \"/k\"").unwrap();
    let Listener::Files(files) = settings.provider.listener else { panic!("another listener") };
    assert_eq!((files.sync_interval.as_secs(), files.address.to_string().as_str()), (60, ":443"));
    assert!(
        serving("cert_file_path = \"/c\"")
            .expect_err("no key")
            .to_string()
            .contains("key_file_path is required")
    );
    assert!(
        serving("key_file_path = \"/k\"").expect_err("no certificate").to_string().contains("cert_file_path")
    );
    let address =
        serving("cert_file_path = \"/c\"\nkey_file_path = \"/k\"\naddr = \"443\"").expect_err("no colon");
    assert!(address.to_string().contains("serving_cert_file.addr"), "{address}");
}

#[test]
fn exactly_one_listener_and_one_source_are_taken() {
    let domains = "domains = [\"oidc.test\"]\n";
    refused(
        &format!("{domains}{FILE}"),
        "exactly one of acme, serving_cert_file, insecure_addr, listen_socket_path",
    );
    refused(&format!("{domains}{HTTP}"), "exactly one of server_api, workload_api or file");
    refused(
        &format!("{MINIMAL}\nlisten_socket_path = \"/s\""),
        "insecure_addr and listen_socket_path cannot both be set",
    );
    refused(&format!("{MINIMAL}\nacme {{}}"), "acme and insecure_addr cannot both be set");
    refused(&format!("{MINIMAL}\nserver_api {{}}"), "server_api and file cannot both be set");
}

#[test]
fn each_fault_names_its_key() {
    for (line, fault) in [
        ("domain = \"x\"", "domain (line 5) is not a known key; did you mean domains?"),
        ("experimental { listen_named_pipe_name = \"x\" }", "experimental.listen_named_pipe_name"),
        ("jwt_issuer = \"issuer.test\"", "jwt_issuer: \"issuer.test\": it must contain a scheme"),
        ("jwks_uri = \"https://\"", "jwks_uri: \"https://\": it must contain a host"),
        ("server_path_prefix = \"x\"", "server_path_prefix"),
        ("log_level = \"loud\"", "log_level"),
        ("log_format = \"xml\"", "log_format: \"xml\" is not a format"),
        ("health_checks { bind_port = 70000 }", "health_checks.bind_port"),
        ("health_checks { ready_path = \"x\" }", "health_checks.ready_path"),
        ("health_checks { ready_path = \"/live\" }", "health_checks.ready_path"),
        ("health_checks { path = \"/live\" }", "health_checks.path"),
        ("set_key_use = \"maybe\"", "set_key_use"),
    ] {
        refused(&format!("{MINIMAL}{line}"), fault);
    }
    refused(&MINIMAL.replace("[\"oidc.test\"]", "[]"), "domains is required");
    refused(&MINIMAL.replace("oidc.test", "OIDC.test"), "domains: \"OIDC.test\"");
    refused(&MINIMAL.replace("127.0.0.1:8080", "8080"), "insecure_addr: \"8080\": write it as host:port");
    let workload = "workload_api { socket_path = \"/s\" }";
    assert!(
        with(HTTP, workload)
            .expect_err("no name")
            .to_string()
            .contains("workload_api.trust_domain is required")
    );
}

#[test]
fn what_is_odd_is_told() {
    let notes = |lines: &str| read(&format!("{MINIMAL}{lines}")).unwrap().notes;
    assert!(notes("jwt_issuer = \"http://issuer.test\"")[0].contains("jwt_issuer is not an https address"));
    assert!(notes("allow_insecure_scheme = true")[0].contains("http:"));
    let files = "serving_cert_file {\n cert_file_path = \"/c\"\n key_file_path = \"/k\" }\nallow_insecure_scheme = true";
    assert!(with(files, FILE).unwrap().notes[0].contains("no effect"));
}

#[test]
fn the_printed_defaults_are_a_file_that_lacks_only_what_is_required() {
    let text = print_defaults();
    assert_eq!(read(text).expect_err("no domains").to_string(), "domains is required");
    // Every key of the file stands in it, so that `did you mean` has something to point at.
    for (key, _) in known::TOP.iter().filter(|(key, _)| *key != "experimental") {
        assert!(text.contains(key), "{key}");
    }
    let chosen = format!("{MINIMAL}{}", text);
    assert_eq!(read(&chosen).unwrap().provider, read(MINIMAL).unwrap().provider);
}
