//! No key, token or caller's secret stands in anything a process writes for others to read; and every process has its probes and
//! ends when it is asked to.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use palisade_tests::http::{self, Connection};
use palisade_tests::mesh::Agent;
use palisade_tests::poll;
use palisade_tests::shop::{HOST, Shop};
use rustix::process::Signal;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

const FLAGS: [&str; 4] = ["--log-level", "trace", "--log-format", "json"];
const BEARER: &str = "canary-bearer-4d1f8c";
const COOKIE: &str = "canary-cookie-9be271";
const BASIC: &str = "canary-proxy-77aa03";

/// A policy that reads headers: those that policies read are kept in audit rows, and these still must not be.
const POLICY: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: reads-headers, namespace: shop}
spec:
  selector: {matchLabels: {app: payments}}
  action: DENY
  rules:
  - when:
    - {key: 'request.headers[authorization]', values: [never]}
  - when:
    - {key: 'request.headers[cookie]', values: [never]}
  - when:
    - {key: 'request.headers[x-tenant]', values: [never]}
";

#[test]
fn no_secret_stands_in_logs_rows_metrics_or_addresses() {
    let mut shop = Shop::start_with(POLICY, &FLAGS).unwrap();
    let mut agent = shop.mesh.start_agent("shop", "node").unwrap();
    poll("the agent's identity", || fs::metadata(agent.directory.join("identity.json")));
    let mut secrets = secrets(shop.mesh.path());
    traffic(&shop);
    renew(&mut shop, &mut agent);
    secrets.extend(self::secrets(shop.mesh.path()));
    traffic(&shop);
    let rows = rows(&shop);
    let mut texts: Vec<(String, String)> = vec![("audit rows".to_owned(), format!("{rows:?}"))];
    texts.extend(pages(&mut shop, &agent));
    end(&mut shop, &mut agent);
    for path in files(shop.mesh.path()).into_iter().filter(|path| is_public(path)) {
        texts.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
    }
    let logs = texts.iter().filter(|(name, _)| name.ends_with(".log")).count();
    assert_eq!(logs, 4, "server, two proxies, agent");
    // Root, intermediate, two proxies and the agent, two of them renewed, five forms each; three tokens, four words.
    assert_eq!(secrets.len(), 7 * 5 + 3 * 2 + 4);
    eprintln!(
        "{} secrets, {} texts, {} bytes",
        secrets.len(),
        texts.len(),
        texts.iter().map(|(_, text)| text.len()).sum::<usize>()
    );
    for (name, text) in &texts {
        for secret in &secrets {
            let found = text.find(secret.as_str()).map(|at| shown(text, at));
            assert!(found.is_none(), "{name} holds a secret: {found:?}");
        }
        if name.ends_with(".log") {
            for line in text.lines() {
                let value: Result<serde_json::Value, _> = serde_json::from_str(line);
                assert!(value.is_ok_and(|value| value["level"].is_string()), "{name}: no JSON: {line}");
            }
            assert!(
                text.contains("\"TRACE\"") || text.contains("\"DEBUG\""),
                "{name} is not as talkative as was asked"
            );
        }
    }
}

/// All rows, those of [`traffic`] among them.
fn rows(shop: &Shop) -> Vec<serde_json::Value> {
    let rows = poll("the rows", || {
        let rows = shop.mesh.audit(&[]).map_err(|error| error.to_string())?;
        let seen = rows.iter().filter(|row| row["path"] == "/canary").count();
        if seen == 4 { Ok(rows) } else { Err(format!("{seen} rows")) }
    });
    let tenant = serde_json::json!([["x-tenant", "blue"]]);
    let canaries: Vec<_> = rows.iter().filter(|row| row["path"] == "/canary").collect();
    assert!(
        canaries.iter().all(|row| row["headers"] == tenant),
        "of the headers that policies read only these: {canaries:?}"
    );
    rows
}

/// Every page of every process.
fn pages(shop: &mut Shop, agent: &Agent) -> Vec<(String, String)> {
    let mut texts = Vec::new();
    for (process, addresses) in everybody(shop, agent) {
        for path in ["/metrics", "/status", "/readyz", "/livez"] {
            for (role, address) in &addresses {
                if ["metrics", "admin", "readiness"].contains(&role.as_str()) {
                    texts.push((
                        format!("{process} {role}{path}"),
                        http::request(*address, "GET", path, "a").unwrap().body,
                    ));
                }
            }
        }
    }
    texts
}

fn shown(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default();
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    text.get(line..).unwrap_or_default().chars().take(600).collect()
}

/// Everything that must not be seen: tokens, keys in the forms in which they could be printed, and what the client sent.
fn secrets(directory: &Path) -> BTreeSet<String> {
    let mut secrets: BTreeSet<String> = [BEARER, COOKIE, BASIC, "PRIVATE KEY"].map(str::to_owned).into();
    for path in files(directory).into_iter().filter(|path| !is_public(path)) {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        if path.ends_with("join-token") {
            secrets.insert(text.trim().to_owned());
            secrets.insert(text.split('.').nth(1).unwrap().to_owned());
        }
        // Keys stand in PEM, also inside JSON.
        let text = text.replace("\\n", "\n").replace('"', "\n");
        for key in PrivatePkcs8KeyDer::pem_slice_iter(text.as_bytes()).flatten() {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
            forms(key.secret_pkcs8_der(), &mut secrets);
        }
    }
    secrets
}

