//! What agents are told, and what they may ask for.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_identity::{CertificateDer, Clock as _, SpiffeId, TrustBundles, UnixTime, verify_peer};
use palisade_wire::agents::agents_client::AgentsClient;
use palisade_wire::agents::{Entry, IssueJwtRequest, IssueX509Request, X509Order};
use rcgen::KeyPair;
use rustls_pki_types::pem::PemObject;
use tonic::Code;

use crate::harness::{Server, csr, web};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

fn entry(id: &str, spiffe_id: &str) -> Entry {
    Entry {
        id: id.to_owned(),
        spiffe_id: spiffe_id.to_owned(),
        selectors: vec!["unix:uid:1000".to_owned()],
        ..Entry::default()
    }
}

fn order(entry_id: &str, uris: &[&str]) -> X509Order {
    let pem = csr(&KeyPair::generate().unwrap(), uris);
    let csr = rustls_pki_types::CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap();
    X509Order { entry_id: entry_id.to_owned(), csr: csr.to_vec() }
}

/// Trap 23, for the stream to agents: versions that are content.
#[tokio::test]
async fn trap_23_a_state_comes_at_once_and_with_every_change_and_only_then() {
    let server = Server::start().await;
    let agent = server.enrol(&web()).await;
    server.entries.set(vec![entry("a", CART)]);
    let mut follower = server.follow(&agent).await;
    let first = follower.last.clone();
    assert_eq!(first.entries, [entry("a", CART)]);
    assert_eq!(follower.bundle(), *server.authority.bundle());
    assert_eq!(first.version.len(), 64);
    // The same again is no change; the next state is the next change's.
    server.entries.set(vec![entry("a", CART)]);
    server.entries.set(vec![entry("a", CART), entry("b", CART)]);
    assert_eq!(follower.next().await.unwrap().entries.len(), 2);
    server.entries.set(vec![entry("a", CART)]);
    assert_eq!(follower.next().await.unwrap().version, first.version, "equal states have equal versions");
    assert_eq!(server.authority.status().await.unwrap().followers.len(), 1);
    drop(follower);
    crate::harness::until(async || server.authority.status().await.unwrap().followers.is_empty()).await;
    server.stop().await;
}

/// Trap 17: the root is not among what is presented.
#[tokio::test]
async fn trap_17_an_agent_gets_certificates_for_its_entries_without_the_root() {
    let server = Server::start().await;
    let agent = server.enrol(&web()).await;
    let short = Entry { x509_ttl: 77, dns_names: vec!["cart.shop".to_owned()], ..entry("a", CART) };
    server.entries.set(vec![short]);
    let orders = vec![
        order("a", &[]),
        order("a", &[CART]),
        order("a", &["spiffe://cluster.local/ns/shop/sa/bank"]),
        order("b", &[CART]),
        X509Order { entry_id: "a".to_owned(), csr: b"garbage".to_vec() },
    ];
    let request = IssueX509Request { orders };
    let answers = server.agents(&agent).issue_x509(request).await.unwrap().into_inner().answers;
    let codes: Vec<_> = answers.iter().map(|answer| Code::from(answer.code)).collect();
    assert_eq!(codes, [Code::Ok, Code::Ok, Code::InvalidArgument, Code::PermissionDenied, Code::InvalidArgument]);
    assert!(answers[2].reason.contains("another ID") && answers[4].chain.is_empty());
    let trust = TrustBundles::from_iter([(*server.authority.bundle()).clone()]);
    for answer in &answers[..2] {
        let chain: Vec<_> = answer.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
        let peer = verify_peer(&chain, &trust, UnixTime::now()).unwrap();
        assert_eq!((peer.id().as_str(), chain.len()), (CART, 2), "leaf and intermediate, no root");
        assert!(peer.not_after().as_secs() <= UnixTime::now().as_secs() + 77);
    }
    let rows = server.issued(&SpiffeId::parse(CART).unwrap(), 9).await;
    assert_eq!(rows.len(), 2);
    for row in rows {
        let facts = (row.caller.as_str(), row.attestor.as_str(), row.entry.as_str());
        assert_eq!(facts, ("spiffe://cluster.local/ns/shop/sa/web", "agent", "a"));
        assert_eq!(row.authority, server.authority.status().await.unwrap().authorities[0].id);
    }
    server.stop().await;
}

/// An agent that lost everything asks for all its certificates at once: they are not to come back at once for ever.
#[tokio::test]
async fn renewals_of_what_is_issued_at_once_are_spread_by_the_server() {
    let server = Server::start().await;
    let agent = server.enrol(&web()).await;
    let brief = Entry { x509_ttl: 5, ..entry("brief", CART) };
    server.entries.set(vec![entry("a", CART), brief]);
    let mut orders = vec![order("a", &[]); 40];
    orders.push(order("brief", &[]));
    orders.push(order("unknown", &[]));
    let now = i64::try_from(server.clock.now().as_secs()).unwrap();
    let request = IssueX509Request { orders };
    let answers = server.agents(&agent).issue_x509(request).await.unwrap().into_inner().answers;
    let mut wishes: Vec<_> = answers.iter().map(|answer| answer.renew_at).collect();
    assert_eq!(wishes.split_off(40), [0, 0], "of a life of seconds, and of what is refused, the agent decides");
    wishes.sort_unstable();
    wishes.dedup();
    assert_eq!(wishes.len(), 40, "each has a second of its own");
    assert!(wishes.iter().all(|wish| (now + 1_300..now + 2_300).contains(wish)), "{now}: {wishes:?}");
    server.stop().await;
}

