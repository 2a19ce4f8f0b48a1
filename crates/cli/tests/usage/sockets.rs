//! How a tool finds its socket, and what it says of one that does not serve.

use super::*;

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
        "spindle-agent api fetch x509bundles -socketPath /nonexistent/api.sock",
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
