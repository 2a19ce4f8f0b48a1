//! Whether anybody can fetch an entry: from its parent a way must lead up to an agent, or to the server over a node alias.

use std::collections::{HashMap, HashSet};

use spindle_proto::spire::api::types;

use super::{AgentFact, Facts, Report, Severity, Subject, is_alias, selector_texts};
use crate::output::text;

pub(super) fn look(subjects: &[Subject], facts: &Facts, report: &mut Report) {
    let agents: HashMap<&str, &AgentFact> =
        facts.agents.iter().flatten().map(|agent| (agent.id.as_str(), agent)).collect();
    let led_to = reachable(subjects.iter().map(|subject| &subject.entry).chain(&facts.others));
    for subject in subjects {
        let parent = text::id(&subject.entry.parent_id);
        let path = subject.entry.parent_id.as_ref().map_or("", |id| id.path.as_str());
        if is_alias(&subject.entry) {
            alias(subject, facts, report);
        } else if let Some(agent) = agents.get(parent.as_str()) {
            standing(subject, agent, facts, report);
        } else if path.starts_with("/spire/agent/") {
            if facts.agents.is_some() {
                let what = format!("its parent {parent} is no attested agent");
                report.add(
                    Severity::Warning,
                    "parent_unattested",
                    subject,
                    what,
                    "start that agent, or name the right one",
                );
            }
        } else if !led_to.contains(&parent) {
            // Without a server its other entries are not known.
            let severity = if facts.agents.is_some() { Severity::Error } else { Severity::Warning };
            let what = format!(
                "nothing leads to its parent {parent}: it is no agent, and no entry that an agent reaches gives it"
            );
            report.add(
                severity,
                "parent_unreachable",
                subject,
                what,
                "name an agent, or make a node alias of that name below the server",
            );
        }
    }
}

/// The SPIFFE IDs that an agent reaches: those of entries below the server, below an agent, or below such an ID.
fn reachable<'a>(entries: impl Iterator<Item = &'a types::Entry>) -> HashSet<String> {
    let mut below: HashMap<String, Vec<String>> = HashMap::new();
    let (mut found, mut waiting) = (HashSet::new(), Vec::new());
    for entry in entries {
        let id = text::id(&entry.spiffe_id);
        let path = entry.parent_id.as_ref().map_or("", |id| id.path.as_str());
        // A named agent that is not attested has a finding of its own.
        if is_alias(entry) || path.starts_with("/spire/agent/") {
            waiting.push(id);
        } else {
            below.entry(text::id(&entry.parent_id)).or_default().push(id);
        }
    }
    while let Some(id) = waiting.pop() {
        if found.insert(id.clone()) {
            waiting.extend(below.remove(&id).unwrap_or_default());
        }
    }
    found
}

fn alias(subject: &Subject, facts: &Facts, report: &mut Report) {
    let Some(agents) = &facts.agents else { return };
    let wanted = selector_texts(&subject.entry);
    let shows_all = |agent: &AgentFact| {
        let own = format!("spiffe_id:{}", agent.id);
        wanted.iter().all(|selector| agent.selectors.contains(selector) || *selector == own)
    };
    if !agents.iter().any(shows_all) {
        let what = "no attested agent shows the selectors of this node alias now".into();
        report.add(
            Severity::Note,
            "alias_unmatched",
            subject,
            what,
            "compare them with `agent show`, if nodes of that kind are up",
        );
    }
}

fn standing(subject: &Subject, agent: &AgentFact, facts: &Facts, report: &mut Report) {
    let id = &agent.id;
    if agent.banned {
        let what = format!("its parent {id} is banned");
        report.add(
            Severity::Warning,
            "agent_banned",
            subject,
            what,
            "delete the entry, or let the agent in again with `agent evict`",
        );
    } else if facts.now.is_some_and(|now| agent.expires_at <= now) {
        let what = format!("the SVID of its parent {id} has expired");
        report.add(
            Severity::Warning,
            "agent_expired",
            subject,
            what,
            "look whether that agent still runs; delete the entry if it is gone for good",
        );
    }
}
