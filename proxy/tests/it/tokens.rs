//! RequestAuthentication: what a token opens, what a bad one closes, and what of it goes on to the application.

use std::sync::atomic::Ordering;

use palisade_authz::{Phase, Verdict, reason};
use palisade_policies::AppProtocol;
use serde_json::json;
use tokio::net::TcpStream;

use crate::app::App;
use crate::certificates::until;
use crate::client::{Client, plain};
use crate::issuer::{Issuer, KeyServer, rule};
use crate::world::{Cast, OPEN, World, inbound_to};

/// Whoever brings a token of the issuer.
const TOKENS_ONLY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tokens, namespace: shop}
spec:
  action: ALLOW
  rules:
  - from: [{source: {requestPrincipals: ['*']}}]
";

struct Shop {
    _app: App,
    world: World,
    client: Client<TcpStream>,
}

async fn shop(policies: &str) -> Shop {
    let (app, cast) = (App::mirror().await, Cast::new());
    let world = World::start(&inbound_to(app.address, Some(AppProtocol::Http)), cast.cart(), Some(policies));
    let client = plain(world.address()).await;
    Shop { _app: app, world, client }
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: cart\r\n{fields}\r\n")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn bad_tokens_are_refused_and_no_token_is_no_identity() {
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let mut shop = shop(&issuer.inline("")).await;
    let good = issuer.token(300, &json!({}));
    assert_eq!(shop.client.ask(&get("/", "")).await.status, 200, "a token is not demanded");
    assert_eq!(shop.client.ask(&get("/", &bearer(&good))).await.status, 200);
    for (what, token, body) in [
        ("expired", issuer.token(-300, &json!({})), "Jwt is expired"),
        ("foreign key", stranger.token(300, &json!({})), "Jwt verification fails"),
        ("foreign issuer", issuer.token(300, &json!({"iss": "https://other.example"})), "Jwt issuer is not configured"),
        (
            "garbage",
            "abc".to_owned(),
            "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections",
        ),
    ] {
        let answer = shop.client.ask(&get("/a?b", &bearer(&token))).await;
        assert_eq!((answer.status, answer.body.as_str()), (401, body), "{what}: {answer:?}");
        let challenge = "www-authenticate: bearer realm=\"http://cart/a?b\", error=\"invalid_token\"\r\n";
        assert!(answer.has(challenge) && answer.has("content-type: text/plain\r\n"), "{what}: {answer:?}");
    }
    assert_eq!(shop.client.ask(&get("/", &bearer(&good))).await.status, 200, "the connection stays");
    let records = shop.world.records.wait(7).await;
    let refused: Vec<_> = records.iter().filter(|r| r.verdict == Verdict::Deny).collect();
    assert_eq!(refused.len(), 4);
    for record in refused {
        assert_eq!(
            (record.evaluation.phase, record.reason, record.facts.status),
            (Phase::Authn, reason::TOKEN_INVALID, 401)
        );
        assert!(record.evaluation.policy.is_none() && record.facts.http.is_some(), "{record:?}");
    }
    assert!(!format!("{records:?}").contains(&good), "no token in a record");
    let counted = "palisade_proxy_requests_total{direction=\"inbound\",verdict=\"deny\",response_class=\"4xx\"} 4";
    assert!(shop.world.metrics().contains(counted));
}

#[tokio::test]
async fn a_wrong_audience_is_forbidden() {
    let issuer = Issuer::new();
    let mut shop = shop(&issuer.inline("audiences: [cart]")).await;
    let ask = |audience: &str| get("/", &bearer(&issuer.token(300, &json!({"aud": audience}))));
    assert_eq!(shop.client.ask(&ask("https://cart/")).await.status, 200, "compared as Envoy compares");
    let answer = shop.client.ask(&ask("other")).await;
    assert_eq!((answer.status, answer.body.as_str()), (403, "Audiences in Jwt are not allowed"));
    let records = shop.world.records.wait(2).await;
    assert_eq!((records[1].reason, records[1].facts.status), (reason::TOKEN_AUDIENCE, 403));
}

