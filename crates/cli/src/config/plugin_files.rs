//! `plugin_data_file`: a plugin's settings in a file of their own, put in the place of `plugin_data` before anything is read.
//!
//! Keys of such a file have no line number in messages. A plugin that is switched off does without its file.

use std::path::Path;

use super::{ConfigError, read_items};
use crate::hcl::{Item, Value};

const FILE: &str = "plugin_data_file";
const DATA: &str = "plugin_data";

/// Puts the files of all plugins in.
///
/// # Errors
/// The first file that cannot be read or is malformed, and a plugin with settings in both places.
pub(super) fn put_in(items: &mut [Item]) -> Result<(), ConfigError> {
    for plugins in items.iter_mut().filter(|item| item.key == "plugins") {
        for of_type in inside(plugins) {
            let path = format!("plugins.{}", of_type.key);
            for plugin in inside(of_type) {
                let path = format!("{path}.{}", plugin.key);
                if let Value::Object(block) = &mut plugin.value {
                    put_into(&path, block)?;
                }
            }
        }
    }
    Ok(())
}

fn inside(item: &mut Item) -> &mut [Item] {
    match &mut item.value {
        Value::Object(items) => items,
        _ => &mut [],
    }
}

fn put_into(path: &str, block: &mut [Item]) -> Result<(), ConfigError> {
    let is_off = |item: &Item| {
        item.key == "enabled"
            && match &item.value {
                Value::Bool(enabled) => !enabled,
                Value::Text(text) => crate::go_flags::parse_bool(text) == Ok(false),
                _ => false,
            }
    };
    if block.iter().any(is_off) {
        return Ok(());
    }
    let has_data = block.iter().any(|item| item.key == DATA);
    let named = block.iter_mut().find_map(|item| match &item.value {
        Value::Text(text) if item.key == FILE && !text.is_empty() => Some((Path::new(text).to_owned(), item)),
        _ => None,
    });
    let Some((file, item)) = named else { return Ok(()) };
    if has_data {
        return Err(ConfigError::Exclusive {
            first: format!("{path}.{DATA}"),
            second: format!("{path}.{FILE}"),
        });
    }
    let mut content = read_items(&file, |text| text)?;
    forget_lines(&mut content);
    item.key = DATA.into();
    item.value = Value::Object(content);
    Ok(())
}

/// They are not those of the file that messages are about.
fn forget_lines(items: &mut [Item]) {
    for item in items {
        item.line = 0;
        forget_lines(inside(item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hcl::parse;

    fn expanded(text: &str) -> Result<Vec<Item>, ConfigError> {
        let mut items = parse(text).expect("well formed");
        put_in(&mut items).map(|()| items)
    }

    fn without_lines(text: &str) -> Vec<Item> {
        let mut items = parse(text).expect("well formed");
        forget_lines(&mut items);
        items
    }

    #[test]
    fn the_file_takes_the_place_of_the_settings() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("unix.hcl");
        std::fs::write(&file, "discover_workload_path = true\n workload_size_limit = 5").unwrap();
        let block =
            |data: &str| format!("plugins {{ WorkloadAttestor \"unix\" {{ enabled = true {data} }} }}");
        let mut found = expanded(&block(&format!("plugin_data_file = {file:?}"))).unwrap();
        forget_lines(&mut found);
        let data = "plugin_data { discover_workload_path = true workload_size_limit = 5 }";
        assert_eq!(found, without_lines(&block(data)));
        let both = block(&format!("plugin_data_file = {file:?} plugin_data {{}}"));
        let fault = expanded(&both).unwrap_err().to_string();
        assert!(fault.contains("plugins.WorkloadAttestor.unix.plugin_data and"), "{fault}");
        std::fs::write(&file, "workload_size_limit = ").unwrap();
        let fault = expanded(&block(&format!("plugin_data_file = {file:?}"))).unwrap_err().to_string();
        assert!(fault.contains("unix.hcl is malformed"), "{fault}");
    }

    #[test]
    fn a_missing_file_is_named_unless_the_plugin_is_off_and_none_is_no_file() {
        let block = |more: &str| format!("plugins {{ KeyManager \"disk\" {{ {more} }} }}");
        let fault = expanded(&block("plugin_data_file = \"/nonexistent\"")).unwrap_err().to_string();
        assert!(fault.contains("/nonexistent"), "{fault}");
        for off in ["enabled = false", "enabled = \"false\""] {
            let text = block(&format!("{off} plugin_data_file = \"/nonexistent\""));
            assert_eq!(expanded(&text).unwrap(), parse(&text).unwrap(), "{off}");
        }
        for text in
            [block("plugin_data_file = \"\""), "plugins = 1".into(), "plugins { KeyManager = 1 }".into()]
        {
            assert_eq!(expanded(&text).unwrap(), parse(&text).unwrap(), "{text}");
        }
    }
}
