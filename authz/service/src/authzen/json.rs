//! The bodies of requests and the error objects of answers.

use palisade_policies::json::{Problem, Strict, wrong};
use serde_json::{Map, Value, json};

/// The error object of an answer.
pub(crate) fn error(problem: &Problem, status: u16) -> Value {
    json!({ "status": status, "field": problem.field, "message": problem.message, "fix": problem.fix })
}

/// A whole body: one JSON object without repeated keys (RFC 7493).
pub(crate) fn parse(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    if body.is_empty() {
        return Err(Problem::new("", "the body is empty", "send one JSON object"));
    }
    let read: Result<Strict, _> = serde_json::from_slice(body);
    match read {
        Ok(Strict(Value::Object(object))) => Ok(object),
        Ok(Strict(other)) => Err(wrong("", "one JSON object", &other)),
        Err(error) => Err(Problem::new("", error.to_string(), "send one JSON object in which no key stands twice")),
    }
}
