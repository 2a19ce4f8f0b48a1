//! A plan and how it ended, for people and as one line of JSON; shared by `entry apply` and `import`.

mod federation;

use serde_json::{Value, json};
use spindle_proto::refusal::Refusal;
use spindle_proto::spire::api::types;
use tonic::Code;

pub(super) use federation::FederationReport;

use super::carry_out::Outcome;
use crate::args::OutputForm;
use crate::client::{code_name, item_remedy};
use crate::console::Console;
use crate::entry_plan::{FieldChange, Plan, Step, fields};
use crate::error::Failure;
use crate::output::{plural, text};

/// Exit status of a dry run that found something to do.
pub(super) const EXIT_PENDING: u8 = 2;

/// A plan, and the outcomes of its steps once it was carried out.
pub(super) struct Report<'a> {
    pub(super) plan: &'a Plan,
    /// Empty after a dry run.
    pub(super) outcomes: &'a [Outcome],
    pub(super) dry_run: bool,
    /// How the entries should be, such as `as declared`.
    pub(super) wanted: &'a str,
    /// What was done before the entries, if anything could be.
    pub(super) federation: Option<FederationReport<'a>>,
}

impl Report<'_> {
    /// Prints everything and tells how the command ends.
    pub(super) fn print(&self, form: OutputForm, console: &mut Console<'_>) -> Result<(), Failure> {
        let ended = self.ended();
        match form {
            OutputForm::Json => writeln!(console.out, "{}", self.to_json())?,
            OutputForm::Pretty => self.pretty(console)?,
        }
        ended
    }

    fn pretty(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        if let Some(federation) = &self.federation {
            federation.print(console)?;
        }
        for step in &self.plan.steps {
            print_step(step, console)?;
        }
        for conflict in &self.plan.conflicts {
            writeln!(console.err, "Conflict: {}: {}", name(&conflict.entry), conflict.what)?;
            writeln!(console.err, "  Try: {}", conflict.remedy)?;
        }
        for (step, outcome) in self.plan.steps.iter().zip(self.outcomes) {
            print_outcome(step.verb(), &name(step.entry()), outcome, console)?;
        }
        self.print_sum(console)
    }

    fn print_sum(&self, console: &mut Console<'_>) -> Result<(), Failure> {
        let (plan, unchanged) = (self.plan, self.plan.unchanged);
        let conflicts = plan.conflicts.len();
        let [create, update, delete] = ["create", "update", "delete"].map(|verb| plan.count(verb));
        let out = &mut *console.out;
        if plan.steps.is_empty() {
            let unless = if conflicts == 0 { String::new() } else { format!(", {conflicts} in conflict") };
            writeln!(out, "Nothing to do: {unchanged} unchanged{unless}.")?;
        } else if self.dry_run {
            writeln!(
                out,
                "Plan: {create} to create, {update} to update, {delete} to delete, {unchanged} unchanged, {conflicts} in conflict."
            )?;
        } else {
            let done = |verb| self.done().filter(|step| step.verb() == verb).count();
            let [created, updated, deleted] = ["create", "update", "delete"].map(done);
            let failed = plan.steps.len() - created - updated - deleted;
            writeln!(
                out,
                "Done: {created} created, {updated} updated, {deleted} deleted, {unchanged} unchanged, {conflicts} in conflict, {failed} failed."
            )?;
        }
        Ok(())
    }

    /// Steps that are done without a word of caution.
    fn done(&self) -> impl Iterator<Item = &Step> {
        let pairs = self.plan.steps.iter().zip(self.outcomes);
        pairs.filter(|(_, outcome)| matches!(outcome, Outcome::Done(_))).map(|(step, _)| step)
    }

    fn ended(&self) -> Result<(), Failure> {
        let failed = if self.dry_run { 0 } else { self.plan.steps.len() - self.done().count() };
        let lost = self.plan.conflicts.len() + failed;
        let federation_lost = self.federation.as_ref().map_or(0, FederationReport::lost);
        if federation_lost > 0 {
            let lost = federation_lost + lost;
            let what = format!("{lost} {} not {}", plural(lost, "thing is", "things are"), self.wanted);
            return Err(Failure::new(what).try_this("see above for each; another run goes on from here"));
        }
        if lost > 0 {
            let what = format!("{lost} {} not {}", plural(lost, "entry is", "entries are"), self.wanted);
            return Err(Failure::new(what).try_this("see above for each; another run goes on from here"));
        }
        let pending = self.dry_run && !self.plan.steps.is_empty();
        if pending || self.federation.as_ref().is_some_and(FederationReport::is_pending) {
            return Err(Failure::new("").with_exit(EXIT_PENDING));
        }
        Ok(())
    }

    fn to_json(&self) -> Value {
        let steps =
            self.plan.steps.iter().enumerate().map(|(at, step)| step_json(step, self.outcomes.get(at)));
        let conflicts = self.plan.conflicts.iter().map(|conflict| {
            json!({
                "entry": identity_json(&conflict.entry),
                "what": conflict.what,
                "remedy": conflict.remedy,
            })
        });
        let mut object = json!({
            "dry_run": self.dry_run,
            "steps": steps.collect::<Vec<_>>(),
            "conflicts": conflicts.collect::<Vec<_>>(),
            "unchanged": self.plan.unchanged,
        });
        if let (Some(federation), Some(fields)) = (&self.federation, object.as_object_mut()) {
            fields.insert("federation".into(), federation.to_json());
        }
        object
    }
}

