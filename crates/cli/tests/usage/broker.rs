//! What a broker is told before it calls anybody.

use super::*;

#[test]
fn bap_10_bap_15_bap_17_bap_18_a_broker_is_told_what_is_wrong_with_the_workload_it_names_before_anything_is_called()
 {
    let broker = |more: &str| format!("spindle-agent broker fetch -brokerSocket {more}");
    let own = std::process::id();
    refused(
        &broker("/nonexistent/b.sock"),
        1,
        "it is not said for which workload\n  Try: set -pid, or -pod, or -podUID",
    );
    refused(
        "spindle-agent broker fetch -pid 1",
        1,
        "it is not said where the broker endpoint is\n  Try: set -brokerSocket",
    );
    for kind in ["fetch", "fetch jwt -audience a", "fetch x509bundles", "watch", "files -dir /nonexistent/d"]
    {
        let remote = format!(
            "spindle-agent broker {kind} -brokerSocket tcp://192.0.2.7:8443 -agentID spiffe://a/b -pid {own}"
        );
        refused(
            &remote,
            1,
            "a process is not named to an agent at 192.0.2.7:8443, since 192.0.2.7 is not of this host",
        );
    }
    // A pod may be named to whom it is said; a process of this host to this host.
    for workload in ["-pod shop/web-0", &format!("-pid {own}")] {
        refused(
            &broker(&format!("tcp://127.0.0.1:1 {workload}")),
            1,
            "it is not said which agent has to answer at 127.0.0.1:1",
        );
    }
    refused(
        &broker("/b.sock -pid 0"),
        1,
        "-pid 0 names no workload: the process number 0 is not positive\n  Try: ",
    );
    refused(&broker("/b.sock -pid=-1"), 1, "is not positive");
    refused(&broker("/b.sock -pid x"), 1, "--pid");
    refused(&broker("/b.sock -pod web-0"), 1, "-pod \"web-0\" has no namespace");
    refused(&broker("/b.sock -podUID 7"), 1, "-podUID \"7\" names no pod");
    refused(&broker(&format!("/b.sock -pid {own} -pod a/b")), 1, "cannot be used with");
    refused(&broker(&format!("/b.sock -pid {own} -agentID agent")), 1, "-agentID \"agent\"");
    let missing = format!("/b.sock -pid {own} -socketPath /nonexistent/api.sock");
    refused(
        &broker(&missing),
        1,
        "the broker has no identity of its own: there is no socket at /nonexistent/api.sock\n  Try: ",
    );
}
