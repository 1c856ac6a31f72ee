//! The key cache over time: refresh, last good set, negative cache, early refresh, followers, shutdown.

use std::sync::Arc;
use std::time::Duration;

use palisade_authz::{JwksCache, JwksConfig, KeySource};
use palisade_policies::{JwksSource, JwtRule};
use serde_json::json;

use crate::fetch::{keys, loopback, remote};
use crate::kit::*;
use crate::server::*;

const SOON: Duration = Duration::from_millis(5);
const NEVER: Duration = Duration::from_secs(100_000);

#[tokio::test]
async fn keys_are_refreshed() {
    let server = Server::start(|_, number| ok(&set(&[if number == 1 { OTHER.jwk() } else { P256.jwk() }]))).await;
    let cache = JwksCache::new(JwksConfig { refresh: SOON, ..loopback() });
    let authenticator = compile(vec![remote(&server.url("/"))]);
    cache.follow(&authenticator);
    // When the third request comes, the answer of the second is in use.
    server.request(3).await;
    assert_eq!(subject(bearer(&good()).ask(&authenticator, &cache)).as_deref(), Some("alice"));
}

#[tokio::test]
async fn the_last_good_keys_are_kept_when_a_refresh_fails() {
    let server = Server::start(|_, number| if number == 1 { ok(&keys()) } else { status(500, "") }).await;
    let cache = JwksCache::new(JwksConfig { refresh: SOON, negative_ttl: SOON, ..loopback() });
    let authenticator = compile(vec![remote(&server.url("/"))]);
    cache.follow(&authenticator);
    server.request(4).await;
    assert_eq!(subject(bearer(&good()).ask(&authenticator, &cache)).as_deref(), Some("alice"));
    let state = cache.states().remove(0);
    assert!(state.keys == Some(1) && state.error.unwrap().contains("answered 500"));
}

#[tokio::test]
async fn a_failure_is_tried_again_and_mended() {
    let server = Server::start(|_, number| if number < 3 { status(503, "") } else { ok(&keys()) }).await;
    let cache = JwksCache::new(JwksConfig { refresh: SOON, negative_ttl: SOON, ..loopback() });
    let authenticator = compile(vec![remote(&server.url("/"))]);
    cache.follow(&authenticator);
    server.request(4).await;
    assert!(cache.states()[0].error.is_none());
    assert_eq!(subject(bearer(&good()).ask(&authenticator, &cache)).as_deref(), Some("alice"));
}

