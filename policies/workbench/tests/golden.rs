//! The contract of `policy eval` and `policy check`, as files. `UPDATE_GOLDEN=1` writes them anew: read the
//! difference before you keep it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use palisade_authz::Semantics;
use palisade_policies::{Loaded, MeshConfig, SourceText, load};
use palisade_workbench::eval::{Evaluator, InputError, Options, Summary, eval};
use palisade_workbench::explain::{Explained, explain};
use palisade_workbench::{Alone, check};
use serde_json::{Value, json};

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

/// Without a world nothing waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// The first of January 2026: the tokens of the golden files are valid then.
fn alone() -> Arc<Alone> {
    Arc::new(Alone(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)))
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
    let mut evaluator = Evaluator::new(&loaded, &mesh, Options::default(), alone());
    now(evaluator.run(REQUESTS.as_bytes(), &mut out, &mut |error| errors.push(error.clone()))).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), lines(&report.answers));
    assert_eq!((errors, evaluator.summary()), (report.errors, report.summary));
}

#[test]
fn a_line_that_is_no_text_or_too_long_is_an_error_of_that_line_only() {
    let mut evaluator = Evaluator::new(&Loaded::default(), &MeshConfig::default(), Options::default(), alone());
    let good = b"{\"protocol\":\"tcp\",\"destination\":{\"namespace\":\"a\"}}\n";
    let long = vec![b'['; 10 << 20];
    let input = [b"\xff\n".as_slice(), good, &long, b"\n", good].concat();
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    now(evaluator.run(input.as_slice(), &mut out, &mut |error| errors.push(error.to_string()))).unwrap();
    assert_eq!(
        errors,
        [
            "1: error: the line is not UTF-8, from its byte 1 on; fix: write JSON in UTF-8, one object a line",
            "3: error: longer than 4194304 bytes; fix: write one JSON object a line, each with a request that a proxy \
             would take",
        ]
    );
    let answer =
        "{\"id\":null,\"decision\":\"allow\",\"phase\":\"default\",\"policy\":null,\"shadow\":{},\"audited\":false}\n";
    assert_eq!(String::from_utf8(out).unwrap(), answer.repeat(2));
    assert_eq!((evaluator.summary().answered, evaluator.summary().bad), (2, 2));
}

