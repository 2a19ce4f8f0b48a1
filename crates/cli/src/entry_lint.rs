//! What is wrong or odd about registration entries that a server takes all the same.
//!
//! Pure: entries and facts about the server are handed in, findings come out. What is not known (no server was asked) gives
//! no finding. An error means that an entry does nothing, or not what it says; a warning that it soon may; a note that it is
//! unusual. Start at [`lint`].

mod likeness;
mod parents;
mod selectors;
mod values;

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Value, json};
use spindle_proto::spire::api::types;
use spindle_spiffe_core::{Timestamp, TrustDomain};

use crate::output::text;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The entry does nothing, or not what it says.
    Error,
    /// It may do so soon, or only partly works.
    Warning,
    /// It is unusual.
    Note,
}

impl Severity {
    /// Its word in output.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// An entry to look at.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its ID, or its place in a file.
    pub label: String,
    /// The entry.
    pub entry: types::Entry,
}

/// An attested agent.
#[derive(Debug, Clone)]
pub struct AgentFact {
    /// Its SPIFFE ID.
    pub id: String,
    /// When its SVID ends.
    pub expires_at: Timestamp,
    /// Whether it is kept out.
    pub banned: bool,
    /// What attestation found out, as `type:value`.
    pub selectors: BTreeSet<String>,
}

/// What is known about the server; none where it was not asked.
#[derive(Debug, Default)]
pub struct Facts {
    /// The trust domain.
    pub trust_domain: Option<TrustDomain>,
    /// Every attested agent.
    pub agents: Option<Vec<AgentFact>>,
    /// Entries that are not looked at and may lead to those that are.
    pub others: Vec<types::Entry>,
    /// Foreign trust domains that have no bundle.
    pub without_bundle: BTreeSet<String>,
    /// Lifetime of an X.509 authority in seconds.
    pub authority_secs: Option<i64>,
    /// The present time.
    pub now: Option<Timestamp>,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// How grave it is.
    pub severity: Severity,
    /// The label of the entry.
    pub entry: String,
    /// The rule, as a stable name.
    pub rule: &'static str,
    /// The SPIFFE ID of the entry.
    pub spiffe_id: String,
    /// What was found.
    pub what: String,
    /// What to try.
    pub remedy: String,
}

impl Finding {
    /// The finding as JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "severity": self.severity.word(),
            "entry": self.entry,
            "rule": self.rule,
            "spiffe_id": self.spiffe_id,
            "what": self.what,
            "remedy": self.remedy,
        })
    }
}

/// Looks at all subjects, and at how they stand to each other. The gravest findings come first.
pub fn lint(subjects: &[Subject], facts: &Facts) -> Vec<Finding> {
    let mut report = Report { found: Vec::new() };
    for subject in subjects {
        values::look(subject, facts, &mut report);
        selectors::look(subject, facts, &mut report);
    }
    likeness::look(subjects, &mut report);
    parents::look(subjects, facts, &mut report);
    report.found.sort();
    report.found
}

/// Collects findings.
struct Report {
    found: Vec<Finding>,
}

impl Report {
    fn add(
        &mut self,
        severity: Severity,
        rule: &'static str,
        subject: &Subject,
        what: String,
        remedy: impl Into<String>,
    ) {
        self.found.push(Finding {
            severity,
            rule,
            entry: subject.label.clone(),
            spiffe_id: text::id(&subject.entry.spiffe_id),
            what,
            remedy: remedy.into(),
        });
    }
}

/// The selectors of an entry as `type:value`.
fn selector_texts(entry: &types::Entry) -> BTreeSet<String> {
    entry.selectors.iter().map(|one| format!("{}:{}", one.r#type, one.value)).collect()
}

/// Whether the entry is a node alias: its parent is the server.
fn is_alias(entry: &types::Entry) -> bool {
    entry.parent_id.as_ref().is_some_and(|parent| parent.path == "/spire/server")
}

#[cfg(test)]
mod tests;
