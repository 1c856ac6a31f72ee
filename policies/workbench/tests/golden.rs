//! The contract of `policy eval` and `policy check`, as files. `UPDATE_GOLDEN=1` writes them anew: read the
//! difference before you keep it.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use palisade_authz::Semantics;
use palisade_policies::{Loaded, MeshConfig, SourceText, load};
use palisade_workbench::check;
use palisade_workbench::eval::{Evaluator, InputError, Summary, eval};

const POLICIES: &str = include_str!("../golden/eval/policies.yaml");
const REQUESTS: &str = include_str!("../golden/eval/requests.jsonl");

fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{}", path.display());
}

fn policies(text: &str) -> Loaded {
    load(&[SourceText::new("policies.yaml", text)], "default")
}

fn lines<T: ToString>(items: &[T]) -> String {
    items.iter().map(|item| item.to_string() + "\n").collect()
}

#[test]
fn answers_and_errors() {
    let loaded = policies(POLICIES);
    assert_eq!(loaded.diagnostics.iter().filter(|found| found.is_error()).count(), 0, "{:?}", loaded.diagnostics);
    let report = eval(&loaded, &MeshConfig::default(), REQUESTS, None);
    golden("eval/answers.jsonl", &lines(&report.answers));
    golden("eval/errors.txt", &lines(&report.errors));
    assert_eq!(report.summary.answered, 13);
    assert_eq!(report.summary.bad, 3);
    assert_eq!(report.summary.exit_code(), 65);
}

#[test]
fn streaming_gives_the_same_answers() {
    let loaded = policies(POLICIES);
    let mesh = MeshConfig::default();
    let report = eval(&loaded, &mesh, REQUESTS, None);
    let mut out = Vec::new();
    let mut errors: Vec<InputError> = Vec::new();
    let mut evaluator = Evaluator::new(&loaded, &mesh, None);
    evaluator.run(REQUESTS.as_bytes(), &mut out, &mut |error| errors.push(error.clone())).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), lines(&report.answers));
    assert_eq!((errors, evaluator.summary()), (report.errors, report.summary));
}

#[test]
fn a_line_that_is_no_utf8_is_an_error_of_that_line_only() {
    let mut evaluator = Evaluator::new(&Loaded::default(), &MeshConfig::default(), None);
    let input = b"\xff\n{\"protocol\":\"tcp\",\"destination\":{\"namespace\":\"a\"}}\n";
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    evaluator.run(&input[..], &mut out, &mut |error| errors.push(error.to_string())).unwrap();
    assert_eq!(errors, ["1: error: the line is not UTF-8; fix: write JSON in UTF-8, one object a line"]);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "{\"id\":null,\"decision\":\"allow\",\"phase\":\"default\",\"policy\":null,\"shadow\":{},\"audited\":false}\n"
    );
}

#[test]
fn semantics_override_the_protocol() {
    let loaded = policies(POLICIES);
    let line = REQUESTS.lines().next().unwrap();
    let with = |semantics| {
        let report = eval(&loaded, &MeshConfig::default(), line, Some(semantics));
        report.answers.concat()
    };
    assert!(with(Semantics::Http).contains("\"decision\":\"allow\",\"status\":200"));
    assert!(
        with(Semantics::Tcp).contains(
            "\"decision\":\"deny\",\"phase\":\"deny\",\"policy\":\"ns[shop]-policy[no-front-refunds]-rule[0]\""
        )
    );
    assert!(with(Semantics::L4).contains("\"decision\":\"deny\",\"phase\":\"default\",\"policy\":null"));
}

#[test]
fn exit_codes_rank() {
    let summary = |refused, bad, undecided, denied| Summary { refused, answered: 1, denied, undecided, bad };
    assert_eq!(summary(1, 1, 1, 1).exit_code(), 3);
    assert_eq!(summary(0, 1, 1, 1).exit_code(), 65);
    assert_eq!(summary(0, 0, 1, 1).exit_code(), 4);
    assert_eq!(summary(0, 0, 0, 1).exit_code(), 2);
    assert_eq!(summary(0, 0, 0, 0).exit_code(), 0);
}

#[test]
fn a_refused_policy_does_not_stop_the_answers() {
    let loaded = policies(include_str!("../golden/check/policies.yaml"));
    let report = eval(&loaded, &MeshConfig::default(), REQUESTS, None);
    assert_eq!(report.summary.answered, 13);
    assert_eq!(report.summary.exit_code(), 3);
}

#[test]
fn normalisation_follows_the_mesh() {
    let loaded = policies(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n\
         spec: {action: DENY, rules: [{to: [{operation: {paths: [/admin]}}]}]}\n",
    );
    let line = r#"{"protocol":"http","destination":{"namespace":"a"},"http":{"method":"GET","path":"/x%2f..%2F/admin","host":"h"}}"#;
    let mesh = |mode: &str| {
        let text = SourceText::new("mesh.yaml", format!("pathNormalization: {{normalization: {mode}}}\n"));
        MeshConfig::parse(&text).0.unwrap()
    };
    for (mode, denied) in [("NONE", 0), ("BASE", 0), ("MERGE_SLASHES", 0), ("DECODE_AND_MERGE_SLASHES", 1)] {
        assert_eq!(eval(&loaded, &mesh(mode), line, None).summary.denied, denied, "{mode}");
    }
}

