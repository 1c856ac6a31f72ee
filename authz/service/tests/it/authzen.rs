//! AuthZEN over real HTTP. The mapping is a contract: `golden/authzen` holds each request with its answer.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use palisade_authz_service::{Callers, PolicySnapshot, Security};
use palisade_identity::tls;
use palisade_policies::{MeshConfig, SourceText, load};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::callers::mutual;
use crate::pki::Ca;
use crate::world::{World, policy};

pub(crate) const EVALUATION: &str = "/access/v1/evaluation";

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    headers: HeaderMap,
    pub(crate) body: Value,
}

async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, request: Request<Full<Bytes>>) -> Answer {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    let driving = tokio::spawn(connection);
    let response = sender.send_request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    drop(sender);
    driving.await.unwrap().unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status: head.status, headers: head.headers, body }
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("host", "localhost").header("content-type", "application/json");
    request.body(Full::new(body.into())).unwrap()
}

pub(crate) async fn send(address: SocketAddr, request: Request<Full<Bytes>>) -> Answer {
    over(TcpStream::connect(address).await.unwrap(), request).await
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// Each file's request, and the answer beside it. `UPDATE_GOLDEN=1` writes the answers anew: read them before they are committed.
#[tokio::test]
async fn the_mapping_is_as_written_down() {
    let mut world = World::new();
    let text = fs::read_to_string(golden().join("policies.yaml")).unwrap();
    let loaded = load(&[SourceText::new("policies.yaml", text)], "default");
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    world.policies.put(PolicySnapshot::new("golden", Arc::new(loaded.resources), MeshConfig::default()));
    let address = world.authzen(Security::Loopback, Callers::default()).await;
    let mut names: Vec<PathBuf> =
        fs::read_dir(golden().join("authzen")).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.to_str().unwrap().ends_with(".request.json"));
    names.sort();
    assert!(names.len() >= 60, "{names:?}");
    let mut wrong = Vec::new();
    for request in names {
        let asked: Value = serde_json::from_slice(&fs::read(&request).unwrap()).unwrap();
        let answer = send(address, post(asked["path"].as_str().unwrap(), asked["body"].to_string())).await;
        let found = json!({"status": answer.status.as_u16(), "body": answer.body});
        let found = format!("{}\n", serde_json::to_string_pretty(&found).unwrap());
        let expected = PathBuf::from(request.to_str().unwrap().replace(".request.", ".response."));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &found).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "run with UPDATE_GOLDEN=1 and read the difference:\n{}", wrong.join("\n"));
    world.stop().await;
}

pub(crate) fn question() -> Value {
    json!({
        "subject": {"type": "anonymous", "id": "-"},
        "action": {"name": "GET"},
        "resource": {"type": "workload", "id": "shop/cart"},
    })
}

/// A request, the status that it is refused with, and what the error names.
type Refused = (&'static str, Request<Full<Bytes>>, u16, &'static str);

fn with(mut request: Request<Full<Bytes>>, name: &'static str, value: &'static str) -> Request<Full<Bytes>> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

