//! RequestAuthentication as the `jwt_authn` filter. Keys are inline: fetching them is istiod's business.

use std::collections::BTreeSet;
use std::sync::Arc;

use palisade_policies::{JwksSource, JwtRule, RequestAuthentication};
use serde_json::{Map, Value, json};

/// The filter of all rules that apply, sorted by issuer; `None` without a rule.
///
/// `fetched` gives the key set of a rule that does not carry it.
#[must_use]
pub fn authentication(
    policies: &[Arc<RequestAuthentication>],
    clear_route_cache: bool,
    fetched: &dyn Fn(&JwtRule) -> String,
) -> Option<Value> {
    let mut rules: Vec<&JwtRule> = policies.iter().flat_map(|policy| &policy.rules).collect();
    rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
    if rules.is_empty() {
        return None;
    }
    let mut providers = Map::new();
    let (mut each, mut any) = (Vec::new(), Vec::new());
    for (index, rule) in rules.iter().enumerate() {
        let name = format!("origins-{index}");
        let one = json!({ "providerName": name });
        each.push(json!({ "requiresAny": { "requirements": [one, { "allowMissing": {} }] } }));
        any.push(one);
        providers.insert(name, provider(rule, clear_route_cache, fetched));
    }
    let requires = if each.len() == 1 {
        each.remove(0)
    } else {
        any.push(json!({ "requiresAll": { "requirements": each } }));
        json!({ "requiresAny": { "requirements": any } })
    };
    Some(json!({ "name": "envoy.filters.http.jwt_authn", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": providers,
        "rules": [{ "match": { "prefix": "/" }, "requires": requires }],
        "bypassCorsPreflight": true,
    } }))
}

fn provider(rule: &JwtRule, clear_route_cache: bool, fetched: &dyn Fn(&JwtRule) -> String) -> Value {
    let keys = match &rule.jwks {
        JwksSource::Inline(text) => text.clone(),
        JwksSource::Uri(_) | JwksSource::Discovery => fetched(rule),
    };
    let mut provider = json!({
        "localJwks": { "inlineString": keys },
        "payloadInMetadata": "payload",
        "normalizePayloadInMetadata": { "spaceDelimitedClaims": space_delimited(rule) },
    });
    let texts = |names: &[String]| Value::from(names.to_vec());
    let headers = rule.from_headers.iter().map(|header| {
        let mut location = json!({ "name": header.name });
        if !header.prefix.is_empty() {
            location["valuePrefix"] = header.prefix.as_str().into();
        }
        location
    });
    let claims =
        rule.output_claim_to_headers.iter().map(|to| json!({ "headerName": to.header, "claimName": to.claim }));
    let fields = [
        ("issuer", Value::from(rule.issuer.as_str())),
        ("audiences", texts(&rule.audiences)),
        ("forward", rule.forward_original_token.into()),
        ("forwardPayloadHeader", rule.output_payload_to_header.as_deref().unwrap_or_default().into()),
        ("clearRouteCache", clear_route_cache.into()),
        ("claimToHeaders", claims.collect::<Vec<_>>().into()),
        ("fromHeaders", headers.collect::<Vec<_>>().into()),
        ("fromParams", texts(&rule.from_params)),
        ("fromCookies", texts(&rule.from_cookies)),
    ];
    for (key, value) in fields {
        let default = value == json!("") || value == json!(false) || value == json!([]);
        if !default {
            provider[key] = value;
        }
    }
    provider
}

fn space_delimited(rule: &JwtRule) -> Vec<String> {
    let own = rule.space_delimited_claims.iter().map(String::as_str);
    let all: BTreeSet<&str> = own.chain(["permission", "scope"]).collect();
    all.into_iter().map(str::to_owned).collect()
}
