//! Messages of the JWT profile of the Workload API.

use prost_types::value::Kind;
use prost_types::{Struct, Value as ProtoValue};
use serde_json::{Map, Number, Value};
use spindle_proto::workload;

use super::{ToJson, base64, list, object, some};

impl ToJson for workload::Jwtsvid {
    fn to_json(&self) -> Value {
        object([
            ("hint", some(self.hint.clone())),
            ("spiffe_id", some(self.spiffe_id.clone())),
            ("svid", some(self.svid.clone())),
        ])
    }
}

impl ToJson for workload::JwtsvidResponse {
    fn to_json(&self) -> Value {
        object([("svids", list(&self.svids))])
    }
}

impl ToJson for workload::X509BundlesResponse {
    fn to_json(&self) -> Value {
        let bundles = self.bundles.iter().map(|(id, der)| (id.clone(), base64(der)));
        object([
            ("bundles", Some(Value::Object(bundles.collect()))),
            ("crl", some(self.crl.iter().map(|der| base64(der)).collect::<Vec<_>>())),
        ])
    }
}

impl ToJson for workload::JwtBundlesResponse {
    fn to_json(&self) -> Value {
        let bundles = self.bundles.iter().map(|(id, key_set)| (id.clone(), base64(key_set)));
        object([("bundles", Some(Value::Object(bundles.collect())))])
    }
}

impl ToJson for workload::ValidateJwtsvidResponse {
    fn to_json(&self) -> Value {
        let claims = self.claims.as_ref().map(|claims| structure(Some(claims)));
        object([("claims", claims), ("spiffe_id", some(self.spiffe_id.clone()))])
    }
}

/// Free-form members as the JSON they stand for; an empty object for none.
pub fn structure(members: Option<&Struct>) -> Value {
    let fields = members.iter().flat_map(|members| &members.fields);
    Value::Object(fields.map(|(name, one)| (name.clone(), value(one))).collect::<Map<_, _>>())
}

fn value(one: &ProtoValue) -> Value {
    match &one.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(one)) => (*one).into(),
        Some(Kind::NumberValue(one)) => number(*one),
        Some(Kind::StringValue(one)) => one.clone().into(),
        Some(Kind::ListValue(all)) => all.values.iter().map(value).collect::<Vec<_>>().into(),
        Some(Kind::StructValue(members)) => structure(Some(members)),
    }
}

/// Whole numbers without a point, as they were before they travelled as floating point.
#[allow(clippy::cast_possible_truncation, reason = "only whole numbers that fit")]
fn number(one: f64) -> Value {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if one.fract() == 0.0 && one.abs() <= EXACT_MAX {
        return (one as i64).into();
    }
    Number::from_f64(one).map_or(Value::Null, Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_read_as_the_json_they_were() {
        let kind = |kind| ProtoValue { kind: Some(kind) };
        let list = prost_types::ListValue {
            values: vec![kind(Kind::StringValue("x".into())), kind(Kind::NullValue(0))],
        };
        let inner = Struct { fields: [("half".to_owned(), kind(Kind::NumberValue(0.5)))].into() };
        let fields = [
            ("exp", Kind::NumberValue(1_700_000_000.0)),
            ("aud", Kind::ListValue(list)),
            ("ok", Kind::BoolValue(true)),
            ("more", Kind::StructValue(inner)),
        ];
        let fields = fields.into_iter().map(|(name, one)| (name.to_owned(), kind(one))).collect();
        let printed = structure(Some(&Struct { fields })).to_string();
        assert_eq!(printed, r#"{"aud":["x",null],"exp":1700000000,"more":{"half":0.5},"ok":true}"#);
        assert_eq!(structure(None).to_string(), "{}");
    }
}
