//! Agents whose SVID ended long ago are forgotten, as the configuration says; banned ones stay, so that their ban does.

use spindle_spiffe_core::{ErrorChain, Timestamp};
use spindle_store::Transaction;
use tracing::{info, warn};

use crate::attestation::eviction;
use crate::config::PruneAgents;
use crate::context::Context;
use crate::directory::{AgentRow, CommitError, agent_key};

/// Whether an agent's time is over. One that was renewed and has not shown its new SVID yet is as young as that.
fn is_over(agent: &AgentRow, settings: &PruneAgents, now: Timestamp) -> bool {
    let ends_at = agent.renewed.as_ref().map_or(agent.expires_at, |(_, at)| agent.expires_at.max(*at));
    !agent.banned
        && (agent.can_reattest || settings.tofu)
        && now.secs_since(ends_at) > settings.expired_for_secs
}

/// Forgets agents whose time was over at `now`, a bounded number of them; the next round goes on.
pub(super) async fn prune(context: &Context, settings: &PruneAgents, now: Timestamp) {
    let view = context.directory.view();
    let over = view.agents().filter(|agent| is_over(agent, settings, now)).take(settings.batch_size);
    let over: Vec<_> = over.cloned().collect();
    for agent in over {
        // Only the row that was looked at: one that attests at this moment is not forgotten.
        let unchanged = Transaction::new().at_revision(agent_key(&agent.spiffe_id), agent.revision);
        let transaction = eviction(&context.directory.view(), &agent, unchanged);
        match context.directory.commit(transaction).await {
            Ok(_) => {
                info!(agent_id = %agent.spiffe_id, attestor = agent.attestation_type,
                      expires_at = %agent.expires_at, "agent has expired long ago and is pruned");
            }
            Err(CommitError::Conflict(_)) => {}
            Err(error) => return warn!(error = %ErrorChain(&error), "cannot prune an expired agent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use spindle_testkit::{ManualClock, NOW};

    use super::*;
    use crate::fixtures::{agent, context, create, entry, id};

    const SETTINGS: PruneAgents = PruneAgents { expired_for_secs: 100, tofu: false, batch_size: 10 };

    /// An agent whose SVID ends `ends_in` seconds from now.
    async fn expiring(context: &Context, name: &str, ends_in: i64, change: impl FnOnce(&mut AgentRow)) {
        let mut row =
            AgentRow::clone(&*agent(&context.directory, &format!("/spire/agent/x/{name}"), &[]).await);
        (row.can_reattest, row.expires_at) = (true, NOW + ends_in);
        change(&mut row);
        let put = Transaction::new().put(agent_key(&row.spiffe_id), row.encode());
        context.directory.commit(put).await.unwrap();
    }

    fn names(context: &Context) -> Vec<String> {
        let view = context.directory.view();
        let name =
            |agent: &std::sync::Arc<AgentRow>| agent.spiffe_id.path().rsplit('/').next().unwrap().to_owned();
        let mut names: Vec<_> = view.agents().map(name).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn only_what_ended_long_ago_can_attest_again_and_is_not_banned_goes() {
        let context = context(&ManualClock::default()).await;
        expiring(&context, "over", -101, |_| ()).await;
        expiring(&context, "just", -100, |_| ()).await;
        expiring(&context, "lives", 50, |_| ()).await;
        expiring(&context, "banned", -1000, |row| row.banned = true).await;
        expiring(&context, "token", -1000, |row| row.can_reattest = false).await;
        expiring(&context, "renewed", -1000, |row| row.renewed = Some(("2".into(), NOW + 5))).await;
        prune(&context, &SETTINGS, NOW).await;
        assert_eq!(names(&context), ["banned", "just", "lives", "renewed", "token"]);
        prune(&context, &PruneAgents { tofu: true, ..SETTINGS }, NOW).await;
        assert_eq!(names(&context), ["banned", "just", "lives", "renewed"]);
        prune(&context, &SETTINGS, NOW + 106).await;
        assert_eq!(names(&context), ["banned", "lives"]);
    }

    #[tokio::test]
    async fn a_round_takes_no_more_than_a_batch() {
        let context = context(&ManualClock::default()).await;
        for name in ["a", "b", "c"] {
            expiring(&context, name, -1000, |_| ()).await;
        }
        let settings = PruneAgents { batch_size: 2, ..SETTINGS };
        prune(&context, &settings, NOW).await;
        assert_eq!(names(&context).len(), 1);
        prune(&context, &settings, NOW).await;
        assert!(names(&context).is_empty());
    }

    #[tokio::test]
    async fn the_entry_that_a_token_made_goes_with_its_agent_and_others_stay() {
        let context = context(&ManualClock::default()).await;
        expiring(&context, "a", -1000, |row| row.attestation_type = "join_token".into()).await;
        let node = id("/spire/agent/x/a");
        create(&context.directory, entry(&node, "/alias", &[&format!("spiffe_id:{node}")])).await;
        create(&context.directory, entry(&node, "/web", &["unix:uid:1"])).await;
        prune(&context, &SETTINGS, NOW).await;
        let view = context.directory.view();
        let left: Vec<_> = view.entries_after(0).map(|row| row.entry.spiffe_id.path().to_owned()).collect();
        assert_eq!(left, ["/web"]);
    }

    #[tokio::test]
    async fn a_store_that_fails_leaves_everything_for_the_next_round() {
        let context = context(&ManualClock::default()).await;
        expiring(&context, "a", -1000, |_| ()).await;
        context.directory.close();
        prune(&context, &SETTINGS, NOW).await;
        assert_eq!(names(&context), ["a"]);
    }
}