#[tokio::test]
async fn tokens_are_stripped_or_forwarded_and_claims_become_headers() {
    let issuer = Issuer::new();
    let claims = "outputClaimToHeaders: [{header: x-sub, claim: sub}, {header: x-tier, claim: plan.tier}]";
    let mut shop = shop(&issuer.inline(claims)).await;
    let token = issuer.token(300, &json!({"plan": {"tier": 3}}));
    let forged = format!("{}X-Sub: root\r\nx-other: kept\r\n", bearer(&token));
    let seen = shop.client.ask(&get("/a?x=1", &forged)).await.body.to_ascii_lowercase();
    assert!(seen.contains("\r\nx-sub: alice\r\n") && seen.contains("\r\nx-tier: 3\r\n"), "{seen}");
    assert!(!seen.contains("authorization") && !seen.contains("root") && seen.contains("x-other: kept"), "{seen}");
    let seen = shop.client.ask(&get("/a", "x-sub: root\r\n")).await.body;
    assert!(!seen.contains("x-sub"), "nobody but the rule writes it: {seen}");
    let by_query = format!("/a?access_token={token}&x=1");
    let seen = shop.client.ask(&get(&by_query, "")).await.body;
    assert!(seen.starts_with("GET /a?x=1 HTTP/1.1\r\n") && !seen.contains(&token), "{seen}");
    shop.world.switch(&issuer.inline("forwardOriginalToken: true"), None).await;
    let seen = shop.client.ask(&get("/a", &bearer(&token))).await.body;
    assert!(seen.contains(&format!("Authorization: Bearer {token}\r\n")), "{seen}");
}

/// CGI and its heirs read `x_sub` as `x-sub`, and some servers merge trailers into the head.
#[tokio::test]
async fn claim_headers_come_back_in_no_other_spelling_and_in_no_trailer() {
    let issuer = Issuer::new();
    let mut shop = shop(&issuer.inline("outputClaimToHeaders: [{header: x-sub, claim: sub}]")).await;
    let seen = shop.client.ask(&get("/a", "x_sub: root\r\nX_Sub: root\r\nx_subs: kept\r\n")).await.body;
    assert!(!seen.contains("root") && seen.contains("x_subs: kept"), "{seen}");
    let chunked = |trailer: &str| {
        format!(
            "POST /a HTTP/1.1\r\nHost: cart\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n{trailer}: root\r\n\r\n"
        )
    };
    for trailer in ["x-sub", "X_SUB", "cookie"] {
        let seen = shop.client.ask(&chunked(trailer)).await.body;
        assert!(seen.ends_with("2\r\nhi\r\n0\r\n\r\n"), "{trailer}: {seen}");
    }
    let reads = TOKENS_ONLY.replace("ALLOW", "DENY").replace(
        "from: [{source: {requestPrincipals: ['*']}}]",
        "when: [{key: 'request.headers[x-debug]', values: ['*']}]",
    );
    for (policies, passes) in [(reads.as_str(), false), (OPEN, true)] {
        shop.world.switch(policies, None).await;
        for (trailer, may_pass) in [("x-debug", true), ("cookie", false)] {
            let seen = shop.client.ask(&chunked(trailer)).await.body;
            assert_eq!(seen.contains("root"), passes && may_pass, "{trailer}: {seen}");
        }
    }
}

/// What the application does not get must not have let the request in.
#[tokio::test]
async fn another_spelling_of_a_claim_header_that_policy_read_is_not_dropped_silently() {
    let issuer = Issuer::new();
    let reads = TOKENS_ONLY.replace(
        "from: [{source: {requestPrincipals: ['*']}}]",
        "when: [{key: 'request.headers[x_sub]', values: [root]}]",
    );
    let rules = issuer.inline("outputClaimToHeaders: [{header: x-sub, claim: sub}]");
    let mut shop = shop(&format!("{rules}---{reads}")).await;
    let answer = shop.client.ask(&get("/a", "x_sub: root\r\n")).await;
    assert_eq!((answer.status, answer.body.as_str()), (502, "provider-edits"));
    assert_eq!(shop.client.ask(&get("/a", "x-sub: root\r\n")).await.status, 403);
}

#[tokio::test]
async fn policies_see_principal_and_claims() {
    let issuer = Issuer::new();
    let admins = TOKENS_ONLY.replace("name: tokens", "name: admins").replace("ALLOW", "DENY").replace(
        "from: [{source: {requestPrincipals: ['*']}}]",
        "when: [{key: 'request.auth.claims[groups]', values: [banned]}]",
    );
    let mut shop = shop(&format!("{}{TOKENS_ONLY}---{admins}", issuer.inline(""))).await;
    let denied = shop.client.ask(&get("/", "")).await;
    assert_eq!((denied.status, denied.body.as_str()), (403, "RBAC: access denied"), "no token, no principal");
    let plain = issuer.token(300, &json!({}));
    assert_eq!(shop.client.ask(&get("/", &bearer(&plain))).await.status, 200);
    let banned = issuer.token(300, &json!({"groups": ["users", "banned"]}));
    assert_eq!(shop.client.ask(&get("/", &bearer(&banned))).await.status, 403);
    let records = shop.world.records.wait(3).await;
    assert_eq!(
        records.iter().map(|r| r.reason).collect::<Vec<_>>(),
        ["no-allow-matched", "allow-matched", "deny-matched"]
    );
    assert_eq!(records[2].evaluation.policy.as_ref().unwrap().id(), "ns[shop]-policy[admins]-rule[0]");
}