#[tokio::test]
async fn who_may_not_follow_is_told_so() {
    let server = Server::start().await;
    let agent = server.enrol(&web()).await;
    let mut client = server.agents(&agent);
    let many = IssueX509Request { orders: vec![X509Order::default(); 501] };
    assert_eq!(client.issue_x509(many).await.unwrap_err().code(), Code::InvalidArgument);
    let jwt = client.issue_jwt(IssueJwtRequest::default()).await.unwrap_err();
    assert_eq!(jwt.code(), Code::InvalidArgument, "a token without an audience");
    let mut anonymous = AgentsClient::new(server.anonymous());
    let refused = anonymous.issue_x509(IssueX509Request::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    // The connection is older than its certificate.
    server.clock.advance(Duration::from_secs(3_700));
    assert_eq!(client.issue_x509(IssueX509Request::default()).await.unwrap_err().code(), Code::Unauthenticated);
    server.stop().await;
}

/// The claims of a token, verified with the keys that followers were sent.
fn claims(token: &str, jwks: &str) -> serde_json::Value {
    let jwks: serde_json::Value = serde_json::from_str(jwks).unwrap();
    let part = |index: usize| URL_SAFE_NO_PAD.decode(token.split('.').nth(index).unwrap()).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&part(0)).unwrap();
    let jwk = jwks["keys"].as_array().unwrap().iter().find(|jwk| jwk["kid"] == header["kid"]).expect("a known key");
    let number = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [&[4][..], &number("x"), &number("y")].concat();
    let (signed, _) = token.rsplit_once('.').unwrap();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &part(2)).unwrap();
    serde_json::from_slice(&part(1)).unwrap()
}

fn asking(entry_id: &str, audience: &[&str]) -> IssueJwtRequest {
    let audience = audience.iter().map(|name| (*name).to_owned()).collect();
    IssueJwtRequest { entry_id: entry_id.to_owned(), audience }
}

#[tokio::test]
async fn tokens_are_for_the_entrys_id_or_the_callers_own_and_recorded() {
    let server = Server::start().await;
    let agent = server.enrol(&web()).await;
    server.entries.set(vec![Entry { jwt_ttl: 60, ..entry("a", CART) }]);
    let follower = server.follow(&agent).await;
    let jwks = follower.last.bundle.clone().unwrap().jwt_jwks;
    let mut client = server.agents(&agent);
    let made = client.issue_jwt(asking("a", &["db"])).await.unwrap().into_inner();
    let said = claims(&made.token, &jwks);
    assert_eq!((&said["sub"], &said["aud"]), (&CART.into(), &serde_json::json!(["db"])));
    assert_eq!((made.expires_at - made.issued_at, said["exp"].as_i64()), (60, Some(made.expires_at)));
    let own = client.issue_jwt(asking("", &["db", "cache"])).await.unwrap().into_inner();
    assert_eq!(claims(&own.token, &jwks)["sub"], web().as_str());
    let refused = client.issue_jwt(asking("b", &["db"])).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);

    let rows = server.issued(&SpiffeId::parse(CART).unwrap(), 9).await;
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((row.attestor.as_str(), row.entry.as_str(), row.caller.as_str()), ("agent-token", "a", web().as_str()));
    assert_eq!((row.serial.as_str(), row.not_after), (said["jti"].as_str().unwrap(), made.expires_at));

    server.authority.revoke_id(&web(), "stolen").await.unwrap();
    let revoked = client.issue_jwt(asking("a", &["db"])).await.unwrap_err();
    assert_eq!(revoked.code(), Code::PermissionDenied);
    server.stop().await;
}

#[tokio::test]
async fn a_new_key_for_tokens_reaches_followers_before_it_signs() {
    // A key each half hour, shown for ten minutes before: shorter than the certificate that follows.
    let server = Server::start_with(|config| {
        config.jwt.refresh_hint = Duration::from_secs(120);
        config.jwt.rotate_every = Duration::from_secs(1_800);
    })
    .await;
    let agent = server.enrol(&web()).await;
    let mut follower = server.follow(&agent).await;
    let before = follower.last.bundle.clone().unwrap();
    server.clock.advance(Duration::from_secs(1_300));
    server.authority.maintain().await;
    let shown = follower.next().await.unwrap().bundle.clone().unwrap();
    assert!(shown.sequence > before.sequence);
    let keys = |jwks: &str| serde_json::from_str::<serde_json::Value>(jwks).unwrap()["keys"].as_array().unwrap().len();
    assert_eq!((keys(&before.jwt_jwks), keys(&shown.jwt_jwks)), (1, 2));
    let made = server.agents(&agent).issue_jwt(asking("", &["db"])).await.unwrap().into_inner();
    claims(&made.token, &before.jwt_jwks);
    server.clock.advance(Duration::from_secs(600));
    server.authority.maintain().await;
    let made = server.agents(&agent).issue_jwt(asking("", &["db"])).await.unwrap().into_inner();
    claims(&made.token, &shown.jwt_jwks);
    assert!(std::panic::catch_unwind(|| claims(&made.token, &before.jwt_jwks)).is_err(), "the new key signs");
    server.stop().await;
}
