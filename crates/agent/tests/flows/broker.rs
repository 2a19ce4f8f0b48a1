//! The broker endpoint of a whole agent.

use spindle_agent::config::{ANY_REFERENCE_TYPE, AllowedBroker, AllowedReferenceType, BrokerConfig};
use spindle_proto::broker::api_client::ApiClient;
use spindle_proto::broker::{SubscribeToX509svidRequest, WorkloadReference};
use spindle_transport::{ExpectedServer, LiveBundles, LiveIdentity, TlsDialer, Trust};

use super::sockets::{probe, probed};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn bep_02_bep_09_a_whole_agent_serves_a_broker_with_its_own_svid_and_pushes_changes() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let mut config = rig.config(Some("good"));
    let socket = rig.folder.socket("broker/b.sock");
    let types = vec![AllowedReferenceType { type_url: ANY_REFERENCE_TYPE.into(), allow_over_tcp: true }];
    let broker = AllowedBroker { id: rig.fake.ca.id("/broker"), allowed_reference_types: types };
    config.broker = Some(BrokerConfig {
        socket_path: Some(socket.clone()),
        bind_address: Some(([127, 0, 0, 1], 0).into()),
        brokers: vec![broker],
    });
    config.socket_path = rig.folder.socket("public/api.sock");
    config.health_checks = probed();
    let agent = start(config);
    agent.is_ready().await;
    let well = probe(&agent.agent, "/ready").await;
    assert!(well.ends_with("{\"agent\":{},\"agent.broker\":{}}\n"), "{well}");

    let us = rig.fake.ca.issue("/broker", SystemClock.now());
    let identity = LiveIdentity::new();
    identity.set(us.svid.chain().to_vec(), &us.key.pkcs8_der()).unwrap();
    let address = agent.agent.broker_addr().unwrap();
    let dialer = TlsDialer::new(
        address.ip().to_string(),
        address.port(),
        Trust::Bundles(LiveBundles::new(rig.fake.ca.x509_bundle().into())),
        ExpectedServer::Id(rig.fake.ca.id("/spire/agent/join_token/good")),
        SystemClock::shared(),
    )
    .with_identity(identity);
    for channel in [dialer.connect_unix(&socket).await.unwrap(), dialer.connect().await.unwrap()] {
        let value = vec![8; 1].into_iter().chain(varint(std::process::id())).collect();
        let type_url = "type.googleapis.com/spiffe.broker.WorkloadPIDReference".into();
        let reference = WorkloadReference { reference: Some(prost_types::Any { type_url, value }) };
        let mut request = tonic::Request::new(SubscribeToX509svidRequest { reference: Some(reference) });
        request.metadata_mut().insert("broker.spiffe.io", "true".parse().unwrap());
        let mut stream = ApiClient::new(channel).subscribe_to_x509svid(request).await.unwrap().into_inner();
        let count = async |stream: &mut Streaming<_>| {
            let message: spindle_proto::broker::SubscribeToX509svidResponse =
                timeout(LONG, stream.message()).await.unwrap().unwrap().unwrap();
            message.svids.len()
        };
        assert_eq!(count(&mut stream).await, 1);
        rig.fake.put([mine("b")]);
        assert_eq!(count(&mut stream).await, 2);
        rig.fake.remove("b");
        assert_eq!(count(&mut stream).await, 1);
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_broker_socket_is_gone_is_alive_and_not_ready() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    let mut config = rig.config(Some("good"));
    let socket = rig.folder.socket("broker/b.sock");
    config.broker =
        Some(BrokerConfig { socket_path: Some(socket.clone()), bind_address: None, brokers: Vec::new() });
    config.socket_path = rig.folder.socket("public/api.sock");
    config.health_checks = probed();
    let agent = start(config);
    agent.is_ready().await;
    std::fs::remove_file(&socket).unwrap();
    let ready = probe(&agent.agent, "/ready").await;
    assert!(ready.starts_with("HTTP/1.1 500 ") && ready.contains("\"agent\":{},"), "{ready}");
    assert!(ready.contains("\"broker_err\":\"cannot reach the broker endpoint: "), "{ready}");
    let live = probe(&agent.agent, "/live").await;
    assert!(live.starts_with("HTTP/1.1 200 "), "{live}");
    agent.stop().await;
}

/// A number as protobuf writes it.
fn varint(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
