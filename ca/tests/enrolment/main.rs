//! Enrolment and renewal over real gRPC and TLS, and every way in which they are refused.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod agents;
mod cacerts;
mod crowds;
mod custody;
mod grants;
mod harness;
mod headers;
mod issuer;
mod kubernetes;
mod machines;
mod node_agents;
mod revocation;
mod rotation;

use std::sync::Arc;
use std::time::Duration;

use harness::{Server, WEB, csr, domain, identity, web};
use palisade_identity::{Clock, SpiffeId, TrustBundles, UnixTime};
use palisade_wire::istio_ca::IstioCertificateRequest;
use prost_types::{Struct, Value, value::Kind};
use rcgen::KeyPair;
use tonic::Code;

/// Trap 16: leaf first, one certificate an element, all roots in the last.
#[tokio::test]
async fn trap_16_a_token_enrols_and_the_certificate_renews() {
    let server = Server::start().await;
    let token = server.token(&web()).await;
    let key = KeyPair::generate().unwrap();
    let answer = server.pinned(&token).ask(&csr(&key, &[WEB]), 0, Some(&token)).await.unwrap();
    assert_eq!(answer.cert_chain.len(), 3, "leaf, intermediate, roots");
    let first = identity(&answer, &key);
    assert_eq!(first.svid.id(), &web());
    first.svid.usable(&first.bundles, UnixTime::now()).unwrap();
    let bundle = first.bundles.get("cluster.local").unwrap();
    assert_eq!(bundle.authorities(), server.authority.bundle().authorities());

    let next = KeyPair::generate().unwrap();
    let answer = server.connect(Some(&first)).ask(&csr(&next, &[]), 7_200, None).await.unwrap();
    let second = identity(&answer, &next);
    assert_eq!(second.svid.id(), &web());
    second.svid.usable(&second.bundles, UnixTime::now()).unwrap();
    assert_ne!(first.svid.serial(), second.svid.serial());

    let rows = server.issued(&web(), 10).await;
    let facts: Vec<_> = rows.iter().map(|row| (row.serial.as_str(), row.attestor.as_str(), row.reason())).collect();
    let renewed = (second.svid.serial(), "certificate", "renewal");
    assert_eq!(facts, [renewed, (first.svid.serial(), "join-token", "enrolment")]);
    assert!(rows[0].caller.starts_with("127.0.0.1:") && rows[0].requested_ttl == 7_200);
    assert_eq!(rows[0].not_after - rows[0].issued_at, 7_200);
    assert!(server.metric("palisade_ca_issued_total{attestor=\"join-token\"} 1"));
    assert!(server.metric("palisade_ca_issued_total{attestor=\"certificate\"} 1"));
    let expires = server.authority.server_identity().svid.not_after().as_secs();
    assert!(server.metric(&format!("palisade_cert_not_after_seconds{{kind=\"server\"}} {expires}")));
    server.stop().await;
}

#[tokio::test]
async fn tokens_that_are_not_ours_are_refused_in_the_same_words() {
    let server = Server::start().await;
    let token = server.token(&web()).await;
    let key = KeyPair::generate().unwrap();
    let mut agent = server.pinned(&token);
    let wrong_secret = {
        let (start, root) = token.rsplit_once('.').unwrap();
        let last = if start.ends_with('A') { 'E' } else { 'A' };
        format!("{}{last}.{root}", &start[..start.len() - 1])
    };
    for bad in ["pjt1.x.y", "eyJhbGciOi.a.b", "", &wrong_secret, &format!("{token}0")] {
        let status = agent.ask(&csr(&key, &[WEB]), 0, Some(bad)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "attestation failed"), "{bad}");
    }
    let status = agent.ask(&csr(&key, &[WEB]), 0, None).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "attestation failed"));
    assert!(server.metric("palisade_ca_refused_total{reason=\"no-evidence\"} 1"));
    agent.ask(&csr(&key, &[WEB]), 0, Some(&token)).await.expect("failed guesses cost the token nothing");
    server.stop().await;
}