/// Targets that Envoy's codec answers before any policy is asked, and spellings that it accepts.
#[test]
fn targets_that_never_reach_a_policy() {
    for (method, target, status) in [
        ("GET", "/a%00", 400),
        ("GET", "x", 400),
        ("GET", "", 400),
        ("GET", "*", 400),
        ("GET", "/a b", 400),
        ("GET", "/a\u{7f}", 400),
        ("OPTIONS", "*", 404),
        ("GET", "HTTP://h/x", 200),
        ("GET", "https://h", 200),
        ("GET", "/é", 200),
    ] {
        let line = format!(
            r#"{{"protocol":"http","destination":{{"namespace":"a"}},"http":{{"method":"{method}","path":"{target}"}}}}"#
        );
        let answers = eval(&Loaded::default(), &MeshConfig::default(), &line, None).answers.concat();
        assert!(answers.contains(&format!("\"status\":{status},")), "{target}: {answers}");
    }
}

/// Every door for bad input names the field.
#[test]
fn bad_fields_are_named() {
    for (line, field) in [
        ("[]", ""),
        ("{}", "protocol"),
        (r#"{"protocol":"udp"}"#, "protocol"),
        (r#"{"protocol":"tcp"}"#, "destination.namespace"),
        (r#"{"protocol":"tcp","destination":{"namespace":""}}"#, "destination.namespace"),
        (r#"{"protocol":"tcp","destination":{"namespace":"a","port":70000}}"#, "destination.port"),
        (r#"{"protocol":"tcp","destination":{"namespace":"a","port":"80"}}"#, "destination.port"),
        (r#"{"protocol":"tcp","destination":{"namespace":"a","labels":{"x":1}}}"#, "destination.labels.x"),
        (r#"{"protocol":"tcp","destination":{"namespace":"a","labels":[]}}"#, "destination.labels"),
        (r#"{"protocol":"tcp","source":{"principal":""},"destination":{"namespace":"a"}}"#, "source.principal"),
        (
            r#"{"protocol":"tcp","source":{"principal":"spiffe://a/b"},"destination":{"namespace":"a"}}"#,
            "source.principal",
        ),
        (r#"{"protocol":"tcp","source":{"remoteIp":"x"},"destination":{"namespace":"a"}}"#, "source.remoteIp"),
        (r#"{"protocol":"tcp","source":7,"destination":{"namespace":"a"}}"#, "source"),
        (r#"{"protocol":"tcp","destination":{"namespace":"a"},"connection":{"sni":1}}"#, "connection.sni"),
        (r#"{"protocol":"http","destination":{"namespace":"a"},"http":{"headers":{}}}"#, "http.headers"),
        (r#"{"protocol":"http","destination":{"namespace":"a"},"http":{"headers":[["a"]]}}"#, "http.headers[0]"),
        (r#"{"protocol":"http","destination":{"namespace":"a"},"http":{"verb":"GET"}}"#, "http.verb"),
        (r#"{"protocol":"http","destination":{"namespace":"a"},"jwt":{"claims":[]}}"#, "jwt.claims"),
        (r#"{"protocol":"http","destination":{"namespace":"a"},"metadata":1}"#, "metadata"),
        (r#"{"id":[],"protocol":"http","destination":{"namespace":"a"}}"#, "id"),
    ] {
        let report = eval(&Loaded::default(), &MeshConfig::default(), line, None);
        let error = report.errors.first().unwrap_or_else(|| panic!("{line} was answered"));
        assert_eq!((error.line, error.field.as_str()), (1, field), "{line}");
        assert!(!error.fix.is_empty());
    }
}

#[test]
fn check_table_and_json() {
    let texts = [SourceText::new("policies.yaml", include_str!("../golden/check/policies.yaml"))];
    let report = check::check(&texts, None, "default");
    golden("check/table.txt", &report.table());
    golden("check/report.json", &(report.json().unwrap() + "\n"));
    assert_eq!(report.exit_code(), 3);
    let clean = check::check(&[SourceText::new("p.yaml", POLICIES)], None, "default");
    assert_eq!((clean.exit_code(), clean.summary.ok, clean.summary.refused), (0, 6, 0));
}

#[test]
fn check_reports_the_mesh_configuration_too() {
    let mesh = SourceText::new("mesh.yaml", "noSuchKey: 1\n");
    let report = check::check(&[], Some(&mesh), "default");
    assert_eq!(report.exit_code(), 3, "{report:?}");
    assert_eq!(&*report.diagnostics[0].file, "mesh.yaml");
}
