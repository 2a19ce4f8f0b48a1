//! `telemetry { … }`: where metrics go and how they are called, the same for server and agent. No flag changes it.

use std::net::SocketAddr;
use std::path::PathBuf;

use spindle_telemetry::{
    ClientTrust, PrometheusConfig, PrometheusTls, PushAddress, PushConfig, PushDialect, TelemetryConfig,
};

use super::ConfigError;
use super::keys::Support::{NotYet, Yes};
use super::keys::{Key, check_keys};
use super::section::Section;
use super::values::{address, port, required};

const TELEMETRY: &[Key] = &[
    ("Prometheus", Yes),
    ("DogStatsd", Yes),
    ("Statsd", Yes),
    ("M3", NotYet("its collectors are spoken to in Thrift; use Prometheus, Statsd or DogStatsd")),
    ("InMem", Yes),
    ("MetricPrefix", Yes),
    ("EnableTrustDomainLabel", Yes),
    ("EnableHostnameLabel", Yes),
    ("AllowedPrefixes", Yes),
    ("BlockedPrefixes", Yes),
    ("AllowedLabels", Yes),
    ("BlockedLabels", Yes),
];

const PROMETHEUS: &[Key] = &[("host", Yes), ("port", Yes), ("tls", Yes)];

const TLS: &[Key] = &[
    ("cert_file", Yes),
    ("key_file", Yes),
    ("client_ca_file", Yes),
    ("use_spire_svid", Yes),
    ("authorized_spiffe_ids", Yes),
];

const PUSH: &[Key] = &[("address", Yes)];

/// What the block says; the default is no telemetry.
pub(super) fn telemetry(top: &Section<'_>, notes: &mut Vec<String>) -> Result<TelemetryConfig, ConfigError> {
    let Some(block) = top.block("telemetry")? else { return Ok(TelemetryConfig::default()) };
    check_keys(&block, TELEMETRY, notes)?;
    let prometheus = block.block("Prometheus")?.map(|one| prometheus(&one, notes)).transpose()?;
    let mut push = pushes(&block, "DogStatsd", PushDialect::DogStatsd, notes)?;
    push.extend(pushes(&block, "Statsd", PushDialect::Statsd, notes)?);
    let in_memory = block.block("InMem")?;
    if let Some(in_memory) = &in_memory {
        check_keys(in_memory, &[], notes)?;
    }
    let list = |key| Ok::<_, ConfigError>(block.texts(key)?.unwrap_or_default());
    Ok(TelemetryConfig {
        prometheus,
        push,
        in_memory: in_memory.is_some(),
        prefix: block.text("MetricPrefix")?,
        trust_domain_label: block.switch("EnableTrustDomainLabel")?.unwrap_or(false),
        host_label: block.switch("EnableHostnameLabel")?.unwrap_or(true),
        allowed_prefixes: list("AllowedPrefixes")?,
        blocked_prefixes: list("BlockedPrefixes")?,
        allowed_labels: list("AllowedLabels")?,
        blocked_labels: list("BlockedLabels")?,
    })
}

fn prometheus(block: &Section<'_>, notes: &mut Vec<String>) -> Result<PrometheusConfig, ConfigError> {
    check_keys(block, PROMETHEUS, notes)?;
    let host = block.text("host")?.unwrap_or_else(|| "localhost".into());
    let host = address(&block.key("host"), &host)?;
    let port = port(&block.key("port"), required(&block.key("port"), block.number("port")?)?)?;
    let tls = block.block("tls")?.map(|tls| prometheus_tls(&tls, notes)).transpose()?;
    if !host.is_loopback() && tls.is_none() {
        notes.push(format!(
            "{} is reached over the network: whoever reaches the port reads all metrics",
            block.key("host")
        ));
    }
    Ok(PrometheusConfig { address: SocketAddr::new(host, port), tls })
}

