//! The author's verbs as the real binary: check, eval, explain, with real providers and real issuers behind them.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;

use palisade_tests::http::Connection;
use palisade_tests::{Finished, run};
use serde_json::Value;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/workbench/golden");

fn golden(name: &str) -> PathBuf {
    Path::new(GOLDEN).join(name)
}

fn palisade(arguments: &[&str], input: &str) -> Finished {
    run(arguments, input).unwrap()
}

/// A directory with one file.
fn directory(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    std::fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    (directory, path)
}

/// An HTTP server on loopback that answers each request as `answer` says (status, body) by its target; its threads end
/// with the test.
fn server(answer: impl Fn(&str) -> (u16, String) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            thread::spawn(move || serve(stream, &answer));
        }
    });
    address
}

fn serve(stream: TcpStream, answer: &impl Fn(&str) -> (u16, String)) -> anyhow::Result<()> {
    let mut connection = Connection::over(stream)?;
    loop {
        let (line, _, _) = connection.message()?;
        let (status, body) = answer(line.split(' ').nth(1).unwrap_or_default());
        let head = format!("HTTP/1.1 {status} Answer\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        connection.send(head.as_bytes())?;
    }
}

/// An address at which nobody listens.
fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn answers(finished: &Finished) -> Vec<Value> {
    finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Decision, status, phase of each answer.
fn short(finished: &Finished) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let of = |answer: &Value| format!("{} {} {}", text(&answer["decision"]), answer["status"], text(&answer["phase"]));
    answers(finished).iter().map(of).collect()
}

fn http(id: &str, path: &str) -> String {
    format!(
        r#"{{"id":"{id}","protocol":"http","source":{{"principal":"cluster.local/ns/web/sa/front","ip":"10.0.0.7"}},"destination":{{"namespace":"shop","labels":{{"app":"cart"}},"ip":"10.0.0.9","port":8080}},"http":{{"method":"GET","path":"{path}","host":"cart.shop:8080","scheme":"http"}}}}"#
    )
}

#[test]
fn check_in_every_format() {
    let policies = golden("check/policies.yaml").display().to_string();
    let table = palisade(&["policy", "check", "-f", &policies], "");
    assert_eq!(table.code, Some(3));
    assert!(
        table.stdout.contains("PAL0701") && table.stdout.contains("example: {\"id\":\"PAL0701\""),
        "{}",
        table.stdout
    );
    let json = palisade(&["policy", "check", "-f", &policies, "-o", "json"], "");
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(report["diagnostics"].as_array().unwrap().iter().all(|found| found["why"].is_string()), "{report}");
    let sarif = palisade(&["policy", "check", "-f", &policies, "-o", "sarif"], "");
    let log: Value = serde_json::from_str(&sarif.stdout).unwrap();
    assert_eq!((json.code, sarif.code), (Some(3), Some(3)));
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), report["diagnostics"].as_array().unwrap().len());
    assert_eq!(log["runs"][0]["tool"]["driver"]["version"], env!("CARGO_PKG_VERSION"));
    // Traps alone refuse nothing, and their examples can be asked.
    let clean = golden("eval/policies.yaml").display().to_string();
    let json = palisade(&["policy", "check", "-f", &clean, "-o", "json"], "");
    assert_eq!(json.code, Some(0), "{}", json.stderr);
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    let shown: Vec<&Value> = report["diagnostics"].as_array().unwrap().iter().map(|found| &found["example"]).collect();
    let shown: Vec<&Value> = shown.into_iter().filter(|example| example.is_object()).collect();
    assert!(!shown.is_empty());
    let requests: String = shown.iter().map(|example| example["request"].to_string() + "\n").collect();
    let eval = palisade(&["policy", "eval", "-f", &clean, "--requests", "-"], &requests);
    let decisions: Vec<Value> = shown.iter().map(|example| example["decision"].clone()).collect();
    assert_eq!(answers(&eval), decisions);
}

