//! A node that proves a certificate of the operator's own authority, set up by configuration files and commands alone.

use std::fs;

use spindle_runtime::SystemClock;
use spindle_spiffe_core::Clock;
use spindle_testkit::NodePki;

use crate::domain::{Domain, NODE, entry_id};

/// A server and an agent that know each other by a certificate, with files as an operator writes them.
fn domain(root: &NodePki) -> Domain {
    let mut domain = Domain::new("sled");
    let between = root.intermediate("between");
    let node = between.node("node-1");
    fs::write(domain.file("ca.pem"), root.pem()).unwrap();
    fs::write(domain.file("node.pem"), node.pem(&[])).unwrap();
    fs::write(domain.file("between.pem"), between.pem()).unwrap();
    fs::write(domain.file("node.key"), node.key_pem()).unwrap();
    let path = |name: &str| domain.text(name);
    let server_attestor = format!(
        "NodeAttestor \"x509pop\" {{ plugin_data {{
            ca_bundle_path = \"{}\"
            agent_path_template = \"/x509pop/{{{{ .Subject.CommonName }}}}\"
        }} }}",
        path("ca.pem")
    );
    let agent_attestor = format!(
        "NodeAttestor \"x509pop\" {{ plugin_data {{
            private_key_path = \"{}\"
            certificate_path = \"{}\"
            intermediates_path = \"{}\"
        }} }}",
        path("node.key"),
        path("node.pem"),
        path("between.pem")
    );
    (domain.server_attestor, domain.agent_attestor) = (server_attestor, agent_attestor);
    domain
}

const AGENT: &str = "spiffe://example.org/spire/agent/x509pop/node-1";

#[test]
fn a_node_with_a_certificate_joins_comes_back_when_evicted_and_ends_when_banned() {
    let root = NodePki::root("operator's root", SystemClock.now());
    let mut domain = domain(&root);
    let mut server = domain.start_server();
    fs::write(domain.file("bundle.pem"), domain.server_done(&["bundle", "show"])).unwrap();
    let alias = ["entry", "create", "-node", "-spiffeID", NODE, "-selector", "x509pop:subject:cn:node-1"];
    domain.server_done(&alias);
    assert!(domain.create_entry(1).ok);
    let mut agent = domain.start_agent(None);
    domain.wait_until_served(&mut agent, &[entry_id(1)]);

    let shown = domain.server_done(&["agent", "show", "-spiffeID", AGENT]);
    assert!(shown.contains("x509pop:ca:fingerprint:") && shown.contains("x509pop:serialnumber:"), "{shown}");
    let listed = domain.server_done(&["agent", "list", "-attestationType", "x509pop"]);
    assert!(listed.contains("Found 1 attested agent") && listed.contains(AGENT), "{listed}");
    assert!(listed.contains("Can re-attest") && listed.contains("true"), "{listed}");

    domain.server_done(&["agent", "evict", "-spiffeID", AGENT]);
    assert!(domain.create_entry(2).ok);
    domain.wait_until_served(&mut agent, &[entry_id(1), entry_id(2)]);
    assert!(domain.server_done(&["agent", "show", "-spiffeID", AGENT]).contains(AGENT));

    domain.server_done(&["agent", "ban", "-spiffeID", AGENT]);
    agent.ends_with("the agent cannot run: the server no longer accepts this agent: agent_banned");
    // Its certificate is still good, and does not help.
    domain.start_agent(None).ends_with("agent is banned");
    assert!(!server.has_ended(), "{}", server.log());
}

#[test]
fn an_agent_whose_key_belongs_to_another_certificate_does_not_start() {
    let root = NodePki::root("operator's root", SystemClock.now());
    let mut domain = domain(&root);
    let _server = domain.start_server();
    fs::write(domain.file("bundle.pem"), domain.server_done(&["bundle", "show"])).unwrap();
    fs::write(domain.file("node.key"), root.node("other").key_pem()).unwrap();
    domain.start_agent(None).ends_with("the private key is not the one of the certificate");
}
