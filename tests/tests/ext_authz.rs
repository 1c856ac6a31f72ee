//! An Envoy that nobody here wrote enforces the sample policies by asking the server, and every answer is in the audit log.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "ext_authz/enrolled.rs"]
mod enrolled;
#[path = "ext_authz/guard.rs"]
mod guard;
#[path = "ext_authz/tls.rs"]
mod tls;

use anyhow::Result;
use guard::{Guard, token};
use palisade_tests::http::{Connection, request};
use palisade_tests::mesh::Mesh;
use palisade_tests::poll;
use serde_json::{Value, json};
use tls::{Authority, Identified};

const CATALOG: &str = "shop/catalog-0";
const PAYMENTS: &str = "shop/payments-0";

/// One request and what becomes of it.
struct Row {
    what: &'static str,
    from: Option<&'static str>,
    line: &'static str,
    fields: String,
    status: u16,
    reason: &'static str,
    policy: Option<&'static str>,
}

#[expect(clippy::too_many_arguments, reason = "the columns of a table")]
fn row(
    what: &'static str,
    from: Option<&'static str>,
    line: &'static str,
    fields: &str,
    status: u16,
    reason: &'static str,
    policy: Option<&'static str>,
) -> Row {
    Row { what, from, line, fields: fields.to_owned(), status, reason, policy }
}

const FRONT: Option<&str> = Some("ns/web/sa/front");
const WEB: Option<&str> = Some("ns/shop/sa/web");
const READERS: Option<&str> = Some("ns[shop]-policy[catalog-readers]-rule[0]");
const DEBUGGING: Option<&str> = Some("ns[shop]-policy[catalog-debugging]-rule[0]");
const WRITERS: Option<&str> = Some("ns[shop]-policy[catalog-writers]-rule[0]");

fn catalog_rows() -> Vec<Row> {
    catalog_reads().into_iter().chain(catalog_writes()).collect()
}

fn catalog_reads() -> Vec<Row> {
    vec![
        row("a reader", FRONT, "GET /v1/products/7?page=2", "", 200, "allow-matched", READERS),
        row("a template's end", FRONT, "GET /v1/products/7/reviews", "", 200, "allow-matched", READERS),
        row("Envoy normalises", FRONT, "GET /v1/x/../products/%37", "", 200, "allow-matched", READERS),
        row("no template fits", FRONT, "GET /v1/products/7/prices", "", 403, "no-allow-matched", None),
        row("another method", FRONT, "DELETE /v1/products/7", "", 403, "no-allow-matched", None),
        row("another namespace", WEB, "GET /v1/products/7", "", 403, "no-allow-matched", None),
        row("nobody", None, "GET /v1/products/7", "", 403, "no-allow-matched", None),
        row("a header that is out", FRONT, "GET /v1/products/7", "x-debug: 1\r\n", 403, "deny-matched", DEBUGGING),
    ]
}

fn catalog_writes() -> Vec<Row> {
    let bearer = |audience, group| format!("authorization: Bearer {}\r\nx-user: mallory\r\n", token(audience, group));
    vec![
        row("no token", FRONT, "POST /v1/products", "", 403, "no-allow-matched", None),
        row(
            "an editor's token",
            None,
            "POST /v1/products",
            &bearer("catalog", "editors"),
            200,
            "allow-matched",
            WRITERS,
        ),
        row(
            "a reader's token",
            None,
            "POST /v1/products",
            &bearer("catalog", "readers"),
            403,
            "no-allow-matched",
            None,
        ),
        row(
            "a token for others",
            None,
            "POST /v1/products",
            &bearer("payments", "editors"),
            403,
            "token-audience",
            None,
        ),
        row(
            "no token at all",
            None,
            "POST /v1/products",
            "authorization: Bearer a.b.c\r\n",
            401,
            "token-invalid",
            None,
        ),
    ]
}

fn payments_rows() -> Vec<Row> {
    let (payments, refunds) = (Some("ns[shop]-policy[payments]-rule[0]"), Some("ns[shop]-policy[no-refunds]-rule[0]"));
    vec![
        row("web pays", WEB, "POST /v1/pay", "", 200, "allow-matched", payments),
        row("web does not refund", WEB, "POST /refund", "", 403, "deny-matched", refunds),
        row("nor by account", WEB, "POST /v1/accounts/7/refund", "", 403, "deny-matched", refunds),
        row("others do not pay", FRONT, "POST /v1/pay", "", 403, "no-allow-matched", None),
        row("nobody does", None, "POST /v1/pay", "", 403, "no-allow-matched", None),
    ]
}

