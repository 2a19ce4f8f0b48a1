//! Where clients are answered: exactly one of four keys.

use std::path::PathBuf;
use std::time::Duration;

use spindle_oidc::{AcmeConfig, DIRECTORY_URL, Domain, ListenAddress, Listener, ServingFiles, WebUrl};

use super::{interval, known, parsed};
use crate::config::ConfigError;
use crate::config::keys::check_keys;
use crate::config::section::Section;
use crate::config::values::required;

/// Where HTTPS is spoken when nothing is said.
const HTTPS_PORT: u16 = 443;

/// How often certificate files are read again when nothing is said.
const FILE_SYNC_INTERVAL: Duration = Duration::from_secs(60);

/// Where ACME certificates are kept when nothing is said.
const CACHE_DIR: &str = "./.acme-cache";

const KEYS: [&str; 4] = ["acme", "serving_cert_file", "insecure_addr", "listen_socket_path"];

pub(super) fn read(
    top: &Section<'_>,
    domains: &[Domain],
    notes: &mut Vec<String>,
) -> Result<Listener, ConfigError> {
    let mut set = Vec::new();
    for key in KEYS {
        let is_set = match key {
            "acme" | "serving_cert_file" => top.block(key)?.is_some(),
            _ => top.text(key)?.is_some(),
        };
        set.extend(is_set.then_some(key));
    }
    let Some((first, others)) = set.split_first() else {
        return Err(ConfigError::Missing { key: format!("exactly one of {}", KEYS.join(", ")) });
    };
    if let Some(second) = others.first() {
        return Err(ConfigError::Exclusive { first: (*first).into(), second: (*second).into() });
    }
    match *first {
        "acme" => acme(top, domains, notes),
        "serving_cert_file" => serving_files(top, notes),
        "insecure_addr" => Ok(Listener::Insecure(required(first, parsed(top, first)?)?)),
        _ => Ok(Listener::Unix(required(first, top.text(first)?)?.into())),
    }
}

fn block<'a>(top: &Section<'a>, key: &str) -> Result<Section<'a>, ConfigError> {
    required(key, top.block(key)?)
}

fn address(block: &Section<'_>) -> Result<ListenAddress, ConfigError> {
    Ok(parsed(block, "addr")?.unwrap_or(ListenAddress::all(HTTPS_PORT)))
}

fn acme(top: &Section<'_>, domains: &[Domain], notes: &mut Vec<String>) -> Result<Listener, ConfigError> {
    let block = block(top, "acme")?;
    check_keys(&block, known::ACME, notes)?;
    if block.switch("tos_accepted")? != Some(true) {
        let what = "must be set to true: read the terms of service of the ACME server first";
        return Err(ConfigError::value(&block.key("tos_accepted"), what));
    }
    let email = required(&block.key("email"), block.text("email")?)?;
    if !email.contains('@') || !email.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ConfigError::value(&block.key("email"), format!("{email:?} is not an email address")));
    }
    let directory_url = parsed::<WebUrl>(&block, "directory_url")?;
    if directory_url.as_ref().is_some_and(|url| !url.is_https()) {
        return Err(ConfigError::value(&block.key("directory_url"), "an ACME server is called over https"));
    }
    Ok(Listener::Acme(AcmeConfig {
        directory_url: directory_url.map_or(DIRECTORY_URL.into(), |url| url.as_str().into()),
        email,
        cache_dir: cache_dir(&block)?,
        domains: domains.to_vec(),
        address: address(&block)?,
    }))
}

/// A directory; an empty text, unlike none, turns the cache off.
fn cache_dir(block: &Section<'_>) -> Result<Option<PathBuf>, ConfigError> {
    let is_written = block.items().iter().any(|item| item.key == "cache_dir");
    match block.text("cache_dir")? {
        Some(path) => Ok(Some(path.into())),
        None => Ok((!is_written).then(|| CACHE_DIR.into())),
    }
}

fn serving_files(top: &Section<'_>, notes: &mut Vec<String>) -> Result<Listener, ConfigError> {
    let block = block(top, "serving_cert_file")?;
    check_keys(&block, known::SERVING_CERT_FILE, notes)?;
    let path = |key: &str| Ok::<_, ConfigError>(PathBuf::from(required(&block.key(key), block.text(key)?)?));
    Ok(Listener::Files(ServingFiles {
        certificate: path("cert_file_path")?,
        key: path("key_file_path")?,
        sync_interval: interval(&block, "file_sync_interval", FILE_SYNC_INTERVAL)?,
        address: address(&block)?,
    }))
}
