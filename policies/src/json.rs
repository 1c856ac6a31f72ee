//! Reading JSON of strangers: no key twice, each known field once and by its type, nothing unknown, and a mistake is named by its
//! field with the fix. A line of evaluation input and a request for a decision are read by the same rules, so that a fact
//! spelled twice or wrongly cannot mean one thing here and another there (I-JSON: RFC 7493, 2.3).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// What is wrong with a request, where, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path of the field, such as `http.host`; empty for the whole text.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

impl Problem {
    /// A problem of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into(), fix: fix.into() }
    }

    /// The same problem inside `outer`.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        let field = if self.field.is_empty() { outer.to_owned() } else { format!("{outer}.{}", self.field) };
        Self { field, ..self }
    }
}

/// An object whose fields are taken out one by one; what remains is unknown. It may hold tokens, so it has
/// no `Debug`.
pub struct Fields {
    path: String,
    rest: Map<String, Value>,
}

impl Fields {
    /// The fields of an object that stands at `path`.
    ///
    /// # Errors
    /// The value is no object.
    pub fn of(path: &str, value: Value) -> Result<Self, Problem> {
        match value {
            Value::Object(rest) => Ok(Self { path: path.to_owned(), rest }),
            other => Err(wrong(path, "an object", &other)),
        }
    }

    /// An object without fields at `path`.
    #[must_use]
    pub fn none(path: &str) -> Self {
        Self { path: path.to_owned(), rest: Map::new() }
    }

    /// The path of a field of it.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The value, `null` counting as absent.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.rest.shift_remove(name).filter(|value| !value.is_null())
    }

    /// The object of that name, if it is there.
    ///
    /// # Errors
    /// Another type.
    pub fn object(&mut self, name: &str) -> Result<Option<Self>, Problem> {
        let path = self.path(name);
        self.value(name).map(|value| Self::of(&path, value)).transpose()
    }

    /// The object of that name; one without fields where it is absent.
    ///
    /// # Errors
    /// Another type.
    pub fn object_or_empty(&mut self, name: &str) -> Result<Self, Problem> {
        let path = self.path(name);
        Ok(self.object(name)?.unwrap_or_else(|| Self::none(&path)))
    }

    /// A string, if it is there.
    ///
    /// # Errors
    /// Another type.
    pub fn string(&mut self, name: &str) -> Result<Option<String>, Problem> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path(name), "a string", &other)),
        }
    }

    /// A string that has to be there and has to say something.
    ///
    /// # Errors
    /// It is missing, empty or of another type.
    pub fn required(&mut self, name: &str, fix: &str) -> Result<String, Problem> {
        let given = self.string(name)?.filter(|text| !text.is_empty());
        given.ok_or_else(|| Problem::new(self.path(name), "missing", fix))
    }

    /// A string in a type of its own; `example` says what one looks like.
    ///
    /// # Errors
    /// Another type, or a text that the type does not take.
    pub fn parsed<T: std::str::FromStr>(&mut self, name: &str, example: &str) -> Result<Option<T>, Problem> {
        let Some(text) = self.string(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            let fix = format!("write a value such as `{example}`, or leave the field out");
            Problem::new(self.path(name), format!("`{text}` is not valid"), fix)
        })
    }

    /// A port, 0 to 65535.
    ///
    /// # Errors
    /// Anything else.
    pub fn port(&mut self, name: &str) -> Result<Option<u16>, Problem> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
        let refuse =
            || Problem::new(self.path(name), format!("`{value}` is not a port"), "write a number from 0 to 65535");
        port.map(Some).ok_or_else(refuse)
    }

    /// An object taken as it is.
    ///
    /// # Errors
    /// Another type.
    pub fn map(&mut self, name: &str) -> Result<Option<Value>, Problem> {
        match self.value(name) {
            Some(other) if !other.is_object() => Err(wrong(&self.path(name), "an object", &other)),
            found => Ok(found),
        }
    }

    /// Refuses what was not taken.
    ///
    /// # Errors
    /// The first field that is left; `known` lists what may stand there.
    pub fn finish(self, known: &str) -> Result<(), Problem> {
        match self.rest.keys().next() {
            None => Ok(()),
            Some(name) => {
                Err(Problem::new(self.path(name), "unknown field", format!("remove it; known here: {known}")))
            }
        }
    }
}

/// A value of another type than `expected`.
#[must_use]
pub fn wrong(path: &str, expected: &str, found: &Value) -> Problem {
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

/// A value without repeated keys, at any depth. It may hold tokens, so it has no `Debug`.
pub struct Strict(pub Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(Self)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Strict(value))) = entries.next_entry::<String, _>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("key `{key}` stands twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::Strict;
    use serde_json::Value;

    #[test]
    fn reads_what_any_reader_reads() {
        let text = r#"{"a":[1,-2,2.5,null,true,"x"],"b":{"a":{}}}"#;
        let strict: Strict = serde_json::from_str(text).unwrap();
        assert_eq!(strict.0, serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn a_key_that_stands_twice_is_named() {
        for text in [r#"{"id":"1","id":"2"}"#, r#"[{"a":{"id":1,"b":2,"id":1}}]"#, r#"{"id":1,"\u0069d":2}"#] {
            let error = serde_json::from_str::<Strict>(text).err().unwrap().to_string();
            assert!(error.contains("key `id` stands twice"), "{error}");
        }
    }
}