#[test]
fn a_stock_envoy_enforces_the_sample_policies() -> Result<()> {
    let Some(binary) = guard::envoy("a_stock_envoy_enforces_the_sample_policies") else { return Ok(()) };
    let authority = Authority::new("shop.example");
    let mut guard = Guard::start(&["--ext-authz-trust-loopback-principals"])?;
    for (workload, rows) in [(CATALOG, catalog_rows()), (PAYMENTS, payments_rows())] {
        let (_envoy, address) = guard.envoy_with(&binary, workload, Some(&authority))?;
        for row in rows {
            let client = Identified::new(&authority, row.from);
            let before = guard.backend.seen().len();
            let answer = client.request(address, row.line, &row.fields)?;
            assert_eq!(answer.status, row.status, "{}: {answer:?}", row.what);
            let reached: Vec<_> = guard.backend.seen().split_off(before);
            assert_eq!(reached.len(), usize::from(row.status == 200), "{}", row.what);
            if row.reason == "no-allow-matched" || row.reason == "deny-matched" {
                assert_eq!(answer.body, "RBAC: access denied", "{}", row.what);
            }
            if row.policy == WRITERS {
                let head = reached[0].head.to_ascii_lowercase();
                assert!(head.contains("x-user: alice\r\n") && !head.contains("mallory"), "{head}");
                assert!(!head.contains("authorization"), "{head}");
            }
            let seen = guard.newest_row()?;
            assert_eq!(seen["reason"], row.reason, "{}: {seen}", row.what);
            assert_eq!(seen["policy"]["id"].as_str(), row.policy, "{}", row.what);
            assert_eq!(
                format!("{}/{}", seen["dst"]["ns"].as_str().unwrap(), seen["dst"]["workload"].as_str().unwrap()),
                workload
            );
            let principal = row.from.map(|path| format!("shop.example/{path}"));
            assert_eq!(
                seen["src"]["spiffe"].as_str().map(|id| id.trim_start_matches("spiffe://")),
                principal.as_deref()
            );
            assert_eq!(seen["pep"]["id"], "palisade-authz");
        }
    }
    Ok(())
}

