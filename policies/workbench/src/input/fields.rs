//! Reading one JSON object strictly: each field once, by its type, and nothing unknown.

use serde_json::{Map, Value};

use super::InputError;

/// What is wrong with a line, before its number is known.
#[derive(Debug)]
pub(crate) struct Problem {
    field: String,
    message: String,
    fix: String,
}

impl Problem {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), fix: fix.into() }
    }

    pub(crate) fn at(self, line: u64) -> InputError {
        InputError { line, field: self.field, message: self.message, fix: self.fix }
    }
}

/// An object whose fields are taken out one by one; what remains is unknown.
pub(super) struct Fields {
    path: String,
    rest: Map<String, Value>,
}

impl Fields {
    pub(super) fn of(path: &str, value: Value) -> Result<Self, Problem> {
        match value {
            Value::Object(rest) => Ok(Self { path: path.to_owned(), rest }),
            other => Err(wrong(path, "an object", &other)),
        }
    }

    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The value, `null` counting as absent.
    pub(super) fn value(&mut self, name: &str) -> Option<Value> {
        self.rest.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, Problem> {
        let path = self.path(name);
        self.value(name).map(|value| Self::of(&path, value)).transpose()
    }

    pub(super) fn string(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path(name), "a string", &other)),
        }
    }

    /// A string in a type of its own; `example` says what one looks like.
    pub(super) fn parsed<T: std::str::FromStr>(&mut self, name: &str, example: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.string(name)? else {
            return Ok(None);
        };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(Problem::new(
                self.path(name),
                format!("`{text}` is not valid"),
                format!("write a value such as `{example}`, or leave the field out"),
            )),
        }
    }

    pub(super) fn port(&mut self, name: &str) -> Result<Option<u16>, Problem> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
        port.map(Some).ok_or_else(|| {
            Problem::new(self.path(name), format!("`{value}` is not a port"), "write a number from 0 to 65535")
        })
    }

    /// Refuses what was not taken.
    pub(super) fn finish(self, known: &str) -> Result<(), Problem> {
        match self.rest.keys().next() {
            None => Ok(()),
            Some(name) => {
                Err(Problem::new(self.path(name), "unknown field", format!("remove it; known here: {known}")))
            }
        }
    }
}

pub(super) fn wrong(path: &str, expected: &str, found: &Value) -> Problem {
    let kind = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Problem::new(path, format!("found {kind}"), format!("write {expected}"))
}
