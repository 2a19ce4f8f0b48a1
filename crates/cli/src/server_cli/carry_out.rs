//! Carries a plan out over SPIRE's batch calls, and tells of every step how it ended.
//!
//! SPIRE's API has no condition on an update or a deletion. So each entry is looked at once more right before its call, and
//! the revision that an update answers shows whether somebody else wrote in between. Start at [`carry_out`].

mod federation;

use spindle_proto::spire::api::server::entry::v1::entry_client::EntryClient;
use spindle_proto::spire::api::server::entry::v1::{
    BatchCreateEntryRequest, BatchDeleteEntryRequest, BatchUpdateEntryRequest, GetEntryRequest,
};
use spindle_proto::spire::api::types;
use tonic::Code;
use tonic::transport::Channel;

pub(super) use federation::carry_out_federation;

use super::entry::batch::split;
use crate::client::refused;
use crate::entry_plan::Step;
use crate::error::Failure;

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// It is done, on the entry of that ID.
    Done(String),
    /// The server refused it; the ID is that of an entry in the way.
    Refused(types::Status, Option<String>),
    /// Somebody else changed the entry after the plan was made; it was left alone.
    Changed(String),
    /// It is done, over somebody else's change of that moment.
    Overwrote(String),
    /// An earlier call failed.
    NotTried,
}

/// Does the steps in order. A call that fails ends the work; what was answered before it stays in the outcomes.
pub(super) async fn carry_out(
    client: &mut EntryClient<Channel>,
    steps: &[Step],
) -> (Vec<Outcome>, Result<(), Failure>) {
    let mut work = Work { client, outcomes: Vec::with_capacity(steps.len()) };
    let mut ended = Ok(());
    for run in steps.chunk_by(|a, b| a.verb() == b.verb()) {
        ended = work.run(run).await;
        if ended.is_err() {
            break;
        }
    }
    let mut outcomes = work.outcomes;
    outcomes.resize(steps.len(), Outcome::NotTried);
    (outcomes, ended)
}

struct Work<'a> {
    client: &'a mut EntryClient<Channel>,
    outcomes: Vec<Outcome>,
}

impl Work<'_> {
    /// Steps of one kind, in calls of bounded size.
    async fn run(&mut self, steps: &[Step]) -> Result<(), Failure> {
        let entries = steps.iter().map(|step| step.entry().clone()).collect();
        let mut rest = steps;
        for call in split::<types::Entry>(entries) {
            let (now, later) = rest.split_at(call.len());
            rest = later;
            let outcomes = match now.first() {
                Some(Step::Create(_)) => self.create(call).await?,
                Some(Step::Update(_)) => self.update(now).await?,
                Some(Step::Delete(_)) => self.delete(now).await?,
                None => Vec::new(),
            };
            self.outcomes.extend(outcomes);
        }
        Ok(())
    }

    async fn create(&mut self, entries: Vec<types::Entry>) -> Result<Vec<Outcome>, Failure> {
        let asked = entries.len();
        let request = BatchCreateEntryRequest { entries, output_mask: None };
        let answer = self.client.batch_create_entry(request).await;
        let results =
            answer.map_err(|status| refused("cannot create entries", &status))?.into_inner().results;
        let outcomes = results.into_iter().map(|result| {
            let id = result.entry.map(|entry| entry.id).unwrap_or_default();
            match result.status.unwrap_or_default() {
                status if status.code == 0 => Outcome::Done(id),
                status => Outcome::Refused(status, Some(id).filter(|id| !id.is_empty())),
            }
        });
        complete(outcomes.collect(), asked)
    }

    async fn update(&mut self, steps: &[Step]) -> Result<Vec<Outcome>, Failure> {
        let (mut outcomes, open) = self.unchanged(steps).await?;
        let entries: Vec<_> = open.iter().map(|at| steps[*at].entry().clone()).collect();
        if entries.is_empty() {
            return Ok(outcomes);
        }
        let request = BatchUpdateEntryRequest { entries, input_mask: None, output_mask: None };
        let answer = self.client.batch_update_entry(request).await;
        let results =
            answer.map_err(|status| refused("cannot update entries", &status))?.into_inner().results;
        let answered = complete(results, open.len())?;
        for (at, result) in open.into_iter().zip(answered) {
            let status = result.status.unwrap_or_default();
            outcomes[at] = updated(steps[at].entry(), status, result.entry.as_ref());
        }
        Ok(outcomes)
    }

    async fn delete(&mut self, steps: &[Step]) -> Result<Vec<Outcome>, Failure> {
        let (mut outcomes, open) = self.unchanged(steps).await?;
        let ids: Vec<_> = open.iter().map(|at| steps[*at].entry().id.clone()).collect();
        if ids.is_empty() {
            return Ok(outcomes);
        }
        let answer = self.client.batch_delete_entry(BatchDeleteEntryRequest { ids }).await;
        let results =
            answer.map_err(|status| refused("cannot delete entries", &status))?.into_inner().results;
        let answered = complete(results, open.len())?;
        for (at, result) in open.into_iter().zip(answered) {
            outcomes[at] = match result.status.unwrap_or_default() {
                status if status.code == 0 => Outcome::Done(result.id),
                status => Outcome::Refused(status, None),
            };
        }
        Ok(outcomes)
    }

    /// Looks at each entry again; gives the places of those that are as they were when the plan was made.
    async fn unchanged(&mut self, steps: &[Step]) -> Result<(Vec<Outcome>, Vec<usize>), Failure> {
        let mut outcomes = vec![Outcome::NotTried; steps.len()];
        let mut open = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            let planned = step.entry();
            let request = GetEntryRequest { id: planned.id.clone(), output_mask: None };
            match self.client.get_entry(request).await {
                Ok(answer) if is_same(planned, answer.get_ref()) => open.push(at),
                Ok(answer) => {
                    let (then, now) = (planned.revision_number, answer.get_ref().revision_number);
                    let what = format!(
                        "somebody else changed it meanwhile: it is at revision {now}, and was at {then}"
                    );
                    outcomes[at] = Outcome::Changed(what);
                }
                Err(status) if status.code() == Code::NotFound => {
                    outcomes[at] = Outcome::Changed("somebody else deleted it meanwhile".into());
                }
                Err(status) => {
                    return Err(refused(&format!("cannot look at entry {} again", planned.id), &status));
                }
            }
        }
        Ok((outcomes, open))
    }
}

/// How an update ended. A server counts one revision for it; more were somebody else's.
fn updated(planned: &types::Entry, status: types::Status, now: Option<&types::Entry>) -> Outcome {
    let then = planned.revision_number;
    match now.map(|now| now.revision_number) {
        _ if status.code != 0 => Outcome::Refused(status, None),
        Some(now) if now > then + 1 => Outcome::Overwrote(format!(
            "somebody else changed it in the moment before: it went from revision {then} to {now}"
        )),
        _ => Outcome::Done(planned.id.clone()),
    }
}

/// The time of making tells an entry from one that was deleted and made again with its ID.
fn is_same(planned: &types::Entry, now: &types::Entry) -> bool {
    (planned.revision_number, planned.created_at) == (now.revision_number, now.created_at)
}

/// A server answers each item; one that does not cannot be told which of them were done.
fn complete<T>(results: Vec<T>, asked: usize) -> Result<Vec<T>, Failure> {
    if results.len() == asked {
        return Ok(results);
    }
    let what = format!("the server was sent {asked} items and answered {}", results.len());
    Err(Failure::new(what).try_this("look at the entries with `entry show`, and run this again"))
}

#[cfg(test)]
mod tests;
