//! The binaries as their users call them: exit codes, where messages go, and what they advise.

mod broker;
mod configuration;
mod sockets;

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
    refused("spindle-agent broker", 1, "Usage");
    refused("spindle-agent broker foo", 1, "foo");
    refused("spindle-agent broker fetch nosuch", 1, "nosuch");
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
