//! Bad input on the doors of the command line: files, flags, directories, ports. Each is refused with the exit code of its kind
//! and a message that says where and what to do.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use palisade_tests::mesh::Mesh;
use palisade_tests::shop::Shop;
use palisade_tests::{Finished, run};

const GOOD: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: one, namespace: shop}
spec:
  action: DENY
  rules:
  - to:
    - operation: {paths: [\"/x\"]}
";

/// Runs, and expects this exit code and these words on stdout or stderr.
fn refused(arguments: &[&str], input: &str, code: i32, words: &[&str]) -> Finished {
    let finished = run(arguments, input).unwrap();
    let text = format!("{}{}", finished.stdout, finished.stderr);
    assert_eq!(finished.code, Some(code), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{arguments:?}: no `{word}` in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    finished
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn bad_policies_are_refused_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("policy.yaml");
    let cases = [
        ("broken YAML", GOOD.replace("  action: DENY", "  action: [DENY"), 3, ":6:", "not YAML"),
        ("unknown field", GOOD.replace("paths:", "path:"), 3, ":8:", "spec.rules[0].to[0].operation"),
        ("unknown kind", GOOD.replace("AuthorizationPolicy", "AuthorisationPolicy"), 3, ":2:", "AuthorisationPolicy"),
        ("unknown action", GOOD.replace("DENY", "FORBID"), 3, ":5:", "FORBID"),
        ("foreign fields", GOOD.replace("AuthorizationPolicy", "RequestAuthentication"), 3, ":5:", "spec.action"),
        ("no YAML at all", "\u{0}\u{1}\u{2}".to_owned(), 3, ":1:", "PAL0001"),
    ];
    for (name, text, code, line, words) in cases {
        eprintln!("{name}");
        fs::write(&file, text).unwrap();
        let (path, place) = (shown(&file), format!("{}{line}", file.display()));
        refused(&["policy", "check", "-f", &path], "", code, &[&place, words, "fix: "]);
        refused(&["policy", "check", "-o", "json", "-f", &path], "", code, &[&path, "\"line\":"]);
    }
    fs::write(&file, GOOD).unwrap();
    assert_eq!(run(&["policy", "check", "-f", &shown(&file)], "").unwrap().code, Some(0));
}

#[test]
fn bad_requests_and_unreadable_files_are_bad_input() {
    let directory = tempfile::tempdir().unwrap();
    let (policy, requests) = (directory.path().join("policy.yaml"), directory.path().join("requests.jsonl"));
    fs::write(&policy, GOOD).unwrap();
    let good = r#"{"id":"1","protocol":"http","destination":{"namespace":"shop","name":"a","labels":{}},"http":{"method":"GET","path":"/y","host":"a"}}"#;
    fs::write(&requests, format!("{good}\n{{\"id\": \n{good}\n")).unwrap();
    let (policy, path) = (shown(&policy), shown(&requests));
    let place = format!("{path}:2");
    let finished = refused(&["policy", "eval", "-f", &policy, "--requests", &path], "", 65, &[&place]);
    assert_eq!(finished.stdout.lines().count(), 2, "the other lines are answered: {}", finished.stdout);
    fs::write(&requests, format!("{}\n", good.replace("\"method\"", "\"methud\""))).unwrap();
    refused(&["policy", "eval", "-f", &policy, "--requests", &path], "", 65, &["methud"]);
    let missing = shown(&directory.path().join("missing"));
    refused(&["policy", "eval", "-f", &policy, "--requests", &missing], "", 65, &[&missing]);
    refused(&["policy", "eval", "-f", &missing, "--requests", &path], "", 65, &[&missing]);
    refused(&["policy", "check", "-f", &missing], "", 65, &[&missing]);
    refused(&["policy", "check", "-f", "-"], "kind: [", 3, &["PAL0001"]);
}

#[test]
fn unknown_flags_and_values_are_usage_errors() {
    for verb in [
        &["server"][..],
        &["agent"],
        &["proxy"],
        &["demo"],
        &["policy", "check"],
        &["policy", "eval"],
        &["audit", "query"],
        &["audit", "follow"],
        &["ca", "join-token"],
        &["explain"],
        &["version"],
    ] {
        refused(&[verb, &["--no-such-flag"]].concat(), "", 64, &["--no-such-flag"]);
    }
    refused(&["no-such-verb"], "", 64, &["no-such-verb"]);
    refused(&["server", "--listen", "nowhere"], "", 64, &["--listen", "nowhere"]);
    refused(&["audit", "query", "--since", "soon"], "", 64, &["--since", "soon"]);
    refused(&["ca", "join-token", "--spiffe-id", "spiffe://a/b", "--ttl", "long"], "", 64, &["--ttl", "long"]);
    refused(&["agent", "--trust-domain", "No/Domain"], "", 64, &["--trust-domain", "No/Domain"]);
    refused(&["agent", "--spiffe-id", "http://a/b"], "", 64, &["--spiffe-id", "http://a/b"]);
}

#[test]
fn every_mistake_of_a_proxy_configuration_is_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("proxy.yaml");
    let text = "workload: {namespace: shop}\nidentity: {agent: {}}\nadmin: here\ninbounds: []\ninbound:\n\
                - {listen: '127.0.0.1:0', forward: nowhere, protocol: SMTP}\noutbound:\n- {listen: '127.0.0.1:0', service: cart}\n";
    fs::write(&file, text).unwrap();
    let path = shown(&file);
    for arguments in [&["proxy", "--config", &path][..], &["proxy", "--config", &path, "--check-config"]] {
        let words = [
            "workload",
            "name",
            "server",
            "identity.agent",
            "admin",
            "here",
            "inbounds",
            "inbound[0].forward",
            "SMTP",
            "outbound[0].service",
            "cart",
        ];
        let finished = refused(arguments, "", 64, &words);
        for line in [1, 2, 3, 4, 6, 8] {
            let place = format!("{path}:{line}:");
            assert!(finished.stderr.contains(&place), "no `{place}` in: {}", finished.stderr);
        }
    }
    let missing = shown(&directory.path().join("missing.yaml"));
    refused(&["proxy", "--config", &missing], "", 64, &[&missing]);
    fs::write(&file, "workload: [").unwrap();
    refused(&["proxy", "--config", &path], "", 64, &[&path]);
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, directory) = (taken.local_addr().unwrap().to_string(), tempfile::tempdir().unwrap());
    let path = |name: &str| shown(&directory.path().join(name));
    let (config, data, token, socket) = (path("config"), path("data"), path("token"), path("workload.sock"));
    fs::create_dir_all(&config).unwrap();
    fs::write(&token, format!("pjt1.{}.{}", "A".repeat(43), "ab".repeat(32))).unwrap();
    let any = "127.0.0.1:0";
    let server = |listen: &str, metrics: &str| {
        refused(
            &["server", "--config-dir", &config, "--data-dir", &data, "--listen", listen, "--metrics-listen", metrics],
            "",
            64,
            &[&address],
        );
    };
    server(&address, any);
    server(any, &address);
    let agent = [
        "agent",
        "--server",
        "127.0.0.1:1",
        "--join-token-file",
        &token,
        "--data-dir",
        &data,
        "--socket",
        &socket,
        "--metrics-listen",
        &address,
    ];
    refused(&agent, "", 64, &[&address]);
}

#[test]
fn a_port_in_use_is_named_by_the_proxy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, directory) = (taken.local_addr().unwrap().to_string(), tempfile::tempdir().unwrap());
    let path = |name: &str| shown(&directory.path().join(name));
    let (token, any) = (path("token"), "127.0.0.1:0");
    fs::write(&token, format!("pjt1.{}.{}", "A".repeat(43), "ab".repeat(32))).unwrap();
    for role in ["admin", "metrics", "readiness", "listen"] {
        let at = |wanted: &str| if role == wanted { address.as_str() } else { any };
        let text = format!(
            "workload: {{namespace: shop, name: web}}\nserver: 127.0.0.1:1\nidentity: {{agent: {{joinToken: {token}}}}}\n\
             stateDir: {}\nadmin: {}\nmetrics: {}\nreadiness: {}\noutbound:\n- {{listen: '{}', service: 'cart:80'}}\n",
            path(role),
            at("admin"),
            at("metrics"),
            at("readiness"),
            at("listen"),
        );
        fs::write(path("proxy.yaml"), text).unwrap();
        refused(&["proxy", "--config", &path("proxy.yaml")], "", 64, &[&address]);
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| shown(&directory.path().join(name));
    // Root may write where others may not, but nobody below a regular file.
    fs::write(path("file"), "").unwrap();
    fs::write(path("token"), format!("pjt1.{}.{}", "A".repeat(43), "ab".repeat(32))).unwrap();
    fs::create_dir_all(path("config")).unwrap();
    let (bad, config, token, any) = (path("file/state"), path("config"), path("token"), "127.0.0.1:0");
    let server = ["server", "--config-dir", &config, "--data-dir", &bad, "--listen", any, "--metrics-listen", any];
    refused(&server, "", 64, &[&bad]);
    let socket = path("workload.sock");
    let agent = [
        "agent",
        "--server",
        "127.0.0.1:1",
        "--join-token-file",
        &token,
        "--data-dir",
        &bad,
        "--socket",
        &socket,
        "--metrics-listen",
        any,
    ];
    refused(&agent, "", 64, &[&bad]);
    let text = format!(
        "workload: {{namespace: shop, name: web}}\nserver: 127.0.0.1:1\nidentity: {{agent: {{joinToken: {token}}}}}\n\
         stateDir: {bad}\nadmin: {any}\nmetrics: {any}\nreadiness: {any}\noutbound:\n- {{listen: '{any}', service: 'cart:80'}}\n",
    );
    fs::write(path("proxy.yaml"), text).unwrap();
    refused(&["proxy", "--config", &path("proxy.yaml")], "", 64, &[&bad]);
    refused(&["demo", "--data-dir", &bad], "", 64, &[&bad, "--data-dir"]);
}

