//! Races of attestation, bans, renewals and tokens.

use spindle_testkit::{ManualClock, NOW};

use super::*;
use crate::entries::anything;
use crate::fixtures::{agent, context, csr, directory, id, selectors};

#[tokio::test]
async fn a_ban_at_the_moment_of_an_attestation_holds() {
    let context = context(&ManualClock::default()).await;
    let agent_id = id("/spire/agent/join_token/node-1");
    for _ in 0..20 {
        agent(&context.directory, "/spire/agent/join_token/node-1", &[]).await;
        create_join_token(&context, "node-1".into(), 60, None, &anything).await.unwrap();
        let (attested, banned) =
            tokio::join!(attest_join_token(&context, "node-1", csr()), ban(&context, &agent_id));
        banned.unwrap();
        assert!(context.directory.view().agent(&agent_id).unwrap().banned, "{attested:?}");
        evict(&context, &agent_id).await.unwrap();
        let leftover = Transaction::new().delete(join_token_key("node-1"));
        context.directory.commit(leftover).await.unwrap();
    }
}

#[tokio::test]
async fn a_ban_at_the_moment_of_another_attestation_holds() {
    let context = context(&ManualClock::default()).await;
    let agent_id = id("/spire/agent/x509pop/node-1");
    let node = || NodeAttributes {
        spiffe_id: agent_id.clone(),
        selectors: selectors(&["x509pop:subject:cn:node-1"]),
        can_reattest: true,
    };
    for _ in 0..20 {
        attest_node(&context, "x509pop", node(), csr()).await.unwrap();
        let (attested, banned) =
            tokio::join!(attest_node(&context, "x509pop", node(), csr()), ban(&context, &agent_id));
        banned.unwrap();
        assert!(context.directory.view().agent(&agent_id).unwrap().banned, "{attested:?}");
        let refused = attest_node(&context, "x509pop", node(), csr()).await;
        assert!(matches!(refused, Err(AttestFault::Banned)), "{refused:?}");
        evict(&context, &agent_id).await.unwrap();
    }
}

#[tokio::test]
async fn of_many_attestations_of_one_node_at_once_the_last_one_counts_and_none_fails() {
    let context = context(&ManualClock::default()).await;
    let node = || NodeAttributes {
        spiffe_id: id("/spire/agent/x509pop/node-1"),
        selectors: Selectors::default(),
        can_reattest: true,
    };
    let all = (0..4).map(|_| attest_node(&context, "x509pop", node(), csr()));
    let serials: Vec<_> =
        futures_util::future::join_all(all).await.into_iter().map(|one| one.unwrap().serial).collect();
    let row = context.directory.view().agent(&id("/spire/agent/x509pop/node-1")).unwrap().clone();
    assert!(serials.contains(&row.serial) && row.renewed.is_none() && row.can_reattest, "{row:?}");
}

#[tokio::test]
async fn of_many_uses_of_one_token_at_once_one_wins() {
    let context = context(&ManualClock::default()).await;
    create_join_token(&context, "node-1".into(), 60, None, &anything).await.unwrap();
    let uses = (0..16).map(|_| attest_join_token(&context, "node-1", csr()));
    let (won, lost): (Vec<_>, Vec<_>) =
        futures_util::future::join_all(uses).await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    assert!(lost.iter().all(|outcome| matches!(outcome, Err(AttestFault::TokenUnknown))), "{lost:?}");
    let serial = won[0].as_ref().unwrap().serial.clone();
    let agent_id = id("/spire/agent/join_token/node-1");
    assert_eq!(context.directory.view().agent(&agent_id).unwrap().serial, serial);
}

#[tokio::test]
async fn a_renewal_since_the_row_was_read_is_not_taken_for_used() {
    let directory = directory();
    let stored = agent(&directory, "/spire/agent/x/1", &[]).await;
    let read = AgentRow { renewed: Some(("2".into(), NOW + 60)), ..stored.as_ref().clone() };
    change_agent(&directory, &read.spiffe_id, |agent| {
        agent.renewed = Some(("3".into(), NOW + 90));
        Ok(())
    })
    .await
    .unwrap();
    assert!(matches!(promote(&directory, &read).await, Err(CommitError::Conflict(_))));
    let row = directory.view().agent(&read.spiffe_id).unwrap().clone();
    assert_eq!((row.serial.as_str(), row.renewed.clone()), ("1", Some(("3".into(), NOW + 90))));
    promote(&directory, &row).await.unwrap();
    let row = directory.view().agent(&read.spiffe_id).unwrap().clone();
    assert_eq!((row.serial.as_str(), row.expires_at, row.renewed.clone()), ("3", NOW + 90, None));
}

#[tokio::test]
async fn only_the_svid_in_use_is_renewed() {
    let context = context(&ManualClock::default()).await;
    let row = agent(&context.directory, "/spire/agent/x/1", &[]).await;
    let other = renew(&context, &row.spiffe_id, "2", csr()).await;
    assert!(matches!(other, Err(AttestFault::NotActive)), "{other:?}");
    assert_eq!(context.directory.view().agent(&row.spiffe_id), Some(&row), "nothing has changed");
    renew(&context, &row.spiffe_id, &row.serial, csr()).await.unwrap();
    assert!(context.directory.view().agent(&row.spiffe_id).unwrap().renewed.is_some());
}

#[tokio::test]
async fn a_request_is_not_looked_at_before_the_token_is_found() {
    let context = context(&ManualClock::default()).await;
    let answer = attest_join_token(&context, "never-made", b"garbage".to_vec()).await;
    assert!(matches!(answer, Err(AttestFault::TokenUnknown)), "{answer:?}");
}

#[tokio::test]
async fn the_removal_of_an_ended_token_spares_a_new_one_of_the_same_name() {
    let context = context(&ManualClock::default()).await;
    create_join_token(&context, "node-1".into(), 10, None, &anything).await.unwrap();
    let ended = context.directory.view().join_token("node-1").unwrap();
    context.directory.commit(removal("node-1", ended.revision)).await.unwrap();
    create_join_token(&context, "node-1".into(), 60, None, &anything).await.unwrap();
    let late = context.directory.commit(removal("node-1", ended.revision)).await;
    assert!(matches!(late, Err(CommitError::Conflict(_))), "{late:?}");
    assert_eq!(context.directory.view().join_token("node-1").unwrap().expires_at, NOW + 60);
}
