//! `plugins { Type "name" { plugin_data { … } } }`: which built-in parts are chosen, in the order of the file.
//!
//! External plugins (`plugin_cmd`) and parts that do not exist here yet are refused by name.

use super::ConfigError;
use super::keys::{Key, Support, check_keys, check_known, nearest};
use super::section::{Section, place};

/// A plugin type and the names it may have.
pub struct PluginType {
    /// Such as `KeyManager`.
    pub kind: &'static str,
    /// Built-in names of SPIRE and what this version does with them.
    pub names: &'static [Key],
    /// Whether several may be chosen.
    pub many: bool,
}

/// One chosen part.
#[derive(Debug)]
pub struct Plugin<'a> {
    /// Such as `KeyManager`.
    pub kind: &'static str,
    /// Such as `disk`.
    pub name: &'static str,
    /// Its settings; empty when the block has none.
    pub data: Section<'a>,
}

const JOIN_TOKEN: &str = "use NodeAttestor \"join_token\" or \"x509pop\"";

/// SPIRE's node attestors: each has a half in the server and a half in the agent.
pub const NODE_ATTESTORS: &[Key] = &[
    ("join_token", Support::Yes),
    ("x509pop", Support::Yes),
    ("aws_iid", Support::NotYet(JOIN_TOKEN)),
    ("azure_imds", Support::NotYet(JOIN_TOKEN)),
    ("azure_msi", Support::NotYet(JOIN_TOKEN)),
    ("gcp_iit", Support::NotYet(JOIN_TOKEN)),
    ("http_challenge", Support::NotYet(JOIN_TOKEN)),
    ("k8s_psat", Support::NotYet(JOIN_TOKEN)),
    ("sshpop", Support::NotYet(JOIN_TOKEN)),
    ("tpm_devid", Support::NotYet(JOIN_TOKEN)),
];

const PLUGIN_KEYS: &[Key] = &[
    ("plugin_data", Support::Yes),
    ("enabled", Support::Yes),
    ("plugin_cmd", Support::NotYet("only built-in plugins can be used")),
    ("plugin_args", Support::NotYet("only built-in plugins can be used")),
    ("plugin_checksum", Support::NotYet("only built-in plugins can be used")),
    ("plugin_data_file", Support::Yes),
];

/// Reads the `plugins` block. A disabled plugin may be one that does not exist here; its keys are checked, and it is left out.
///
/// # Errors
/// The first type, name or key that cannot be obeyed, and a second plugin of a type that can have one.
pub fn read<'a>(
    top: &Section<'a>,
    types: &[PluginType],
    notes: &mut Vec<String>,
) -> Result<Vec<Plugin<'a>>, ConfigError> {
    let mut chosen: Vec<Plugin<'a>> = Vec::new();
    for block in top.items().iter().filter(|item| item.key == "plugins") {
        let plugins = top.block_of(block)?;
        for item in plugins.items() {
            let plugin_type = find_type(&plugins, item, types)?;
            let of_type = plugins.block_of(item)?;
            for named in of_type.items() {
                let Some(plugin) = read_one(&of_type, named, plugin_type, notes)? else { continue };
                let same = |other: &Plugin<'_>| {
                    other.kind == plugin.kind && (!plugin_type.many || other.name == plugin.name)
                };
                if chosen.iter().any(same) {
                    return Err(ConfigError::Twice { key: of_type.path().into(), place: place(named) });
                }
                chosen.push(plugin);
            }
        }
    }
    Ok(chosen)
}

fn find_type<'t>(
    plugins: &Section<'_>,
    item: &crate::hcl::Item,
    types: &'t [PluginType],
) -> Result<&'t PluginType, ConfigError> {
    types.iter().find(|known| known.kind == item.key).ok_or_else(|| ConfigError::UnknownKey {
        key: plugins.key(&item.key),
        place: place(item),
        nearest: nearest(&item.key, types.iter().map(|known| known.kind)).map(str::to_owned),
    })
}

fn read_one<'a>(
    of_type: &Section<'a>,
    named: &'a crate::hcl::Item,
    plugin_type: &PluginType,
    notes: &mut Vec<String>,
) -> Result<Option<Plugin<'a>>, ConfigError> {
    let block = of_type.block_of(named)?;
    let enabled = block.switch("enabled")? != Some(false);
    let (key, place) = (of_type.key(&named.key), place(named));
    let external = || Support::NotYet("only built-in plugins can be used");
    let known = plugin_type.names.iter().find(|(name, _)| *name == named.key).copied();
    let (name, support) = match known {
        Some(known) => known,
        None if block.text("plugin_cmd")?.is_some() => ("", external()),
        None => {
            let nearest =
                nearest(&named.key, plugin_type.names.iter().map(|(name, _)| *name)).map(str::to_owned);
            return Err(ConfigError::UnknownKey { key, place, nearest });
        }
    };
    if !enabled {
        check_known(&block, PLUGIN_KEYS)?;
        return Ok(None);
    }
    if let Support::NotYet(hint) = support {
        let hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
        return Err(ConfigError::NotSupported { key, place, hint });
    }
    check_keys(&block, PLUGIN_KEYS, notes)?;
    let data = block.block("plugin_data")?.unwrap_or_else(|| Section::new(block.key("plugin_data"), &[]));
    Ok(Some(Plugin { kind: plugin_type.kind, name, data }))
}
