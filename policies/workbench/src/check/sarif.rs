//! SARIF 2.1.0 (OASIS), for editors and code review: one run, the rules that were met, a result a finding.

use palisade_policies::{Diagnostic, Explanation, explain};
use serde_json::{Map, Value, json};

use super::Finding;

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// The log of a check. Rules are in the order of their codes, results in that of the findings.
pub(super) fn log(findings: &[Finding]) -> Value {
    let mut rules: Vec<&Explanation> = findings.iter().filter_map(|found| explain(found.diagnostic.code)).collect();
    rules.sort_by_key(|rule| rule.code);
    rules.dedup_by_key(|rule| rule.code);
    let results: Vec<Value> = findings.iter().map(|found| result(found, &rules)).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {
                "driver": {
                    "name": "palisade",
                    "version": env!("CARGO_PKG_VERSION"),
                    "rules": rules.iter().map(|rule| self::rule(rule)).collect::<Vec<_>>(),
                }
            },
            // Columns count characters, as editors do.
            "columnKind": "unicodeCodePoints",
            "results": results,
        }]
    })
}

fn rule(rule: &Explanation) -> Value {
    json!({
        "id": rule.code,
        "shortDescription": { "text": rule.title },
        "fullDescription": { "text": rule.why },
        "help": { "text": rule.fix },
        "defaultConfiguration": { "level": rule.severity },
    })
}

fn result(found: &Finding, rules: &[&Explanation]) -> Value {
    let Diagnostic { code, severity, file, line, column, field, message, fix } = &found.diagnostic;
    let mut place = json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(file) },
            "region": { "startLine": line, "startColumn": column },
        }
    });
    if let (false, Some(place)) = (field.is_empty(), place.as_object_mut()) {
        place.insert("logicalLocations".to_owned(), json!([{ "fullyQualifiedName": field }]));
    }
    let mut properties = Map::from_iter([("fix".to_owned(), json!(fix))]);
    if let Some(example) = &found.example {
        properties.insert("example".to_owned(), json!(example));
    }
    json!({
        "ruleId": code,
        "ruleIndex": rules.iter().position(|rule| rule.code == *code),
        "level": severity,
        "message": { "text": format!("{message}; fix: {fix}") },
        "locations": [place],
        "properties": properties,
    })
}

/// A path as a URI reference: absolute ones with their scheme, and what a URI cannot hold percent-encoded.
fn uri(file: &str) -> String {
    if file == "-" {
        return "stdin".to_owned();
    }
    let mut uri = if file.starts_with('/') { "file://".to_owned() } else { String::new() };
    // A colon in the first segment of a relative path would be read as the end of a scheme.
    if !file.starts_with(['/', '.']) && file.split('/').next().is_some_and(|first| first.contains(':')) {
        uri.push_str("./");
    }
    for byte in file.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' | b':' | b'@' | b'+' | b',' => {
                uri.push(char::from(byte));
            }
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn paths_become_references() {
        for (path, reference) in [
            ("policies/shop.yaml", "policies/shop.yaml"),
            ("/etc/a b.yaml", "file:///etc/a%20b.yaml"),
            ("-", "stdin"),
            ("a:b.yaml", "./a:b.yaml"),
            ("é%.yaml", "%C3%A9%25.yaml"),
        ] {
            assert_eq!(uri(path), reference);
        }
    }
}
