//! Selector types: whether anybody makes such selectors, and whether they can reach this entry.

use std::collections::BTreeSet;

use spindle_proto::spire::api::types;

use super::{Facts, Report, Severity, Subject, is_alias};
use crate::config::keys::nearest;
use crate::config::plugins::NODE_ATTESTORS;
use crate::output::text;

/// Facts about processes.
const WORKLOAD: &[&str] = &["docker", "k8s", "systemd", "unix", "windows"];

/// Facts about nodes beside those of the node attestors: the server's own, and an attestor that SPIRE had.
const NODE: &[&str] = &["spiffe_id", "k8s_sat"];

/// Names of secret stores.
const STORE: &[&str] = &["aws_secretsmanager", "gcp_secretmanager"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Workload,
    Node,
    Store,
    Unknown,
}

fn origin(kind: &str, of_agents: &BTreeSet<&str>) -> Origin {
    match kind {
        kind if WORKLOAD.contains(&kind) => Origin::Workload,
        kind if STORE.contains(&kind) => Origin::Store,
        kind if is_node(kind) || of_agents.contains(kind) => Origin::Node,
        _ => Origin::Unknown,
    }
}

fn is_node(kind: &str) -> bool {
    NODE.contains(&kind) || NODE_ATTESTORS.iter().any(|(name, _)| *name == kind)
}

pub(super) fn look(subject: &Subject, facts: &Facts, report: &mut Report) {
    let agents = facts.agents.iter().flatten().flat_map(|agent| &agent.selectors);
    let of_agents: BTreeSet<&str> =
        agents.filter_map(|selector| selector.split_once(':').map(|(kind, _)| kind)).collect();
    let kinds: BTreeSet<&str> = subject.entry.selectors.iter().map(|one| one.r#type.as_str()).collect();
    for kind in &kinds {
        if *kind == "spiffe_id" && names_parent(&subject.entry) {
            continue;
        }
        check(subject, kind, origin(kind, &of_agents), report);
    }
    if subject.entry.store_svid && kinds.len() > 1 {
        let kinds: Vec<_> = kinds.into_iter().collect();
        let what = format!("store_svid is set and the selectors name several stores: {}", kinds.join(", "));
        report.add(Severity::Error, "store_plugin", subject, what, "make one entry for each store");
    }
}

/// What a join token makes for the SPIFFE ID it was given: below the agent, with the agent's own ID as the selector.
fn names_parent(entry: &types::Entry) -> bool {
    let parent = text::id(&entry.parent_id);
    entry.selectors.iter().all(|one| one.r#type == "spiffe_id" && one.value == parent)
}

fn check(subject: &Subject, kind: &str, origin: Origin, report: &mut Report) {
    let stored = subject.entry.store_svid;
    let mut add =
        |severity, rule, what: String, remedy: &str| report.add(severity, rule, subject, what, remedy);
    match origin {
        Origin::Unknown => {
            let known = WORKLOAD.iter().chain(NODE).chain(STORE).copied();
            let known = known.chain(NODE_ATTESTORS.iter().map(|(name, _)| *name));
            let meant = nearest(kind, known).map(|known| format!("; did you mean {known}?"));
            let what =
                format!("no known plugin makes selectors of type {kind:?}{}", meant.unwrap_or_default());
            add(
                Severity::Warning,
                "selector_type",
                what,
                "correct the type, unless a plugin of your own makes it",
            );
        }
        Origin::Workload | Origin::Node if stored => {
            let what = format!("store_svid is set, but {kind:?} is no secret store: nobody takes the SVID");
            add(
                Severity::Error,
                "store_plugin",
                what,
                "write selectors of the store's plugin, such as aws_secretsmanager:secretname:…",
            );
        }
        Origin::Store if !stored => {
            let what = format!("selectors of {kind:?} name a secret store, and store_svid is not set");
            add(Severity::Error, "store_plugin", what, "set store_svid");
        }
        Origin::Workload if is_alias(&subject.entry) => {
            let what = format!(
                "its parent is the server, so nodes are matched, and no node shows selectors of type {kind:?}"
            );
            add(
                Severity::Error,
                "selector_place",
                what,
                "write selectors of the node's attestor, or name an agent as the parent",
            );
        }
        Origin::Node if !is_alias(&subject.entry) => {
            let what = format!("workloads are matched, and no workload shows selectors of type {kind:?}");
            add(
                Severity::Error,
                "selector_place",
                what,
                "make a node alias with them, below the server, and name its SPIFFE ID as the parent",
            );
        }
        Origin::Workload | Origin::Node | Origin::Store => {}
    }
}
