//! A server's entries as a file: SPIRE's `-data` form, one entry a line in the order of their IDs, so that two exports
//! can be compared line by line.

use serde_json::{Map, Value, json};
use spindle_proto::spire::api::types;

use super::VERSION;
use crate::federation_plan::Federation;
use crate::output::json::ToJson;
use crate::output::text;

/// The file of `entries` and `federation`. What has its default is left out.
pub fn write(trust_domain: &str, entries: &[types::Entry], federation: &Federation) -> String {
    let mut entries: Vec<&types::Entry> = entries.iter().collect();
    entries.sort_by(|a, b| a.id.cmp(&b.id));
    let mut parts = vec![
        format!("  \"version\": {VERSION}"),
        format!("  \"trust_domain\": {}", Value::from(trust_domain)),
        list("entries", entries.into_iter().map(object)),
    ];
    let Federation { bundles, relationships } = federation;
    if !bundles.is_empty() {
        parts.push(list("bundles", sorted(bundles, |bundle| &bundle.trust_domain)));
    }
    if !relationships.is_empty() {
        parts.push(list("federation_relationships", sorted(relationships, |one| &one.trust_domain)));
    }
    format!("{{\n{}\n}}\n", parts.join(",\n"))
}

fn list(key: &str, values: impl Iterator<Item = Value>) -> String {
    let lines: Vec<String> = values.map(|value| format!("    {value}")).collect();
    let list = if lines.is_empty() { "[]".into() } else { format!("[\n{}\n  ]", lines.join(",\n")) };
    format!("  \"{key}\": {list}")
}

fn sorted<T: ToJson>(items: &[T], name: impl Fn(&T) -> &String) -> impl Iterator<Item = Value> {
    let mut items: Vec<&T> = items.iter().collect();
    items.sort_by(|a, b| name(a).cmp(name(b)));
    items.into_iter().map(ToJson::to_json).collect::<Vec<_>>().into_iter()
}

fn object(entry: &types::Entry) -> Value {
    let selector = |one: &types::Selector| json!({ "type": one.r#type, "value": one.value });
    // A server of SPIRE gives them in no order.
    let mut selectors = entry.selectors.clone();
    selectors.sort_by(|a, b| (&a.r#type, &a.value).cmp(&(&b.r#type, &b.value)));
    let fields: [(&str, Value); 15] = [
        ("entry_id", entry.id.clone().into()),
        ("spiffe_id", text::id(&entry.spiffe_id).into()),
        ("parent_id", text::id(&entry.parent_id).into()),
        ("selectors", selectors.iter().map(selector).collect::<Vec<_>>().into()),
        ("x509_svid_ttl", entry.x509_svid_ttl.into()),
        ("jwt_svid_ttl", entry.jwt_svid_ttl.into()),
        ("federates_with", entry.federates_with.clone().into()),
        ("admin", entry.admin.into()),
        ("downstream", entry.downstream.into()),
        ("entryExpiry", entry.expires_at.into()),
        ("dns_names", entry.dns_names.clone().into()),
        ("store_svid", entry.store_svid.into()),
        ("hint", entry.hint.clone().into()),
        ("additional_attributes", attributes(entry)),
        ("created_at", entry.created_at.into()),
    ];
    let told = fields.into_iter().filter(|(_, value)| !is_default(value));
    Value::Object(told.map(|(key, value)| (key.to_owned(), value)).collect())
}

fn attributes(entry: &types::Entry) -> Value {
    let attributes = entry.additional_attributes.unwrap_or_default();
    let switches = [
        ("disable_x509_svid_prefetch", attributes.disable_x509_svid_prefetch),
        ("jwt_svid_include_jti", attributes.jwt_svid_include_jti),
    ];
    let on = switches.into_iter().filter(|(_, on)| *on);
    Value::Object(on.map(|(key, on)| (key.to_owned(), on.into())).collect::<Map<_, _>>())
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}
