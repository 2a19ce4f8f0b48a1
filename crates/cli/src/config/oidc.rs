//! The provider's settings: the keys of SPIRE's oidc-discovery-provider, checked.
//!
//! There are no flags to lay over them, so the file is read into ready values at once. Start at [`OidcSettings::read`].

mod defaults;
mod known;
mod listener;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use spindle_oidc::{
    Domain, Health, ListenAddress, Listener, ProviderConfig, Site, Source, SourceKind, WebUrl,
};
use spindle_runtime::LogSettings;

pub use defaults::print_defaults;

use super::keys::check_keys;
use super::logs::RawLogs;
use super::section::Section;
use super::values::{port, required, trust_domain};
use super::{ConfigError, health};
use crate::duration;
use crate::hcl::Item;
use crate::socket::unix_path;

/// Where the provider looks for its file, as SPIRE's does.
pub const CONFIG_PATH: &str = "oidc-discovery-provider.conf";

/// How often sources are asked when nothing is said.
const POLL_INTERVAL: Duration = Duration::from_secs(10);

/// The port of health probes when nothing is said.
const HEALTH_PORT: i64 = 8008;

/// The provider's settings, ready to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcSettings {
    /// What the provider is told.
    pub provider: ProviderConfig,
    /// Where and how to log.
    pub logs: LogSettings,
    /// What the operator should know.
    pub notes: Vec<String>,
}

impl OidcSettings {
    /// Reads a parsed file.
    ///
    /// # Errors
    /// The first key that is unknown, missing, repeated, of the wrong kind or with a value that cannot be used.
    pub fn read(items: &[Item]) -> Result<Self, ConfigError> {
        let (top, mut notes) = (Section::new("", items), Vec::new());
        check_keys(&top, known::TOP, &mut notes)?;
        if let Some(experimental) = top.block("experimental")? {
            check_keys(&experimental, known::EXPERIMENTAL, &mut notes)?;
        }
        let site = site(&top)?;
        let provider = ProviderConfig {
            source: source(&top, &mut notes)?,
            listener: listener::read(&top, &site.domains, &mut notes)?,
            health: health_checks(&top, &mut notes)?,
            set_key_use: top.switch("set_key_use")?.unwrap_or(false),
            log_requests: top.switch("log_requests")?.unwrap_or(false),
            site,
        };
        advise(&provider, &mut notes);
        Ok(Self { provider, logs: logs(&top)?, notes })
    }
}

fn logs(top: &Section<'_>) -> Result<LogSettings, ConfigError> {
    let raw = RawLogs {
        level: top.text("log_level")?,
        format: top.text("log_format")?,
        file: top.text("log_path")?.map(PathBuf::from),
        source_location: None,
    };
    raw.ready("")
}

fn site(top: &Section<'_>) -> Result<Site, ConfigError> {
    let mut domains = Vec::new();
    for text in top.texts("domains")?.unwrap_or_default() {
        let domain: Domain =
            text.parse().map_err(|fault| ConfigError::value("domains", format!("{text:?}: {fault}")))?;
        if !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    if domains.is_empty() {
        return Err(ConfigError::Missing { key: "domains".into() });
    }
    Ok(Site {
        domains,
        jwt_issuer: parsed::<WebUrl>(top, "jwt_issuer")?,
        jwks_uri: parsed::<WebUrl>(top, "jwks_uri")?,
        path_prefix: parsed(top, "server_path_prefix")?.unwrap_or_default(),
        allow_insecure_scheme: top.switch("allow_insecure_scheme")?.unwrap_or(false),
    })
}

/// A value that knows its own rules; none when unset.
fn parsed<T: FromStr>(section: &Section<'_>, key: &str) -> Result<Option<T>, ConfigError>
where
    T::Err: std::fmt::Display,
{
    let Some(text) = section.text(key)? else { return Ok(None) };
    let refused = |fault| ConfigError::value(&section.key(key), format!("{text:?}: {fault}"));
    text.parse().map(Some).map_err(refused)
}

fn source(top: &Section<'_>, notes: &mut Vec<String>) -> Result<Source, ConfigError> {
    const KEYS: [&str; 3] = ["server_api", "workload_api", "file"];
    let block = one_of(top, &KEYS)?;
    check_keys(&block, known::source(block.path()), notes)?;
    if let Some(experimental) = block.block("experimental")? {
        check_keys(&experimental, known::NAMED_PIPE, notes)?;
    }
    let kind = match block.path() {
        "server_api" => SourceKind::ServerApi(server_socket(&block)?),
        "workload_api" => {
            let path = required(&block.key("socket_path"), block.text("socket_path")?)?;
            let path =
                unix_path(&path).map_err(|fault| ConfigError::value(&block.key("socket_path"), fault))?;
            let key = block.key("trust_domain");
            SourceKind::WorkloadApi(path, trust_domain(&key, block.text("trust_domain")?.as_deref())?)
        }
        _ => SourceKind::File(required(&block.key("path"), block.text("path")?)?.into()),
    };
    Ok(Source { kind, poll_interval: interval(&block, "poll_interval", POLL_INTERVAL)? })
}

/// The one block of these that is there.
fn one_of<'a>(top: &Section<'a>, keys: &[&str; 3]) -> Result<Section<'a>, ConfigError> {
    let mut found = Vec::new();
    for key in keys {
        found.extend(top.block(key)?);
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [first, second, ..] => {
            Err(ConfigError::Exclusive { first: first.path().into(), second: second.path().into() })
        }
        [] => Err(ConfigError::Missing {
            key: format!("exactly one of {}, {} or {}", keys[0], keys[1], keys[2]),
        }),
    }
}

