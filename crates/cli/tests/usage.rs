//! The binaries as their users call them: exit codes, where messages go, and what they advise.

use std::path::Path;

use assert_cmd::Command;

struct Ended {
    code: i32,
    out: String,
    err: String,
}

fn run(binary: &str, args: &[&str], vars: &[(&str, &str)]) -> Ended {
    let path = match binary {
        "spindle-server" => env!("CARGO_BIN_EXE_spindle-server"),
        "spindle" => env!("CARGO_BIN_EXE_spindle"),
        _ => env!("CARGO_BIN_EXE_spindle-agent"),
    };
    let output = Command::new(path).args(args).env_clear().envs(vars.iter().copied()).output().expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ended {
        code: output.status.code().expect("ended by itself"),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

fn words(line: &str) -> (&str, Vec<&str>) {
    let mut words = line.split_whitespace();
    (words.next().expect("a binary"), words.collect())
}

fn refused(line: &str, code: i32, expected: &str) {
    let (binary, args) = words(line);
    let ended = run(binary, &args, &[]);
    assert_eq!(ended.code, code, "{line}: {}", ended.err);
    assert!(ended.err.contains(expected), "{line}: {}", ended.err);
    assert!(ended.out.is_empty(), "{line}: {}", ended.out);
}

#[test]
fn an_unknown_or_missing_first_word_exits_with_127() {
    refused("spindle-server", 127, "Usage");
    refused("spindle-server nosuch", 127, "nosuch");
    refused("spindle-server entri", 127, "entry");
    refused("spindle-agent", 127, "Usage");
    refused("spindle-agent nosuch", 127, "nosuch");
}

#[test]
fn the_provider_is_called_as_spires_is() {
    refused("spindle oidc-discovery-provider extra", 1, "Usage");
    refused("spindle oidc-discovery-provider -nosuch", 1, "-nosuch");
    refused(
        "spindle oidc-discovery-provider",
        1,
        "cannot read the configuration file oidc-discovery-provider.conf",
    );
    let version = run("spindle", &["oidc-discovery-provider", "-version"], &[]);
    assert_eq!((version.code, version.out.trim()), (0, env!("CARGO_PKG_VERSION")));
    let defaults = run("spindle", &["oidc-discovery-provider", "-print-defaults"], &[]);
    assert!(defaults.code == 0 && defaults.out.contains("serving_cert_file"), "{}", defaults.out);
}

#[test]
fn groups_without_a_known_word_exit_with_1() {
    refused("spindle-server entry", 1, "Usage");
    refused("spindle-server entry foo", 1, "foo");
    refused("spindle-server bundle foo", 1, "foo");
    refused("spindle-server federation", 1, "Usage");
    refused("spindle-server federation foo", 1, "foo");
    refused("spindle-server jwt foo", 1, "foo");
    refused("spindle-server localauthority", 1, "Usage");
    refused("spindle-server localauthority x509 foo", 1, "foo");
    refused("spindle-server localauthority jwt foo", 1, "foo");
    refused("spindle-server upstreamauthority", 1, "Usage");
    refused("spindle-agent api", 1, "Usage");
    refused("spindle-agent api foo", 1, "foo");
    refused("spindle-agent api fetch nosuch", 1, "nosuch");
}

#[test]
fn misused_flags_exit_with_1_and_are_named() {
    refused("spindle-server entry show -spifeID x", 1, "--spiffeID");
    refused("spindle-server entry show -output xml", 1, "write pretty or json");
    refused("spindle-server entry show -matchSelectorsOn all", 1, "exact, any, superset or subset");
    refused("spindle-server entry create -x509SVIDTTL long", 1, "long");
    refused("spindle-server entry create -node=perhaps", 1, "true or false");
    refused("spindle-server token generate -ttl", 1, "--ttl");
    refused("spindle-server x509 mint -ttl 10", 1, "lacks a unit");
    refused("spindle-server bundle show -format der", 1, "pem or spiffe");
    refused("spindle-server bundle list -format der", 1, "pem or spiffe");
    refused("spindle-server bundle set -format der", 1, "pem or spiffe");
    refused("spindle-server bundle delete -mode all", 1, "restrict, dissociate or delete");
    refused("spindle-server federation create -trustDomainBundleFormat der", 1, "pem or spiffe");
    refused("spindle-server agent show stray", 1, "stray");
    refused("spindle-agent api fetch -timeout 5", 1, "lacks a unit");
}

#[test]
fn what_a_command_needs_is_asked_for_before_anything_is_called() {
    for step in ["activate", "taint", "revoke"] {
        for family in ["x509", "jwt"] {
            refused(
                &format!("spindle-server localauthority {family} {step}"),
                1,
                "Error: an authority ID is required\n  Try: ",
            );
        }
    }
    refused(
        "spindle-server upstreamauthority taint",
        1,
        "Error: the Subject Key ID of the X.509 upstream authority is required",
    );
    refused("spindle-server upstreamauthority revoke -subjectKeyID=", 1, "is required");
    refused("spindle-server entry create", 1, "Error: at least one selector is required\n  Try: ");
    refused("spindle-server entry create -selector a:b", 1, "a parent ID is required");
    refused("spindle-server entry update", 1, "entry ID is required");
    refused("spindle-server entry delete", 1, "an entry ID is required");
    refused("spindle-server entry show -entryID x -spiffeID spiffe://a/b", 1, "can't be combined");
    refused("spindle-server entry show -parentID a/b", 1, "-parentID \"a/b\"");
    refused("spindle-server bundle set", 1, "Error: id flag is required\n  Try: ");
    refused("spindle-server bundle set -id Other -path /dev/null", 1, "-id \"Other\"");
    refused("spindle-server bundle set -id spiffe://a -path /dev/null", 1, "unable to parse bundle data");
    refused("spindle-server bundle set -id spiffe://a -path /nonexistent", 1, "unable to load bundle data");
    refused("spindle-server bundle list -id Other", 1, "-id \"Other\"");
    refused("spindle-server bundle delete", 1, "Error: id is required\n  Try: ");
    refused("spindle-server federation create", 1, "Error: trust domain is required\n  Try: ");
    refused("spindle-server federation update -trustDomain a", 1, "bundle endpoint URL is required");
    refused("spindle-server federation create -data x -trustDomain a", 1, "cannot use other flags");
    refused("spindle-server federation show", 1, "a trust domain name is required");
    refused("spindle-server federation delete", 1, "Error: id is required\n  Try: ");
    refused("spindle-server federation refresh", 1, "Error: id is required\n  Try: ");
    refused("spindle-server agent ban", 1, "a SPIFFE ID is required");
    refused("spindle-server agent list -expiresBefore tomorrow", 1, "is not a time");
    refused("spindle-server x509 mint", 1, "a SPIFFE ID is required");
    refused(
        "spindle-server jwt mint -audience db",
        1,
        "Error: a SPIFFE ID is required\n  Try: set -spiffeID",
    );
    refused("spindle-server jwt mint -spiffeID spiffe://a/b", 1, "at least one audience is required");
    refused("spindle-server token generate -spiffeID x", 1, "-spiffeID \"x\"");
    refused("spindle-server role grant -role reader", 1, "a SPIFFE ID is required");
    refused("spindle-server role grant -spiffeID spiffe://a/b -role registrar", 1, "needs a path prefix");
    refused("spindle-server can", 1, "WHAT");
    refused("spindle-server can entry create -parentID x", 1, "-parentID \"x\"");
    refused("spindle-server entry apply", 1, "a file of entries is required");
    refused("spindle-server entry apply -file /nonexistent/f -set a.b", 1, "letters, digits, dashes");
    refused(
        "spindle-server entry apply -file /nonexistent/f -prune",
        1,
        "  Try: add -set NAME (entries made without -set are in the set `apply`)",
    );
    refused("spindle-server entry lint -file /nonexistent/f", 1, "cannot read /nonexistent/f");
    refused("spindle-server import", 1, "a source is required");
    refused("spindle-server backup", 1, "a file is required");
    refused("spindle-server backup -to /nonexistent/f", 1, "cannot write /nonexistent/f");
    refused("spindle-server restore", 1, "a backup is required");
    refused("spindle-server restore -from /nonexistent/f", 1, "a place for the store is required");
    refused(
        "spindle-server restore -from /nonexistent/f -to sled:/nonexistent/s",
        1,
        "cannot open /nonexistent/f",
    );
}

#[test]
fn tokens_are_neither_fetched_nor_validated_without_an_audience_or_validated_without_a_token() {
    refused("spindle-agent api fetch jwt", 1, "audience must be specified\n");
    refused("spindle-agent api fetch jwt -audience ,", 1, "audience must be specified\n");
    refused("spindle-agent api validate jwt -svid a.b.c", 1, "audience must be specified\n");
    refused("spindle-agent api validate jwt -audience db", 1, "svid must be specified\n");
}

#[test]
fn a_missing_socket_is_named_with_what_to_try() {
    let guide = "spindle-server entry create -spiffeID spiffe://example.org/web -parentID spiffe://example.org/node \
                 -selector k8s:ns:production -selector k8s:sa:web -socketPath /nonexistent/api.sock";
    refused(guide, 1, "Error: there is no socket at /nonexistent/api.sock\n  Try: start the server");
    for line in [
        "spindle-server healthcheck -socketPath /nonexistent/api.sock",
        "spindle-server entry count --socketPath=/nonexistent/api.sock",
        "spindle-server agent list -socketPath=/nonexistent/api.sock",
        "spindle-server can -spiffeID spiffe://a/b entry create -socketPath=/nonexistent/api.sock",
        "spindle-server role show -socketPath /nonexistent/api.sock",
        "spindle-server localauthority x509 show -socketPath /nonexistent/api.sock",
        "spindle-server localauthority x509 prepare -socketPath /nonexistent/api.sock",
        "spindle-server localauthority x509 activate -authorityID a -socketPath /nonexistent/api.sock",
        "spindle-server localauthority x509 taint -authorityID a -socketPath /nonexistent/api.sock",
        "spindle-server localauthority x509 revoke -authorityID a -socketPath /nonexistent/api.sock",
        "spindle-server localauthority jwt show -socketPath /nonexistent/api.sock",
        "spindle-server localauthority jwt prepare -socketPath /nonexistent/api.sock",
        "spindle-server localauthority jwt activate -authorityID a -socketPath /nonexistent/api.sock",
        "spindle-server localauthority jwt taint -authorityID a -socketPath /nonexistent/api.sock",
        "spindle-server localauthority jwt revoke -authorityID a -socketPath /nonexistent/api.sock",
        "spindle-server upstreamauthority taint -subjectKeyID a -socketPath /nonexistent/api.sock",
        "spindle-server upstreamauthority revoke -subjectKeyID a -socketPath /nonexistent/api.sock",
        "spindle-server bundle show --socketPath /nonexistent/api.sock",
        "spindle-server bundle list -socketPath /nonexistent/api.sock",
        "spindle-server bundle list -id spiffe://a -socketPath /nonexistent/api.sock",
        "spindle-server bundle delete -id spiffe://a -socketPath /nonexistent/api.sock",
        "spindle-server federation list -socketPath /nonexistent/api.sock",
        "spindle-server federation show -trustDomain a -socketPath /nonexistent/api.sock",
        "spindle-server federation delete -id a -socketPath /nonexistent/api.sock",
        "spindle-server federation refresh -id a -socketPath /nonexistent/api.sock",
        "spindle-server x509 mint -spiffeID spiffe://a/b -socketPath /nonexistent/api.sock",
        "spindle-server jwt mint -spiffeID spiffe://a/b -audience db -socketPath /nonexistent/api.sock",
        "spindle-server entry lint -socketPath /nonexistent/api.sock",
        "spindle-server export -socketPath /nonexistent/api.sock",
        "spindle-server import -from /nonexistent/api.sock",
        "spindle-agent healthcheck -socketPath /nonexistent/api.sock",
        "spindle-agent api fetch -socketPath /nonexistent/api.sock",
        "spindle-agent api fetch x509 -socketPath /nonexistent/api.sock -silent",
        "spindle-agent api fetch jwt -audience db -socketPath /nonexistent/api.sock",
        "spindle-agent api validate jwt -audience db -svid a.b.c -socketPath /nonexistent/api.sock",
    ] {
        refused(line, 1, "/nonexistent/api.sock\n  Try: start the");
    }
}

#[test]
fn a_missing_socket_is_named_with_the_flag_that_names_it() {
    refused("spindle-server import -from /nonexistent/s", 1, "or name its socket with -from\n");
    refused("spindle-server export -socketPath /nonexistent/s", 1, "or name its socket with -socketPath\n");
}

#[test]
fn the_environment_names_the_socket() {
    let server = run("spindle-server", &["entry", "show"], &[("SPIRE_SERVER_PRIVATE_SOCKET", "/env/s")]);
    assert!(server.err.contains("/env/s"), "{}", server.err);
    let agent = run("spindle-agent", &["api", "fetch"], &[("SPIFFE_ENDPOINT_SOCKET", "unix:///env/a")]);
    assert!(agent.err.contains(" /env/a\n"), "{}", agent.err);
    let both = [("SPIRE_AGENT_PUBLIC_SOCKET", "/env/b"), ("SPIFFE_ENDPOINT_SOCKET", "unix:///env/a")];
    let agent = run("spindle-agent", &["healthcheck"], &both);
    assert!(agent.err.contains(" /env/b\n"), "{}", agent.err);
    let instance = ["entry", "show", "-instance", "blue"];
    let template = [("SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE", "/env/%i")];
    assert!(run("spindle-server", &instance, &template).err.contains("/env/blue"));
    assert!(run("spindle-server", &instance, &[]).err.contains("SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE"));
}

#[test]
fn wep_13_wep_14_every_tool_wants_the_standards_variable_in_the_standards_form() {
    for args in [
        &["api", "fetch"][..],
        &["api", "fetch", "jwt", "-audience", "db"],
        &["api", "fetch", "wit"],
        &["api", "validate", "jwt", "-audience", "db", "-svid", "a.b.c"],
        &["api", "watch"],
        &["api", "watch", "wit"],
        &["healthcheck"],
    ] {
        for address in ["/env/a", "unix:env/a", "unix://host/env/a", "http://127.0.0.1:1"] {
            let ended = run("spindle-agent", args, &[("SPIFFE_ENDPOINT_SOCKET", address)]);
            assert_eq!(ended.code, 1, "{args:?} {address}");
            let fault = format!("SPIFFE_ENDPOINT_SOCKET = {address:?} is no address of the Workload API");
            assert!(
                ended.err.contains(&fault) && ended.err.contains("  Try: write it like unix:///"),
                "{}",
                ended.err
            );
        }
    }
}

#[test]
fn a_socket_that_nobody_answers_on_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let ended = run("spindle-agent", &["api", "fetch", "-socketPath", path.to_str().unwrap()], &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("nobody answers"), "{}", ended.err);
}

#[test]
fn help_goes_to_standard_output_and_is_no_failure() {
    for line in ["spindle-server -h", "spindle-server entry create --help", "spindle-agent api fetch -help"] {
        let (binary, args) = words(line);
        let ended = run(binary, &args, &[]);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{line}");
        assert!(ended.out.contains("Usage"), "{line}: {}", ended.out);
    }
}

#[test]
fn help_names_the_flags_that_do_something_and_all_their_values() {
    for binary in ["spindle-server", "spindle-agent"] {
        let (run_help, validate_help) =
            (run(binary, &["run", "-h"], &[]), run(binary, &["validate", "-h"], &[]));
        for flag in ["--print-defaults", "--check-config"] {
            assert!(run_help.out.contains(flag) && !validate_help.out.contains(flag), "{binary} {flag}");
        }
        assert!(validate_help.out.contains("panic, fatal, error"), "{binary}: {}", validate_help.out);
    }
    // A script that has such a flag goes on.
    let ended = run("spindle-server", &["validate", "-check-config"], &[]);
    assert!(ended.err.contains("server.trust_domain is required"), "{}", ended.err);
}

#[test]
fn the_version_is_printed_for_every_spelling_that_help_or_spire_names() {
    for flag in ["-V", "-v", "-version", "--version"] {
        let ended = run("spindle-server", &[flag], &[]);
        let expected = concat!("spindle-server ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!((ended.code, ended.out.as_str(), ended.err.as_str()), (0, expected, ""), "{flag}");
    }
}

#[test]
fn the_agents_tool_prints_bare_errors_as_spires_does() {
    let at = ["-socketPath", "/nonexistent/api.sock"];
    let agent = |words: &[&str]| run("spindle-agent", &[words, &at].concat(), &[]).err;
    assert!(agent(&["api", "fetch"]).starts_with("there is no socket at /nonexistent/api.sock\n  Try: "));
    let health = agent(&["healthcheck"]);
    assert!(
        health.starts_with("Agent is unhealthy: there is no socket at /nonexistent/api.sock\n  Try: "),
        "{health}"
    );
    let server = run("spindle-server", &[&["healthcheck"][..], &at].concat(), &[]).err;
    assert!(server.starts_with("Error: there is no socket"), "{server}");
}

#[test]
fn a_data_file_is_read_and_its_faults_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("entries.json");
    let file = |text: &str| {
        std::fs::write(&path, text).unwrap();
        run(
            "spindle-server",
            &["entry", "create", "-data", name(&path), "-socketPath", "/nonexistent/s"],
            &[],
        )
        .err
    };
    assert!(file("{}").contains("missing field `entries`"));
    assert!(file(r#"{"entries": []}"#).contains("there is no socket at /nonexistent/s"));
}

fn name(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn example(name: &str) -> String {
    format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_samples_are_valid_and_set_every_key_without_a_note() {
    for (binary, command, file) in [
        ("spindle-server", "run", "server.hcl"),
        ("spindle-agent", "run", "agent.hcl"),
        ("spindle", "oidc-discovery-provider", "oidc-discovery-provider.conf"),
    ] {
        let ended = run(binary, &[command, "-config", &example(file), "--check-config"], &[]);
        assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{file}");
        assert!(
            ended.out.ends_with(" configuration is valid.\n") && !ended.out.contains("Note"),
            "{}",
            ended.out
        );
    }
}

#[test]
fn the_sample_of_entries_is_read_and_nothing_is_odd_about_it() {
    let ended = run("spindle-server", &["entry", "lint", "-file", &example("entries.hcl")], &[]);
    // What leads to the node is the server's to know.
    let odd = ended.out.lines().filter(|line| line.contains('[') && !line.contains("[parent_unreachable]"));
    assert_eq!((ended.code, odd.count()), (0, 0), "{}{}", ended.out, ended.err);
    assert!(ended.out.ends_with("Looked at 3 entries: 0 errors, 3 warnings, 0 notes.\n"), "{}", ended.out);
}

#[test]
fn the_printed_defaults_are_a_configuration_but_for_the_required_keys() {
    let dir = tempfile::tempdir().unwrap();
    for (binary, flags) in [
        ("spindle-server", &["-trustDomain", "example.org", "-dataDir", "/d"][..]),
        (
            "spindle-agent",
            &["-trustDomain", "example.org", "-serverAddress", "s", "-serverPort", "1", "-insecureBootstrap"]
                [..],
        ),
    ] {
        let defaults = run(binary, &["run", "--print-defaults"], &[]);
        assert_eq!(defaults.code, 0);
        let path = dir.path().join(binary);
        std::fs::write(&path, &defaults.out).unwrap();
        let check = ["run", "--check-config", "-config", name(&path)];
        let bare = run(binary, &check, &[]);
        assert!(bare.err.contains("trust_domain is required"), "{}", bare.err);
        assert_eq!(run(binary, &[&check, flags].concat(), &[]).code, 0);
    }
}

#[test]
fn a_configuration_fault_is_told_by_key_and_line_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.hcl");
    let check = |text: &str, more: &[&str], vars: &[(&str, &str)]| {
        std::fs::write(&path, text).unwrap();
        let args = [&["run", "--check-config", "-config", name(&path)], more].concat();
        run("spindle-server", &args, vars)
    };
    let fault = check("server {\n bind_prt = 1\n}", &[], &[]);
    assert_eq!(fault.code, 1);
    assert!(
        fault.err.starts_with(
            "Error: server.bind_prt (line 2) is not a known key; did you mean bind_port?\n  Try: "
        )
    );
    assert!(check("server {", &[], &[]).err.contains("line 1"));
    let expanded = "server { trust_domain = \"$TD\" data_dir = \"${DIR}/d\" }";
    assert!(check(expanded, &[], &[]).err.contains("server.trust_domain"));
    assert!(check(expanded, &["-expandEnv"], &[]).err.contains("server.trust_domain is required"));
    assert_eq!(check(expanded, &["-expandEnv"], &[("TD", "example.org"), ("DIR", "/x")]).code, 0);
    let missing = run("spindle-server", &["run", "-config", "/nonexistent.hcl"], &[]);
    assert!(missing.err.contains("cannot read the configuration file /nonexistent.hcl"), "{}", missing.err);
    let nothing = run("spindle-agent", &["run"], &[]);
    assert!(nothing.err.contains("agent.trust_domain is required"), "{}", nothing.err);
    let flags = ["-trustDomain", "a", "-serverAddress", "s", "-serverPort", "1", "-trustBundle", "/b"];
    let mode = ["run", "-rebootstrapMode", "sometimes"].into_iter().chain(flags).collect::<Vec<_>>();
    let mode = run("spindle-agent", &mode, &[]);
    assert!(mode.err.contains("agent.rebootstrap_mode: \"sometimes\" is not a mode"), "{}", mode.err);
}

/// A whole server file in `dir`, with `more` in its `server` block and `below` under it.
fn server_file(dir: &Path, more: &str, below: &str) -> String {
    let path = dir.join("server.conf");
    let (data, socket) = (dir.join("data"), dir.join("run/api.sock"));
    let text = format!(
        "server {{\n trust_domain = \"example.org\"\n data_dir = {data:?}\n socket_path = {socket:?}\n {more}\n}}\n{below}"
    );
    std::fs::write(&path, text).expect("written");
    name(&path).to_owned()
}

#[test]
fn validate_says_in_spires_words_that_a_configuration_is_valid_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let sql = r#"plugins { DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "x" } } }"#;
    let file = server_file(dir.path(), "", sql);
    let ended = run("spindle-server", &["validate", "-config", &file], &[]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
    assert!(
        ended.out.starts_with("Note: plugins.DataStore.sql: ") && ended.out.lines().count() == 2,
        "{}",
        ended.out
    );
    assert!(ended.out.ends_with("\nSPIRE server configuration file is valid.\n"), "{}", ended.out);
    let args =
        ["-trustDomain", "example.org", "-serverAddress", "a", "-serverPort", "1", "-insecureBootstrap"];
    let places =
        ["-dataDir", name(&dir.path().join("agent")), "-socketPath", name(&dir.path().join("a.sock"))]
            .map(str::to_owned);
    let attestor = dir.path().join("agent.conf");
    std::fs::write(&attestor, "plugins { WorkloadAttestor \"unix\" { } }").unwrap();
    let mut line = vec!["validate", "-config", name(&attestor)];
    line.extend(args);
    line.extend(places.iter().map(String::as_str));
    let ended = run("spindle-agent", &line, &[]);
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (0, "SPIRE agent configuration file is valid.\n"),
        "{}",
        ended.err
    );
    let mut left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["agent.conf", "server.conf"], "nothing else was made");
}

#[test]
fn validate_names_every_place_that_cannot_be_used_and_exits_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = dir.path().join("in-the-way");
    std::fs::write(&in_the_way, "").unwrap();
    let below = in_the_way.join("below");
    let file = server_file(
        dir.path(),
        &format!("bind_address = \"192.0.2.1\" log_file = {:?}", dir.path().join("none/server.log")),
        &format!(
            "plugins {{ KeyManager \"disk\" {{ plugin_data {{ keys_path = {below:?} }} }} \
             UpstreamAuthority \"disk\" {{ plugin_data {{ cert_file_path = {in_the_way:?} key_file_path = {below:?} }} }} }}"
        ),
    );
    let ended = run("spindle-server", &["validate", "-config", &file], &[]);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert!(
        ended.err.starts_with("SPIRE server configuration file is invalid.\nValidation errors:\n"),
        "{}",
        ended.err
    );
    let unread = format!("\tplugins.UpstreamAuthority:\n\t\tcannot read {}", below.display());
    assert_eq!(ended.err.matches("plugins.UpstreamAuthority").count(), 1, "{}", ended.err);
    assert!(ended.err.contains(&unread), "{}", ended.err);
    for key in ["\tplugins.KeyManager:\n\t\t", "\tserver.bind_address:\n\t\t", "\tserver.log_file:\n\t\t"] {
        assert!(ended.err.contains(key), "{key}: {}", ended.err);
    }
    let bundle = dir.path().join("bundle.pem");
    std::fs::write(&bundle, "no certificate").unwrap();
    let file = dir.path().join("agent.conf");
    let text = format!(
        "agent {{ trust_domain = \"example.org\" server_address = \"a\" server_port = 1 data_dir = {:?} trust_bundle_path = {bundle:?} \
         socket_path = {:?} }}\nplugins {{ WorkloadAttestor \"unix\" {{ }} }}",
        dir.path().join("data"),
        dir.path().join("a.sock"),
    );
    std::fs::write(&file, text).unwrap();
    let ended = run("spindle-agent", &["validate", "-config", name(&file)], &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("\tagent.trust_bundle_path:\n"), "{}", ended.err);
}

#[test]
fn validate_of_an_agent_looks_at_the_nodes_certificate_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let [config, key, certificate, between] =
        ["agent.conf", "node.key", "node.pem", "between.pem"].map(|name| dir.path().join(name));
    let text = format!(
        "agent {{ trust_domain = \"example.org\" server_address = \"a\" server_port = 1 insecure_bootstrap = true \
         data_dir = {:?} socket_path = {:?} }}\nplugins {{ WorkloadAttestor \"unix\" {{ }} NodeAttestor \"x509pop\" {{ \
         plugin_data {{ private_key_path = {key:?} certificate_path = {certificate:?} \
         intermediates_path = {between:?} }} }} }}",
        dir.path().join("data"),
        dir.path().join("a.sock"),
    );
    std::fs::write(&config, text).unwrap();
    let validate = || run("spindle-agent", &["validate", "-config", name(&config)], &[]);
    let faults = |what: &str| {
        let ended = validate();
        assert_eq!((ended.code, ended.out.as_str()), (1, ""));
        for key in ["private_key_path", "certificate_path", "intermediates_path"] {
            let line = format!("\tplugins.NodeAttestor.x509pop.{key}:\n\t\t");
            assert!(ended.err.contains(&line), "{key}: {}", ended.err);
        }
        assert_eq!(ended.err.matches(what).count(), 3, "{}", ended.err);
    };
    faults("cannot read");
    for path in [&key, &certificate, &between] {
        std::fs::write(path, "neither key nor certificate").unwrap();
    }
    faults("\t\tno ");
    let authority = spindle_testkit::NodePki::root("root", spindle_testkit::NOW).intermediate("between");
    let node = authority.node("node-1");
    std::fs::write(&key, node.key_pem()).unwrap();
    std::fs::write(&certificate, node.pem(&[])).unwrap();
    std::fs::write(&between, authority.pem()).unwrap();
    let ended = validate();
    assert_eq!((ended.code, ended.err.as_str()), (0, ""));
}