#[tokio::test]
async fn a_token_works_once_and_again_only_for_the_same_key() {
    let server = Server::start().await;
    let token = server.token(&web()).await;
    let (mine, yours) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut agent = server.pinned(&token);
    agent.ask(&csr(&mine, &[WEB]), 0, Some(&token)).await.unwrap();
    agent.ask(&csr(&mine, &[]), 0, Some(&token)).await.expect("the first answer may have been lost");
    let status = agent.ask(&csr(&yours, &[WEB]), 0, Some(&token)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "attestation failed"));
    assert!(server.metric("palisade_ca_refused_total{reason=\"token-used\"} 1"));
    assert_eq!(server.issued(&web(), 10).await.len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn of_many_keys_at_once_one_gets_the_token() {
    let server = Server::start().await;
    let token = server.token(&web()).await;
    let agent = server.pinned(&token);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (mut agent, token) = (agent.clone(), token.clone());
        let csr = csr(&KeyPair::generate().unwrap(), &[WEB]);
        tasks.spawn(async move { agent.ask(&csr, 0, Some(&token)).await.is_ok() });
    }
    let served = tasks.join_all().await.into_iter().filter(|served| *served).count();
    assert_eq!(served, 1);
    assert_eq!(server.issued(&web(), 99).await.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let server = Server::start().await;
    let token = server.token(&web()).await;
    let key = KeyPair::generate().unwrap();
    let mut agent = server.pinned(&token);
    server.clock.advance(Duration::from_secs(601));
    let status = agent.ask(&csr(&key, &[WEB]), 0, Some(&token)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(server.metric("palisade_ca_refused_total{reason=\"token-expired\"} 1"));
    server.stop().await;
}

#[tokio::test]
async fn a_bad_request_is_refused_with_its_reason_and_costs_nothing() {
    let server = Server::start().await;
    let token = server.token(&web()).await;
    let key = KeyPair::generate().unwrap();
    let good = csr(&key, &[WEB]);
    let cases = [
        (csr(&key, &["spiffe://cluster.local/ns/shop/sa/bank"]), "another ID", "csr-other-id"),
        (csr(&key, &[WEB, "spiffe://cluster.local/ns/shop/sa/bank"]), "2 URIs", "csr-several-uris"),
        (include_str!("../../src/csr/testdata/rsa1024.pem").to_owned(), "not 1024", "csr-rsa-size"),
        ("garbage".to_owned(), "one PEM block", "csr-not-one-block"),
        (format!("{good}{good}"), "one PEM block", "csr-not-one-block"),
    ];
    let mut agent = server.pinned(&token);
    for (csr, text, reason) in &cases {
        let status = agent.ask(csr, 0, Some(&token)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{reason}");
        assert!(status.message().contains(text), "{}", status.message());
    }
    assert!(server.metric("palisade_ca_refused_total{reason=\"csr-not-one-block\"} 2"));
    assert!(server.metric("palisade_ca_refused_total{reason=\"csr-other-id\"} 1"));
    let answer = agent.ask(&good, 0, Some(&token)).await.expect("the token is still good");
    // Subject and names are ours, whatever was asked for.
    assert_eq!(identity(&answer, &key).svid.id(), &web());
    assert_eq!(server.issued(&web(), 9).await.len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn a_foreign_certificate_gets_nothing() {
    let (server, other) = (Server::start().await, Server::start().await);
    let foreign = other.enrol(&web()).await;
    let key = KeyPair::generate().unwrap();
    assert!(server.connect(Some(&foreign)).ask(&csr(&key, &[WEB]), 0, None).await.is_err());
    assert!(server.issued(&web(), 9).await.is_empty());
    // And an agent that pinned the other root does not talk to us.
    let token = other.token(&web()).await;
    let status = server.pinned(&token).ask(&csr(&key, &[WEB]), 0, Some(&token)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    server.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn the_certificate_comes_before_the_token() {
    let server = Server::start().await;
    let bank = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/bank").unwrap();
    let (current, token) = (server.enrol(&web()).await, server.token(&bank).await);
    let key = KeyPair::generate().unwrap();
    let answer = server.connect(Some(&current)).ask(&csr(&key, &[]), 0, Some(&token)).await.unwrap();
    assert_eq!(identity(&answer, &key).svid.id(), &web());
    let key = KeyPair::generate().unwrap();
    let answer = server.pinned(&token).ask(&csr(&key, &[]), 0, Some(&token)).await.expect("it was not used");
    assert_eq!(identity(&answer, &key).svid.id(), &bank);
    server.stop().await;
}

/// Trap 39: a lifetime over the cap is an error in a rollout; it is shortened and reported.
#[tokio::test]
async fn trap_39_a_lifetime_over_the_maximum_is_shortened_and_reported() {
    let server = Server::start().await;
    let current = server.enrol(&web()).await;
    let mut agent = server.connect(Some(&current));
    for (asked, given) in [(i64::MAX, 86_400), (86_400, 86_400), (-1, 3_600), (30, 30)] {
        let key = KeyPair::generate().unwrap();
        let answer = agent.ask(&csr(&key, &[]), asked, None).await.unwrap();
        let row = server.issued(&web(), 1).await.remove(0);
        assert_eq!(row.not_after - row.issued_at, given, "{asked}");
        assert_eq!((row.requested_ttl, row.shortened), (asked, asked > 86_400));
        let not_after = identity(&answer, &key).svid.not_after().as_secs();
        assert_eq!(i64::try_from(not_after).unwrap(), row.not_after);
    }
    assert!(server.metric("palisade_ca_shortened_total 1"));
    server.stop().await;
}

/// Trap 38: near the end of its authority a leaf is short, and somebody is told.
#[tokio::test]
async fn trap_38_a_leaf_ends_with_its_authority_and_what_was_cut_is_reported() {
    let server = Server::start_with(|config| config.root_ttl = Duration::from_secs(3_600)).await;
    let end = i64::try_from(server.authority.status().await.unwrap().authorities[0].not_after).unwrap();
    server.clock.advance(Duration::from_secs(3_000));
    let token = server.token(&web()).await;
    let key = KeyPair::generate().unwrap();
    let answer = server.pinned(&token).ask(&csr(&key, &[]), 3_600, Some(&token)).await.unwrap();
    let row = server.issued(&web(), 1).await.remove(0);
    assert_eq!((row.not_after, row.requested_ttl, row.shortened), (end, 3_600, true));
    let leaf = identity(&answer, &key).svid;
    assert_eq!(i64::try_from(leaf.not_after().as_secs()).unwrap(), end);
    assert!(server.metric("palisade_ca_shortened_total 1"));
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name() {
    let server = Server::start().await;
    let current = server.enrol(&web()).await;
    let mut agent = server.connect(Some(&current));
    let key = KeyPair::generate().unwrap();
    let message = |name: &str, text: &str| {
        let value = Value { kind: Some(Kind::StringValue(text.into())) };
        let metadata = Some(Struct { fields: [(name.to_owned(), value)].into() });
        IstioCertificateRequest { csr: csr(&key, &[]), validity_duration: 0, metadata }
    };
    let status = agent.send(message("CertSigner", "cluster.io/signer"), None).await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && status.message().contains("CertSigner"));
    let other = "spiffe://cluster.local/ns/shop/sa/bank";
    let status = agent.send(message("ImpersonatedIdentity", other), None).await.unwrap_err();
    assert!(status.code() == Code::PermissionDenied && status.message().contains("ImpersonatedIdentity"));
    // Istio's agent always sends CertSigner, empty; asking for oneself is no impersonation.
    agent.send(message("CertSigner", ""), None).await.unwrap();
    agent.send(message("ImpersonatedIdentity", WEB), None).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn tokens_are_made_for_our_workloads_only() {
    let server = Server::start().await;
    let make = |id: &str, seconds| {
        let (authority, id) = (Arc::clone(&server.authority), SpiffeId::parse(id).unwrap());
        async move { authority.create_join_token(&id, Duration::from_secs(seconds)).await }
    };
    for reserved in ["spiffe://cluster.local", "spiffe://cluster.local/ns/palisade-system/sa/palisade"] {
        assert!(make(reserved, 60).await.unwrap_err().to_string().contains("reserved"));
    }
    assert!(make("spiffe://other.test/ns/a/sa/b", 60).await.unwrap_err().to_string().contains("other.test"));
    assert!(make(WEB, 8 * 86_400).await.unwrap_err().to_string().contains("at most"));
    let token = make(WEB, 60).await.unwrap();
    assert!(token.expires.as_secs().abs_diff(server.clock.now().as_secs()) <= 61);
    server.stop().await;
}

/// Many renewals at once share flushes, and each has its row.
#[tokio::test]
async fn a_crowd_is_served() {
    let server = Server::start().await;
    let current = server.enrol(&web()).await;
    let agent = server.connect(Some(&current));
    let request = csr(&KeyPair::generate().unwrap(), &[WEB]);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (mut agent, request) = (agent.clone(), request.clone());
        tasks.spawn(async move { agent.ask(&request, 0, None).await.map(|answer| answer.cert_chain) });
    }
    let answers = tasks.join_all().await;
    let bundles = TrustBundles::from_iter([(*server.authority.bundle()).clone()]);
    for answer in &answers {
        let chain: Vec<_> = answer.as_ref().unwrap()[..2].iter().flat_map(|pem| harness::certificates(pem)).collect();
        palisade_identity::verify_peer(&chain, &bundles, UnixTime::now()).unwrap();
    }
    assert_eq!(server.issued(&web(), 1_000).await.len(), 201);
    assert_eq!(server.authority.bundle().trust_domain(), &domain());
    server.stop().await;
}