fn prometheus_tls(block: &Section<'_>, notes: &mut Vec<String>) -> Result<PrometheusTls, ConfigError> {
    check_keys(block, TLS, notes)?;
    let file = |key| Ok::<_, ConfigError>(block.text(key)?.map(PathBuf::from));
    if block.switch("use_spire_svid")? == Some(true) {
        let what = "the port is not served with an SVID yet: set cert_file and key_file";
        return Err(ConfigError::value(&block.key("use_spire_svid"), what));
    }
    if block.texts("authorized_spiffe_ids")?.is_some_and(|ids| !ids.is_empty()) {
        let what = "clients are not told by their SPIFFE ID yet: set client_ca_file";
        return Err(ConfigError::value(&block.key("authorized_spiffe_ids"), what));
    }
    let clients = file("client_ca_file")?.map_or(ClientTrust::Anyone, ClientTrust::Authorities);
    Ok(PrometheusTls {
        certificate: required(&block.key("cert_file"), file("cert_file")?)?,
        private_key: required(&block.key("key_file"), file("key_file")?)?,
        clients,
    })
}

/// The collectors under `name`: a list of blocks, or blocks.
fn pushes(
    block: &Section<'_>,
    name: &str,
    dialect: PushDialect,
    notes: &mut Vec<String>,
) -> Result<Vec<PushConfig>, ConfigError> {
    let one = |one: Section<'_>| {
        check_keys(&one, PUSH, notes)?;
        let key = one.key("address");
        let address = push_address(&key, &required(&key, one.text("address")?)?)?;
        Ok::<_, ConfigError>(PushConfig { address, dialect })
    };
    block.blocks(name)?.into_iter().map(one).collect()
}

fn push_address(key: &str, text: &str) -> Result<PushAddress, ConfigError> {
    let wrong = |why: &str| ConfigError::value(key, format!("{text:?} is not host:port{why}"));
    if text.starts_with("unix:") {
        return Err(wrong(": a collector is reached over UDP, not over a Unix socket"));
    }
    let (host, number) = text.rsplit_once(':').ok_or_else(|| wrong(""))?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if host.contains(':') && bare.is_none() {
        return Err(wrong(": an IPv6 address stands in brackets"));
    }
    let port = number.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| wrong(""))?;
    let host = match bare.unwrap_or(host) {
        // As in Go.
        "" => "localhost",
        host => host,
    };
    Ok(PushAddress { host: host.to_owned(), port })
}

