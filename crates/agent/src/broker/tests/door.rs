//! Who gets in, and which references are taken.

use spindle_transport::connect_unix;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::*;

#[tokio::test]
async fn bep_05_bep_06_bep_07_a_call_without_the_security_header_is_an_invalid_argument() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let mut client = rig.client(ANYHOW).await;
    for headers in [
        &[][..],
        &[("broker.spiffe.io", "True")],
        &[("broker.spiffe.io", "false")],
        &[("broker.spiffe.io", "true"), ("broker.spiffe.io", "true")],
        &[("workload.spiffe.io", "true")],
    ] {
        let mut request = tonic::Request::new(SubscribeToX509svidRequest { reference: me() });
        for (name, value) in headers {
            request.metadata_mut().append(*name, value.parse().unwrap());
        }
        let refused = client.subscribe_to_x509svid(request).await.unwrap_err();
        let missing = expected(Code::InvalidArgument, "", Reason::BrokerHeaderMissing);
        assert_eq!(refusal_of(&refused), missing, "{headers:?}");
    }
    assert!(svids(&client, me()).await.is_ok());
}

#[tokio::test]
async fn bep_02_bep_03_bep_04_bep_08_both_transports_are_mutual_tls_and_nothing_else() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    for stranger in [rig.dialer(None), rig.dialer(Some(FOREIGN))] {
        let channels = [stranger.connect_unix(&rig.socket).await, stranger.connect().await];
        // With TLS 1.3 a client learns that it is refused when it uses the connection.
        for channel in channels.into_iter().flatten() {
            assert!(svids(&ApiClient::new(channel), me()).await.is_err());
        }
    }
    if let Ok(plain) = connect_unix(&rig.socket).await {
        assert!(svids(&ApiClient::new(plain), me()).await.is_err());
    }
    assert!(svids(&rig.client(ANYHOW).await, me()).await.is_ok());
    let over_tcp = ApiClient::new(rig.dialer(Some(ANYHOW)).connect().await.unwrap());
    assert!(svids(&over_tcp, me()).await.is_ok());
}

#[tokio::test]
async fn bep_09_an_agent_without_an_svid_serves_nobody_yet() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    rig.identity.clear();
    assert!(rig.dialer(Some(ANYHOW)).connect_unix(&rig.socket).await.is_err());
}

#[tokio::test]
async fn bep_14_bep_15_bep_22_bap_30_only_brokers_on_the_list_are_served() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let client = rig.client("spiffe://prod.example/a").await;
    let refusal = expected(Code::PermissionDenied, "", Reason::NotABroker);
    check_all_four(&client, me(), &refusal).await;
    let nobody = rig_of(Vec::new());
    nobody.publish(vec![mine("a")]);
    check_all_four(&nobody.client(ANYHOW).await, me(), &refusal).await;
}

