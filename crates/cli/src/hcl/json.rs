//! JSON into the same tree. `null` counts as unset; a list of blocks under one key counts as the key repeated.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Item, SyntaxError, Value};

pub(super) fn parse(text: &str) -> Result<Vec<Item>, SyntaxError> {
    // serde_json itself stops at a depth of 128.
    let root: Json = serde_json::from_str(text).map_err(|error| SyntaxError {
        line: error.line(),
        column: error.column(),
        what: error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
    })?;
    match root.0 {
        Some(Value::Object(items)) => Ok(items),
        _ => Err(SyntaxError { line: 1, column: 0, what: "an object is needed".into() }),
    }
}

/// Keeps order and repeated keys, which `serde_json::Value` would not.
struct Json(Option<Value>);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor).map(Json)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(Value::Bool(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(Value::Number(value.to_string())))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(Value::Number(value.to_string())))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(Value::Number(value.to_string())))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(Value::Text(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Json(value)) = sequence.next_element()? {
            values.extend(value);
        }
        Ok(Some(Value::List(values)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some((key, Json(value))) = map.next_entry::<String, Json>()? {
            match value {
                Some(Value::List(values)) if is_blocks(&values) => {
                    items.extend(values.into_iter().map(|value| Item { key: key.clone(), value, line: 0 }));
                }
                Some(value) => items.push(Item { key, value, line: 0 }),
                None => {}
            }
        }
        Ok(Some(Value::Object(items)))
    }
}

fn is_blocks(values: &[Value]) -> bool {
    !values.is_empty() && values.iter().all(|value| matches!(value, Value::Object(_)))
}
