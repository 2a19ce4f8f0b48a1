//! What a server tells of itself at the port that Prometheus scrapes.

use spindle_proto::spire::api::server::entry::v1 as wire;
use spindle_server::ServerError;
use spindle_telemetry::{PrometheusConfig, TelemetryConfig};
use spindle_testkit::NOW;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::{CA_TTL_SECS, PATIENCE, TestServer, entry, id, in_time};

fn told(address: std::net::SocketAddr) -> TelemetryConfig {
    let prometheus = Some(PrometheusConfig { address, tls: None });
    TelemetryConfig { prometheus, host_label: false, ..TelemetryConfig::default() }
}

async fn scraped() -> TestServer {
    TestServer::start_with(|config| config.operations.telemetry = told("127.0.0.1:0".parse().unwrap())).await
}

async fn values(server: &TestServer) -> String {
    in_time(async {
        let mut stream = TcpStream::connect(server.prometheus_addr()).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    })
    .await
}

/// Waits until each of these lines is told: a call counts when its client has read its end.
async fn tells(server: &TestServer, lines: &[&str]) {
    for line in lines {
        let mut last = String::new();
        let found = async {
            while !last.lines().any(|one| one == *line) {
                last = values(server).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, found).await.is_ok(), "{line} is not in {last}");
    }
}

#[tokio::test]
async fn a_server_tells_its_start_and_its_authorities() {
    let server = scraped().await;
    let version = env!("CARGO_PKG_VERSION").replace('.', "_");
    let expiration = NOW.unix_secs() + CA_TTL_SECS;
    tells(
        &server,
        &[
            &format!(r#"spire_server_started{{version="{version}",trust_domain_id="example_org"}} 1"#),
            r#"spire_server_ca_manager_x509_ca_prepare{status="OK"} 1"#,
            r#"spire_server_ca_manager_jwt_key_prepare{status="OK"} 1"#,
            "spire_server_ca_manager_x509_ca_activate 1",
            "spire_server_manager_jwt_key_activate 1",
            r#"spire_server_svid_rotate{status="OK"} 1"#,
            &format!(
                r#"spire_server_manager_x509_ca_rotate_expiration{{trust_domain_id="example_org"}} {expiration}"#
            ),
            &format!(r#"spire_server_manager_x509_ca_rotate_ttl{{trust_domain_id="example_org"}} {CA_TTL_SECS}"#),
            "spire_server_server_ca_sign_x509_svid 1",
            "spire_server_entry_entries_by_entryid_cache_count 0",
        ],
    )
    .await;
}

#[tokio::test]
async fn calls_are_counted_by_method_and_status_and_what_was_signed_too() {
    let server = scraped().await;
    server.create_one(entry(&id("/node"), "/web", &["unix:uid:1000"])).await;
    let unknown = wire::GetEntryRequest { id: "none".into(), ..Default::default() };
    let refused = server.entries().await.get_entry(unknown.clone()).await;
    assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    let stranger = server.dial(None).await;
    let denied = wire::entry_client::EntryClient::new(stranger).get_entry(unknown).await;
    assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
    server.attest().await;
    tells(
        &server,
        &[
            r#"spire_server_rpc_entry_v1_entry_batch_create_entry{status="OK"} 1"#,
            r#"spire_server_rpc_entry_v1_entry_batch_create_entry_elapsed_time_count{status="OK"} 1"#,
            r#"spire_server_rpc_entry_v1_entry_get_entry{status="NotFound"} 1"#,
            r#"spire_server_rpc_entry_v1_entry_get_entry{status="PermissionDenied"} 1"#,
            r#"spire_server_rpc_agent_v1_agent_attest_agent{status="OK"} 1"#,
            // Its own and the agent's.
            "spire_server_server_ca_sign_x509_svid 2",
            "spire_server_entry_entries_by_entryid_cache_count 1",
            "spire_server_node_agents_by_id_cache_count 1",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_port_that_is_taken_refuses_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let telemetry = told(taken.local_addr().unwrap());
    let error = TestServer::try_start_with(|config| config.operations.telemetry = telemetry).await.err();
    assert!(matches!(error, Some(ServerError::Telemetry(_))), "{error:?}");
}