#[test]
fn an_agent_socket_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| shown(&directory.path().join(name));
    fs::write(path("file"), "").unwrap();
    fs::write(path("token"), format!("pjt1.{}.{}", "A".repeat(43), "ab".repeat(32))).unwrap();
    let (token, data, socket) = (path("token"), path("agent"), path("file/state/workload.sock"));
    let agent = [
        "agent",
        "--server",
        "127.0.0.1:1",
        "--join-token-file",
        &token,
        "--data-dir",
        &data,
        "--socket",
        &socket,
        "--metrics-listen",
        "127.0.0.1:0",
    ];
    refused(&agent, "", 64, &[&path("file/state")]);
}

/// As its help says: the token is spent, and nobody keeps a spent token.
#[test]
fn an_agent_needs_its_join_token_only_once() {
    let mut shop = Shop::start("# nothing\n").unwrap();
    let mut agent = shop.mesh.start_agent("shop", "node").unwrap();
    let identity = agent.directory.join("identity.json");
    palisade_tests::poll("the kept identity", || fs::metadata(&identity));
    assert!(agent.process().unwrap().stop().unwrap().success());
    fs::remove_file(agent.directory.join("join-token")).unwrap();
    agent.start().unwrap();
    assert!(agent.process().unwrap().stop().unwrap().success());
    let (data, socket, any) = (shown(&agent.directory), shown(&agent.socket), "127.0.0.1:0");
    let start = ["agent", "--server", "127.0.0.1:1", "--data-dir", &data, "--socket", &socket, "--metrics-listen", any];
    let mut without = palisade_tests::Palisade::start(&start, &agent.directory.join("agent.log")).unwrap();
    without.addresses(&agent.directory);
    assert!(without.stop().unwrap().success());
    assert!(shop.mesh.server().unwrap().stop().unwrap().success());
}