/// The file of the documentation, with nothing but ports replaced.
#[test]
fn the_documented_configuration_works_and_fails_closed() -> Result<()> {
    let Some(binary) = guard::envoy("the_documented_configuration_works_and_fails_closed") else { return Ok(()) };
    let mut guard = Guard::start(&[])?;
    let (_envoy, address) = guard.envoy_with(&binary, CATALOG, None)?;
    let mut kept = Connection::open(address)?;
    let fields = format!("authorization: Bearer {}\r\n", token("catalog", "editors"));
    let post = |connection: &mut Connection| {
        Ok::<_, anyhow::Error>(connection.request("POST", "/v1/products", "catalog.shop", &fields)?.status)
    };
    assert_eq!(post(&mut kept)?, 200);
    assert_eq!(request(address, "GET", "/v1/products/7", "catalog.shop")?.status, 403, "plaintext is nobody");
    let rows = guard.rows(2)?;
    assert_eq!(rows.iter().map(|row| row["status"].as_u64()).collect::<Vec<_>>(), [None, Some(403)]);

    guard.mesh.server()?.kill_9()?;
    let before = guard.backend.seen().len();
    poll("Envoy to notice", || match post(&mut kept) {
        Ok(503) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(guard.backend.seen().len(), before, "nobody passed unasked");
    guard.mesh.start_server()?;
    poll("the restarted server to be asked", || match post(&mut kept) {
        Ok(200) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let rows = guard.rows(3)?;
    let reasons: Vec<_> = rows.iter().map(|row| row["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons[..2], ["allow-matched", "no-allow-matched"], "what was decided before the kill is there");
    assert!(reasons[2..].iter().all(|reason| *reason == "allow-matched"));
    Ok(())
}

/// The network filter has no names to give: the workload is found by the listener's address.
#[test]
fn connections_are_judged_by_the_network_filter() -> Result<()> {
    let Some(binary) = guard::envoy("connections_are_judged_by_the_network_filter") else { return Ok(()) };
    let guard = Guard::start(&[])?;
    let (_envoy, address) = guard.envoy_for_tcp(&binary)?;
    let exchanged = |bytes: &[u8]| Connection::open(address)?.exchange(bytes);
    for (ports, passes) in [(8_080, false), (address.port(), true)] {
        guard.register_echo(ports)?;
        poll("the policy to decide", || match exchanged(b"hello") {
            Ok(back) if passes && back == b"hello" => Ok(()),
            Err(_) if !passes && guard.newest_reason() == Some("no-allow-matched".to_owned()) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    let rows = guard.rows(2)?;
    let row = rows.last().unwrap();
    assert_eq!((row["proto"].as_str(), row["dst"]["workload"].as_str()), (Some("tcp"), Some("echo-0")));
    Ok(())
}

/// A stop loses nothing: what was decided is in the store, and the epoch is closed.
#[test]
fn authzen_over_the_real_server_is_recorded_and_flushed() -> Result<()> {
    let mut guard = Guard::start(&[])?;
    let api = guard.mesh.server_address("http")?;
    let ask = |claims: Value| -> Result<Value> {
        let body = json!({
            "subject": {"type": "anonymous", "id": "-", "properties": {"claims": claims}},
            "action": {"name": "POST"},
            "resource": {"type": "workload", "id": CATALOG, "properties": {"path": "/v1/products", "port": 8080}},
            "context": {"headers": []},
        })
        .to_string();
        let head = "POST /access/v1/evaluation HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Request-ID: r1\r\n";
        let text = format!("{head}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
        let answer = palisade_tests::http::raw(api, &text)?;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.head.to_ascii_lowercase().contains("x-request-id: r1"));
        Ok(serde_json::from_str(&answer.body)?)
    };
    let claims = |groups: &str| json!({"iss": "https://idp.shop.example", "sub": "alice", "groups": [groups]});
    let allowed = ask(claims("editors"))?;
    assert_eq!((&allowed["decision"], &allowed["context"]["policy"]), (&json!(true), &json!(WRITERS)));
    assert_eq!(ask(claims("readers"))?["decision"], false);
    assert!(guard.mesh.server()?.stop()?.success());
    guard.mesh.start_server()?;
    let rows = guard.rows(2)?;
    let seen: Vec<_> = rows.iter().map(|row| (row["decision"].as_str(), row["reason"].as_str())).collect();
    assert_eq!(seen, [(Some("allow"), Some("allow-matched")), (Some("deny"), Some("no-allow-matched"))]);
    let kinds: Vec<_> = guard.mesh.audit_all()?.into_iter().filter(|row| row["kind"] == "audit.gap").collect();
    assert!(kinds.is_empty(), "{kinds:?}");
    Ok(())
}

const CART: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cart-0, namespace: shop}
spec: {address: 10.0.0.9, labels: {app: cart}, serviceAccount: cart}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: other-0, namespace: shop}
spec: {address: 10.0.0.10, labels: {app: other}, serviceAccount: other}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: front, namespace: shop}
spec: {rules: [{from: [{source: {namespaces: [web]}}]}]}
";

/// With `--ext-authz-mtls` the port is for the network: an SVID of the mesh is the key, and speaks for its own workload.
#[tokio::test(flavor = "multi_thread")]
async fn an_svid_speaks_for_its_own_workload_over_the_network() -> Result<()> {
    let mut mesh = Mesh::new(&[("cart.yaml", CART)])?;
    let gateway = "spiffe://cluster.local/ns/shop/sa/gateway";
    mesh.server_flags = ["--ext-authz-mtls", "--ext-authz-caller", gateway].map(str::to_owned).into();
    mesh.start_server()?;
    let server = mesh.server_address("ext-authz")?;
    let (cart, gateway) = (enrolled::identity(&mesh, "cart").await, enrolled::identity(&mesh, "gateway").await);
    let front = "spiffe://cluster.local/ns/web/sa/front";
    for (shown, workload, principal, expected) in [
        (&cart, "shop/cart-0", front, 0),
        (&cart, "shop/cart-0", "", 7),
        (&cart, "shop/other-0", front, 7),
        (&gateway, "shop/other-0", front, 0),
    ] {
        let code = enrolled::ask(server, &cart, Some(shown), workload, principal).await?;
        assert_eq!(code, expected, "{} {workload} {principal}", shown.svid.id());
    }
    assert!(enrolled::ask(server, &cart, None, "shop/cart-0", front).await.is_err(), "nobody without a certificate");
    Ok(())
}

/// Plaintext elsewhere than on loopback is a mistake of the command line.
#[test]
fn plaintext_for_the_network_ends_with_64() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (config, data) = (directory.path().join("config"), directory.path().join("data"));
    std::fs::create_dir(&config)?;
    let (config, data) = (config.display().to_string(), data.display().to_string());
    let any = "127.0.0.1:0";
    let own = ["server", "--config-dir", &config, "--data-dir", &data, "--listen", any, "--metrics-listen", any];
    for (flags, named) in [
        (["--ext-authz-listen", "0.0.0.0:0"], "--ext-authz-listen: `0.0.0.0:0` is not a loopback address"),
        (["--http-address", "[::]:0"], "--http-listen: `[::]:0` is not a loopback address"),
        (["--ext-authz-caller", "front"], "--ext-authz-caller `front` is no SPIFFE ID"),
        (["--http-url", "pdp"], "--http-url `pdp`"),
    ] {
        let finished = palisade_tests::run(&[&own[..], &flags[..]].concat(), "")?;
        assert_eq!(finished.code, Some(64), "{flags:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(named), "{}", finished.stderr);
    }
    Ok(())
}