/// Traps 31 and 47: a preflight has no identity even with a good token, and a bad token hides a DENY.
#[tokio::test]
async fn preflights_have_no_identity_and_tokens_come_before_deny() {
    let issuer = Issuer::new();
    let mut shop = shop(&format!("{}{TOKENS_ONLY}", issuer.inline(""))).await;
    let token = bearer(&issuer.token(300, &json!({})));
    let preflight = |fields: &str| {
        format!(
            "OPTIONS / HTTP/1.1\r\nHost: cart\r\nOrigin: https://a\r\nAccess-Control-Request-Method: PUT\r\n{fields}\r\n"
        )
    };
    assert_eq!(shop.client.ask(&preflight(&token)).await.status, 403);
    assert_eq!(shop.client.ask(&preflight(&bearer("garbage"))).await.status, 403, "not even looked at");
    let answer = shop.client.ask(&get("/", &bearer("garbage"))).await;
    assert_eq!(answer.status, 401, "the token first, though no ALLOW matches either");
}

#[tokio::test]
async fn tokens_wait_for_the_first_fetch_of_their_keys_and_others_do_not() {
    let issuer = Issuer::new();
    let keys = KeyServer::of(issuer.jwks()).await;
    let (app, cast) = (App::mirror().await, Cast::new());
    let config = inbound_to(app.address, Some(AppProtocol::Http));
    let policies = rule(&format!("jwksUri: {}", keys.uri()));
    let mesh = "palisade: {jwksAllow: [127.0.0.0/8]}";
    let world = World::start_meshed(&config, cast.cart(), Some(&policies), Some(mesh));
    let (mut with, mut without) = (plain(world.address()).await, plain(world.address()).await);
    with.send(&get("/with", &bearer(&issuer.token(300, &json!({}))))).await;
    until("the keys to be asked for", || {
        let asked = keys.asked.load(Ordering::SeqCst);
        if asked == 1 { Ok(()) } else { Err(asked.to_string()) }
    })
    .await;
    assert_eq!(without.get("/without").await.status, 200, "nobody else waits");
    assert_eq!(world.records.all().len(), 1);
    keys.answer(1);
    assert_eq!(with.answer().await.status, 200);
    let counted = format!("palisade_proxy_token_keys{{source=\"{}\"}} 1\n", keys.uri());
    assert!(world.metrics().contains(&counted), "{}", world.metrics());
    assert_eq!(world.status.status()["tokenKeys"][0]["keys"], 1);
    // Another revision with the same rule: the keys are there.
    world.switch(&format!("{policies}{TOKENS_ONLY}"), Some(mesh)).await;
    assert_eq!(with.ask(&get("/", &bearer(&issuer.token(300, &json!({}))))).await.status, 200);
    assert_eq!(keys.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn keys_that_may_not_be_fetched_refuse_tokens_alone() {
    let issuer = Issuer::new();
    let keys = KeyServer::of(issuer.jwks()).await;
    let mut shop = shop(&rule(&format!("jwksUri: {}", keys.uri()))).await;
    let answer = shop.client.ask(&get("/", &bearer(&issuer.token(300, &json!({}))))).await;
    assert_eq!((answer.status, answer.body.as_str()), (401, "Jwks remote fetch is failed"), "{answer:?}");
    assert_eq!(shop.client.ask(&get("/", "")).await.status, 200);
    assert_eq!(keys.asked.load(Ordering::SeqCst), 0, "a loopback address is not asked unless it is allowed");
}

#[tokio::test]
async fn headers_that_bring_tokens_are_credentials() {
    let issuer = Issuer::new();
    let reads = TOKENS_ONLY.replace(
        "from: [{source: {requestPrincipals: ['*']}}]",
        "when: [{key: 'request.headers[x-jwt]', notValues: [none]}, {key: 'request.headers[x-plain]', values: [a]}]",
    );
    let rule = issuer.inline("fromHeaders: [{name: X-Jwt}]\n    forwardOriginalToken: true");
    let mut shop = shop(&format!("{rule}{reads}")).await;
    for (token, status) in [(issuer.token(300, &json!({})), 200), (issuer.token(-300, &json!({})), 401)] {
        let answer = shop.client.ask(&get("/", &format!("x-jwt: {token}\r\nx-plain: a\r\n"))).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
    for record in shop.world.records.wait(2).await {
        assert_eq!(record.facts.http.unwrap().headers, [("x-plain".to_owned(), b"a".to_vec())]);
    }
}
