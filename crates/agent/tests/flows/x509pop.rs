//! Agents that prove a certificate: renewal, refusals on the way, and a server that trusts them no more.

use spindle_agent::X509PopSource;

use super::*;

/// An agent with a certificate that the server's operator has signed.
pub(super) fn with_certificate(rig: &Rig) -> AgentConfig {
    let (certificate, private_key) = rig.fake.node_root.node("node").write(&rig.folder, "node", &[]);
    let x509pop = X509PopSource::Files { private_key, certificate, intermediates: None };
    AgentConfig { x509pop: Some(x509pop), ..rig.config(None) }
}

pub(super) async fn proofs(rig: &Rig, count: u32) {
    let mut proofs = rig.fake.proofs.subscribe();
    timeout(LONG, proofs.wait_for(|seen| *seen >= count)).await.expect("it attests").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_with_a_certificate_renews_by_attesting_again() {
    let rig = Rig::new(Fake::new(true, 6)).await;
    rig.fake.put([mine("a")]);
    let agent = start(with_certificate(&rig));
    agent.is_ready().await;
    let mut stream = agent.fetch().await.unwrap();
    next(&mut stream).await.unwrap();
    proofs(&rig, 3).await;
    rig.fake.put([mine("b")]);
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 2);
    // A fake's RenewAgent would give an SVID without a proof.
    let seen = rig.fake.serials.borrow().len();
    assert!(seen <= *rig.fake.proofs.borrow() as usize, "each SVID was proved for");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_is_refused_is_tried_again_while_the_svid_lasts() {
    let rig = Rig::new(Fake::new(true, 20)).await;
    rig.fake.put([mine("a")]);
    let agent = start(with_certificate(&rig));
    agent.is_ready().await;
    let mut stream = agent.fetch().await.unwrap();
    next(&mut stream).await.unwrap();
    rig.fake.banned.store(true, Ordering::SeqCst);
    let (mut turned_away, proved) = (rig.fake.turned_away.subscribe(), *rig.fake.proofs.borrow());
    timeout(LONG, turned_away.wait_for(|count| *count >= 1)).await.expect("it renews").unwrap();
    rig.fake.put([mine("b")]);
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 2, "it goes on meanwhile");
    rig.fake.banned.store(false, Ordering::SeqCst);
    proofs(&rig, proved + 1).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_evicted_agent_attests_again_and_one_that_may_not_forgets_its_identity() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let agent = start(with_certificate(&rig));
    agent.is_ready().await;
    rig.fake.refuse.send_replace(Some(Reason::AgentNotAttested));
    proofs(&rig, 2).await;
    rig.fake.banned.store(true, Ordering::SeqCst);
    let error = agent.ends().await;
    assert!(matches!(error, AgentError::AttestationRefused { .. }), "{error:?}");
    assert_eq!(error.reason_code(), Some("agent_banned"));
    rig.fake.refuse.send_replace(None);
    assert!(matches!(rig.start(None).ends().await, AgentError::JoinTokenNeeded { .. }), "nothing is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_certificate_the_server_trusts_no_more_attests_again() {
    let mut rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let agent = start(with_certificate(&rig));
    agent.is_ready().await;
    rig.fake.distrust_agents();
    rig.kill_server();
    rig.start_server().await;
    proofs(&rig, 2).await;
    rig.fake.put([mine("b")]);
    let mut stream = agent.fetch().await.unwrap();
    while next(&mut stream).await.unwrap().svids.len() < 2 {}
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_nobody_vouches_for_is_refused_at_once_with_the_reason() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    let stranger = spindle_testkit::NodePki::root("stranger", SystemClock.now());
    let (certificate, private_key) = stranger.node("node").write(&rig.folder, "stranger", &[]);
    let x509pop = Some(X509PopSource::Files { private_key, certificate, intermediates: None });
    let error = start(AgentConfig { x509pop, ..rig.config(None) }).ends().await;
    assert!(matches!(error, AgentError::AttestationRefused { .. }), "{error:?}");
    assert!(error.to_string().contains("certificate verification failed"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_its_certificate_does_not_start_and_a_token_wins_over_one() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    let config = with_certificate(&rig);
    std::fs::remove_file(rig.folder.join("node.key")).unwrap();
    let started =
        Agent::start(config, SystemClock::shared(), Arc::new(SystemEntropy), Shutdown::new()).map(|_| ());
    let error = started.expect_err("it cannot prove itself");
    assert!(matches!(error, AgentError::NodeProof { .. }), "{error:?}");
    assert!(error.to_string().contains("node.key") && error.remedy().contains("private_key_path"), "{error}");
    let config = AgentConfig { join_token: Some(JoinToken::new("good")), ..with_certificate(&rig) };
    let agent = start(config);
    agent.is_ready().await;
    assert_eq!(*rig.fake.proofs.borrow(), 0);
    agent.stop().await;
}
