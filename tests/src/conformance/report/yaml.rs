//! JSON as the YAML that people write: blocks outside, lists of texts in one line.

use serde_json::Value;

/// One document.
pub(super) fn document(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (index, (key, value)) in fields.iter().enumerate() {
                // The first key of a list's item stands behind its dash.
                let pad = if index == 0 && out.ends_with("- ") { 0 } else { indent };
                out.push_str(&" ".repeat(pad));
                out.push_str(key);
                out.push(':');
                nested(value, indent + 2, out);
            }
        }
        Value::Array(items) if !items.is_empty() && !is_short(value) => {
            for item in items {
                out.push_str(&" ".repeat(indent));
                out.push_str("- ");
                block(item, indent + 2, out);
            }
        }
        other => {
            out.push_str(&other.to_string());
            out.push('\n');
        }
    }
}

fn nested(value: &Value, indent: usize, out: &mut String) {
    if is_short(value) {
        out.push(' ');
        out.push_str(&value.to_string());
        out.push('\n');
    } else {
        out.push('\n');
        // A list may stand under its key.
        let indent = if value.is_array() { indent - 2 } else { indent };
        block(value, indent, out);
    }
}

fn is_short(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.iter().all(|item| !item.is_object() && !item.is_array()),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::document;

    #[test]
    fn blocks_and_lists() {
        let value = json!({ "spec": { "rules": [{ "to": [{ "operation": { "paths": ["/a", "*"] } }] }, {}] } });
        let text = "spec:\n  rules:\n  - to:\n    - operation:\n        paths: [\"/a\",\"*\"]\n  - {}\n";
        assert_eq!(document(&value), text);
    }
}
