//! A path template and a path: the engine against the regular expression that Envoy makes of the template.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use palisade_authz::{CompiledSet, HttpRequest, Request, Semantics};
use palisade_policies::{MeshConfig, SourceText, load};

/// What `{*}` may stand for.
const CLASS: &str = r"[a-zA-Z0-9\-._~%!$&'()*+,;:=@]";

fuzz_target!(|input: (&str, &str)| {
    let (template, path) = input;
    if !template.contains("{*}") && !template.contains("{**}") {
        return;
    }
    let text = serde_json::json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"rules": [{"to": [{"operation": {"paths": [template]}}]}]},
    });
    // JSON is YAML.
    let loaded = load(&[SourceText { file: "f".into(), first_line: 1, text: text.to_string().into() }], "default");
    let policies: &[Arc<_>] = &loaded.resources.authorization_policies;
    if policies.is_empty() {
        return;
    }
    let set = CompiledSet::compile(policies, &MeshConfig::default(), Semantics::Http);
    let http = HttpRequest { path: Some(path), raw_target: Some(path), ..HttpRequest::default() };
    let allowed = set.decide(&Request { http: Some(http), ..Request::default() }).is_allow();
    assert_eq!(allowed, expression(template).is_match(path), "`{template}` on `{path}`");
});

fn expression(template: &str) -> regex::Regex {
    let segments: Vec<String> = template
        .split('/')
        .map(|segment| match segment {
            "{*}" => format!("{CLASS}+"),
            "{**}" => format!("(?:{CLASS}|/)*"),
            literal => regex::escape(literal),
        })
        .collect();
    regex::Regex::new(&format!(r"\A(?:{})\z", segments.join("/"))).expect("an escaped template")
}