#[test]
fn a_missing_server_is_named_with_a_hint() {
    let directory = tempfile::tempdir().unwrap();
    let socket = shown(&directory.path().join("admin.sock"));
    for verb in [
        &["audit", "query"][..],
        &["audit", "follow"],
        &["ca", "join-token", "--spiffe-id", "spiffe://cluster.local/ns/shop/sa/web"],
    ] {
        refused(&[verb, &["--admin-socket", &socket]].concat(), "", 1, &[&socket, "--admin-socket", "running"]);
    }
}

#[test]
fn a_server_refuses_a_mesh_configuration_that_it_cannot_read() {
    let mesh = Mesh::new(&[("mesh.yaml", "trustDomain: cluster.local\ntrustDomein: x\n")]).unwrap();
    let (config, data) = (shown(&mesh.path().join("config")), shown(&mesh.path().join("server")));
    let any = "127.0.0.1:0";
    let server = ["server", "--config-dir", &config, "--data-dir", &data, "--listen", any, "--metrics-listen", any];
    refused(&server, "", 64, &["mesh.yaml:2:", "trustDomein", "fix: "]);
}

/// State of a later release: each file is named, and the process that would have to guess does not start.
#[test]
fn state_of_a_newer_release_is_refused_by_name() {
    let mut shop = Shop::start("# nothing\n").unwrap();
    let mut agent = shop.mesh.start_agent("shop", "node").unwrap();
    let identity = agent.directory.join("identity.json");
    palisade_tests::poll("the kept identity", || fs::metadata(&identity));
    assert!(agent.process().unwrap().stop().unwrap().success());
    newer_json(&identity);
    let (data, socket, metrics) = (shown(&agent.directory), shown(&agent.socket), "127.0.0.1:0");
    let token = shown(&agent.directory.join("join-token"));
    let start = [
        "agent",
        "--server",
        "127.0.0.1:1",
        "--join-token-file",
        &token,
        "--data-dir",
        &data,
        "--socket",
        &socket,
        "--metrics-listen",
        metrics,
    ];
    refused(&start, "", 64, &["identity.json", "newer"]);
    newer_proxy_state(&mut shop);
    newer_server_state(&mut shop);
}

