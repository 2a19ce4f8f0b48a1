//! Who reaches which socket, and what is left when services are switched off.

use std::fs::{Permissions, set_permissions};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;

use spindle_agent::config::HealthListener;
use spindle_proto::spire::agent::debug::v1::GetInfoRequest;
use spindle_proto::spire::agent::debug::v1::debug_client::DebugClient;
use spindle_testkit::left_out;
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::*;

const SOCKET_VAR: &str = "SPINDLE_AGENT_TEST_SOCKET";

/// No user and no group of any machine.
const NOBODY: u32 = 4_000_001;

const CONNECTED: i32 = 10;
const FORBIDDEN: i32 = 11;

/// Probes of an agent over HTTP, on any port.
pub(crate) fn probed() -> Option<HealthListener> {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    Some(HealthListener { address, live_path: "/live".into(), ready_path: "/ready".into() })
}

/// The answer to a probe.
pub(crate) async fn probe(agent: &RunningAgent, path: &str) -> String {
    let mut stream = TcpStream::connect(agent.health_addr().unwrap()).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// What a process of another user does; a test without work when it runs as part of the suite.
#[test]
fn strangers_body() {
    let Some(path) = std::env::var_os(SOCKET_VAR) else { return };
    std::process::exit(match UnixStream::connect(path) {
        Ok(_) => CONNECTED,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => FORBIDDEN,
        Err(error) => panic!("{error}"),
    });
}

/// How this test program fares as another user.
fn stranger_on(socket: &Path) -> Option<i32> {
    let mut stranger = Command::new("/proc/self/exe");
    stranger.args(["--exact", "sockets::strangers_body"]).env(SOCKET_VAR, socket).current_dir("/");
    stranger.uid(NOBODY).gid(NOBODY).output().unwrap().status.code()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_is_refused_on_the_admin_socket_by_its_directory_and_by_the_socket_itself() {
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return left_out("another user on the agent's admin socket", "that needs root");
    }
    let rig = Rig::new(Fake::new(true, 3600)).await;
    set_permissions(rig.folder.path(), Permissions::from_mode(0o755)).unwrap();
    let admin = rig.folder.socket("private/admin.sock");
    let config = AgentConfig {
        socket_path: rig.folder.socket("public/api.sock"),
        admin_socket_path: Some(admin.clone()),
        ..rig.config(Some("good"))
    };
    let agent = start(config);
    agent.is_ready().await;
    assert_eq!(stranger_on(agent.agent.socket_path()), Some(CONNECTED), "workloads are of any user");
    assert_eq!(stranger_on(&admin), Some(FORBIDDEN));
    set_permissions(admin.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    assert_eq!(stranger_on(&admin), Some(FORBIDDEN));
    assert!(connect_unix(&admin).await.is_ok(), "the agent's own user is let in");
    agent.stop().await;
}

/// The services that reflection names.
async fn offered(socket: &Path) -> Vec<String> {
    let mut client = ServerReflectionClient::new(connect_unix(socket).await.unwrap());
    let message_request = Some(MessageRequest::ListServices(String::new()));
    let asked = ServerReflectionRequest { host: String::new(), message_request };
    let mut answers = client.server_reflection_info(tokio_stream::once(asked)).await.unwrap().into_inner();
    match answers.message().await.unwrap().unwrap().message_response {
        Some(MessageResponse::ListServicesResponse(list)) => {
            list.service.into_iter().map(|one| one.name).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_workload_api_the_socket_has_sds_and_health_alone() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let config = AgentConfig { disable_workload_api: true, ..rig.config(Some("good")) };
    let agent = start(config);
    agent.is_ready().await;
    assert_eq!(agent.fetch().await.unwrap_err().code(), Code::Unimplemented);
    let services = offered(agent.agent.socket_path()).await;
    assert!(services.iter().any(|name| name.ends_with("SecretDiscoveryService")), "{services:?}");
    assert!(!services.iter().any(|name| name == "SpiffeWorkloadAPI"), "{services:?}");
    let mut health = HealthClient::new(connect_unix(agent.agent.socket_path()).await.unwrap());
    let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_service_there_is_no_public_socket_and_the_agent_is_well_all_the_same() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let admin = rig.folder.socket("admin.sock");
    let config = AgentConfig {
        disable_workload_api: true,
        disable_sds_api: true,
        // Beside where the public socket would be.
        admin_socket_path: Some(admin.clone()),
        health_checks: probed(),
        ..rig.config(Some("good"))
    };
    let agent = start(config);
    agent.is_ready().await;
    assert!(!agent.agent.socket_path().exists());
    for path in ["/live", "/ready"] {
        let answer = probe(&agent.agent, path).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("{\"agent\":{}}\n"), "{answer}");
    }
    let mut debug = DebugClient::new(connect_unix(&admin).await.unwrap());
    let info = debug.get_info(GetInfoRequest {}).await.unwrap().into_inner();
    assert!(info.last_sync_success > 0, "{info:?}");
    agent.stop().await;
}