#[test]
fn eval_ends_with_the_code_of_the_worst_answer() {
    let policies = golden("explain/policies.yaml").display().to_string();
    let eval = |requests: &str, more: &[&str]| {
        let mut arguments = vec!["policy", "eval", "-f", &policies, "--requests", "-"];
        arguments.extend(more);
        palisade(&arguments, requests)
    };
    let (allowed, denied) = (http("1", "/v1/cart"), http("2", "/v1/cart/refund"));
    let undecided = denied.replace(",\"port\":8080", "");
    assert_eq!(eval(&allowed, &[]).code, Some(0));
    assert_eq!(eval(&format!("{allowed}\n{denied}\n"), &[]).code, Some(2));
    assert_eq!(eval(&format!("{undecided}\n{denied}\n"), &[]).code, Some(4));
    let bad = eval(&format!("{allowed}\nnonsense\n\n{denied}"), &[]);
    assert_eq!(bad.code, Some(65));
    assert_eq!(short(&bad), ["allow 200 allow", "deny 403 deny"]);
    assert!(bad.stderr.contains("-:2: error: not one JSON value"), "{}", bad.stderr);
    let tcp = eval(&allowed, &["--semantics", "tcp"]);
    assert_eq!(short(&tcp), ["deny null custom"], "on TCP the CUSTOM rule has no fields left");
    assert_eq!(short(&eval(&allowed, &["--semantics", "l4"])), ["deny null deny"], "of the DENY rule its port is left");
    let refused = golden("check/policies.yaml").display().to_string();
    let finished = palisade(&["policy", "eval", "-f", &refused, "--requests", "-"], &allowed);
    assert_eq!((finished.code, answers(&finished).len()), (Some(3), 1), "the answers of the others still come");
    assert!(finished.stderr.contains("error[PAL0215]"), "{}", finished.stderr);
    let both = palisade(&["policy", "eval", "-f", "-", "--requests", "-"], "");
    assert_eq!(both.code, Some(64), "{}", both.stderr);
}

#[test]
fn bad_input_is_named_by_its_line_and_loses_no_other() {
    let (_kept, path) = directory("requests.jsonl", "");
    let mut file = std::fs::File::create(&path).unwrap();
    file.write_all(http("1", "/a").as_bytes()).unwrap();
    file.write_all(b"\n\xff\xfe\n").unwrap();
    file.write_all(&vec![b'x'; 10 << 20]).unwrap();
    file.write_all(format!("\n{}\n", "[".repeat(1 << 20)).as_bytes()).unwrap();
    file.write_all(b"{\"id\":\"1\",\"id\":\"2\"}\n{\"id\":1e999}\n").unwrap();
    file.write_all(http("2", "/b").as_bytes()).unwrap();
    drop(file);
    let (_policies, policies) = directory("none.yaml", "# none\n");
    let finished = palisade(&["policy", "eval", "-f", &policies, "--requests", &path], "");
    assert_eq!(finished.code, Some(65));
    assert_eq!(short(&finished), ["allow 200 default", "allow 200 default"]);
    let errors: Vec<&str> = finished.stderr.lines().collect();
    let expected = [
        "2: error: the line is not UTF-8, from its byte 1 on",
        "3: error: longer than 4194304 bytes",
        "4: error: nested deeper than is read",
        "5: error: key `id` stands twice",
        "6: error: a number out of range",
    ];
    assert_eq!(errors.len(), expected.len(), "{errors:?}");
    for (error, expected) in errors.iter().zip(expected) {
        assert!(error.starts_with(&format!("{path}:{expected}")) && error.contains("; fix: "), "{error}");
    }
}

/// The tokens of the golden files, their keys fetched from an issuer on loopback.
#[test]
fn keys_are_fetched_where_the_address_is_allowed() {
    let policies = std::fs::read_to_string(golden("authenticate/policies.yaml")).unwrap();
    let line = policies.lines().find(|line| line.contains("jwks: ")).unwrap();
    let keys = line.split('\'').nth(1).unwrap().to_owned();
    let issuer = server(move |target| if target == "/keys" { (200, keys.clone()) } else { (404, String::new()) });
    let requests = golden("authenticate/requests.jsonl").display().to_string();
    let expected = std::fs::read_to_string(golden("authenticate/answers.jsonl")).unwrap();
    let eval = |uri: &str, mesh: &str| {
        let (_policies, policies) = directory("p.yaml", &policies.replace(line, &format!("    jwksUri: {uri}")));
        let (_mesh, mesh) = directory("mesh.yaml", mesh);
        palisade(&["policy", "eval", "-f", &policies, "--mesh", &mesh, "--requests", &requests, "--authenticate"], "")
    };
    let allowed = eval(&format!("http://{issuer}/keys"), "palisade: {jwksAllow: [127.0.0.0/8]}\n");
    assert_eq!(allowed.stdout, expected, "{}", allowed.stderr);
    assert_eq!(allowed.code, Some(2));
    assert!(allowed.stderr.contains("`jwt` of 1 request"), "{}", allowed.stderr);
    let guarded = eval(&format!("http://{issuer}/keys"), "");
    let missing = eval(&format!("http://{issuer}/other"), "palisade: {jwksAllow: [127.0.0.0/8]}\n");
    for refused in [guarded, missing] {
        let answers = answers(&refused);
        assert_eq!((answers[0]["status"].clone(), answers[0]["phase"].clone()), (401.into(), "authn".into()));
        assert_eq!(answers[3]["status"], 200, "a request without a token is not touched");
        assert!(refused.stderr.contains(&format!("no keys from http://{issuer}/")), "{}", refused.stderr);
    }
}