fn newer_proxy_state(shop: &mut Shop) {
    assert!(shop.web.process().unwrap().stop().unwrap().success());
    let (config, state) = (shown(&shop.web.directory().join("proxy.yaml")), shop.web.directory().to_owned());
    let identity = state.join("identity/identity.json");
    let kept = fs::read(&identity).unwrap();
    newer_json(&identity);
    refused(&["proxy", "--config", &config], "", 64, &["identity.json", "newer"]);
    fs::write(&identity, kept).unwrap();
    let snapshot = fs::read_dir(state.join("snapshot")).unwrap().next().unwrap().unwrap().path();
    let text = String::from_utf8_lossy(&fs::read(&snapshot).unwrap()).into_owned();
    let (magic, rest) = text.split_once('\n').unwrap();
    fs::write(&snapshot, format!("{}9\n{rest}", magic.trim_end_matches(char::is_numeric))).unwrap();
    refused(&["proxy", "--config", &config], "", 64, &[&shown(&snapshot), "newer"]);
}

fn newer_server_state(shop: &mut Shop) {
    let metrics = "127.0.0.1:0";
    assert!(shop.mesh.server().unwrap().stop().unwrap().success());
    let (config, data) = (shown(&shop.mesh.path().join("config")), shop.mesh.path().join("server"));
    let text = shown(&data);
    let server =
        ["server", "--config-dir", &config, "--data-dir", &text, "--listen", metrics, "--metrics-listen", metrics];
    let version = data.join("ca/format-version");
    let present = fs::read(&version).unwrap();
    fs::write(&version, "99\n").unwrap();
    refused(&server, "", 64, &[&shown(&version), "newer"]);
    fs::write(&version, present).unwrap();
    execute(&data.join("ca/ca.db"), "PRAGMA user_version = 99");
    refused(&server, "", 64, &["ca.db", "99", "newer"]);
    execute(&data.join("ca/ca.db"), "PRAGMA user_version = 2");
    execute(&data.join("audit.db"), "UPDATE meta SET value = 99 WHERE key = 'schema'");
    refused(&server, "", 64, &["audit.db", "99", "use the version that wrote it"]);
}

fn newer_json(path: &Path) {
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    value.as_object_mut().unwrap().insert("format".to_owned(), 99.into());
    fs::write(path, value.to_string()).unwrap();
}

fn execute(database: &Path, statement: &'static str) {
    use sqlx::Connection as _;
    let url = format!("sqlite://{}", database.display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}
