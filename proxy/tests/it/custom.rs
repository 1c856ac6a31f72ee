//! CUSTOM over HTTP/1.1: who is asked, what the answer changes, and what happens when there is none.

use std::sync::atomic::Ordering;

use palisade_authz::{Phase, Verdict, reason};
use palisade_policies::AppProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::{App, read_request};
use crate::certificates::until;
use crate::client::{plain, sidecar};
use crate::provider::{Grpc, custom, mesh, over_http};
use crate::world::{CLOSED, Cast, OPEN, World, inbound_to};

/// Denies what the provider marked.
const NO_BOB: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-bob, namespace: shop}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/bob*]}}]
    when: [{key: 'request.headers[x-user]', values: [bob]}]
";

async fn world(policies: &str, mesh: &str) -> (App, World) {
    let (app, cast) = (App::mirror().await, Cast::new());
    let config = inbound_to(app.address, Some(AppProtocol::Http));
    let world = World::start_meshed(&config, cast.cart(), Some(policies), Some(mesh));
    (app, world)
}

#[tokio::test]
async fn a_grpc_provider_lets_pass_and_changes_the_request() {
    let provider = Grpc::start().await;
    let policies = format!("{}{NO_BOB}", custom("paths: [/a*, /bob*]"));
    let (_app, world) = world(&policies, &provider.mesh("")).await;
    let mut client = plain(world.address()).await;
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: cart\r\nX-User: mallory\r\nX-Secret: s\r\n\r\n");
    let allowed = client.ask(&ask("/x/../a?q")).await;
    assert_eq!(allowed.status, 200, "{allowed:?}");
    let seen = allowed.body.to_ascii_lowercase();
    assert!(seen.contains("\r\nx-user: bob\r\n") && seen.contains("\r\nx-path: /a?q\r\n"), "{seen}");
    assert!(!seen.contains("mallory") && !seen.contains("x-secret"), "{seen}");
    assert!(allowed.has("\r\nx-checked: yes\r\n"), "{allowed:?}");
    let not_asked = client.ask(&ask("/free")).await;
    assert!(not_asked.body.contains("mallory") && !not_asked.has("x-checked"), "{not_asked:?}");
    let denied = client.ask(&ask("/bob")).await;
    assert_eq!(
        (denied.status, denied.body.as_str()),
        (403, "RBAC: access denied"),
        "DENY sees what the provider added"
    );
    let asked = provider.asked(2).await;
    let attributes = asked[0].attributes.as_ref().unwrap();
    let http = attributes.request.as_ref().unwrap().http.as_ref().unwrap();
    assert_eq!((http.method.as_str(), http.path.as_str(), http.host.as_str()), ("GET", "/a?q", "cart"));
    assert_eq!(http.headers.get("x-user").map(String::as_str), Some("mallory"));
    let records = world.records.wait(3).await;
    assert_eq!((records[2].reason, records[2].evaluation.phase), ("deny-matched", Phase::Deny));
    let recorded = &records[2].facts.http.as_ref().unwrap().headers;
    assert_eq!(recorded, &[("x-user".to_owned(), b"bob".to_vec())], "what decided stands in the record");
    assert_eq!(asked.len(), 2, "nobody else was asked about");
    let counted = "palisade_proxy_provider_checks_total{provider=\"asker\",outcome=\"ok\"} 2\n";
    assert!(world.metrics().contains(counted), "{}", world.metrics());
    assert_eq!(world.status.status()["providers"][0]["ok"], 2);
}

