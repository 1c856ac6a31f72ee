//! One line of `policy eval`: answered with one JSON object, or refused with a field and a fix; never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use palisade_policies::{MeshConfig, SourceText, load};
use palisade_workbench::eval::eval;

const POLICY: &str = r#"{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "p", "namespace": "shop"},
 "spec": {"rules": [{"from": [{"source": {"namespaces": ["web"], "notRequestPrincipals": ["a/b"], "ipBlocks": ["10.0.0.0/8"]}}],
  "to": [{"operation": {"paths": ["/v1/{**}"], "methods": ["GET"], "hosts": ["*.example.com"]}}],
  "when": [{"key": "request.headers[x-token]", "values": ["a*"]}, {"key": "request.auth.claims[g][h]", "values": ["*"]}]}]}}"#;

fuzz_target!(|line: &str| {
    let loaded = load(&[SourceText { file: "p".into(), first_line: 1, text: POLICY.into() }], "default");
    assert!(!loaded.has_errors());
    // One line at a time: what comes after a line feed is another line.
    let line = line.split('\n').next().unwrap_or_default();
    let report = eval(&loaded, &MeshConfig::default(), line, None);
    match (report.answers.as_slice(), report.errors.as_slice()) {
        ([answer], []) => {
            let answer: serde_json::Value = serde_json::from_str(answer).expect("an answer is JSON");
            assert!(answer.get("decision").is_some());
        }
        ([], [error]) => assert!(!error.message.is_empty() && !error.fix.is_empty()),
        ([], []) => assert!(line.trim().is_empty()),
        both => panic!("{both:?}"),
    }
});
