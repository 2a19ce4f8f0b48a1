//! How roles are given, taken and asked about.

use super::*;

#[tokio::test]
async fn roles_are_given_listed_and_taken_and_outlive_a_restart() {
    let mut server = TestServer::start_with(|config| {
        config.store.kind = StoreKind::Redb;
        config.roles = vec![assignment(RoleSubject::Identity(id("/monitor")), Role::Reader)];
    })
    .await;
    let full = wire::Grant {
        parent_path_prefix: "/spire/agent/".into(),
        verbs: vec!["create".into(), "delete".into()],
        max_x509_svid_ttl: 60,
        max_jwt_svid_ttl: 30,
        allow_admin: true,
        allow_downstream: true,
        ..grant_of(Role::Registrar)
    };
    server.grant("/ci/main", full.clone()).await;
    server.grant("/ci/main", full.clone()).await;
    let foreign = "spiffe://other.example/ops";
    let request = wire::GrantRoleRequest { spiffe_id: foreign.into(), grant: Some(grant_of(Role::Operator)) };
    server.roles().await.grant_role(request).await.unwrap();
    server.restart().await;
    let holders =
        server.roles().await.list_roles(wire::ListRolesRequest {}).await.unwrap().into_inner().holders;
    let holder = |subject: &str, grant, configured| wire::Holder {
        subject: subject.into(),
        grants: vec![grant],
        configured,
    };
    let expected = [
        holder("spiffe://example.org/monitor", grant_of(Role::Reader), true),
        holder("spiffe://example.org/ci/main", full, false),
        holder(foreign, grant_of(Role::Operator), false),
    ];
    assert_eq!(holders, expected);
    server.revoke("/ci/main").await;
    let take = |path: &str, role: &str| wire::RevokeRoleRequest {
        spiffe_id: id(path).to_string(),
        role: role.into(),
    };
    let mut roles = server.roles().await;
    expect_refusal(roles.revoke_role(take("/ci/main", "")).await, Code::NotFound, Reason::RoleNotFound);
    let configured = roles.revoke_role(take("/monitor", "reader")).await;
    let message = expect_refusal(configured, Code::FailedPrecondition, Reason::RoleNotFound);
    assert!(message.contains("configuration"), "{message}");
    expect_refusal(
        roles.revoke_role(take("/ci/main", "boss")).await,
        Code::InvalidArgument,
        Reason::BadRequest,
    );
}

#[tokio::test]
async fn a_role_that_makes_no_sense_is_not_given() {
    let server = TestServer::start().await;
    let mut roles = server.roles().await;
    let registrar = || grant_of(Role::Registrar);
    let cases = [
        (None, "missing grant"),
        (Some(wire::Grant::default()), "is not a role"),
        (Some(wire::Grant { path_prefix: "/a".into(), ..grant_of(Role::Reader) }), "only a registrar"),
        (Some(wire::Grant { path_prefix: String::new(), ..registrar() }), "not a path prefix"),
        (Some(wire::Grant { path_prefix: "/a//b".into(), ..registrar() }), "not a path prefix"),
        (Some(wire::Grant { verbs: vec![], ..registrar() }), "at least one of the verbs"),
    ];
    for (grant, says) in cases {
        let request = wire::GrantRoleRequest { spiffe_id: id("/a").to_string(), grant };
        let message =
            expect_refusal(roles.grant_role(request).await, Code::InvalidArgument, Reason::BadRequest);
        assert!(message.contains(says), "{says:?} is not in {message:?}");
    }
    for spiffe_id in ["", "ci", "unix:uid:1", "spiffe://"] {
        let request = wire::GrantRoleRequest { spiffe_id: spiffe_id.into(), grant: Some(registrar()) };
        expect_refusal(roles.grant_role(request).await, Code::InvalidArgument, Reason::BadRequest);
    }
    assert!(roles.list_roles(wire::ListRolesRequest {}).await.unwrap().into_inner().holders.is_empty());
}

#[tokio::test]
async fn a_local_user_with_a_role_has_that_and_no_more() {
    let server = TestServer::start_with(|config| {
        config.roles = vec![assignment(RoleSubject::Uid(own_uid()), Role::Registrar)];
    })
    .await;
    let local = server.admin().await;
    assert_eq!(create(&local, vec![ci("/ci/a"), ci("/web")]).await, [done(), refused(Reason::RolePath)]);
    expect_refusal(token(&local, "", None).await, Code::PermissionDenied, Reason::MethodNotAllowed);
}

#[tokio::test]
async fn who_asks_about_others_must_be_an_administrator_and_who_asks_nonsense_is_told_so() {
    let server = TestServer::start().await;
    let ask = async |channel: Channel, spiffe_id: &str, method: &str| {
        let request = wire::CanRequest { spiffe_id: spiffe_id.into(), method: method.into(), entry: None };
        in_time(RolesClient::new(channel).can(request)).await
    };
    let channel = registrar(&server, |_| ()).await;
    let (own, other) = (id("/registrar").to_string(), id("/other").to_string());
    assert!(ask(channel.clone(), &own, "BatchCreateEntry").await.unwrap().into_inner().allowed);
    for channel in [channel, server.dial(None).await] {
        let answer = ask(channel, &other, "ListEntries").await;
        expect_refusal(answer, Code::PermissionDenied, Reason::MethodNotAllowed);
    }
    let admin = server.admin().await;
    let nobody = ask(admin.clone(), &other, "ListEntries").await.unwrap().into_inner();
    assert_eq!((nobody.allowed, nobody.reason.as_str()), (false, "method_not_allowed"));
    for (method, says) in [("Nothing", "there is no method"), ("", "there is no method")] {
        let message = expect_refusal(
            ask(admin.clone(), "", method).await,
            Code::InvalidArgument,
            Reason::MethodUnknown,
        );
        assert!(message.contains(says), "{message}");
    }
    expect_refusal(
        ask(admin.clone(), "nobody", "ListEntries").await,
        Code::InvalidArgument,
        Reason::BadRequest,
    );
    let registrar_asks = async |question: wire::EntryQuestion, method: &str| {
        let request =
            wire::CanRequest { spiffe_id: own.clone(), method: method.into(), entry: Some(question) };
        in_time(RolesClient::new(admin.clone()).can(request)).await
    };
    let none = registrar_asks(wire::EntryQuestion::default(), "BatchDeleteEntry").await;
    expect_refusal(none, Code::NotFound, Reason::EntryNotFound);
    let no_parent = wire::EntryQuestion { spiffe_id: Some(wire_id("/ci/a")), ..Default::default() };
    expect_refusal(
        registrar_asks(no_parent, "BatchCreateEntry").await,
        Code::InvalidArgument,
        Reason::BadRequest,
    );
    let negative = wire::EntryQuestion { x509_svid_ttl: -1, ..question(&ci("/ci/a")) };
    expect_refusal(
        registrar_asks(negative, "BatchCreateEntry").await,
        Code::InvalidArgument,
        Reason::BadRequest,
    );
}