#[tokio::test]
async fn a_broker_of_another_trust_domain_gets_in_while_the_agent_has_that_bundle() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let stranger = rig.dialer(Some(FOREIGN));
    if let Ok(channel) = stranger.connect_unix(&rig.socket).await {
        assert!(svids(&ApiClient::new(channel), me()).await.is_err());
    }
    rig.cache.publish(Change { federated: vec![rig.foreign.whole()], ..Change::default() });
    let client = loop {
        // The endpoint takes note of the bundle in a task of its own.
        if let Ok(channel) = stranger.connect_unix(&rig.socket).await {
            let client = ApiClient::new(channel);
            if svids(&client, me()).await.is_ok() {
                break client;
            }
        }
        tokio::task::yield_now().await;
    };
    rig.cache
        .publish(Change { removed_federated: vec!["other.example".parse().unwrap()], ..Change::default() });
    let status = loop {
        match svids(&client, me()).await {
            Ok(_) => tokio::task::yield_now().await,
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn bep_16_a_client_leaves_a_server_that_is_not_the_one_it_expects() {
    let rig = rig();
    let mut dialer = rig.dialer(Some(ANYHOW));
    dialer.expected = ExpectedServer::Id("spiffe://prod.example/spire/agent/other".parse().unwrap());
    let refused = dialer.connect_unix(&rig.socket).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::PeerWrongId);
}

#[tokio::test]
async fn the_agent_reaches_its_own_endpoint_until_it_has_no_svid_a_bad_one_or_is_gone() {
    let rig = rig();
    rig.publish(vec![]);
    let reachable = Reachable {
        socket: Some(rig.socket.clone()),
        address: Some(rig.address),
        identity: rig.identity.clone(),
        bundles: LiveBundles::new(rig.ca.bundle.clone().into()),
        clock: rig.clock.shared(),
    };
    reachable.check().await.unwrap();
    rig.clock.set(NOW + 3601);
    let why = reachable.check().await.unwrap_err();
    assert!(why.contains("cannot reach the broker endpoint"), "its SVID has ended: {why}");
    rig.clock.set(NOW);
    let port_only = Reachable { socket: None, ..reachable.clone() };
    port_only.check().await.unwrap();
    rig.identity.clear();
    assert!(reachable.check().await.unwrap_err().contains("has no SVID"));
    let nowhere = Reachable {
        socket: Some(rig.socket.with_extension("not")),
        identity: presenting(&rig.ca, &AGENT.parse().unwrap()),
        ..reachable
    };
    assert!(nowhere.check().await.unwrap_err().contains("cannot reach the broker endpoint"));
}

#[tokio::test]
async fn bep_18_before_its_first_sync_the_agent_is_unavailable() {
    let rig = rig();
    let client = rig.client(ANYHOW).await;
    check_all_four(&client, me(), &expected(Code::Unavailable, "", Reason::AgentStarting)).await;
}

#[tokio::test]
async fn bep_20_bep_21_a_broker_whose_certificate_has_run_out_is_unauthenticated_and_comes_back_with_a_new_one()
 {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let client = rig.client(ANYHOW).await;
    let mut open = svids(&client, me()).await.unwrap();
    next(&mut open).await.unwrap();
    rig.clock.advance(3601);
    check_all_four(&client, me(), &expected(Code::Unauthenticated, "", Reason::PeerExpired)).await;
    rig.publish(vec![mine("a"), mine("b")]);
    assert_eq!(next(&mut open).await.unwrap_err().code(), Code::Unauthenticated, "an open stream as well");
}

#[tokio::test]
async fn bep_25_bep_26_reflection_shows_the_service_to_brokers_with_the_header() {
    let rig = rig();
    let asked = || {
        let message_request = Some(MessageRequest::ListServices(String::new()));
        tokio_stream::once(ServerReflectionRequest { host: String::new(), message_request })
    };
    let mut client = ServerReflectionClient::new(rig.channel(ANYHOW).await);
    let bare = client.server_reflection_info(asked()).await.unwrap_err();
    assert_eq!(bare.code(), Code::InvalidArgument);
    let answer = client.server_reflection_info(with_header(asked())).await.unwrap();
    let answer = answer.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else { panic!("a list") };
    assert!(list.service.iter().any(|one| one.name == "spiffe.broker.API"), "{list:?}");
    let mut other = ServerReflectionClient::new(rig.channel("spiffe://prod.example/a").await);
    let refused = other.server_reflection_info(with_header(asked())).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn bep_01_the_socket_lies_apart_from_the_public_one_and_is_for_user_and_group() {
    use std::os::unix::fs::PermissionsExt;
    let rig = rig();
    assert_eq!(std::fs::metadata(&rig.socket).unwrap().permissions().mode() & 0o777, 0o770);
    let folder = TestFolder::new();
    let config = BrokerConfig {
        socket_path: Some(folder.join("below/b.sock")),
        bind_address: None,
        brokers: Vec::new(),
    };
    let refused = BrokerSockets::bind(&config, Some(&folder.join("api.sock"))).err().unwrap();
    assert!(refused.to_string().contains("the directory of the public socket"), "{refused}");
}

#[tokio::test]
async fn bap_11_bap_17_bap_45_bap_46_bap_47_a_wrong_reference_is_told_by_every_method_and_starts_nothing() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let client = rig.client(ANYHOW).await;
    let invalid = expected(Code::InvalidArgument, "WORKLOAD_REFERENCE_INVALID", Reason::ReferenceInvalid);
    for wrong in [
        None,
        Some(WorkloadReference { reference: None }),
        reference("", Vec::new()),
        reference("type.googleapis.com/vendor.Thing", Vec::new()),
        by_pid(0),
        by_pid(-1),
        reference(PID, vec![0xff]),
    ] {
        check_all_four(&client, wrong, &invalid).await;
    }
    assert_eq!(rig.issuer.calls(), 0);
}

#[tokio::test]
async fn bap_11_bap_19_an_object_that_nothing_here_can_look_up_is_an_invalid_reference() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let invalid = expected(Code::InvalidArgument, "WORKLOAD_REFERENCE_INVALID", Reason::ReferenceInvalid);
    check_all_four(&rig.client(ANYHOW).await, pod("web-0"), &invalid).await;
    check_all_four(&rig.client(ANYHOW).await, pod(""), &invalid).await;
}

#[tokio::test]
async fn bap_08_bap_15_bap_16_bap_31_a_process_is_named_over_tcp_only_where_that_is_allowed() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let (local, over_tcp) =
        (rig.client(BY_PID).await, ApiClient::new(rig.dialer(Some(BY_PID)).connect().await.unwrap()));
    assert!(svids(&local, me()).await.is_ok());
    let not_so = expected(Code::PermissionDenied, "", Reason::ReferenceNotAllowed);
    check_all_four(&over_tcp, me(), &not_so).await;
    check_all_four(&local, pod("web-0"), &not_so).await;
}

#[tokio::test]
async fn bap_09_bap_27_bap_46_bap_47_bap_59_bap_64_bap_76_bap_81_a_process_that_has_ended_is_not_found() {
    let rig = rig();
    rig.publish(vec![mine("a")]);
    let mut running = Running::start();
    let pid = running.pid();
    running.end();
    let gone = expected(Code::NotFound, "WORKLOAD_NOT_FOUND", Reason::WorkloadNotFound);
    check_all_four(&rig.client(ANYHOW).await, by_pid(pid), &gone).await;
}

#[tokio::test]
async fn bap_12_bap_13_bap_14_bap_18_bap_55_bap_73_what_the_kernel_tells_decides_and_nobody_gets_what_is_not_his()
 {
    let rig = rig();
    rig.publish(vec![nobodys("a")]);
    let denied = expected(Code::PermissionDenied, "WORKLOAD_NOT_ENTITLED", Reason::NoMatchingEntry);
    check_all_four(&rig.client(ANYHOW).await, me(), &denied).await;
    assert_eq!(rig.issuer.calls(), 0);
}
