//! Configuration files as the binaries read, print and validate them.

use std::path::Path;

use super::*;

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