#[test]
fn validate_says_of_a_faulty_file_what_run_would_say() {
    let dir = tempfile::tempdir().unwrap();
    for (more, below, expected) in [
        ("bind_prt = 1", "", "server.bind_prt (line 5) is not a known key; did you mean bind_port?"),
        ("log_level = \"loud\"", "", "server.log_level"),
        ("", "plugins { KeyManager \"nosuch\" { } }", "plugins.KeyManager.nosuch"),
        (
            "",
            "plugins { DataStore \"sql\" { plugin_data { database_type = \"mysql\" } } }",
            "mysql cannot be used",
        ),
        ("ca_subject { country = [\"US\", \"DE\"] }", "", "server.ca_subject.country"),
        ("", "health_checks { live_path = \"x\" }", "health_checks.live_path"),
    ] {
        let file = server_file(dir.path(), more, below);
        let ended = run("spindle-server", &["validate", "-config", &file], &[]);
        assert_eq!((ended.code, ended.out.as_str()), (1, ""), "{more} {below}");
        assert!(ended.err.starts_with("SPIRE server configuration file is invalid: "), "{}", ended.err);
        assert!(ended.err.contains(expected), "{expected}: {}", ended.err);
    }
    refused(
        "spindle-server validate -config /nonexistent.conf",
        1,
        "SPIRE server configuration file is invalid: cannot read",
    );
    refused(
        "spindle-agent validate",
        1,
        "SPIRE agent configuration file is invalid: agent.trust_domain is required",
    );
    refused("spindle-server validate -confg x", 1, "--config");
}
