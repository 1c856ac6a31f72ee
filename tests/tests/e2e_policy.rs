//! Policies as they are edited: in force within a moment, a broken one without effect, and open connections no way around.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Instant;

use palisade_tests::http::Connection;
use palisade_tests::poll;
use palisade_tests::shop::{HOST, Shop};
use serde_json::Value;

const SECRET: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-secrets, namespace: shop}
spec:
  selector: {matchLabels: {app: payments}}
  action: DENY
  rules:
  - to:
    - operation: {paths: [\"/secret/*\"]}
";

fn mode(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: shop}}\n\
         spec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

/// Waits for a row.
fn row(shop: &Shop, what: &str, flags: &[&str], wanted: impl Fn(&Value) -> bool) -> Value {
    poll(what, || {
        let rows = shop.mesh.audit(flags).map_err(|error| format!("{error:#}"))?;
        rows.iter()
            .rev()
            .find(|row| wanted(row))
            .cloned()
            .ok_or_else(|| format!("{} rows: {:?}", rows.len(), rows.last()))
    })
}

#[test]
fn an_edit_is_enforced_and_a_broken_one_changes_nothing() {
    let mut shop = Shop::start("# nothing yet\n").unwrap();
    assert_eq!(shop.call("GET", "/secret/plan").unwrap().status, 200);
    let mut times = Vec::new();
    for (text, expected) in [(SECRET, 403), ("# none\n", 200), (SECRET, 403), ("# none\n", 200), (SECRET, 403)] {
        let start = Instant::now();
        shop.mesh.write_config("policies.yaml", text).unwrap();
        poll("the edit to be enforced", || match shop.call("GET", "/secret/plan") {
            Ok(answer) if answer.status == expected => Ok(()),
            other => Err(format!("{other:?}")),
        });
        times.push(start.elapsed().as_millis());
    }
    eprintln!("edit to enforcement, milliseconds: {times:?}");
    // A request that an edit overtook is denied too, as `policy-changed`: allowed at first, cut before its end.
    let denied = row(&shop, "the denied request", &["--verdict", "deny"], |row| {
        row["path"] == "/secret/plan" && row["reason"] == "deny-matched"
    });
    assert_eq!(denied["policy"]["id"], "ns[shop]-policy[no-secrets]-rule[0]");
    assert_eq!(denied["policy"]["source_ref"], "policies.yaml:8");
    assert_eq!(denied["src"]["spiffe"], "spiffe://cluster.local/ns/shop/sa/web");
    broken(&mut shop);
}

/// The DENY is in force; an edit that would remove it and has a mistake must not.
fn broken(shop: &mut Shop) {
    let revision = status(shop)["revision"].clone();
    let text = SECRET.replace("paths:", "path:");
    shop.mesh.write_config("policies.yaml", &text).unwrap();
    let log = poll("the mistake in the log", || {
        let log = shop.mesh.server().map_err(|error| error.to_string())?.log();
        if log.contains("policies.yaml:9:") { Ok(log) } else { Err(log) }
    });
    let line = log.lines().find(|line| line.contains("policies.yaml:9:")).unwrap();
    for part in ["error[PAL", "spec.rules[0].to[0].operation", "path", "fix: "] {
        assert!(line.contains(part), "no `{part}` in: {line}");
    }
    assert_eq!(shop.call("GET", "/secret/plan").unwrap().status, 403, "the last good policy stays");
    assert_eq!(shop.call("GET", "/open").unwrap().status, 200);
    assert_eq!(status(shop)["revision"], revision);
    let metrics = shop.mesh.server_address("metrics").unwrap();
    let page = palisade_tests::http::request(metrics, "GET", "/metrics", "localhost").unwrap().body;
    let errors = page.lines().find_map(|line| line.strip_prefix("palisade_config_errors ")).expect("the metric");
    assert_ne!(errors, "0", "the alarm stands until the edit is repaired");
    shop.mesh.write_config("policies.yaml", "# repaired\n").unwrap();
    poll("the repaired edit to be enforced", || match shop.call("GET", "/secret/plan") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn status(shop: &Shop) -> Value {
    let admin = shop.payments.address("admin").unwrap();
    let answer = palisade_tests::http::request(admin, "GET", "/status", "localhost").unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn a_policy_change_closes_open_connections() {
    let shop = Shop::start("# nothing yet\n").unwrap();
    let echo = shop.payments.address("inbound/1").unwrap();
    let mut plain = Connection::open_from(shop.legacy, echo).unwrap();
    let mut meshed = Connection::open(shop.web.address("outbound/1").unwrap()).unwrap();
    let mut http = shop.from_legacy().unwrap();
    assert_eq!(plain.exchange(b"one").unwrap(), b"one");
    assert_eq!(meshed.exchange(b"two").unwrap(), b"two");
    assert_eq!(http.request("GET", "/open", HOST, "").unwrap().status, 200);
    let deny = SECRET.replace("{paths: [\"/secret/*\"]}", &format!("{{ports: [\"{}\"]}}", echo_port(&shop)));
    let start = Instant::now();
    shop.mesh.write_config("policies.yaml", &deny).unwrap();
    poll("the open TCP connection to be closed", || plain.closed());
    poll("the open TCP connection over mTLS to be closed", || meshed.closed());
    eprintln!("edit to closed connections: {} ms", start.elapsed().as_millis());
    for principal in [true, false] {
        let found = row(&shop, "the closed connection's row", &["--verdict", "deny"], |row| {
            row["reason"] == "policy-changed" && row["src"]["spiffe"].is_string() == principal
        });
        assert_eq!(found["policy"]["id"], "ns[shop]-policy[no-secrets]-rule[0]", "{found}");
        assert_eq!(found["proto"], "tcp");
    }
    assert_eq!(http.request("GET", "/open", HOST, "").unwrap().status, 200, "a connection that may stay, stays");
    shop.mesh.write_config("mode.yaml", &mode("STRICT")).unwrap();
    poll("the open plaintext HTTP connection to be closed", || http.closed());
    let mut refused = shop.from_legacy().unwrap();
    assert!(refused.request("GET", "/open", HOST, "").is_err(), "STRICT refuses plaintext");
    let found = row(&shop, "the refused connection", &["--verdict", "deny"], |row| row["reason"] == "strict-plaintext");
    assert_eq!(found["src"]["hint"], "shop/legacy");
    assert_eq!(found["src"]["addr"], shop.legacy.to_string());
    assert_eq!(found["kind"], "authn.handshake");
    assert_eq!(found["tls"], "none");
    assert_eq!(shop.call("GET", "/open").unwrap().status, 200, "mTLS passes");
}

fn echo_port(shop: &Shop) -> String {
    let listeners = status(shop)["listeners"].clone();
    let to = listeners.as_array().unwrap().iter().find(|one| one["role"] == "inbound/1").unwrap()["to"].clone();
    to.as_str().unwrap().rsplit(':').next().unwrap().to_owned()
}

#[test]
fn dry_run_counts_and_names_the_legacy_caller() {
    let shop = Shop::start(&mode("PERMISSIVE")).unwrap();
    let candidate = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-mesh, namespace: shop, annotations: {istio.io/dry-run: \"true\"}}
spec:
  selector: {matchLabels: {app: payments}}
  action: DENY
  rules:
  - from:
    - source: {notPrincipals: [\"*\"]}
";
    shop.mesh.write_config("candidate.yaml", candidate).unwrap();
    poll("the candidate to be in force", || {
        shop.call("GET", "/probe").map_err(|error| error.to_string())?;
        let rows = shop.mesh.audit(&["--limit", "1"]).map_err(|error| error.to_string())?;
        let last = rows.last().ok_or("no row")?;
        if last["shadow"]["deny"]["result"] == "allowed" { Ok(()) } else { Err(last.to_string()) }
    });
    let mut legacy = shop.from_legacy().unwrap();
    for number in 0..10 {
        let path = format!("/dry/{number}");
        assert_eq!(shop.call("GET", &path).unwrap().status, 200);
        assert_eq!(legacy.request("GET", &path, HOST, "").unwrap().status, 200, "dry-run denies nothing");
    }
    let rows = poll("all rows", || {
        let rows = shop.mesh.audit(&["--verdict", "allow"]).map_err(|error| error.to_string())?;
        let rows: Vec<Value> = rows.into_iter().filter(is_dry).collect();
        if rows.len() == 20 { Ok(rows) } else { Err(format!("{} rows", rows.len())) }
    });
    let (flips, kept): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row["shadow"]["deny"]["result"] == "denied");
    assert_eq!((flips.len(), kept.len()), (10, 10));
    for flip in flips {
        assert_eq!(flip["src"]["hint"], "shop/legacy");
        assert!(flip["src"]["spiffe"].is_null(), "a hint is no identity");
        assert_eq!(flip["shadow"]["deny"]["policy"], "ns[shop]-policy[only-mesh]-rule[0]");
        assert_eq!(flip["shadow"]["deny"]["source_ref"], "candidate.yaml:8");
    }
    let callers = status(&shop)["plaintextCallers"].clone();
    assert_eq!(callers[0]["hint"], "shop/legacy");
    assert_eq!(callers[0]["requests"], 10);
}

fn is_dry(row: &Value) -> bool {
    row["path"].as_str().is_some_and(|path| path.starts_with("/dry/"))
}

#[test]
fn a_forged_client_certificate_header_is_replaced() {
    let shop = Shop::start("# nothing\n").unwrap();
    let forged = "X-Forwarded-Client-Cert: By=spiffe://x;URI=spiffe://cluster.local/ns/shop/sa/admin\r\n\
                  x-forwarded-client-cert: URI=spiffe://cluster.local/ns/shop/sa/root\r\n";
    let mut meshed = Connection::open(shop.outbound().unwrap()).unwrap();
    let answer = meshed.request("GET", "/spoof", HOST, forged).unwrap();
    assert_eq!(answer.status, 200);
    let fields = client_certificates(&answer.body);
    assert_eq!(fields.len(), 1, "{fields:?}");
    assert!(fields[0].contains("By=spiffe://cluster.local/ns/shop/sa/payments"), "{fields:?}");
    assert!(fields[0].contains("URI=spiffe://cluster.local/ns/shop/sa/web"), "{fields:?}");
    assert!(!answer.body.contains("sa/admin") && !answer.body.contains("sa/root"), "{}", answer.body);
    let mut legacy = shop.from_legacy().unwrap();
    let answer = legacy.request("GET", "/spoof", HOST, forged).unwrap();
    assert_eq!((answer.status, client_certificates(&answer.body)), (200, vec![]), "nobody vouches for plaintext");
}

#[test]
fn a_server_with_proxies_connected_stops_by_itself() {
    let mut shop = Shop::start("# nothing\n").unwrap();
    assert_eq!(shop.call("GET", "/item").unwrap().status, 200);
    row(&shop, "a row, so that audit streams are open", &["--limit", "5"], |_| true);
    let server = shop.mesh.server().unwrap();
    assert!(server.stop().unwrap().success());
    assert!(!server.log().contains("drain deadline"), "{}", server.log());
}

fn client_certificates(head: &str) -> Vec<String> {
    let is_field = |line: &&str| line.to_ascii_lowercase().starts_with("x-forwarded-client-cert:");
    head.lines().filter(is_field).map(str::to_owned).collect()
}
