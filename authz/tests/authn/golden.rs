//! What a stock Envoy 1.40.0 did with some 950 requests, configured as Istio configures it (section 7.1), and what we
//! do with the same: the same, but for differences that are meant, each of which has its reason beside it.

use std::collections::BTreeMap;

use palisade_authz::{Accepted, Authenticator, Authn, TokenRequest};
use palisade_policies::{ClaimToHeader, JwksSource, JwtRule, TokenHeader};
use serde_json::{Value, json};

use crate::kit::{self, NoKeys};

/// Long parts of tokens stand in the first member, rows name them by number.
fn golden() -> (Value, Vec<Value>) {
    let text = include_str!("golden/envoy.jsonl");
    let (head, rows) = text.split_once("\n{\"set\"").unwrap();
    let head: Value = serde_json::from_str(head).unwrap();
    let parts: Vec<&str> = head["parts"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
    let rows = format!("{{\"set\"{rows}");
    let rows = rows.lines().map(|row| filled(serde_json::from_str(row).unwrap(), &parts)).collect();
    (filled(head.clone(), &parts), rows)
}

fn filled(value: Value, parts: &[&str]) -> Value {
    match value {
        Value::String(text) => Value::String(fill(&text, parts)),
        Value::Array(items) => items.into_iter().map(|item| filled(item, parts)).collect(),
        Value::Object(members) => members.into_iter().map(|(name, member)| (name, filled(member, parts))).collect(),
        other => other,
    }
}

fn fill(text: &str, parts: &[&str]) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let part = after
            .split_once('}')
            .and_then(|(number, behind)| Some((parts.get(number.parse::<usize>().ok()?)?, behind)));
        if let Some((part, behind)) = part {
            out.push_str(part);
            rest = behind;
        } else {
            out.push('{');
            rest = after;
        }
    }
    out + rest
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn rule(value: &Value) -> JwtRule {
    let members = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    JwtRule {
        issuer: text(&value["issuer"]),
        audiences: texts(&value["audiences"]),
        jwks: JwksSource::Inline(text(&value["jwks"])),
        from_headers: members("fromHeaders")
            .iter()
            .map(|header| TokenHeader { name: text(&header["name"]), prefix: text(&header["prefix"]) })
            .collect(),
        from_params: texts(&value["fromParams"]),
        from_cookies: texts(&value["fromCookies"]),
        output_payload_to_header: value["outputPayloadToHeader"].as_str().map(str::to_owned),
        output_claim_to_headers: members("outputClaimToHeaders")
            .iter()
            .map(|output| ClaimToHeader { header: text(&output["header"]), claim: text(&output["claim"]) })
            .collect(),
        forward_original_token: value["forwardOriginalToken"] == true,
        space_delimited_claims: texts(&value["spaceDelimitedClaims"]),
        ..kit::rule()
    }
}

/// Headers as Envoy's map holds them, in the order of their names.
fn joined(list: &[(String, Vec<u8>)]) -> Vec<Value> {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in list {
        by_name.entry(name.to_ascii_lowercase()).or_default().push(String::from_utf8(value.clone()).unwrap());
    }
    let values = |name: &str, values: Vec<String>| match palisade_authz::is_joined_header(name) {
        true => vec![values.into_iter().filter(|value| !value.is_empty()).collect::<Vec<_>>().join(",")],
        false => values,
    };
    by_name
        .into_iter()
        .flat_map(|(name, all)| values(&name, all).into_iter().map(move |one| json!([name, one])))
        .collect()
}

fn outcome(authenticator: &Authenticator, row: &Value, now: u64) -> Value {
    let pairs = row["headers"].as_array().into_iter().flatten();
    let headers: Vec<(String, Vec<u8>)> = pairs.map(|pair| (text(&pair[0]), text(&pair[1]).into_bytes())).collect();
    let target = row["target"].as_str().unwrap_or("/p");
    let request = TokenRequest {
        method: row["method"].as_str().or(Some("GET")),
        target: Some(target),
        scheme: Some("http"),
        host: Some("h.example"),
        headers: &headers,
    };
    match authenticator.authenticate(&request, &NoKeys, now) {
        Authn::Accepted(accepted) => passed(accepted, headers, target),
        Authn::Refused(refusal) => {
            let usual = format!("Bearer realm=\"http://h.example{target}\", error=\"invalid_token\"");
            let mut seen = json!({"status": refusal.status, "body": refusal.body});
            if refusal.www_authenticate.as_deref() != Some(&usual) {
                seen["www"] = json!(refusal.www_authenticate);
            }
            seen
        }
    }
}

/// What the application gets; only what differs from what was sent.
fn passed(accepted: Accepted, mut headers: Vec<(String, Vec<u8>)>, target: &str) -> Value {
    let mut seen = json!({"status": 200});
    let before = joined(&headers);
    accepted.edits.apply(&mut headers);
    let after = joined(&headers);
    if after != before {
        seen["headers"] = json!(after);
    }
    if let Some(edited) = accepted.edits.target.filter(|edited| edited != target) {
        seen["target"] = json!(edited);
    }
    if let Some(claims) = accepted.claims {
        seen["claims"] = (*claims).clone();
    }
    seen
}

/// Equal, all numbers being doubles.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, value)| other.get(name).is_some_and(|other| same(value, other)))
        }
        _ => one == other,
    }
}

#[test]
fn requests_end_as_in_envoy() {
    let (head, rows) = golden();
    let now = head["now"].as_u64().unwrap();
    let sets: BTreeMap<&str, Authenticator> = (head["sets"].as_object().unwrap().iter())
        .map(|(name, rules)| (name.as_str(), kit::compile(rules.as_array().unwrap().iter().map(rule).collect())))
        .collect();
    let mut wrong = Vec::new();
    for row in &rows {
        let expected = if row["ours"].is_null() { &row["envoy"] } else { &row["ours"] };
        let seen = outcome(&sets[row["set"].as_str().unwrap()], row, now);
        if !same(&seen, expected) {
            wrong.push(format!("{row}\n  we: {seen}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    assert!(rows.len() > 900, "{}", rows.len());
}

/// No difference lets anything pass that Envoy stops; where Envoy fails to forward (503), the header is left out.
#[test]
fn differences_that_are_meant_never_accept_more() {
    let (_, rows) = golden();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| !row["ours"].is_null()) {
        let status = |who: &str| row[who]["status"].as_u64().unwrap();
        assert!(status("ours") == status("envoy") || status("ours") == 401 || status("envoy") == 503, "{row}");
        *reasons.entry(text(&row["why"])).or_default() += 1;
    }
    let expected = [
        "JSON is RFC 8259",
        "a claim that is no header value is left out",
        "critical header parameters are not understood",
        "other parameters keep their spelling",
        "the key decides the algorithm",
        "the realm does not repeat a token",
    ];
    assert_eq!(reasons.keys().map(String::as_str).collect::<Vec<_>>(), expected);
}
