//! Protobuf's `Struct` and JSON, in both directions.

use std::collections::HashMap;

use palisade_wire::envoy::google::protobuf::value::Kind;
use palisade_wire::envoy::google::protobuf::{ListValue, Struct, Value as ProtoValue};
use serde_json::{Map, Number, Value};

/// Deepest nesting that is read; what lies deeper reads as null. prost decodes a hundred levels and no more.
const MAX_DEPTH: usize = 64;

/// Metadata of filters, by filter name.
pub(super) fn filters(metadata: HashMap<String, Struct>) -> Map<String, Value> {
    metadata.into_iter().map(|(name, fields)| (name, object(fields, 0))).collect()
}

fn object(fields: Struct, depth: usize) -> Value {
    let fields = fields.fields.into_iter().map(|(name, value)| (name, json(value, depth + 1)));
    Value::Object(fields.collect())
}

fn json(value: ProtoValue, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StructValue(fields)) => object(fields, depth),
        Some(Kind::ListValue(list)) => {
            Value::Array(list.values.into_iter().map(|value| json(value, depth + 1)).collect())
        }
    }
}

/// Protobuf knows only doubles; whole numbers read as such.
#[expect(clippy::cast_possible_truncation, reason = "only where the double is that whole number")]
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        return Value::Number(Number::from(value as i64));
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// Text or truth as a field of a `Struct`.
pub(super) fn field(name: impl Into<String>, value: Kind) -> (String, ProtoValue) {
    (name.into(), ProtoValue { kind: Some(value) })
}

/// Text as a field of a `Struct`.
pub(super) fn text(name: impl Into<String>, value: impl Into<String>) -> (String, ProtoValue) {
    field(name, Kind::StringValue(value.into()))
}

/// A list of texts as a field of a `Struct`.
pub(super) fn texts<'a>(name: impl Into<String>, values: impl Iterator<Item = &'a str>) -> (String, ProtoValue) {
    let values = values.map(|value| ProtoValue { kind: Some(Kind::StringValue(value.to_owned())) }).collect();
    field(name, Kind::ListValue(ListValue { values }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn structs_read_as_json() {
        let list =
            ListValue { values: vec![ProtoValue { kind: Some(Kind::BoolValue(true)) }, ProtoValue { kind: None }] };
        let fields = [
            text("s", "x"),
            field("n", Kind::NumberValue(3.0)),
            field("f", Kind::NumberValue(2.5)),
            field("nan", Kind::NumberValue(f64::NAN)),
            field("l", Kind::ListValue(list)),
        ];
        let read = filters(HashMap::from([("f".to_owned(), Struct { fields: fields.into_iter().collect() })]));
        let expected = json!({"f": {"s": "x", "n": 3, "f": 2.5, "nan": null, "l": [true, null]}});
        assert_eq!(Value::Object(read), expected);
    }

    #[test]
    fn nesting_has_an_end() {
        let mut value = ProtoValue { kind: Some(Kind::BoolValue(true)) };
        // As deep as prost decodes.
        for _ in 0..100 {
            value = ProtoValue { kind: Some(Kind::ListValue(ListValue { values: vec![value] })) };
        }
        let text = json(value, 0).to_string();
        assert!(text.contains("null") && !text.contains("true"));
    }
}
