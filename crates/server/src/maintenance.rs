//! Housekeeping on a timer: ended entries, stale join tokens and, if wished, expired agents go. Nothing that users wait for happens here.

mod agents;

use std::sync::Arc;
use std::time::Duration;

use spindle_runtime::Shutdown;
use spindle_spiffe_core::{ErrorChain, Timestamp};
use spindle_store::Transaction;
use tonic::Code;
use tracing::{info, warn};

use crate::context::Context;
use crate::directory::CommitError;
use crate::federation::removal;
use crate::{attestation, entries};

/// SPIRE prunes entries every five minutes.
const INTERVAL: Duration = Duration::from_secs(300);

/// Runs until the shutdown begins.
pub(crate) async fn run(context: Arc<Context>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {
                let pruned = prune(&context, context.clock.now());
                context.metrics.prune_entries.time(pruned, |_| Code::Ok).await;
                if let Some(settings) = &context.operations.prune_agents {
                    agents::prune(&context, settings, context.clock.now()).await;
                }
            }
            () = shutdown.begun() => return,
        }
    }
}

/// Removes everything that has ended before `now`.
pub(crate) async fn prune(context: &Context, now: Timestamp) {
    let view = context.directory.view();
    let ended: Vec<_> = view.entries_after(0).filter(|row| row.entry.is_expired(now)).cloned().collect();
    for row in ended {
        // Looked at anew each time: the one before may have been similar.
        let deletion = entries::deletion(&context.directory.view(), &row, Transaction::new());
        match context.directory.commit(deletion).await {
            Ok(_) => {
                info!(entry_id = %row.entry.id, spiffe_id = %row.entry.spiffe_id, "entry has ended and is deleted");
            }
            // It was changed a moment ago; the next round looks again.
            Err(CommitError::Conflict(_)) => {}
            Err(error) => return warn!(error = %ErrorChain(&error), "cannot delete an ended entry"),
        }
    }
    if let Err(error) = removal::finish_all(&context.directory).await {
        warn!(%error, "cannot unlink the entries of a deleted bundle");
    }
    for (name, token) in view.join_tokens().filter(|(_, token)| token.expires_at < now) {
        match context.directory.commit(attestation::removal(name, token.revision)).await {
            // It was used or made anew a moment ago.
            Ok(_) | Err(CommitError::Conflict(_)) => {}
            Err(error) => return warn!(error = %ErrorChain(&error), "cannot delete an expired join token"),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use spindle_proto::spire::api::types;
    use spindle_spiffe_core::TrustDomain;
    use spindle_testkit::{ManualClock, NOW};

    use super::*;
    use crate::attestation::create_join_token;
    use crate::directory::{Unlinking, bundle_key, unlinking_key};
    use crate::fixtures::{context, create, entry, foreign_bundle, id};

    fn ids(context: &Context) -> Vec<String> {
        let mut ids: Vec<_> =
            context.directory.view().entries_after(0).map(|row| row.entry.id.to_string()).collect();
        ids.sort();
        ids
    }

    #[tokio::test]
    async fn entries_go_in_the_second_they_end_and_others_stay() {
        let clock = ManualClock::default();
        let context = context(&clock).await;
        for (name, expires_at) in [("never", 0), ("soon", 100), ("later", 101)] {
            let expires_at = if expires_at == 0 { 0 } else { NOW.unix_secs() + expires_at };
            let path = format!("/{name}");
            let wire = types::Entry { id: name.into(), expires_at, ..entry(&id("/node"), &path, &["a:1"]) };
            create(&context.directory, wire).await;
        }
        prune(&context, NOW + 99).await;
        assert_eq!(ids(&context), ["later", "never", "soon"]);
        prune(&context, NOW + 100).await;
        assert_eq!(ids(&context), ["later", "never"]);
        prune(&context, NOW + 1_000_000).await;
        assert_eq!(ids(&context), ["never"]);
    }

    #[tokio::test]
    async fn a_removal_of_a_bundle_that_was_interrupted_is_finished() {
        let clock = ManualClock::default();
        let context = context(&clock).await;
        let (directory, name): (_, TrustDomain) = (&context.directory, "other.example".parse().unwrap());
        foreign_bundle(directory, name.name(), 1).await;
        let federates_with = vec![name.to_string()];
        create(directory, types::Entry { federates_with, ..entry(&id("/node"), "/web", &["a:1"]) }).await;
        create(directory, entry(&id("/node"), "/db", &["a:1"])).await;
        let record = Unlinking::Delete.record(&name).encode_to_vec();
        let interrupted =
            Transaction::new().delete(bundle_key(&name)).put(unlinking_key(&name), record.as_slice());
        directory.commit(interrupted).await.unwrap();
        prune(&context, NOW).await;
        assert_eq!((ids(&context).len(), directory.view().federation().unlinking(&name)), (1, None));
    }

    #[tokio::test]
    async fn what_an_ended_entry_held_is_free_again() {
        let clock = ManualClock::default();
        let context = context(&clock).await;
        let wire = types::Entry { expires_at: NOW.unix_secs(), ..entry(&id("/node"), "/web", &["a:1"]) };
        create(&context.directory, wire.clone()).await;
        prune(&context, NOW).await;
        create(&context.directory, wire).await;
    }

    #[tokio::test]
    async fn join_tokens_go_once_they_are_over() {
        let clock = ManualClock::default();
        let context = context(&clock).await;
        create_join_token(&context, "short".into(), 10, None, &entries::anything).await.unwrap();
        create_join_token(&context, "long".into(), 11, None, &entries::anything).await.unwrap();
        let tokens = || {
            let view = context.directory.view();
            ["short", "long"].map(|token| view.join_token(token).is_some())
        };
        prune(&context, NOW + 10).await;
        assert_eq!(tokens(), [true, true], "a token works in its last second");
        prune(&context, NOW + 11).await;
        assert_eq!(tokens(), [false, true]);
    }

    #[tokio::test]
    async fn a_store_that_fails_leaves_everything_for_the_next_round() {
        let clock = ManualClock::default();
        let context = context(&clock).await;
        let wire = types::Entry { expires_at: NOW.unix_secs(), ..entry(&id("/node"), "/web", &["a:1"]) };
        create(&context.directory, wire).await;
        context.directory.close();
        prune(&context, NOW + 1).await;
        assert_eq!(ids(&context).len(), 1);
    }
}
