//! Which metrics and labels are emitted, as SPIRE's four lists say. Pure.
//!
//! The longest listed prefix of a name decides; a name without one is emitted. So an allowed prefix only takes something out
//! of a blocked one. An empty list is no list.

use crate::config::TelemetryConfig;

/// The four lists.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    allowed_prefixes: Vec<String>,
    blocked_prefixes: Vec<String>,
    allowed_labels: Vec<String>,
    blocked_labels: Vec<String>,
}

impl Filter {
    pub(crate) fn new(config: &TelemetryConfig) -> Self {
        Self {
            allowed_prefixes: config.allowed_prefixes.clone(),
            blocked_prefixes: config.blocked_prefixes.clone(),
            allowed_labels: config.allowed_labels.clone(),
            blocked_labels: config.blocked_labels.clone(),
        }
    }

    /// Whether a metric of that name, with its first part and joined by dots, is emitted.
    pub(crate) fn passes(&self, name: &str) -> bool {
        let longest = |prefixes: &[String]| {
            prefixes.iter().filter(|prefix| name.starts_with(*prefix)).map(String::len).max()
        };
        match (longest(&self.allowed_prefixes), longest(&self.blocked_prefixes)) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(allowed), Some(blocked)) => allowed > blocked,
        }
    }

    /// Whether a label of that name is.
    pub(crate) fn passes_label(&self, name: &str) -> bool {
        let is_in = |list: &[String]| list.iter().any(|one| one == name);
        !is_in(&self.blocked_labels) && (self.allowed_labels.is_empty() || is_in(&self.allowed_labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_longest_prefix_decides_and_what_is_not_listed_passes() {
        let filter = Filter {
            allowed_prefixes: texts(&["spire_agent.rpc.health", "spire_agent.node"]),
            blocked_prefixes: texts(&["spire_agent.rpc", "spire_agent.node"]),
            ..Filter::default()
        };
        let passes = |name| filter.passes(name);
        assert!(passes("spire_agent.started") && passes("spire_agent.rpc.health.check"));
        assert!(!passes("spire_agent.rpc.debug.get_info"));
        assert!(!passes("spire_agent.node.attest"), "in both lists");
        let allowed = Filter { allowed_prefixes: texts(&["other"]), ..Filter::default() };
        assert!(allowed.passes("spire_agent.started"), "an allowed prefix alone blocks nothing");
        assert!(Filter::default().passes("anything"));
    }

    #[test]
    fn labels_are_those_of_the_list_without_the_blocked() {
        let filter = Filter {
            allowed_labels: texts(&["status", "host"]),
            blocked_labels: texts(&["host"]),
            ..Filter::default()
        };
        assert_eq!(["status", "host", "method"].map(|name| filter.passes_label(name)), [true, false, false]);
        assert!(Filter::default().passes_label("host"));
    }
}