#[tokio::test]
async fn a_refusal_reaches_the_client_as_the_provider_says_it() {
    let provider = Grpc::start().await;
    let (app, world) = world(&format!("{}{CLOSED}", custom("paths: ['/no*']")), &provider.mesh("")).await;
    let mut client = plain(world.address()).await;
    let answer = client.ask("POST /no HTTP/1.1\r\nHost: cart\r\nContent-Length: 3\r\n\r\nabc").await;
    assert_eq!((answer.status, answer.body.as_str()), (402, "pay first"));
    for field in ["x-why: poor\r\n", "set-cookie: a=b\r\n", "content-length: 9\r\n"] {
        assert!(answer.has(field), "{field}: {answer:?}");
    }
    let grpc = "POST /no HTTP/1.1\r\nHost: cart\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
    let answer = client.ask(grpc).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    for field in ["content-type: application/grpc\r\n", "grpc-message: pay first\r\n", "grpc-status: ", "x-why: poor"] {
        assert!(answer.has(field), "{field}: {answer:?}");
    }
    let records = world.records.wait(2).await;
    for (record, status) in records.iter().zip([402, 200]) {
        let evaluation = &record.evaluation;
        assert_eq!((record.verdict, evaluation.phase), (Verdict::Deny, Phase::Custom));
        assert_eq!((record.reason, record.facts.status), (reason::CUSTOM_DENIED, status));
        assert_eq!(evaluation.policy.as_ref().unwrap().id(), "istio-ext-authz-asker-ns[shop]-policy[ask]-rule[0]");
    }
    assert_eq!(app.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_provider_over_http_is_asked_with_the_original_path() {
    let (provider, heads) = over_http().await;
    let fields = ", includeRequestHeadersInCheck: [x-token], headersToUpstreamOnAllow: [x-user], \
                  headersToDownstreamOnAllow: [x-checked], headersToDownstreamOnDeny: [location]";
    let mesh = mesh("envoyExtAuthzHttp", provider.address, fields);
    let (_app, world) = world(&custom("paths: ['/*']"), &mesh).await;
    let mut client = plain(world.address()).await;
    let allowed = client.ask("GET /a?q HTTP/1.1\r\nHost: cart\r\nX-Token: t\r\nX-Private: p\r\n\r\n").await;
    assert_eq!(allowed.status, 200, "{allowed:?}");
    assert!(allowed.body.to_ascii_lowercase().contains("\r\nx-user: bob\r\n"), "{allowed:?}");
    assert!(allowed.has("x-checked: yes") && !allowed.has("x-other"), "{allowed:?}");
    let asked = heads.lock().unwrap()[0].to_ascii_lowercase();
    assert!(asked.starts_with("get /a?q http/1.1\r\n") && asked.contains("x-token: t"), "{asked}");
    assert!(!asked.contains("x-private"), "{asked}");
    let refused = client.get("/no").await;
    assert_eq!((refused.status, refused.body.as_str()), (302, "login"), "{refused:?}");
    assert!(refused.has("location: /login\r\n"), "{refused:?}");
}

#[tokio::test]
async fn a_provider_may_send_a_request_elsewhere_and_not_break_it() {
    let provider = Grpc::start().await;
    let policies = format!("{}{}", custom("paths: [/renamed, /unfit]"), NO_BOB.replace("/bob*", "/renamed"));
    let (app, world) = world(&policies, &provider.mesh("")).await;
    let mut client = plain(world.address()).await;
    let seen = client.get("/renamed").await.body;
    assert!(seen.starts_with("PUT /other?x HTTP/1.1\r\nHost: other:81\r\n") && !seen.contains("cart"), "{seen}");
    let connections = app.connections.load(Ordering::Relaxed);
    let answer = client.get("/unfit").await;
    assert_eq!((answer.status, answer.body.as_str()), (502, "provider-edits"), "a GET does not become a HEAD");
    assert_eq!(app.connections.load(Ordering::Relaxed), connections);
    let records = world.records.wait(2).await;
    assert_eq!(records[0].facts.http.as_ref().unwrap().path.as_deref(), Some("/other"));
    assert_eq!((records[1].verdict, records[1].facts.status), (Verdict::Allow, 502));
}

/// What is not forwarded is not what a policy lets pass by either.
#[tokio::test]
async fn a_provider_sets_no_reserved_field_that_policies_read() {
    let provider = Grpc::start().await;
    let marked = NO_BOB.replace("/bob*", "/reserved").replace("x-user", "x-envoy-team").replace("bob]", "b]");
    let ask = custom("paths: [/reserved]");
    for (policies, status) in [(ask.clone(), 200), (format!("{ask}{marked}"), 502)] {
        let (_app, world) = world(&policies, &provider.mesh("")).await;
        let answer = plain(world.address()).await.get("/reserved").await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(!answer.body.contains("x-envoy-team"), "{answer:?}");
    }
}

/// A provider that hangs up on some questions, and refuses the others.
#[tokio::test]
async fn one_callers_questions_do_not_close_the_provider_to_others() {
    let provider = App::of(|mut tcp| async move {
        let mut buf = Vec::new();
        while let Some((head, _)) = read_request(&mut tcp, &mut buf).await? {
            if head.contains("/poison") {
                break;
            }
            tcp.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await?;
        }
        Ok(())
    })
    .await;
    let mesh = mesh("envoyExtAuthzHttp", provider.address, ", failOpen: true");
    let (_app, world) = world(&custom("paths: ['/*']"), &mesh).await;
    let mut client = plain(world.address()).await;
    for _ in 0..6 {
        assert_eq!(client.get("/poison").await.status, 200, "fails open");
    }
    assert_eq!(client.get("/no").await.status, 403, "still asked");
}

/// Trap 46.
#[tokio::test]
async fn a_provider_that_is_down_denies_what_would_ask_it() {
    let nobody = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    for (fields, status) in [("", 403), (", statusOnError: '503'", 503), (", failOpen: true", 200)] {
        let mesh = mesh("envoyExtAuthzGrpc", nobody, fields);
        let (_app, world) = world(&custom("paths: [/a]"), &mesh).await;
        let mut client = plain(world.address()).await;
        assert_eq!(client.get("/a").await.status, status, "{fields}");
        assert_eq!(client.get("/b").await.status, 200, "not asked");
        let records = world.records.wait(2).await;
        let expected = if status == 200 { "no-allow-policy" } else { reason::CUSTOM_ERROR };
        assert_eq!((records[0].facts.status, records[0].reason), (status, expected), "{fields}");
    }
    let (_app, world) = world(&custom("paths: [/a]"), "{}").await;
    let mut client = plain(world.address()).await;
    assert_eq!((client.get("/a").await.status, client.get("/b").await.status), (403, 200));
    assert_eq!(world.records.wait(2).await[0].reason, reason::NO_PROVIDER);
}

#[tokio::test]
async fn a_client_that_leaves_is_not_waited_for() {
    let provider = Grpc::start().await;
    let (app, world) = world(&custom("paths: [/wait]"), &provider.mesh("")).await;
    let mut client = plain(world.address()).await;
    client.send("GET /wait HTTP/1.1\r\nHost: cart\r\n\r\n").await;
    provider.asked(1).await;
    drop(client);
    until("the connection to be gone", || {
        let connections = world.status.status()["connections"].clone();
        if connections["accepted"] == 0 && connections["registered"] == 0 {
            Ok(())
        } else {
            Err(connections.to_string())
        }
    })
    .await;
    assert_eq!(app.connections.load(Ordering::Relaxed), 0);
    assert!(world.records.all().is_empty(), "nothing was decided");
}

#[tokio::test]
async fn a_policy_that_changes_during_the_wait_decides() {
    let provider = Grpc::start().await;
    let (app, world) = world(&custom("paths: [/wait]"), &provider.mesh("")).await;
    let mut client = plain(world.address()).await;
    client.send("GET /wait HTTP/1.1\r\nHost: cart\r\n\r\n").await;
    provider.asked(1).await;
    world.switch(CLOSED, None).await;
    provider.answers.add_permits(1);
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (403, "RBAC: access denied"));
    let records = world.records.wait(1).await;
    assert_eq!((records[0].reason, records[0].facts.status), (reason::POLICY_CHANGED, 403));
    assert_eq!(app.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn an_open_tunnel_ends_when_another_provider_would_have_to_be_asked() {
    let provider = Grpc::start().await;
    let app = App::of(|mut tcp| async move {
        read_request(&mut tcp, &mut Vec::new()).await?;
        tcp.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await?;
        let (mut read, mut write) = tcp.split();
        tokio::io::copy(&mut read, &mut write).await.map(|_| ())
    })
    .await;
    let cast = Cast::new();
    let config = inbound_to(app.address, Some(AppProtocol::Http));
    let (policies, mesh) = (custom("paths: [/up]"), provider.mesh(""));
    let world = World::start_meshed(&config, cast.cart(), Some(&policies), Some(&mesh));
    let web = cast.authority.identity("shop", "web", 3600, &[]);
    let mut client = sidecar(world.address(), &web).await;
    let upgrade = "GET /up HTTP/1.1\r\nHost: cart\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    let answer = client.ask(upgrade).await;
    assert!(answer.status == 101 && answer.has("x-checked: yes"), "{answer:?}");
    // The same question again: what was approved stays, and nobody is asked anew.
    world.switch(&format!("{policies}{OPEN}"), Some(&mesh)).await;
    client.send("still open").await;
    let mut echoed = [0; 10];
    client.io.read_exact(&mut echoed).await.unwrap();
    assert_eq!((&echoed, provider.asked(1).await.len()), (b"still open", 1));
    world.switch(&policies.replace("name: asker", "name: other"), Some(&mesh)).await;
    assert!(client.rest().await.is_err(), "cut");
    let records = world.records.wait(2).await;
    assert_eq!((records[1].reason, records[1].evaluation.phase), (reason::POLICY_CHANGED, Phase::Custom));
}
