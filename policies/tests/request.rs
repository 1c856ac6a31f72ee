//! RequestAuthentication: what is accepted, what its fields become, and what an omitted one means.

#![expect(clippy::indexing_slicing, clippy::panic, reason = "helpers of tests")]

use std::time::Duration;

use palisade_policies::{ClaimToHeader, JwksSource, JwtRule, Loaded, Resources, SourceText, TokenHeader, load};

fn one(text: &str) -> Loaded {
    load(&[SourceText::new("policies.yaml", text)], "default")
}

fn accepted(text: &str) -> Resources {
    let loaded = one(text);
    assert_eq!(loaded.diagnostics, [], "{text}");
    loaded.resources
}

fn policy(spec: &str) -> String {
    format!("apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: p}}\nspec: {spec}\n")
}

fn rule(rule: &str) -> JwtRule {
    let resources = accepted(&policy(&format!("{{jwtRules: [{{{rule}}}]}}")));
    let [policy] = &resources.request_authentications[..] else { panic!("{resources:?}") };
    policy.rules[0].clone()
}

/// The codes of everything found, warnings included.
fn codes(rule: &str) -> Vec<&'static str> {
    let loaded = one(&policy(&format!("{{jwtRules: [{{{rule}}}]}}")));
    loaded.diagnostics.iter().map(|found| found.code).collect()
}

const KEYS: &str = r#"{"keys": [{"kty": "RSA", "kid": "1", "n": "x", "e": "AQAB"}, {"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}, {"kty": "OKP", "crv": "Ed25519", "x": "x"}]}"#;

#[test]
fn every_field_lands_in_its_place() {
    let text = format!(
        "issuer: https://idp.example, audiences: [a, b], jwks: '{KEYS}', fromHeaders: [{{name: X-Jwt, prefix: \"J \"}}, \
         {{name: x-b}}], fromParams: [t], fromCookies: [c], outputPayloadToHeader: x-payload, outputClaimToHeaders: \
         [{{header: x_sub, claim: nested.sub}}], forwardOriginalToken: true, timeout: 1.5s, spaceDelimitedClaims: [roles]"
    );
    let rule = rule(&text);
    assert_eq!((rule.issuer.as_str(), rule.audiences.join(" ")), ("https://idp.example", "a b".to_owned()));
    assert_eq!(rule.jwks, JwksSource::Inline(KEYS.to_owned()));
    let header = |name: &str, prefix: &str| TokenHeader { name: name.to_owned(), prefix: prefix.to_owned() };
    assert_eq!(rule.from_headers, [header("X-Jwt", "J "), header("x-b", "")]);
    assert_eq!((rule.from_params, rule.from_cookies), (vec!["t".to_owned()], vec!["c".to_owned()]));
    assert_eq!(rule.output_payload_to_header.as_deref(), Some("x-payload"));
    let claim = ClaimToHeader { header: "x_sub".to_owned(), claim: "nested.sub".to_owned() };
    assert_eq!(rule.output_claim_to_headers, [claim]);
    assert_eq!((rule.forward_original_token, rule.timeout), (true, Duration::from_millis(1500)));
    assert_eq!((rule.space_delimited_claims, rule.origin.line), (vec!["roles".to_owned()], 4));
}

#[test]
fn an_omitted_field_is_istios_default() {
    let rule = rule("issuer: https://idp.example");
    assert_eq!((rule.jwks, rule.timeout), (JwksSource::Discovery, Duration::from_secs(5)));
    assert!(rule.audiences.is_empty() && rule.from_headers.is_empty() && rule.from_params.is_empty());
    assert!(rule.from_cookies.is_empty() && rule.output_claim_to_headers.is_empty());
    assert!(rule.output_payload_to_header.is_none() && !rule.forward_original_token);
    assert!(rule.space_delimited_claims.is_empty());
    for (spec, rules) in [("{}", 0), ("{jwtRules: []}", 0), ("{selector: {matchLabels: {a: b}}}", 0)] {
        let resources = accepted(&policy(spec));
        assert_eq!(resources.request_authentications[0].rules.len(), rules, "{spec}");
    }
    let nothing = "apiVersion: security.istio.io/v1beta1\nkind: RequestAuthentication\nmetadata: {name: p}\n";
    assert_eq!(accepted(nothing).request_authentications[0].selector, None);
}

#[test]
fn both_spellings_of_the_uri_are_read() {
    for field in ["jwksUri", "jwks_uri"] {
        for uri in ["https://idp.example/jwks.json", "http://10.0.0.7:8080/keys", "HTTPS://idp.example"] {
            assert_eq!(rule(&format!("issuer: a, {field}: \"{uri}\"")).jwks, JwksSource::Uri(uri.to_owned()));
        }
    }
    assert_eq!(codes("issuer: a, jwks: '{\"keys\": []}', jwks_uri: 'https://a'"), ["PAL0312", "PAL0320"]);
}

