//! Operators, and the join tokens that they make.

use super::*;

#[tokio::test]
async fn an_operator_lets_nodes_in_but_chooses_neither_their_names_nor_a_powerful_identity() {
    let server = TestServer::start_with(|config| {
        config.admin_ids = vec![id("/spire/agent/join_token/root"), id("/boss")];
    })
    .await;
    server.grant("/operator", grant_of(Role::Operator)).await;
    let channel = server.dial_as("/operator").await;
    token(&channel, "", None).await.unwrap();
    token(&channel, "", Some("/node")).await.unwrap();
    let chosen = token(&channel, "root", None).await;
    expect_refusal(chosen, Code::PermissionDenied, Reason::RoleToken);
    let powerful = token(&channel, "", Some("/boss")).await;
    expect_refusal(powerful, Code::PermissionDenied, Reason::RolePower);
    assert_eq!(token(&server.admin().await, "root", Some("/boss")).await.unwrap(), "root");
    let agent = server.attest().await;
    let agent_id = Some(spiffe_id_to_proto(&agent.id));
    AgentClient::new(channel.clone()).ban_agent(agent_api::BanAgentRequest { id: agent_id }).await.unwrap();
    assert_eq!(
        create(&channel, vec![types::Entry { admin: true, ..ci("/x") }]).await,
        [refused(Reason::RoleFlag)]
    );
}

#[tokio::test]
async fn a_join_token_that_is_not_used_yet_is_shown_to_no_role() {
    let server = TestServer::start().await;
    let wide = |grant: &mut wire::Grant| {
        (grant.path_prefix, grant.parent_path_prefix) = ("/".into(), "/spire/agent/".into());
    };
    let admin = server.admin().await;
    let secret = token(&admin, "", Some("/node")).await.unwrap();
    let agent_path = format!("/spire/agent/join_token/{secret}");
    let by_selector = format!("spiffe_id:{}", id(&agent_path));
    server.create_one(entry(&id("/spire/agent/x/1"), "/by-selector", &[&by_selector])).await;
    server.grant(&agent_path, grant_of(Role::Reader)).await;
    for role in [Role::Reader, Role::Operator] {
        server.grant(&format!("/{role}"), grant_of(role)).await;
    }
    let readers = [server.dial_as("/reader").await, server.dial_as("/operator").await];
    let registrar = registrar(&server, wide).await;
    let made = server.entries().await.list_entries(entry_api::ListEntriesRequest::default()).await;
    let made = made.unwrap().into_inner().entries;
    assert_eq!(made.len(), 2);
    let filter = entry_api::list_entries_request::Filter {
        by_parent_id: Some(wire_id(&agent_path)),
        ..Default::default()
    };
    let count = async |channel: &Channel| {
        let request = entry_api::CountEntriesRequest::default();
        EntryClient::new(channel.clone()).count_entries(request).await.unwrap().into_inner().count
    };
    for channel in readers.iter().chain([&registrar]) {
        assert_eq!(listed(channel).await, [""; 0]);
        let mut entries = EntryClient::new(channel.clone());
        let request = entry_api::ListEntriesRequest { filter: Some(filter.clone()), ..Default::default() };
        assert!(entries.list_entries(request).await.unwrap().into_inner().entries.is_empty());
        assert_eq!(count(channel).await, 0);
        for entry in &made {
            let get = entry_api::GetEntryRequest { id: entry.id.clone(), output_mask: None };
            expect_refusal(entries.get_entry(get).await, Code::NotFound, Reason::EntryNotFound);
        }
    }
    for channel in &readers {
        let holders = RolesClient::new(channel.clone()).list_roles(wire::ListRolesRequest {}).await.unwrap();
        assert!(holders.into_inner().holders.iter().all(|holder| !holder.subject.contains(&secret)));
    }
    let csr = csr();
    attest(server.dial(None).await, secret.as_bytes(), &csr).await.unwrap();
    for channel in readers.iter().chain([&registrar]) {
        assert_eq!(count(channel).await, 2, "a token that was used is none any more");
    }
    let agents = async |channel: &Channel| {
        let mut agents = AgentClient::new(channel.clone());
        let listed = agents.list_agents(agent_api::ListAgentsRequest::default()).await.unwrap().into_inner();
        let counted = agents.count_agents(agent_api::CountAgentsRequest::default()).await.unwrap();
        assert_eq!(usize::try_from(counted.into_inner().count).unwrap(), listed.agents.len());
        listed.agents.len()
    };
    assert_eq!(agents(&readers[0]).await, 1);
    token(&admin, &secret, None).await.unwrap();
    assert_eq!((agents(&readers[0]).await, agents(&admin).await), (0, 1), "made again under the same name");
}