const CUSTOM: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ask, namespace: shop}
spec:
  action: CUSTOM
  provider: {name: asked}
  rules:
  - to:
    - operation: {paths: [\"/ask*\"]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-later, namespace: shop}
spec:
  action: DENY
  rules:
  - to:
    - operation: {ports: [\"8080\"], paths: [\"*later\"]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: asked, namespace: shop}
spec:
  hosts: [asked.shop]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 9000, name: http, protocol: HTTP, targetPort: PORT}]
  endpoints: [{address: 127.0.0.1}]
";

fn with_provider(provider: SocketAddr, more: &str, requests: &str) -> Finished {
    let (_policies, policies) = directory("p.yaml", &CUSTOM.replace("PORT", &provider.port().to_string()));
    let mesh = format!(
        "extensionProviders:\n- name: asked\n  envoyExtAuthzHttp: {{service: asked.shop, port: 9000, timeout: 20s{more}}}\n"
    );
    let (_mesh, mesh) = directory("mesh.yaml", &mesh);
    palisade(&["policy", "eval", "-f", &policies, "--mesh", &mesh, "--requests", "-"], requests)
}

#[test]
fn providers_are_really_asked() {
    let provider = server(|target| match target {
        "/ask/no" => (418, "no".to_owned()),
        _ => (200, String::new()),
    });
    let paths = ["/ask/yes", "/ask/no", "/ask/later", "/other"];
    let requests: String = paths.iter().map(|path| http("1", path) + "\n").collect();
    let asked = with_provider(provider, "", &requests);
    assert_eq!(
        short(&asked),
        ["allow 200 default", "deny 418 custom", "deny 403 deny", "allow 200 default"],
        "{}",
        asked.stderr
    );
    assert_eq!(answers(&asked)[1]["policy"], "istio-ext-authz-asked-ns[shop]-policy[ask]-rule[0]");
    let gone = closed_port();
    assert_eq!(short(&with_provider(gone, "", &requests))[..2], ["deny 403 custom", "deny 403 custom"]);
    assert_eq!(short(&with_provider(gone, ", statusOnError: \"503\"", &requests))[0], "deny 503 custom");
    assert_eq!(
        short(&with_provider(gone, ", failOpen: true", &requests))[..3],
        ["allow 200 default", "allow 200 default", "deny 403 deny"]
    );
}

#[test]
fn explain_says_why() {
    let policies = golden("explain/policies.yaml").display().to_string();
    let explain = |request: &str, more: &[&str], input: &str| {
        let mut arguments = vec!["policy", "explain", "-f", &policies, "--request", request];
        arguments.extend(more);
        palisade(&arguments, input)
    };
    let denied = http("1", "/v1/x/../cart/%72efund");
    let text = explain(&denied, &[], "");
    assert_eq!(text.code, Some(2));
    for part in [
        "deny 403 by ns[shop]-policy[no-refunds]-rule[0]",
        "/v1/x/../cart/%72efund (compared as /v1/cart/refund)",
        "port 8080 is STRICT by shop/default",
        "its selector asks for `app=pay`, the workload has `app=cart`",
        "it is in the namespace `web`, the workload in `shop`",
    ] {
        assert!(text.stdout.contains(part), "no `{part}` in:\n{}", text.stdout);
    }
    let piped = explain("-", &["-o", "json"], &denied);
    let (_kept, path) = directory("request.json", &denied.replace(',', ",\n"));
    let file = explain(&path, &["-o", "json"], "");
    assert_eq!((piped.code, &piped.stdout), (Some(2), &file.stdout));
    let json: Value = serde_json::from_str(&piped.stdout).unwrap();
    assert_eq!(json["decidedBy"]["policy"], "ns[shop]-policy[no-refunds]-rule[0]");
    assert_eq!(explain(&http("1", "/v1/cart"), &[], "").code, Some(0));
    assert_eq!(explain(&denied.replace(",\"port\":8080", ""), &[], "").code, Some(4));
    let bad = explain("{\"protocol\":\"http\",\"destination\":{\"namespace\":\"a\"},\"htp\":{}}", &[], "");
    assert_eq!((bad.code, bad.stdout.as_str()), (Some(65), ""));
    assert!(bad.stderr.contains("error htp: unknown field"), "{}", bad.stderr);
    assert_eq!(explain("/no/such/file", &[], "").code, Some(65));
    let refused = golden("check/policies.yaml").display().to_string();
    assert_eq!(palisade(&["policy", "explain", "-f", &refused, "--request", &denied], "").code, Some(3));
}

#[test]
fn every_code_is_listed_and_explained() {
    let list = palisade(&["explain"], "");
    assert_eq!(list.code, Some(0));
    let codes: Vec<&str> = list.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(codes.len(), palisade_policies::codes().count());
    for code in ["PAL0001", "PAL0701", "pal0737"] {
        let one = palisade(&["explain", code], "");
        assert_eq!(one.code, Some(0));
        assert!(one.stdout.starts_with(&code.to_uppercase()) && one.stdout.contains("\nFix: "), "{}", one.stdout);
    }
    assert_eq!(palisade(&["explain", "PAL9999"], "").code, Some(64));
}