/// Lines that no reader should trip over: the error says what and where.
#[test]
fn hostile_lines_are_named() {
    let deep = "[".repeat(100_000);
    let nested = format!(r#"{{"id":{}1{}}}"#, "[".repeat(500), "]".repeat(500));
    for (line, message) in [
        (deep.as_str(), "nested deeper than is read, at column 128"),
        (&nested, "nested deeper than is read, at column 133"),
        (r#"{"id":"1","id":"2"}"#, "key `id` stands twice, at column 19"),
        (r#"{"id":1e999}"#, "a number out of range, at column 11"),
        (r#"{"id":123456789012345678901234567890}"#, "`1.2345678901234568e+29` is no whole number of 64 bits"),
        (r#"{"id":1.5}"#, "`1.5` is no whole number of 64 bits"),
        (r#"{"protocol":"tcp","#, "the JSON ends too early"),
        (r#"{"protocol":"tcp"} {}"#, "not one JSON value, at column 20"),
        ("{\"id\":\"\u{0}\"}", "not one JSON value, at column 8"),
        ("{\"id\":\r1,}", "not one JSON value, at column 10"),
        (r#"{"id":"\ud800"}"#, "not one JSON value, at column 14"),
        (r#"{"protocol":"tcp","destination":{"namespace":"a","port":99999999999999999999}}"#, "`1e+20` is not a port"),
    ] {
        let report = eval(&Loaded::default(), &MeshConfig::default(), line, None);
        let found: Vec<&str> = report.errors.iter().map(|error| error.message.as_str()).collect();
        assert_eq!(found, [message], "{}", line.get(..40).unwrap_or(line));
    }
}

#[test]
fn tokens_are_verified_where_that_is_asked_for() {
    let loaded = policies(include_str!("../golden/authenticate/policies.yaml"));
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let requests = include_str!("../golden/authenticate/requests.jsonl");
    let options = Options { authenticate: true, semantics: None };
    let mut evaluator = Evaluator::new(&loaded, &MeshConfig::default(), options, alone());
    let mut out = Vec::new();
    now(evaluator.run(requests.as_bytes(), &mut out, &mut |error| panic!("{error}"))).unwrap();
    golden("authenticate/answers.jsonl", &String::from_utf8(out).unwrap());
    assert_eq!(evaluator.summary().unread_claims, 1);
    // Without it the claims of the line are trusted, and headers are headers.
    let report = eval(&loaded, &MeshConfig::default(), requests, None);
    golden("authenticate/trusted.jsonl", &lines(&report.answers));
}

/// A request in a file may have several lines.
#[test]
fn an_error_of_a_request_with_several_lines_says_which() {
    let request = "{\"protocol\":\n\"tcp\",,}";
    let (none, mesh) = (Loaded::default(), MeshConfig::default());
    let explained = explain(&none, &mesh, Options::default(), alone(), request);
    assert_eq!(now(explained).unwrap_err().message, "not one JSON value, at line 2, column 7");
}

fn explained(request: &str, authenticate: bool) -> Explained {
    let (name, text) = match authenticate {
        true => ("authenticate", include_str!("../golden/authenticate/policies.yaml")),
        false => ("explain", include_str!("../golden/explain/policies.yaml")),
    };
    let loaded = policies(text);
    assert!(!loaded.has_errors(), "{name}: {:?}", loaded.diagnostics);
    let options = Options { authenticate, semantics: None };
    now(explain(&loaded, &MeshConfig::default(), options, alone(), request)).unwrap()
}

#[test]
fn explanations() {
    let mut text = String::new();
    for request in include_str!("../golden/explain/requests.jsonl").lines() {
        text.push_str(&explained(request, false).text());
        text.push_str("--------\n");
    }
    golden("explain/text.txt", &text);
    let first = include_str!("../golden/explain/requests.jsonl").lines().nth(2).unwrap();
    golden("explain/denied-by-default.json", &(explained(first, false).json().unwrap() + "\n"));
}

/// PeerAuthentication is no part of the answer, so the first line says that it stands before it.
#[test]
fn an_allowed_request_that_the_port_refuses_says_so() {
    let strict = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: a}\n\
                  spec: {mtls: {mode: STRICT}}\n";
    let request = |source: &str| {
        let line = format!(r#"{{"protocol":"tcp","source":{{{source}}},"destination":{{"namespace":"a","port":80}}}}"#);
        let (loaded, mesh) = (policies(strict), MeshConfig::default());
        let explained = explain(&loaded, &mesh, Options::default(), alone(), &line);
        now(explained).unwrap().text().lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(request(""), "allow: no ALLOW policy is attached; but the port refuses plaintext");
    assert_eq!(request(r#""principal":"cluster.local/ns/a/sa/b""#), "allow: no ALLOW policy is attached");
}

#[test]
fn explanations_of_tokens() {
    let mut text = String::new();
    for request in include_str!("../golden/authenticate/requests.jsonl").lines() {
        text.push_str(&explained(request, true).text());
        text.push_str("--------\n");
    }
    golden("authenticate/explained.txt", &text);
}

/// An explanation says what eval answers, and ends with the same code.
#[test]
fn explanations_agree_with_the_answers() {
    for (requests, authenticate) in [
        (include_str!("../golden/explain/requests.jsonl"), false),
        (include_str!("../golden/authenticate/requests.jsonl"), true),
    ] {
        let loaded = policies(match authenticate {
            true => include_str!("../golden/authenticate/policies.yaml"),
            false => include_str!("../golden/explain/policies.yaml"),
        });
        let options = Options { authenticate, semantics: None };
        let mut evaluator = Evaluator::new(&loaded, &MeshConfig::default(), options, alone());
        for line in requests.lines() {
            let answer = now(evaluator.line(1, line)).unwrap().unwrap();
            let explained = explained(line, authenticate);
            assert_eq!(explained.answer.to_string(), answer);
            let code = match explained.answer["decision"].as_str().unwrap() {
                "allow" => 0,
                "deny" => 2,
                _ => 4,
            };
            assert_eq!(explained.exit_code(), code);
        }
    }
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
    let summary = |refused, bad, undecided, denied| Summary { refused, denied, undecided, bad, ..Summary::default() };
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
        ("GET", "http://u@h/x", 200),
        ("GET", "/é", 400),
        ("GET", "/?é", 400),
        ("GET", "http://h/é", 400),
        ("GET", "http:///x", 400),
        ("GET", "http://", 400),
        ("GET", "http://a@b@h/x", 400),
        ("GET", r"http://x\\@h/", 400),
        ("GET", "https://h%20/x", 400),
    ] {
        let line = format!(
            r#"{{"protocol":"http","destination":{{"namespace":"a"}},"http":{{"method":"{method}","path":"{target}"}}}}"#
        );
        let answers = eval(&Loaded::default(), &MeshConfig::default(), &line, None).answers.concat();
        assert!(answers.contains(&format!("\"status\":{status},")), "{target}: {answers}");
    }
}

/// The status of a request whose `http` has these two fields, where the host `x` is denied.
fn at_the_denied_host(host: &str, target: &str) -> Option<u64> {
    let loaded = policies(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n\
         spec: {action: DENY, rules: [{to: [{operation: {hosts: [x]}}]}]}\n",
    );
    let line = json!({
        "protocol": "http",
        "destination": {"namespace": "a"},
        "http": {"method": "GET", "path": target, "host": host},
    });
    let report = eval(&loaded, &MeshConfig::default(), &line.to_string(), None);
    let answer: Value = serde_json::from_str(&report.answers.concat()).unwrap();
    answer.get("status").and_then(Value::as_u64)
}

/// User information is no part of the host that policies see.
#[test]
fn user_information_hides_no_host() {
    for target in ["http://x/y", "http://u@x/y", "http://u:p@x/y", "http://@x/y"] {
        assert_eq!(at_the_denied_host("h", target), Some(403), "{target}");
    }
    assert_eq!(at_the_denied_host("x", "http://x@h/y"), Some(200));
}

/// A Host that Envoy's codec refuses is asked of no policy; blanks around one are not part of it.
#[test]
fn hosts_that_never_reach_a_policy() {
    for host in ["a b", "a\0", "a\nb", "a/b", "ä", "x\\y", "x?"] {
        assert_eq!(at_the_denied_host(host, "/"), Some(400), "{host:?}");
    }
    for (host, status) in [(" x\t", 403), ("", 200), ("u@x", 200), ("[::1]:80", 200)] {
        assert_eq!(at_the_denied_host(host, "/"), Some(status), "{host:?}");
    }
    // An absolute-form target replaces it.
    assert_eq!(at_the_denied_host("a b", "http://h/"), Some(200));
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
        refused_for(line, field);
    }
}

/// What has a field of its own is no header, and only waypoints stand before a service.
#[test]
fn fields_out_of_place_are_named() {
    for (line, field) in [
        (r#"{"protocol":"http","destination":{"namespace":"a"},"http":{"headers":[["Host","h"]]}}"#, "http.headers[0]"),
        (
            r#"{"protocol":"http","destination":{"namespace":"a"},"http":{"host":"h","headers":[["a","b"],[":method","GET"]]}}"#,
            "http.headers[1]",
        ),
        (
            r#"{"protocol":"http","destination":{"namespace":"a","service":{"kind":"Pod","namespace":"a","name":"b"}}}"#,
            "destination.service.kind",
        ),
        (
            r#"{"protocol":"http","destination":{"namespace":"a","service":{"name":"b"}}}"#,
            "destination.service.namespace",
        ),
        (
            r#"{"protocol":"http","destination":{"namespace":"a","service":{"namespace":"a","name":"b"}}}"#,
            "destination.service",
        ),
    ] {
        refused_for(line, field);
    }
}

fn refused_for(line: &str, field: &str) {
    let report = eval(&Loaded::default(), &MeshConfig::default(), line, None);
    let error = report.errors.first().unwrap_or_else(|| panic!("{line} was answered"));
    assert_eq!((error.line, error.field.as_str()), (1, field), "{line}");
    assert!(!error.fix.is_empty());
}

#[test]
fn check_table_json_and_sarif() {
    let texts = [SourceText::new("policies.yaml", include_str!("../golden/check/policies.yaml"))];
    let report = check::check(&texts, None, "default");
    golden("check/table.txt", &report.table());
    golden("check/report.json", &(report.json().unwrap() + "\n"));
    let version = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let sarif = report.sarif().unwrap() + "\n";
    golden("check/report.sarif", &sarif.replace(&version, "\"version\": \"(version)\""));
    assert_eq!(report.exit_code(), 3);
    let clean = check::check(&[SourceText::new("p.yaml", POLICIES)], None, "default");
    assert_eq!((clean.exit_code(), clean.summary.ok, clean.summary.refused), (0, 6, 0));
}

/// The sample that the demo runs: what is wrong with it is what its author should see.
#[test]
fn check_of_the_sample() {
    let texts = [SourceText::new("shop.yaml", include_str!("../../samples/shop.yaml"))];
    let table = check::check(&texts, None, "default").table();
    golden("check/shop.txt", &table);
    let within = table.lines().find(|line| line.contains("\"id\":\"PAL0702\"")).unwrap();
    assert!(within.contains("/accounts/x//refund") && within.contains("-> allow 200"), "{within}");
}

/// Why a finding matters is told once for each code, and in JSON with each finding.
#[test]
fn the_reason_is_told() {
    let text = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: a}\n\
                spec: {action: DENY, rules: [{to: [{operation: {ports: ['70000', '80000']}}]}]}\n";
    let report = check::check(&[SourceText::new("p.yaml", text)], None, "default");
    assert_eq!(report.table().matches("    why: the rule could not be applied\n").count(), 1, "{}", report.table());
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    let found = json["diagnostics"].as_array().unwrap();
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|found| found["why"] == "the rule could not be applied"), "{json}");
}

const WAYPOINT: &str = include_str!("../golden/waypoint/policies.yaml");

/// A waypoint is told by the label of Istio's controller, and gets what is attached to it, its class or its service.
#[test]
fn waypoints() {
    let loaded = policies(WAYPOINT);
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    let requests = include_str!("../golden/waypoint/requests.jsonl");
    let report = eval(&loaded, &MeshConfig::default(), requests, None);
    golden("waypoint/answers.jsonl", &lines(&report.answers));
    golden("waypoint/errors.txt", &lines(&report.errors));
    let of = |request| now(explain(&loaded, &MeshConfig::default(), Options::default(), alone(), request)).unwrap();
    let explained: String = requests.lines().take(2).map(|request| of(request).text() + "--------\n").collect();
    golden("waypoint/explained.txt", &explained);
}

/// What SARIF 2.1.0 asks of a log, as far as ours uses it.
#[test]
fn sarif_holds_together() {
    let texts = [SourceText::new("/a b.yaml", include_str!("../golden/check/policies.yaml"))];
    let report = check::check(&texts, None, "default");
    let log: serde_json::Value = serde_json::from_str(&report.sarif().unwrap()).unwrap();
    assert_eq!(log["version"], "2.1.0");
    assert_eq!(log["runs"].as_array().unwrap().len(), 1);
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let ids: Vec<&str> = rules.iter().map(|rule| rule["id"].as_str().unwrap()).collect();
    assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "{ids:?}");
    for rule in rules {
        for text in ["shortDescription", "fullDescription", "help"] {
            assert!(!rule[text]["text"].as_str().unwrap().is_empty());
        }
        assert!(["error", "warning"].contains(&rule["defaultConfiguration"]["level"].as_str().unwrap()));
    }
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), report.diagnostics.len());
    for result in results {
        let index = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(ids[index], result["ruleId"].as_str().unwrap());
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "file:///a%20b.yaml");
        assert!(
            place["region"]["startLine"].as_u64().unwrap() > 0 && place["region"]["startColumn"].as_u64().unwrap() > 0
        );
        assert!(!result["message"]["text"].as_str().unwrap().is_empty());
    }
    assert!(results.iter().any(|result| result["properties"]["example"]["request"]["protocol"] == "tcp"));
}

#[test]
fn check_reports_the_mesh_configuration_too() {
    let mesh = SourceText::new("mesh.yaml", "noSuchKey: 1\n");
    let policies = SourceText::new("p.yaml", include_str!("../golden/check/policies.yaml"));
    let report = check::check(&[policies], Some(&mesh), "default");
    assert_eq!(report.exit_code(), 3, "{report:?}");
    assert_eq!(&*report.diagnostics[0].diagnostic.file, "mesh.yaml");
    assert!(report.diagnostics.iter().all(|found| found.example.is_none()), "nothing is known of requests then");
}

/// A request line and headers that no proxy takes are answered as a bad path is.
#[test]
fn heads_that_cannot_be_sent_are_400() {
    let loaded = policies(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: all, namespace: a}\nspec: {rules: [{}]}\n",
    );
    let status = |http: &str| {
        let line = format!(
            "{{\"protocol\":\"http\",\"destination\":{{\"namespace\":\"a\"}},\"http\":{{\"path\":\"/\",{http}}}}}"
        );
        let report = eval(&loaded, &MeshConfig::default(), &line, None);
        let answer: serde_json::Value = serde_json::from_str(&report.answers[0]).unwrap();
        answer["status"].as_u64().unwrap()
    };
    assert_eq!(status(r#""method":"GET","headers":[["x-a","b"]]"#), 200);
    for bad in [
        r#""method":"get""#,
        r#""method":"FOO""#,
        r#""method":"""#,
        r#""method":"G T""#,
        r#""method":"GET","headers":[["b d","x"]]"#,
        r#""method":"GET","headers":[["","x"]]"#,
        r#""method":"GET","headers":[[":protocol","x"]]"#,
        r#""method":"GET","headers":[["a","x\ny"]]"#,
        r#""method":"GET","headers":[["a","x\u0000"]]"#,
    ] {
        assert_eq!(status(bad), 400, "{bad}");
    }
}

/// A file that is no text is one refused document among the others.
#[test]
fn unreadable_files_are_refused_documents_of_the_report() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unreadable");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("bad.yaml"), b"a: \xe4\n").unwrap();
    std::fs::write(directory.join("good.yaml"), POLICIES).unwrap();
    let read = palisade_policies::read_each(&[directory]).unwrap();
    let mut report = check::check(&read.texts, None, "default");
    let ok = report.summary.ok;
    assert_eq!((report.exit_code(), report.summary.refused), (0, 0));
    report.refuse_files(read.refused);
    assert_eq!((report.exit_code(), report.summary.refused, report.summary.ok), (3, 1, ok));
    assert!(ok > 0 && report.json().unwrap().contains("PAL0012") && report.sarif().unwrap().contains("PAL0012"));
}
