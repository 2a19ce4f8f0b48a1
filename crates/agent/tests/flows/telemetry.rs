//! What an agent tells of itself at the port that Prometheus scrapes.

use spindle_telemetry::{PrometheusConfig, TelemetryConfig};
use tokio::net::TcpStream;

use super::*;

impl Rig {
    fn scraped(&self) -> AgentConfig {
        let prometheus = Some(PrometheusConfig { address: "127.0.0.1:0".parse().unwrap(), tls: None });
        let telemetry = TelemetryConfig { prometheus, host_label: false, ..TelemetryConfig::default() };
        AgentConfig { telemetry, ..self.config(Some("good")) }
    }
}

impl Started {
    async fn values(&self) -> String {
        let mut stream = TcpStream::connect(self.agent.prometheus_addr().unwrap()).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut text = String::new();
        timeout(LONG, stream.read_to_string(&mut text)).await.unwrap().unwrap();
        text
    }

    /// Waits until each of these lines is told.
    async fn tells(&self, lines: &[&str]) {
        for line in lines {
            let told = async { while !self.values().await.lines().any(|one| one == *line) {} };
            if timeout(LONG, told).await.is_err() {
                panic!("{line} is not in {}", self.values().await);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_tells_its_start_its_attestation_its_sync_and_its_caches() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a"), others("b")]);
    let started = start(rig.scraped());
    started.is_ready().await;
    let version = env!("CARGO_PKG_VERSION").replace('.', "_");
    started
        .tells(&[
            &format!(r#"spire_agent_started{{version="{version}",trust_domain_id="prod_example"}} 1"#),
            "spire_agent_bootstrapped 1",
            r#"spire_agent_bootstrap_attempts{mode="bootstrap"} 1"#,
            r#"spire_agent_node_attestor_new_svid{attestor="join_token",status="OK"} 1"#,
            r#"spire_agent_agent_key_manager_generate_key{status="OK"} 1"#,
            r#"spire_agent_manager_sync_fetch_svids_updates{status="OK"} 1"#,
            r#"spire_agent_lru_cache_record_map_size{svid_type="X509"} 2"#,
            r#"spire_agent_lru_cache_svid_map_size{svid_type="X509"} 2"#,
            "spire_agent_sync_entries_total 2",
            "spire_agent_sync_bundles_total 1",
            "spire_agent_lru_cache_entry_add 2",
            "spire_agent_lru_cache_entry_remove 0",
        ])
        .await;
    assert!(started.values().await.contains("spire_agent_manager_sync_fetch_entries_updates{status=\"OK\"}"));
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attestations_are_counted_and_calls_of_the_agents_own_process_are_not() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    rig.fake.put([mine("a")]);
    let started = start(rig.scraped());
    started.is_ready().await;
    let mut stream = started.fetch().await.unwrap();
    next(&mut stream).await.unwrap();
    started
        .tells(&[
            r#"spire_agent_workload_api_workload_attestation{status="OK"} 1"#,
            r#"spire_agent_workload_api_workload_attestor{attestor="unix",status="OK"} 1"#,
            "spire_agent_workload_api_discovered_selectors_count 1",
            "spire_agent_workload_api_connections 0",
        ])
        .await;
    assert!(!started.values().await.contains("rpc_workload_api"), "the test is the agent's own process");
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_sink_there_is_no_port_and_a_port_that_is_taken_refuses_the_start() {
    let rig = Rig::new(Fake::new(true, 3600)).await;
    let started = rig.start(Some("good"));
    assert_eq!(started.agent.prometheus_addr(), None);
    started.stop().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = rig.scraped();
    config.telemetry.prometheus = Some(PrometheusConfig { address: taken.local_addr().unwrap(), tls: None });
    let error = Agent::start(config, SystemClock::shared(), Arc::new(SystemEntropy), Shutdown::new()).err();
    let error = error.expect("the port is taken");
    assert!(matches!(error, AgentError::Telemetry(_)) && error.remedy().contains("port"), "{error}");
}
