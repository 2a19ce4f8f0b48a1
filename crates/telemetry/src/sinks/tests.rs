//! What the sinks tell, seen from where it is told: a port that is scraped and a socket that is sent to.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use tonic::Code;

use super::*;
use crate::call::CallMeter;
use crate::config::{PrometheusConfig, PushAddress, PushConfig, PushDialect};

/// A test that waits longer has failed.
pub(crate) const LONG: Duration = Duration::from_secs(30);

const PREFIX: &str = "spire_agent";

/// Keeps values, and shows them without a port.
fn kept(config: TelemetryConfig) -> (Telemetry, impl Fn() -> String) {
    let config = TelemetryConfig { in_memory: true, ..config };
    let (telemetry, sinks) = Sinks::open(&config, PREFIX, "example.org").unwrap();
    let values = sinks.kept.clone().unwrap();
    (telemetry, move || values.render())
}

pub(crate) fn quiet() -> TelemetryConfig {
    TelemetryConfig { host_label: false, ..TelemetryConfig::default() }
}

fn port() -> PrometheusConfig {
    PrometheusConfig { address: "127.0.0.1:0".parse().unwrap(), tls: None }
}

pub(crate) async fn try_ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request_line: &str,
) -> io::Result<String> {
    let head = format!("{request_line} HTTP/1.1\r\nhost: x\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    timeout(LONG, stream.read_to_string(&mut answer)).await.unwrap()?;
    Ok(answer)
}

async fn ask(stream: TcpStream, request_line: &str) -> String {
    try_ask(stream, request_line).await.unwrap()
}

fn has(text: &str, line: &str) -> bool {
    text.lines().any(|one| one == line)
}

#[tokio::test]
async fn without_a_sink_telemetry_is_off_and_handles_are_empty() {
    let (telemetry, sinks) = Sinks::open(&TelemetryConfig::default(), PREFIX, "example.org").unwrap();
    assert!(!telemetry.is_on() && sinks.prometheus_addr().is_none());
    telemetry.counter("a", &[]).increment(1);
    CallMeter::new(&telemetry, "b", &[]).start().done(Code::Ok);
    let (mut tasks, shutdown) = (TaskSet::new(), Shutdown::new());
    sinks.spawn(&mut tasks, &shutdown);
    assert!(tasks.is_empty());
}

#[tokio::test]
async fn any_path_of_the_port_answers_with_all_values_until_the_shutdown() {
    let config = TelemetryConfig { prometheus: Some(port()), ..TelemetryConfig::default() };
    let (telemetry, sinks) = Sinks::open(&config, PREFIX, "example.org").unwrap();
    let (mut tasks, shutdown) = (TaskSet::new(), Shutdown::new());
    let address = sinks.prometheus_addr().unwrap();
    sinks.spawn(&mut tasks, &shutdown);
    telemetry.gauge("started", &[("version", "1.2-rc"), ("trust_domain_id", "example.org")]).set(1.0);
    let connect = || TcpStream::connect(address);
    for path in ["/", "/metrics", "/any/path?x=1"] {
        let answer = ask(connect().await.unwrap(), &format!("GET {path}")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        let host = host_name().unwrap();
        let line = format!(
            r#"spire_agent_started{{version="1_2_rc",trust_domain_id="example_org",host="{host}"}} 1"#
        );
        assert!(has(&answer, &line), "{line} is not in {answer}");
        assert!(answer.contains("spire_agent_uptime_in_ms{"), "{answer}");
    }
    let answer = ask(connect().await.unwrap(), "POST /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    shutdown.begin();
    assert!(timeout(LONG, tasks.run(&shutdown, LONG)).await.unwrap().is_none());
    assert!(connect().await.is_err());
}

#[tokio::test]
async fn a_port_that_is_taken_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let prometheus = Some(PrometheusConfig { address, tls: None });
    let fault = Sinks::open(&TelemetryConfig { prometheus, ..quiet() }, PREFIX, "d").err().unwrap();
    assert_eq!(fault.to_string(), format!("cannot listen on {address} for Prometheus"));
}

#[tokio::test]
async fn a_call_is_a_counter_and_samples_with_its_status_and_comes_into_being_with_its_first_end() {
    let (telemetry, values) = kept(quiet());
    let meter = CallMeter::new(&telemetry, "node.attestor.new_svid", &[("attestor", "x509pop")]);
    assert!(!values().contains("new_svid"));
    meter.start().done(Code::Ok);
    meter.time(async { "late" }, |_| Code::DeadlineExceeded).await;
    drop(meter.start());
    meter.start().discard();
    let text = values();
    for status in ["OK", "DeadlineExceeded", "Canceled"] {
        let labels = format!(r#"{{attestor="x509pop",status="{status}"}} 1"#);
        assert!(has(&text, &format!("spire_agent_node_attestor_new_svid{labels}")), "{status}: {text}");
        assert!(has(&text, &format!("spire_agent_node_attestor_new_svid_elapsed_time_count{labels}")));
    }
    assert!(has(&text, "# TYPE spire_agent_node_attestor_new_svid counter"), "{text}");
    assert!(has(&text, "# TYPE spire_agent_node_attestor_new_svid_elapsed_time summary"), "{text}");
    assert!(text.contains(r#"quantile="0.99""#), "{text}");
}

#[tokio::test]
async fn names_and_labels_are_those_that_the_configuration_lets_pass() {
    let (telemetry, values) = kept(TelemetryConfig {
        prefix: Some("ours".into()),
        trust_domain_label: true,
        allowed_prefixes: vec!["ours.rpc.health".into()],
        blocked_prefixes: vec!["ours.rpc".into()],
        blocked_labels: vec!["secret".into()],
        ..quiet()
    });
    for key in ["rpc.debug", "rpc.health.check", "started"] {
        telemetry.counter(key, &[("shown", "1"), ("secret", "2")]).increment(3);
    }
    let text = values();
    let labels = r#"{shown="1",trust_domain="example_org"} 3"#;
    assert!(has(&text, &format!("ours_started{labels}")), "{text}");
    assert!(has(&text, &format!("ours_rpc_health_check{labels}")), "{text}");
    assert!(!text.contains("debug") && !text.contains("spire_agent"), "{text}");
}

/// A collector, and what a telemetry of that dialect has sent to it once `is_enough`.
async fn collected(dialect: PushDialect, emit: impl FnOnce(&Telemetry), is_enough: &str) -> Vec<String> {
    let collector = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = PushAddress { host: "127.0.0.1".into(), port: collector.local_addr().unwrap().port() };
    let config = TelemetryConfig { push: vec![PushConfig { address, dialect }], ..quiet() };
    let (telemetry, sinks) = Sinks::open(&config, PREFIX, "example.org").unwrap();
    let (mut tasks, shutdown) = (TaskSet::new(), Shutdown::new());
    sinks.spawn(&mut tasks, &shutdown);
    emit(&telemetry);
    let (mut text, mut packet) = (String::new(), [0; 2048]);
    while !text.contains(is_enough) {
        let length = timeout(LONG, collector.recv(&mut packet)).await.unwrap().unwrap();
        assert!(length <= 1400, "a packet of {length} bytes");
        text.push_str(std::str::from_utf8(&packet[..length]).unwrap());
    }
    shutdown.begin();
    assert!(timeout(LONG, tasks.run(&shutdown, LONG)).await.unwrap().is_none());
    text.lines().filter(|line| !line.contains("uptime_in_ms")).map(str::to_owned).collect()
}

fn events(telemetry: &Telemetry) {
    telemetry.counter("rpc.health.check", &[("status", "OK")]).increment(2);
    let connections = telemetry.gauge("workload_api.connections", &[]);
    connections.increment(1.0);
    // Another handle on the same gauge.
    telemetry.gauge("workload_api.connections", &[]).increment(1.0);
    connections.decrement(2.0);
    telemetry.samples("elapsed", &[("a", "x:y|z")]).record(1.5);
    telemetry.counter("last", &[]).increment(1);
}

#[tokio::test]
async fn statsd_has_the_values_of_labels_in_the_name() {
    let lines = collected(PushDialect::Statsd, events, "last").await;
    let expected = [
        "spire_agent.rpc.health.check.OK:2|c",
        "spire_agent.workload_api.connections:1|g",
        "spire_agent.workload_api.connections:2|g",
        "spire_agent.workload_api.connections:0|g",
        "spire_agent.elapsed.x_y_z:1.5|ms",
        "spire_agent.last:1|c",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn dogstatsd_has_labels_as_tags() {
    let lines = collected(PushDialect::DogStatsd, events, "last").await;
    assert!(lines.contains(&"spire_agent.rpc.health.check:2|c|#status:OK".to_owned()), "{lines:?}");
    assert!(lines.contains(&"spire_agent.elapsed:1.5|ms|#a:x_y_z".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn many_lines_share_packets() {
    let emit = |telemetry: &Telemetry| {
        let counter = telemetry.counter("a", &[]);
        (0..500).for_each(|_| counter.increment(1));
        telemetry.counter("last", &[]).increment(1);
    };
    let lines = collected(PushDialect::Statsd, emit, "last").await;
    assert_eq!(lines.iter().filter(|line| *line == "spire_agent.a:1|c").count(), 500);
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nobody_up() {
    // Nothing reads the queue: the task is not run.
    let address = PushAddress { host: "127.0.0.1".into(), port: 1 };
    let push = PushConfig { address, dialect: PushDialect::Statsd };
    let (telemetry, _sinks) =
        Sinks::open(&TelemetryConfig { push: vec![push], ..quiet() }, PREFIX, "example.org").unwrap();
    let counter = telemetry.counter("a", &[]);
    (0..100_000).for_each(|_| counter.increment(1));
}

#[tokio::test]
async fn all_sinks_are_told_the_same() {
    let collector = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = PushAddress { host: "127.0.0.1".into(), port: collector.local_addr().unwrap().port() };
    let push = vec![PushConfig { address, dialect: PushDialect::Statsd }];
    let config = TelemetryConfig { push, in_memory: true, ..quiet() };
    let (telemetry, sinks) = Sinks::open(&config, PREFIX, "example.org").unwrap();
    let kept = sinks.kept.clone().unwrap();
    let (mut tasks, shutdown) = (TaskSet::new(), Shutdown::new());
    sinks.spawn(&mut tasks, &shutdown);
    telemetry.counter("a", &[]).increment(4);
    let mut packet = [0; 2048];
    let mut text = String::new();
    while !text.contains("spire_agent.a:4|c\n") {
        let length = timeout(LONG, collector.recv(&mut packet)).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&packet[..length]).unwrap());
    }
    let values = kept.render();
    assert!(has(&values, "spire_agent_a 4"), "{values}");
    shutdown.begin();
    assert!(timeout(LONG, tasks.run(&shutdown, LONG)).await.unwrap().is_none());
}