/// The block with its defaults, for those who print a whole file. `prefix` is the first part of names.
pub(super) fn default_telemetry(prefix: &str) -> String {
    format!(
        r#"telemetry {{
    # Prometheus {{                                # off
    #     host = "localhost"
    #     port = 9988
    #     tls {{
    #         cert_file = "./telemetry.pem"
    #         key_file = "./telemetry-key.pem"
    #         client_ca_file = "./scrapers.pem"   # all clients
    #     }}
    # }}
    # DogStatsd = [{{ address = "localhost:8125" }}]
    # Statsd = [{{ address = "localhost:8125" }}]
    # InMem {{}}                                   # into the log, on SIGUSR1
    # MetricPrefix = "{prefix}"
    EnableTrustDomainLabel = false
    EnableHostnameLabel = true
    AllowedPrefixes = []
    BlockedPrefixes = []
    AllowedLabels = []
    BlockedLabels = []
}}
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hcl::parse;

    fn read(text: &str) -> Result<(TelemetryConfig, Vec<String>), ConfigError> {
        let (items, mut notes) = (parse(text).unwrap(), Vec::new());
        let config = telemetry(&Section::new("", &items), &mut notes)?;
        Ok((config, notes))
    }

    fn refused(text: &str, expected: &str) {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }

    #[test]
    fn the_sample_of_spires_manual_is_read_but_for_m3_and_svids() {
        let (config, notes) = read(
            r#"telemetry {
                Prometheus { port = 9988 tls { cert_file = "/c" key_file = "/k" client_ca_file = "/a" use_spire_svid = false } }
                DogStatsd = [ { address = "localhost:8125" }, ]
                Statsd = [ { address = "localhost:1337" }, { address = "collector.example.org:8125" }, ]
                InMem {}
                AllowedLabels = []
                BlockedLabels = ["host"]
                AllowedPrefixes = ["spire_agent.rpc.health"]
                BlockedPrefixes = ["spire_agent.rpc"]
                MetricPrefix = "ours"
                EnableTrustDomainLabel = true
                EnableHostnameLabel = false
            }"#,
        )
        .unwrap();
        let push = |host: &str, port, dialect| PushConfig {
            address: PushAddress { host: host.into(), port },
            dialect,
        };
        let expected = TelemetryConfig {
            prometheus: Some(PrometheusConfig {
                address: "127.0.0.1:9988".parse().unwrap(),
                tls: Some(PrometheusTls {
                    certificate: "/c".into(),
                    private_key: "/k".into(),
                    clients: ClientTrust::Authorities("/a".into()),
                }),
            }),
            push: vec![
                push("localhost", 8125, PushDialect::DogStatsd),
                push("localhost", 1337, PushDialect::Statsd),
                push("collector.example.org", 8125, PushDialect::Statsd),
            ],
            in_memory: true,
            prefix: Some("ours".into()),
            trust_domain_label: true,
            host_label: false,
            allowed_prefixes: vec!["spire_agent.rpc.health".into()],
            blocked_prefixes: vec!["spire_agent.rpc".into()],
            allowed_labels: vec![],
            blocked_labels: vec!["host".into()],
        };
        assert_eq!((config, notes), (expected, vec![]));
        assert_eq!(read("").unwrap().0, TelemetryConfig::default());
        assert_eq!(read("telemetry {}").unwrap().0, TelemetryConfig::default());
    }

    #[test]
    fn an_open_port_is_noted() {
        let (config, notes) = read(r#"telemetry { Prometheus { host = "0.0.0.0" port = 1 } }"#).unwrap();
        assert_eq!(config.prometheus.unwrap().address, "0.0.0.0:1".parse().unwrap());
        assert!(notes[0].contains("telemetry.Prometheus.host"), "{notes:?}");
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_with_its_key() {
        for (text, expected) in [
            ("telemetry { Prometeus {} }", "Prometheus"),
            ("telemetry { Prometheus { prt = 1 } }", "telemetry.Prometheus.prt"),
            ("telemetry { Prometheus { } }", "telemetry.Prometheus.port"),
            ("telemetry { Prometheus { port = 65536 } }", "telemetry.Prometheus.port"),
            (r#"telemetry { Prometheus { host = "name" port = 1 } }"#, "telemetry.Prometheus.host"),
            ("telemetry { Prometheus { port = 1 tls { } } }", "telemetry.Prometheus.tls.cert_file"),
            (r#"telemetry { Prometheus { port = 1 tls { cert_file = "/c" } } }"#, "tls.key_file"),
            ("telemetry { Prometheus { port = 1 tls { use_spire_svid = true } } }", "use_spire_svid"),
            (
                r#"telemetry { Prometheus { port = 1 tls { authorized_spiffe_ids = ["spiffe://a/b"] } } }"#,
                "client_ca_file",
            ),
            (r#"telemetry { M3 = [ { address = "localhost:9000" env = "prod" } ] }"#, "telemetry.M3"),
            ("telemetry { InMem { quux = 1 } }", "telemetry.InMem.quux"),
            ("telemetry { Statsd = [ { } ] }", "telemetry.Statsd[0].address"),
            (r#"telemetry { Statsd = [ { address = "h:1" port = 1 } ] }"#, "telemetry.Statsd[0].port"),
            (r#"telemetry { Statsd { address = "h" } }"#, "host:port"),
            (r#"telemetry { Statsd { address = "h:0" } }"#, "host:port"),
            (r#"telemetry { Statsd { address = "::1:8125" } }"#, "brackets"),
            (r#"telemetry { DogStatsd { address = "unix:///run/d.sock" } }"#, "Unix socket"),
            (r#"telemetry { EnableHostnameLabel = "perhaps" }"#, "telemetry.EnableHostnameLabel"),
            ("telemetry { AllowedLabels = 1 }", "telemetry.AllowedLabels"),
        ] {
            refused(text, expected);
        }
    }
}