fn print_step(step: &Step, console: &mut Console<'_>) -> Result<(), Failure> {
    let entry = step.entry();
    let id = if entry.id.is_empty() { "(new)" } else { &entry.id };
    let sign = match step {
        Step::Create(_) => '+',
        Step::Update(_) => '~',
        Step::Delete(_) => '-',
    };
    writeln!(console.out, "{sign} {} {id}  {}", step.verb(), text::id(&entry.spiffe_id))?;
    match step {
        Step::Create(_) => print_fields(entry, console),
        Step::Update(_) => {
            step.changes().iter().try_for_each(|change| Ok(writeln!(console.out, "    {change}")?))
        }
        Step::Delete(_) => Ok(writeln!(console.out, "    parent_id {}", text::id(&entry.parent_id))?),
    }
}

/// The fields of a new entry that are not at their defaults.
fn print_fields(entry: &types::Entry, console: &mut Console<'_>) -> Result<(), Failure> {
    let defaults = fields(&types::Entry::default());
    for ((field, value), (_, default)) in fields(entry).into_iter().zip(defaults) {
        if value != default && field != "spiffe_id" {
            writeln!(console.out, "    {field} {}", crate::entry_plan::Shown(&value))?;
        }
    }
    Ok(())
}

/// Says what did not go well; `name` is what the step is about.
fn print_outcome(
    verb: &str,
    name: &str,
    outcome: &Outcome,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let err = &mut *console.err;
    match outcome {
        Outcome::Done(_) => {}
        Outcome::Refused(status, existing) => {
            let (code, message) = (code_name(Code::from_i32(status.code)), &status.message);
            writeln!(err, "Failed to {verb} {name} (code: {code}, msg: {message:?})")?;
            if let Some(refusal) = Refusal::of_item(status) {
                writeln!(err, "reason: {}", refusal.code)?;
            }
            if let Some(id) = existing {
                writeln!(err, "existing entry: {id}")?;
            }
            if let Some(remedy) = item_remedy(status) {
                writeln!(err, "  Try: {remedy}")?;
            }
        }
        Outcome::Changed(what) => writeln!(err, "Did not {verb} {name}: {what}")?,
        Outcome::Overwrote(what) => writeln!(err, "Did {verb} {name}, but {what}")?,
        Outcome::NotTried => writeln!(err, "Did not get to {verb} {name}")?,
    }
    Ok(())
}

/// An entry for people: its ID, if it has one, and what it gives.
fn name(entry: &types::Entry) -> String {
    let spiffe_id = text::id(&entry.spiffe_id);
    if entry.id.is_empty() { spiffe_id } else { format!("{} ({spiffe_id})", entry.id) }
}

fn identity_json(entry: &types::Entry) -> Value {
    json!({
        "entry_id": entry.id,
        "spiffe_id": text::id(&entry.spiffe_id),
        "parent_id": text::id(&entry.parent_id),
    })
}

fn step_json(step: &Step, outcome: Option<&Outcome>) -> Value {
    let change = |change: FieldChange| json!({ "field": change.field, "old": change.old, "new": change.new });
    let mut object = json!({
        "action": step.verb(),
        "entry": identity_json(step.entry()),
        "changes": step.changes().into_iter().map(change).collect::<Vec<_>>(),
    });
    if let (Some(outcome), Some(fields)) = (outcome, object.as_object_mut()) {
        fields.insert("outcome".into(), outcome_json(outcome));
    }
    object
}

fn outcome_json(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Done(id) => json!({ "result": "done", "entry_id": id }),
        Outcome::Refused(status, existing) => json!({
            "result": "refused",
            "code": status.code,
            "message": status.message,
            "reason": Refusal::of_item(status).map(|refusal| refusal.code),
            "existing_entry_id": existing,
        }),
        Outcome::Changed(what) => json!({ "result": "changed", "message": what }),
        Outcome::Overwrote(what) => json!({ "result": "overwrote", "message": what }),
        Outcome::NotTried => json!({ "result": "not_tried" }),
    }
}

#[cfg(test)]
mod tests;