#[test]
fn an_issuer_may_be_left_out_only_beside_a_uri() {
    assert_eq!(rule("jwksUri: \"https://idp.example/\"").issuer, "");
    assert_eq!(rule("issuer: \"\", jwksUri: \"https://idp.example/\"").issuer, "");
    assert_eq!(codes(""), ["PAL0311"]);
    assert_eq!(codes(&format!("jwks: '{KEYS}'")), ["PAL0311"]);
    assert_eq!(codes("issuer: 5"), ["PAL0103"], "one fault is one finding");
}

#[test]
fn headers_that_are_written_have_the_names_that_istio_lets_write() {
    let claim =
        |header: &str| codes(&format!("issuer: https://a, outputClaimToHeaders: [{{header: \"{header}\", claim: c}}]"));
    let payload = |header: &str| codes(&format!("issuer: https://a, outputPayloadToHeader: \"{header}\""));
    let token = |header: &str| codes(&format!("issuer: https://a, fromHeaders: [{{name: \"{header}\"}}]"));
    assert_eq!((claim("X_a-1"), payload("X_a-1"), token("X_a-1")), (vec![], vec![], vec![]));
    assert_eq!((claim("x.y"), payload("x.y"), token("x.y")), (vec!["PAL0316"], vec![], vec![]));
    for bad in [":path", "a b", "a:", "ä", " a", "a\\n"] {
        assert_eq!(
            (claim(bad), payload(bad), token(bad)),
            (vec!["PAL0316"], vec!["PAL0316"], vec!["PAL0316"]),
            "{bad}"
        );
    }
}

#[test]
fn timeouts_are_whole_milliseconds() {
    for (timeout, expected) in [("1ms", 1), ("5s", 5000), ("1m30s", 90_000), ("0.25s", 250), ("1h", 3_600_000)] {
        assert_eq!(rule(&format!("issuer: https://a, timeout: {timeout}")).timeout, Duration::from_millis(expected));
    }
    for timeout in ["0s", "999us", "1.5ms", "1s1ns", "-1s", "5 s", "s", "apple", "1d"] {
        assert_eq!(codes(&format!("issuer: https://a, timeout: \"{timeout}\"")), ["PAL0315"], "{timeout}");
    }
}

#[test]
fn booleans_are_those_of_kubernetes() {
    for (value, expected) in
        [("true", true), ("yes", true), ("On", true), ("false", false), ("NO", false), ("off", false)]
    {
        assert_eq!(rule(&format!("issuer: https://a, forwardOriginalToken: {value}")).forward_original_token, expected);
    }
    assert_eq!(codes("issuer: https://a, forwardOriginalToken: \"true\""), ["PAL0102"]);
    assert_eq!(codes("issuer: https://a, forwardOriginalToken: 1"), ["PAL0102"]);
}

#[test]
fn bounds_are_those_of_the_custom_resource_definition() {
    let claims = |count: usize| codes(&format!("issuer: https://a, spaceDelimitedClaims: [{}]", "a,".repeat(count)));
    assert_eq!((claims(64), claims(65)), (vec![], vec!["PAL0112"]));
    let uri = |length: usize| codes(&format!("issuer: a, jwksUri: \"https://a/{}\"", "x".repeat(length - 10)));
    assert_eq!((uri(2048), uri(2049)), (vec![], vec!["PAL0118"]));
    let refs = |count: usize| {
        let text = policy(&format!("{{targetRefs: [{}]}}", "{kind: Service, name: a},".repeat(count)));
        one(&text).diagnostics.iter().map(|found| found.code).collect::<Vec<_>>()
    };
    assert_eq!((refs(16), refs(17)), (vec!["PAL0227"], vec!["PAL0227", "PAL0112"]));
}

#[test]
fn presence_is_read_and_said_to_do_nothing() {
    assert_eq!(codes("issuer: https://a, presence: OPTIONAL"), [""; 0]);
    assert_eq!(codes("issuer: https://a, presence: REQUIRED"), ["PAL0318"]);
    assert_eq!(codes("issuer: https://a, presence: required"), ["PAL0106"]);
}

#[test]
fn a_document_loads_again_alone() {
    let text =
        format!("{}---\n{}", policy("{}"), policy("{jwtRules: [{issuer: https://a}]}").replace("name: p", "name: q"));
    let loaded = one(&text);
    let [first, second] = &loaded.documents[..] else { panic!("{loaded:?}") };
    assert_eq!((first.kind, second.name.as_str(), second.text.first_line), ("RequestAuthentication", "q", 5));
    let again = load(std::slice::from_ref(&second.text), "default");
    assert_eq!(again.resources.request_authentications[0], loaded.resources.request_authentications[1]);
    assert_eq!(loaded.resources.len(), 2);
}

#[test]
fn a_list_of_them_is_read() {
    let item = "apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: a}";
    for kind in ["security.istio.io/v1, kind: RequestAuthenticationList", "v1, kind: List"] {
        let resources = accepted(&format!("{{apiVersion: {kind}, items: [{{{item}}}]}}"));
        assert_eq!(resources.request_authentications.len(), 1);
    }
}
