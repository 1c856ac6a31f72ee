//! RequestAuthentication runs on the headers that Envoy sends, and what it changes goes back.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use palisade_wire::envoy::envoy::service::auth::v3::check_response::HttpResponse;
use palisade_wire::envoy::envoy::service::auth::v3::{CheckResponse, OkHttpResponse};
use serde_json::json;

use crate::world::{World, get, policy, reason, status, with_header};

/// `secretsecretsecretsecretsecretsec` in base64url.
const KEYS: &str = r#"{"keys":[{"kty":"oct","alg":"HS256","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2Vj"}]}"#;

pub(crate) fn authentication(more: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: jwt, namespace: shop}}\nspec:\n  \
         selector: {{matchLabels: {{app: cart}}}}\n  jwtRules:\n  - issuer: https://idp.example\n    jwks: '{KEYS}'\n{more}---\n"
    )
}

pub(crate) fn token(audience: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims =
        json!({"iss": "https://idp.example", "sub": "alice", "aud": audience, "exp": now + 600, "team": "blue"});
    let key = EncodingKey::from_secret(b"secretsecretsecretsecretsecretsec");
    encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
}

pub(crate) fn ok(answer: CheckResponse) -> OkHttpResponse {
    match answer.http_response {
        Some(HttpResponse::OkResponse(ok)) => ok,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tokens_decide_and_are_taken_away() {
    let rules = authentication("    audiences: [shop]\n    outputClaimToHeaders: [{header: x-team, claim: team}]\n");
    let allow = policy("users", "ALLOW", "{from: [{source: {requestPrincipals: ['https://idp.example/*']}}]}");
    let mut world = World::with(&format!("{rules}{allow}"));
    let mut client = world.client(false).await;
    let bearing = |token: &str| {
        with_header(with_header(get("/"), "authorization", &format!("Bearer {token}")), "x-team", "forged")
    };

    let allowed = ok(client.ask(bearing(&token("shop"))).await);
    let set: Vec<_> = allowed.headers.iter().filter_map(|option| option.header.as_ref()).collect();
    assert_eq!(set.iter().map(|header| (&*header.key, &*header.value)).collect::<Vec<_>>(), [("x-team", "blue")]);
    assert_eq!(allowed.headers_to_remove, ["authorization"], "what is set is not removed again");

    for (what, attributes, expected) in [
        ("no token", get("/"), (403, "no-allow-matched")),
        ("a broken one", bearing("a.b.c"), (401, "token-invalid")),
        ("another audience", bearing(&token("other")), (403, "token-audience")),
    ] {
        let answer = client.ask(attributes).await;
        assert_eq!((status(&answer), reason(&answer).as_str()), expected, "{what}");
        let Some(HttpResponse::DeniedResponse(denied)) = answer.http_response else { panic!("{what}") };
        let challenged =
            denied.headers.iter().filter_map(|option| option.header.as_ref()).any(|one| one.key == "www-authenticate");
        assert_eq!(challenged, expected.1.starts_with("token-"), "{what}");
    }
    let reasons: Vec<_> = world.records().into_iter().map(|record| record.reason).collect();
    assert_eq!(reasons, ["allow-matched", "no-allow-matched", "token-invalid", "token-audience"]);
    world.stop().await;
}

#[tokio::test]
async fn a_token_in_the_query_is_removed_from_it() {
    let mut world = World::with(&authentication(""));
    let mut client = world.client(false).await;
    let path = format!("/v1?a=1&access_token={}&b=%2C", token("x"));
    let allowed = ok(client.ask(get(&path)).await);
    assert_eq!(allowed.query_parameters_to_remove, ["access_token"]);
    assert!(allowed.headers.is_empty(), "{:?}", allowed.headers);
    world.stop().await;
}

/// A provider that nobody answers for refuses, whatever the policies say.
#[tokio::test]
async fn a_provider_that_cannot_be_asked_refuses() {
    let mut world = World::new();
    let custom = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ask, namespace: shop}\nspec:\n  \
                  action: CUSTOM\n  provider: {name: opa}\n  rules: [{to: [{operation: {paths: [/ask]}}]}]\n---\n";
    // A port that was free a moment ago and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mesh = format!(
        "extensionProviders:\n- name: opa\n  envoyExtAuthzGrpc: {{service: 127.0.0.1, port: {port}, timeout: 5s}}\n"
    );
    world.policies.set(custom, &mesh);
    let mut client = world.client(false).await;
    let answer = client.ask(get("/ask")).await;
    assert_eq!((status(&answer), reason(&answer).as_str()), (403, "custom-error"));
    assert_eq!(client.status(get("/other")).await, 200);
    world.stop().await;
}
