//! What a verified token leaves behind: headers for the application, claims for the policies.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::protobuf_json;

/// A claim as the value of a header; `None` where Envoy sets none (null, an empty text, no such claim) and where
/// the text cannot be the value of a header. `path` walks objects with dots.
pub(super) fn header_value(claims: &Map<String, Value>, path: &str) -> Option<Vec<u8>> {
    let (parents, name) = path.rsplit_once('.').map_or((None, path), |(parents, name)| (Some(parents), name));
    let mut object = claims;
    for parent in parents.into_iter().flat_map(|parents| parents.split('.')) {
        object = object.get(parent)?.as_object()?;
    }
    let text = match object.get(name)? {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Number(number) => number_text(number.as_f64()?),
        Value::Bool(bool) => bool.to_string(),
        list @ (Value::Array(_) | Value::Object(_)) => STANDARD.encode(protobuf_json::text(list)),
    };
    Some(text.into_bytes()).filter(|text| !text.is_empty() && is_header_value(text))
}

/// Whole numbers of a `u64` in decimal, all others with six digits behind the point: Envoy holds numbers as doubles.
fn number_text(number: f64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "the limit of Envoy's comparison is this double")]
    let limit = u64::MAX as f64;
    if number < 0.0 || number >= limit || number.fract() != 0.0 {
        return format!("{number:.6}");
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie within the type")]
    let whole = number as u64;
    whole.to_string()
}

/// Control bytes would let an issuer write further headers.
pub(super) fn is_header_value(text: &[u8]) -> bool {
    text.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}

/// The claims as policies see them: texts of `split` claims become lists of their words, at the top only. A text
/// without any word stays as it is.
pub(super) fn claims(token: &Arc<Map<String, Value>>, split: &[String]) -> Arc<Value> {
    let mut claims = Map::clone(token);
    for name in split {
        let Some(value) = claims.get_mut(name) else { continue };
        let words: Vec<Value> = match value {
            Value::String(text) => text.split(' ').filter(|word| !word.is_empty()).map(Value::from).collect(),
            _ => continue,
        };
        if !words.is_empty() {
            *value = Value::Array(words);
        }
    }
    Arc::new(Value::Object(claims))
}