/// The P-256 scalar stands after the version, algorithm and two headers of PKCS#8: bytes 36 to 68.
fn forms(der: &[u8], secrets: &mut BTreeSet<String>) {
    let scalar = &der[36..68];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    secrets.insert(hex(&scalar[..16]));
    secrets.insert(hex(&scalar[..16]).to_uppercase());
    let list = format!("{:?}", &scalar[..8]);
    secrets.insert(list.trim_matches(['[', ']']).to_owned());
    let pem = STANDARD.encode(der);
    secrets.insert(pem[48..80].to_owned());
    secrets.insert(STANDARD.encode(scalar)[..40].to_owned());
}

fn is_public(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "log") || path.ends_with("addresses.json")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Two requests with credentials: over mTLS and in plaintext.
fn traffic(shop: &Shop) {
    let fields = format!(
        "Authorization: Bearer {BEARER}\r\nCookie: session={COOKIE}\r\nProxy-Authorization: Basic {BASIC}\r\nx-tenant: blue\r\n"
    );
    let mut meshed = Connection::open(shop.outbound().unwrap()).unwrap();
    let mut plain = shop.from_legacy().unwrap();
    for connection in [&mut meshed, &mut plain] {
        let path = format!("/canary?access_token={BEARER}");
        let answer = connection.request("GET", &path, HOST, &fields).unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains(BEARER), "the application gets it");
    }
}

fn serial(shop: &Shop) -> serde_json::Value {
    let answer = http::request(shop.payments.address("admin").unwrap(), "GET", "/status", "a").unwrap();
    serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()["identity"]["serial"].clone()
}

fn renew(shop: &mut Shop, agent: &mut Agent) {
    let before = serial(shop);
    let kept = agent.directory.join("identity.json");
    let identity = fs::read(&kept).unwrap();
    shop.payments.process().unwrap().signal(Signal::HUP).unwrap();
    agent.process().unwrap().signal(Signal::HUP).unwrap();
    poll("renewed certificates", || {
        let now = (serial(shop) != before, fs::read(&kept).is_ok_and(|now| now != identity));
        if now == (true, true) { Ok(()) } else { Err(now) }
    });
}

/// Bound addresses of every process.
fn everybody(shop: &mut Shop, agent: &Agent) -> Vec<(&'static str, BTreeMap<String, SocketAddr>)> {
    let mut server = BTreeMap::new();
    for role in ["grpc", "metrics"] {
        server.insert(role.to_owned(), shop.mesh.server_address(role).unwrap());
    }
    vec![
        ("server", server),
        ("payments", shop.payments.addresses.clone()),
        ("web", shop.web.addresses.clone()),
        ("agent", agent.addresses.clone()),
    ]
}

/// SIGTERM to everybody: exit code 0, nobody listens any more, no socket and no address file is left.
fn end(shop: &mut Shop, agent: &mut Agent) {
    let everybody = everybody(shop, agent);
    for ended in [
        shop.web.process().unwrap().stop().unwrap(),
        shop.payments.process().unwrap().stop().unwrap(),
        agent.process().unwrap().stop().unwrap(),
        shop.mesh.server().unwrap().stop().unwrap(),
    ] {
        assert_eq!(ended.code(), Some(0), "{ended:?}");
    }
    for (process, addresses) in everybody {
        for (role, address) in addresses {
            assert!(TcpStream::connect(address).is_err(), "{process} {role} still listens at {address}");
        }
    }
    assert!(!agent.socket.exists(), "{}", agent.socket.display());
    assert!(!shop.mesh.path().join("server/admin.sock").exists());
    let left: Vec<_> = files(shop.mesh.path()).into_iter().filter(|path| path.ends_with("addresses.json")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn every_process_answers_its_probes_and_says_what_it_waits_for() {
    let mut shop = Shop::start("# nothing\n").unwrap();
    let agent = shop.mesh.start_agent("shop", "node").unwrap();
    let status = |address, path: &str| http::request(address, "GET", path, "a").map(|answer| answer.status);
    for (process, addresses) in everybody(&mut shop, &agent) {
        for (role, address) in addresses {
            if !["metrics", "admin", "readiness"].contains(&role.as_str()) {
                continue;
            }
            poll(&format!("{process} to be ready"), || match status(address, "/readyz") {
                Ok(200) => Ok(()),
                other => Err(format!("{other:?}")),
            });
            assert_eq!(status(address, "/livez").unwrap(), 200, "{process} {role}");
            assert_eq!(status(address, "/healthz/ready").unwrap(), 200, "{process} {role}");
            assert_eq!(status(address, "/nothing").unwrap(), 404, "{process} {role}");
            assert_eq!(http::request(address, "POST", "/metrics", "a").unwrap().status, 405, "{process} {role}");
            let page = http::request(address, "GET", "/metrics", "a").unwrap().body;
            assert!(page.contains("# TYPE palisade_") && page.ends_with("# EOF\n"), "{process} {role}: {page}");
        }
    }
    // A proxy that cannot enrol lives, is not ready, and says why.
    let stranger =
        shop.mesh.start_proxy("shop", "stranger", "outbound:\n- {listen: '127.0.0.1:0', service: 'a:80'}").unwrap();
    let readiness = stranger.address("readiness").unwrap();
    assert_eq!(status(readiness, "/livez").unwrap(), 200);
    let answer = http::request(readiness, "GET", "/readyz", "a").unwrap();
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.starts_with("not ready: "), "{answer:?}");
}