/// gRPC's name of a Unix socket, as SPIRE takes it.
fn server_socket(block: &Section<'_>) -> Result<PathBuf, ConfigError> {
    let key = block.key("address");
    let address = required(&key, block.text("address")?)?;
    if !address.starts_with("unix:") || address.trim_end_matches('/').len() <= "unix:".len() {
        let what =
            format!("{address:?} must name a Unix socket, like unix:///tmp/spire-server/private/api.sock");
        return Err(ConfigError::value(&key, what));
    }
    unix_path(&address).map_err(|fault| ConfigError::value(&key, fault))
}

/// A wait; zero means the default, as it does to SPIRE.
fn interval(block: &Section<'_>, key: &str, default: Duration) -> Result<Duration, ConfigError> {
    let Some(text) = block.text(key)? else { return Ok(default) };
    match duration::parse(&text) {
        Ok(Duration::ZERO) => Ok(default),
        Ok(interval) => Ok(interval),
        Err(fault) => Err(ConfigError::duration(&block.key(key), &fault)),
    }
}

fn health_checks(top: &Section<'_>, notes: &mut Vec<String>) -> Result<Option<Health>, ConfigError> {
    let Some(block) = top.block("health_checks")? else { return Ok(None) };
    check_keys(&block, known::HEALTH_CHECKS, notes)?;
    // Nothing and zero mean the default, as they do to SPIRE.
    let number = block.number("bind_port")?.filter(|number| *number > 0).unwrap_or(HEALTH_PORT);
    let port = port(&block.key("bind_port"), number)?;
    let ready_path = health::path(&block, "ready_path", "/ready")?;
    let live_path = health::path(&block, "live_path", "/live")?;
    if live_path == ready_path {
        let what = format!("{ready_path:?} is the path of live_path; each needs its own");
        return Err(ConfigError::value(&block.key("ready_path"), what));
    }
    Ok(Some(Health { address: ListenAddress::all(port), ready_path, live_path }))
}

/// What works and is odd all the same.
fn advise(provider: &ProviderConfig, notes: &mut Vec<String>) {
    let site = &provider.site;
    let is_tls = matches!(provider.listener, Listener::Acme(_) | Listener::Files(_));
    if site.allow_insecure_scheme {
        notes.push(if is_tls {
            "allow_insecure_scheme has no effect: clients come over TLS".into()
        } else {
            "allow_insecure_scheme: the addresses in the discovery document begin with http:, so that clients fetch the \
             keys unprotected; for tests and trusted networks only"
                .into()
        });
    }
    for (key, url) in [("jwt_issuer", &site.jwt_issuer), ("jwks_uri", &site.jwks_uri)] {
        if url.as_ref().is_some_and(|url| !url.is_https()) {
            notes
                .push(format!("{key} is not an https address: clients that follow OpenID Connect refuse it"));
        }
    }
}

#[cfg(test)]
mod tests;
