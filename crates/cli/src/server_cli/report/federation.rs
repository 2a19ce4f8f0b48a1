//! The part of a report about bundles and relationships, which comes before the one about entries.

use serde_json::{Value, json};
use spindle_proto::spire::api::types::Bundle;

use super::{outcome_json, print_outcome};
use crate::console::Console;
use crate::error::Failure;
use crate::federation_plan::{FederationPlan, FederationStep, Item, profile};
use crate::server_cli::carry_out::Outcome;

/// A plan, and the outcomes of its steps once it was carried out.
pub(in crate::server_cli) struct FederationReport<'a> {
    pub(in crate::server_cli) plan: &'a FederationPlan,
    /// Empty after a dry run.
    pub(in crate::server_cli) outcomes: &'a [Outcome],
    pub(in crate::server_cli) dry_run: bool,
}

impl FederationReport<'_> {
    /// How many things are not as they should be.
    pub(super) fn lost(&self) -> usize {
        self.plan.conflicts.len() + self.failed()
    }

    /// Whether a dry run found something to do.
    pub(super) fn is_pending(&self) -> bool {
        self.dry_run && !self.plan.steps.is_empty()
    }

    fn failed(&self) -> usize {
        if self.dry_run { 0 } else { self.plan.steps.len() - self.done().count() }
    }

    fn done(&self) -> impl Iterator<Item = &FederationStep> {
        let pairs = self.plan.steps.iter().zip(self.outcomes);
        pairs.filter(|(_, outcome)| matches!(outcome, Outcome::Done(_))).map(|(step, _)| step)
    }

    /// Says nothing when neither side has bundles or relationships.
    pub(super) fn print(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        let FederationPlan { steps, conflicts, unchanged } = self.plan;
        if steps.is_empty() && conflicts.is_empty() && *unchanged == 0 {
            return Ok(());
        }
        for step in steps {
            let sign = if step.changes.is_empty() { '+' } else { '~' };
            writeln!(console.out, "{sign} {} {}", step.verb(), name(&step.item))?;
            details(step).iter().try_for_each(|line| writeln!(console.out, "    {line}"))?;
        }
        for conflict in conflicts {
            writeln!(console.err, "Conflict: {}: {}", name(&conflict.item), conflict.what)?;
            writeln!(console.err, "  Try: {}", conflict.remedy)?;
        }
        for (step, outcome) in steps.iter().zip(self.outcomes) {
            print_outcome(step.verb(), &name(&step.item), outcome, console)?;
        }
        self.print_sum(console)
    }

    fn print_sum(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        let (unchanged, conflicts) = (self.plan.unchanged, self.plan.conflicts.len());
        let planned = |verb| self.plan.steps.iter().filter(|step| step.verb() == verb).count();
        let done = |verb| self.done().filter(|step| step.verb() == verb).count();
        let told = if self.dry_run {
            format!("{} to create, {} to update", planned("create"), planned("update"))
        } else {
            format!("{} created, {} updated", done("create"), done("update"))
        };
        let failed = self.failed();
        let rest = format!("{unchanged} unchanged, {conflicts} in conflict, {failed} failed");
        Ok(writeln!(console.out, "Bundles and relationships: {told}, {rest}.")?)
    }

    pub(super) fn to_json(&self) -> Value {
        let item = |item: &Item| json!({ "kind": item.kind(), "trust_domain": item.trust_domain() });
        let steps = self.plan.steps.iter().enumerate().map(|(at, step)| {
            let outcome = self.outcomes.get(at).map(outcome_json);
            json!({ "action": step.verb(), "item": item(&step.item), "changes": step.changes, "outcome": outcome })
        });
        let conflicts = self.plan.conflicts.iter();
        let conflicts = conflicts.map(
            |conflict| json!({ "item": item(&conflict.item), "what": conflict.what, "remedy": conflict.remedy }),
        );
        json!({
            "steps": steps.collect::<Vec<_>>(),
            "conflicts": conflicts.collect::<Vec<_>>(),
            "unchanged": self.plan.unchanged,
        })
    }
}

fn name(item: &Item) -> String {
    match item {
        Item::Bundle(bundle) => format!("bundle of {}", bundle.trust_domain),
        Item::Relationship(relationship) => format!("relationship with {}", relationship.trust_domain),
    }
}

/// Told only where there are some: few trust domains have them.
fn wit(bundle: &Bundle) -> Option<String> {
    let count = bundle.wit_authorities.len();
    (count > 0).then(|| format!("wit_authorities {count}"))
}

fn details(step: &FederationStep) -> Vec<String> {
    if !step.changes.is_empty() {
        return step.changes.clone();
    }
    match &step.item {
        Item::Bundle(bundle) => [
            format!("x509_authorities {}", bundle.x509_authorities.len()),
            format!("jwt_authorities {}", bundle.jwt_authorities.len()),
        ]
        .into_iter()
        .chain(wit(bundle))
        .collect(),
        Item::Relationship(relationship) => vec![
            format!("bundle_endpoint_url {}", relationship.bundle_endpoint_url),
            format!("bundle_endpoint_profile {}", profile(relationship)),
        ],
    }
}
