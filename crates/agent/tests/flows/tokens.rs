//! Tokens of an agent whose server polls and fails like SPIRE's.

use spindle_proto::workload::{Jwtsvid, JwtsvidRequest};

use super::*;

async fn tokens(agent: &Started, audience: &str) -> Result<Vec<Jwtsvid>, Status> {
    let channel = connect_unix(agent.agent.socket_path()).await.unwrap();
    let message = JwtsvidRequest { audience: vec![audience.into()], spiffe_id: String::new() };
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert("workload.spiffe.io", "true".parse().unwrap());
    Ok(SpiffeWorkloadApiClient::new(channel).fetch_jwtsvid(request).await?.into_inner().svids)
}

async fn polled() -> (Rig, Started) {
    let rig = Rig::new(Fake::new(false, 3600)).await;
    rig.fake.jwt.sign_with("k1");
    rig.fake.put([mine("a")]);
    let agent = rig.joined().await;
    (rig, agent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_polling_agent_gives_tokens_and_replaces_those_of_a_key_that_it_learns_is_tainted() {
    let (rig, agent) = polled().await;
    let first = tokens(&agent, "db").await.unwrap().remove(0);
    assert_eq!(first.spiffe_id, "spiffe://prod.example/a");
    assert_eq!(tokens(&agent, "db").await.unwrap()[0].svid, first.svid);
    assert_eq!(*rig.fake.jwt.asked.lock().unwrap(), [["db"]]);
    rig.fake.jwt.sign_with("k2");
    let replaced = async { while tokens(&agent, "db").await.unwrap()[0].svid == first.svid {} };
    timeout(LONG, replaced).await.expect("the taint is learned of");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_may_pass_is_tried_again_and_a_refusal_is_told_as_unavailable() {
    let (rig, agent) = polled().await;
    rig.fake.jwt.failures.lock().unwrap().push_back(Status::unavailable("away"));
    assert_eq!(tokens(&agent, "db").await.unwrap().len(), 1);
    assert_eq!(rig.fake.jwt.asked.lock().unwrap().len(), 2);
    rig.fake.jwt.failures.lock().unwrap().push_back(Status::not_found("entry not found"));
    let status = tokens(&agent, "other").await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "could not fetch JWT-SVID: entry not found")
    );
    assert_eq!(rig.fake.jwt.asked.lock().unwrap().len(), 3);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_a_polling_agent_learns_is_gone_gives_no_token_any_more() {
    let (rig, agent) = polled().await;
    tokens(&agent, "db").await.unwrap();
    rig.fake.remove("a");
    let gone = async {
        loop {
            if let Err(status) = tokens(&agent, "db").await {
                return status;
            }
        }
    };
    let status = timeout(LONG, gone).await.expect("the removal is learned of");
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
    agent.stop().await;
}