#[tokio::test]
async fn requests_do_not_fetch_what_just_failed() {
    let server = Server::start(|_, _| status(500, "")).await;
    let cache = JwksCache::new(JwksConfig { negative_ttl: NEVER, refresh: NEVER, early: SOON, ..loopback() });
    let authenticator = compile(vec![remote(&server.url("/"))]);
    cache.settle(&authenticator).await;
    for _ in 0..100 {
        assert_eq!(refused(bearer(&good()).ask(&authenticator, &cache)).body, "Jwks remote fetch is failed");
        anonymous(call().ask(&authenticator, &cache));
    }
    cache.settle(&authenticator).await;
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_token_with_an_unknown_key_hurries_the_next_fetch() {
    let server = Server::start(|_, number| ok(&set(&[if number == 1 { OTHER.jwk() } else { P256.jwk() }]))).await;
    let cache = JwksCache::new(JwksConfig { refresh: NEVER, early: SOON, ..loopback() });
    let authenticator = compile(vec![remote(&server.url("/"))]);
    cache.settle(&authenticator).await;
    assert_eq!(refused(bearer(&good()).ask(&authenticator, &cache)).status, 401);
    server.request(2).await;
    // Another unknown key, so that the answer of the second request is in use when the third comes.
    let unknown = P384.claims(&with(&json!({})));
    assert_eq!(refused(bearer(&unknown).ask(&authenticator, &cache)).status, 401);
    server.request(3).await;
    assert_eq!(subject(bearer(&good()).ask(&authenticator, &cache)).as_deref(), Some("alice"));
}

#[tokio::test]
async fn tokens_with_known_keys_hurry_nothing() {
    let server = Server::start(|_, _| ok(&keys())).await;
    let cache = JwksCache::new(JwksConfig { refresh: NEVER, early: Duration::ZERO, ..loopback() });
    let authenticator = compile(vec![remote(&server.url("/"))]);
    cache.settle(&authenticator).await;
    for token in [good(), bad(), P256.claims(&with(&json!({"exp": 1}))), "x".to_owned()] {
        let _ = bearer(&token).ask(&authenticator, &cache);
    }
    cache.settle(&authenticator).await;
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_source_is_fetched_once_for_all_who_follow_it() {
    let server = Server::start(|_, _| ok(&keys())).await;
    let cache = JwksCache::new(loopback());
    let rules = || vec![remote(&server.url("/")), JwtRule { issuer: "b".to_owned(), ..remote(&server.url("/")) }];
    let (one, two) = (compile(rules()), compile(rules()));
    cache.settle(&one).await;
    cache.settle(&two).await;
    cache.follow(&one);
    assert_eq!((server.requests(), cache.states().len()), (1, 1));
}

#[tokio::test]
async fn what_nobody_follows_is_forgotten() {
    let server = Server::start(|_, _| ok(&keys())).await;
    let cache = JwksCache::new(JwksConfig { refresh: SOON, ..loopback() });
    let (one, two) = (compile(vec![remote(&server.url("/1"))]), compile(vec![remote(&server.url("/2"))]));
    cache.settle(&one).await;
    cache.settle(&two).await;
    assert_eq!(cache.states().len(), 2);
    drop(one);
    cache.follow(&two);
    assert_eq!(cache.states().len(), 1);
    assert!(cache.keys(&remote(&server.url("/1"))).is_none() && cache.keys(&remote(&server.url("/2"))).is_some());
    let again = compile(vec![remote(&server.url("/1"))]);
    cache.settle(&again).await;
    assert!(cache.keys(&remote(&server.url("/1"))).is_some());
}

#[tokio::test]
async fn dropping_the_cache_ends_its_tasks() {
    let server = Server::start(|_, _| Reply::Hold(Vec::new())).await;
    let cache = JwksCache::new(loopback());
    let authenticator = compile(vec![JwtRule { timeout: NEVER, ..remote(&server.url("/")) }]);
    cache.follow(&authenticator);
    server.request(1).await;
    drop(cache);
    server.gone(1).await;
}

#[tokio::test]
async fn the_first_outcome_can_be_waited_for() {
    let server = Server::start(|_, _| ok(&keys())).await;
    let cache = JwksCache::new(loopback());
    let rule = remote(&server.url("/"));
    assert!(cache.first_outcome(&rule).is_none(), "nobody follows it");
    let authenticator = compile(vec![rule.clone()]);
    cache.follow(&authenticator);
    cache.first_outcome(&rule).unwrap().await;
    assert!(cache.keys(&rule).is_some() && cache.first_outcome(&rule).is_none());
    let inline = crate::kit::rule();
    assert!(cache.first_outcome(&inline).is_none() && cache.keys(&inline).is_some());
    let broken = JwtRule { jwks: JwksSource::Inline("{}".to_owned()), ..inline };
    assert!(cache.keys(&broken).is_none());
}

#[tokio::test]
async fn waiting_ends_with_the_rules_own_timeout() {
    let server = Server::start(|_, _| Reply::Hold(Vec::new())).await;
    let cache = JwksCache::new(loopback());
    let patient = JwtRule { timeout: NEVER, ..remote(&server.url("/")) };
    let hasty = JwtRule { timeout: SOON, ..patient.clone() };
    let authenticator = compile(vec![patient]);
    cache.follow(&authenticator);
    cache.first_outcome(&hasty).unwrap().await;
    assert!(cache.keys(&hasty).is_none());
}

#[test]
fn other_runtimes_can_use_the_cache() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (fetching, asking) = (runtime(), runtime());
    let cache = Arc::new(JwksCache::new(loopback()));
    let server = fetching.block_on(Server::start(|_, _| ok(&keys())));
    let rule = remote(&server.url("/"));
    let authenticator = compile(vec![rule.clone()]);
    {
        let _entered = fetching.enter();
        cache.follow(&authenticator);
    }
    let shared = Arc::clone(&cache);
    asking.block_on(async move {
        if let Some(outcome) = shared.first_outcome(&rule) {
            outcome.await;
        }
    });
    assert_eq!(subject(bearer(&good()).ask(&authenticator, &*cache)).as_deref(), Some("alice"));
}

#[test]
fn outside_of_a_runtime_there_are_no_keys_and_no_panic() {
    let cache = JwksCache::new(loopback());
    let authenticator = compile(vec![remote("http://127.0.0.1:1/")]);
    cache.follow(&authenticator);
    assert!(cache.states().is_empty());
    assert_eq!(refused(bearer(&good()).ask(&authenticator, &cache)).body, "Jwks remote fetch is failed");
}

#[tokio::test]
async fn states_are_printed_without_keys() {
    let server = Server::start(|_, _| ok(&set(&[SECRET.jwk()]))).await;
    let cache = JwksCache::new(loopback());
    let authenticator = compile(vec![remote(&server.url("/"))]);
    cache.settle(&authenticator).await;
    let text = format!("{cache:?}");
    assert!(text.contains(&server.url("/")) && text.contains("keys: Some(1)") && !text.contains("BwcH"), "{text}");
}
