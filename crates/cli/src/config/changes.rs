//! Which keys two configuration files differ in, by their names alone: values may be secrets.

use std::collections::{BTreeMap, BTreeSet};

use crate::hcl::{Item, Value};

/// The keys, with the blocks around them, that are not the same in both files. The order of keys is no difference, and neither
/// is whether a number is quoted; the order of a list is one.
pub fn changed_keys(before: &[Item], after: &[Item]) -> Vec<String> {
    let (before, after) = (flat(before), flat(after));
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed: BTreeSet<&String> =
        keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).collect();
    // A block that was empty and is not any more is told by what is in it.
    let told_apart = |key: &&&String| {
        let inside = format!("{key}.");
        !changed.range(inside.clone()..).next().is_some_and(|next| next.starts_with(&inside))
    };
    changed.iter().filter(told_apart).map(|key| (*key).clone()).collect()
}

/// Whether `key` stands in the block of a plugin with this type and name, or is the block.
pub fn is_of((kind, name): (&str, &str), key: &str) -> bool {
    is_inside(&format!("plugins.{kind}.{name}"), key)
}

/// Whether `key` is a setting of a plugin with this type and name.
pub fn is_data_of((kind, name): (&str, &str), key: &str) -> bool {
    is_inside(&format!("plugins.{kind}.{name}.plugin_data"), key)
}

fn is_inside(block: &str, key: &str) -> bool {
    key.strip_prefix(block).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Every key that holds a value, with all it was set to, in the order of the file.
fn flat(items: &[Item]) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    walk("", items, &mut found);
    found
}

fn walk(path: &str, items: &[Item], found: &mut BTreeMap<String, Vec<String>>) {
    for item in items {
        let key = if path.is_empty() { item.key.clone() } else { format!("{path}.{}", item.key) };
        match &item.value {
            Value::Object(inner) if !inner.is_empty() => walk(&key, inner, found),
            value => found.entry(key).or_default().push(spelling(value)),
        }
    }
}

fn spelling(value: &Value) -> String {
    match value {
        Value::Text(text) | Value::Number(text) => text.clone(),
        Value::Bool(value) => value.to_string(),
        Value::List(values) => format!("{:?}", values.iter().map(spelling).collect::<Vec<_>>()),
        Value::Object(items) => format!("{:?}", flat(items)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hcl::parse;

    fn check(before: &str, after: &str, expected: &[&str]) {
        let changed = changed_keys(&parse(before).unwrap(), &parse(after).unwrap());
        assert_eq!(changed, expected, "{before} / {after}");
    }

    #[test]
    fn a_changed_a_new_and_a_missing_key_are_named_with_their_blocks() {
        check("a = 1\n b { c = 2 }", "a = 1\n b { c = 3 }", &["b.c"]);
        check("a = 1", "a = 1\n b { c = 3 }", &["b.c"]);
        check("a = 1\n b { c = [\"x\", \"y\"] }", "b { c = [\"y\", \"x\"] }", &["a", "b.c"]);
        check("p \"one\" { d { k = 1 } }", "p \"two\" { d { k = 1 } }", &["p.one.d.k", "p.two.d.k"]);
        check("p \"one\" { }", "", &["p.one"]);
        check("b { }", "b { c = 3 }", &["b.c"]);
        check("bc = 1\n b { }", "b { c = 3 }", &["b.c", "bc"]);
        check("a = [ { x = 1 } ]", "a = [ { x = 2 } ]", &["a"]);
    }

    #[test]
    fn a_setting_of_a_plugin_is_told_from_the_plugin_and_from_those_of_others() {
        let check = |key: &str, expected: bool| assert_eq!(is_data_of(("A", "unix"), key), expected, "{key}");
        check("plugins.A.unix.plugin_data", true);
        check("plugins.A.unix.plugin_data.k", true);
        for other in
            ["plugins.A.unix", "plugins.A.unix.plugin_data_file", "plugins.A.k8s.plugin_data.k", "agent"]
        {
            check(other, false);
        }
        assert!(is_of(("A", "unix"), "plugins.A.unix") && is_of(("A", "unix"), "plugins.A.unix.enabled"));
        assert!(!is_of(("A", "unix"), "plugins.A.unixes"));
    }

    #[test]
    fn another_order_or_spelling_of_the_same_is_no_change() {
        check("a = 1\n b = 2", "b = 2\n a = \"1\"", &[]);
        check("s { a = true }", r#"{"s": {"a": "true"}}"#, &[]);
        check("", "", &[]);
    }

    #[test]
    fn a_key_that_is_set_twice_counts_with_all_its_values() {
        check("f { a = 1 }\n f { a = 2 }", "f { a = 1 }", &["f.a"]);
    }
}
