//! The structure of an inline key set (RFC 7517). Whether its keys can verify anything is for whoever verifies; here
//! stands what Istio's admission asks. Nothing of the text is ever repeated: it can hold private keys.

use serde_json::{Map, Value};

use super::cursor::{Cx, Path};
use crate::{catalogue::request as codes, yaml::Pos};

/// The members that a key of each type has to have.
const TYPES: &[(&str, &[&str])] =
    &[("RSA", &["n", "e"]), ("EC", &["crv", "x", "y"]), ("OKP", &["crv", "x"]), ("oct", &["k"])];

/// Reports what is wrong with a key set, and private keys in it.
pub(super) fn check(cx: &mut Cx, text: &str, pos: Pos, path: &Path<'_>) {
    let keys = match keys(text) {
        Ok(keys) => keys,
        Err(message) => {
            cx.report(&codes::BAD_JWKS, pos, path, message);
            return;
        }
    };
    let (set, keys) = keys;
    if !set {
        let message = "a key alone, outside of `keys`: it is not found".to_owned();
        cx.report(&codes::JWKS_EMPTY, pos, path, message);
    } else if keys.is_empty() {
        cx.report(&codes::JWKS_EMPTY, pos, path, "no key".to_owned());
    }
    for (index, value) in keys.iter().enumerate() {
        match key(value) {
            Err(what) => cx.report(&codes::BAD_JWKS, pos, path, format!("key {index}: {what}")),
            Ok(true) => {
                let message = format!("key {index} is private or shared");
                cx.report(&codes::PRIVATE_KEYS, pos, path, message);
            }
            Ok(false) => {}
        }
    }
}

/// The keys, and whether they stand in `keys`; Istio takes a single key for a set, too.
fn keys(text: &str) -> Result<(bool, Vec<Value>), String> {
    let value = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("not JSON from line {line}, column {column} of the text on")
    })?;
    let Value::Object(mut object) = value else { return Err("not a JSON object".to_owned()) };
    match object.remove("keys") {
        Some(Value::Array(keys)) => Ok((true, keys)),
        Some(_) => Err("`keys` is not a list".to_owned()),
        None if object.contains_key("kty") => Ok((false, vec![Value::Object(object)])),
        None => Err("no `keys`".to_owned()),
    }
}

/// Whether a key is private.
fn key(value: &Value) -> Result<bool, String> {
    let Value::Object(key) = value else { return Err("not a JSON object".to_owned()) };
    let kind = key.get("kty").and_then(Value::as_str).ok_or("`kty` is missing")?;
    let (kind, members) = TYPES.iter().find(|(name, _)| *name == kind).ok_or("`kty` is none of RSA, EC, OKP, oct")?;
    if let Some(missing) = members.iter().find(|member| !is_text(key, member)) {
        return Err(format!("a key of the type {kind} without `{missing}`"));
    }
    Ok(*kind == "oct" || key.get("d").is_some_and(|private| !private.is_null()))
}

fn is_text(key: &Map<String, Value>, member: &str) -> bool {
    key.get(member).and_then(Value::as_str).is_some_and(|text| !text.is_empty())
}
