//! `experimental { broker { … } }`: the broker endpoint. No flag changes it.

use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use spindle_agent::config::{ANY_REFERENCE_TYPE, AllowedBroker, AllowedReferenceType, BrokerConfig};
use spindle_spiffe_core::SpiffeId;

use super::known;
use crate::config::ConfigError;
use crate::config::keys::check_keys;
use crate::config::section::Section;

/// The endpoint; none when the block is missing.
pub(super) fn read(
    experimental: Option<&Section<'_>>,
    notes: &mut Vec<String>,
) -> Result<Option<BrokerConfig>, ConfigError> {
    let Some(block) = experimental.map(|block| block.block("broker")).transpose()?.flatten() else {
        return Ok(None);
    };
    check_keys(&block, known::BROKER, notes)?;
    let socket_path = block.text("socket_path")?.map(PathBuf::from);
    let bind_address = match block.text("bind_address")? {
        Some(text) => Some(bind_address(&block.key("bind_address"), &text)?),
        None => None,
    };
    if socket_path.is_none() && bind_address.is_none() {
        let key = format!("{}, bind_address, or both", block.key("socket_path"));
        return Err(ConfigError::Missing { key });
    }
    let mut seen = HashSet::new();
    let mut brokers = Vec::new();
    for one in block.blocks("brokers")? {
        let broker = broker(&one, notes)?;
        if !seen.insert(broker.id.clone()) {
            let what = format!("{} is a broker twice", broker.id);
            return Err(ConfigError::value(&one.key("id"), what));
        }
        brokers.push(broker);
    }
    Ok(Some(BrokerConfig { socket_path, bind_address, brokers }))
}

/// `host:port`; a name stands for its first address.
fn bind_address(key: &str, text: &str) -> Result<SocketAddr, ConfigError> {
    // An empty host is every address, as in Go.
    let full = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    let wrong = |why: String| ConfigError::value(key, format!("{text:?} is not host:port{why}"));
    let mut addresses = full.to_socket_addrs().map_err(|error| wrong(format!(" ({error})")))?;
    addresses.next().ok_or_else(|| wrong(String::new()))
}

fn broker(block: &Section<'_>, notes: &mut Vec<String>) -> Result<AllowedBroker, ConfigError> {
    check_keys(block, known::ONE_BROKER, notes)?;
    let key = block.key("id");
    let text = block.text("id")?.ok_or_else(|| ConfigError::Missing { key: key.clone() })?;
    let id =
        SpiffeId::from_str(&text).map_err(|fault| ConfigError::value(&key, format!("{text:?}: {fault}")))?;
    let (types_key, mut types) = (block.key("allowed_reference_types"), Vec::new());
    for one in block.blocks("allowed_reference_types")? {
        types.push(reference_type(&one, notes)?);
    }
    if types.is_empty() {
        return Err(ConfigError::value(&types_key, format!("{id} needs at least one type")));
    }
    if types.len() > 1 && types.iter().any(|one| one.type_url == ANY_REFERENCE_TYPE) {
        let what = format!("{ANY_REFERENCE_TYPE:?} stands for every type and must be the only one");
        return Err(ConfigError::value(&types_key, what));
    }
    Ok(AllowedBroker { id, allowed_reference_types: types })
}

fn reference_type(block: &Section<'_>, notes: &mut Vec<String>) -> Result<AllowedReferenceType, ConfigError> {
    check_keys(block, known::REFERENCE_TYPE, notes)?;
    let missing = || ConfigError::Missing { key: block.key("type_url") };
    Ok(AllowedReferenceType {
        type_url: block.text("type_url")?.ok_or_else(missing)?,
        allow_over_tcp: block.switch("allow_over_tcp")?.unwrap_or(false),
    })
}