fn refused() -> Vec<Refused> {
    let good = || question().to_string();
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let get = Request::get(EVALUATION).header("host", "localhost").body(Full::default()).unwrap();
    let many = json!({"evaluations": vec![json!({}); 1_001]}).to_string();
    vec![
        ("an empty body", post(EVALUATION, ""), 400, "empty"),
        ("no JSON", post(EVALUATION, "{"), 400, "EOF"),
        ("no object", post(EVALUATION, "[]"), 400, "an array"),
        ("not UTF-8", post(EVALUATION, b"{\"a\":\"\xff\"}".to_vec()), 400, "unicode"),
        ("a key twice", post(EVALUATION, r#"{"subject":{},"subject":{}}"#), 400, "stands twice"),
        ("deep nesting", post(EVALUATION, deep), 400, "recursion"),
        ("another type", with(post(EVALUATION, good()), "content-type", "text/plain"), 400, "Content-Type"),
        ("another host", with(post(EVALUATION, good()), "host", "evil.example"), 403, "Host"),
        ("too large", post(EVALUATION, " ".repeat(65 * 1_024)), 413, "larger"),
        ("another path", post("/access/v1/search/subject", good()), 404, "no such resource"),
        ("another method", get, 405, "GET"),
        ("too many", post("/access/v1/evaluations", many), 400, "1000"),
    ]
}

#[tokio::test]
async fn what_is_no_question_is_refused_by_name() {
    let mut world = World::with(&policy("one", "ALLOW", "{}"));
    let address = world.authzen(Security::Loopback, Callers::default()).await;
    for (what, request, status, named) in refused() {
        let answer = send(address, request).await;
        assert_eq!(answer.status.as_u16(), status, "{what}");
        let error = &answer.body["error"];
        assert_eq!(error["status"], status, "{what}");
        assert!(error.to_string().contains(named), "{what}: {error}");
        assert!(!error["fix"].as_str().unwrap().is_empty(), "{what}");
    }
    assert!(world.records().is_empty(), "none was a decision");
    let charset = with(post(EVALUATION, question().to_string()), "content-type", "Application/JSON; charset=utf-8");
    assert_eq!(send(address, charset).await.body["decision"], true);
    world.stop().await;
}

#[tokio::test]
async fn the_request_is_identified_and_the_point_described() {
    let mut world = World::new();
    let address = world.authzen(Security::Loopback, Callers::default()).await;
    let mut request = post(EVALUATION, question().to_string());
    request.headers_mut().insert("x-request-id", "bfe9eb29".parse().unwrap());
    let answer = send(address, request).await;
    assert_eq!(answer.headers["x-request-id"], "bfe9eb29");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!((&answer.body["decision"], &answer.body["context"]["reason"]), (&json!(false), &json!("no-snapshot")));
    assert_eq!(world.records().pop().unwrap().reason, "no-snapshot");
    let mut wrong = post("/nowhere", "");
    wrong.headers_mut().insert("x-request-id", "b".parse().unwrap());
    assert_eq!(send(address, wrong).await.headers["x-request-id"], "b");

    let get = Request::get("/.well-known/authzen-configuration").header("host", "127.0.0.1:1").body(Full::default());
    let answer = send(address, get.unwrap()).await;
    assert_eq!(answer.status, 200);
    let url = "https://pdp.example";
    let expected = json!({
        "policy_decision_point": url,
        "access_evaluation_endpoint": format!("{url}/access/v1/evaluation"),
        "access_evaluations_endpoint": format!("{url}/access/v1/evaluations"),
    });
    assert_eq!(answer.body, expected);
    world.stop().await;
}

/// One record for each evaluation that was decided, none for those that a short circuit left out.
#[tokio::test]
async fn every_decision_of_a_batch_is_recorded() {
    let mut world = World::with(&policy("one", "ALLOW", "{to: [{operation: {methods: [GET]}}]}"));
    let address = world.authzen(Security::Loopback, Callers::default()).await;
    let mut body = question();
    body["evaluations"] = json!([{}, {"action": {"name": "POST"}}, {}]);
    body["options"] = json!({"evaluations_semantic": "deny_on_first_deny"});
    let answer = send(address, post("/access/v1/evaluations", body.to_string())).await;
    assert_eq!(answer.body["evaluations"].as_array().unwrap().len(), 2);
    let records = world.records();
    let seen: Vec<_> = records.iter().map(|record| (record.reason, record.facts.status)).collect();
    assert_eq!(seen, [("allow-matched", 0), ("no-allow-matched", 0)]);
    assert!(records.iter().all(|record| record.facts.destination.workload == "cart"));
    world.stop().await;
}

#[tokio::test]
async fn over_mutual_tls_an_enforcer_asks_for_itself() {
    let (mut world, ca) = (World::with(""), Ca::new("cluster.local"));
    let address = world.authzen(mutual(&ca), Callers::default()).await;
    let ask = async |path: &str| {
        let identity = ca.identity(path, 3_600);
        let config = tls::client_config_named(Some(&identity), &ca.bundle(), &[b"http/1.1"]).unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tcp = TcpStream::connect(address).await.unwrap();
        let io = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        over(io, post(EVALUATION, question().to_string())).await.body
    };
    assert_eq!(ask("ns/shop/sa/cart").await["decision"], true);
    let refused = ask("ns/web/sa/front").await;
    assert_eq!((&refused["decision"], &refused["context"]["reason"]), (&json!(false), &json!("caller-not-allowed")));
    assert_eq!(refused["context"]["error"]["status"], 403);
    world.stop().await;
}
