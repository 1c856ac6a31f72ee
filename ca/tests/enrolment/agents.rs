//! What agents are told, and what they may ask for.

use std::time::Duration;

use palisade_identity::{CertificateDer, SpiffeId, TrustBundles, UnixTime, verify_peer};
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
async fn a_state_comes_at_once_and_with_every_change_and_only_then() {
    let server = Server::start().await;
    let agent = server.enrol(&web()).await;
    server.entries.set(vec![entry("a", CART)]);
    let mut follower = server.follow(&agent).await;
    let first = follower.last.clone();
    assert_eq!(first.entries, [entry("a", CART)]);
    assert_eq!(follower.bundle(), *server.authority.bundle());
    assert_eq!((first.version.len(), first.bundle.unwrap().sequence), (64, 1));
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
async fn an_agent_gets_certificates_for_its_entries_and_no_others() {
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
    let rows = server.authority.issuances(&SpiffeId::parse(CART).unwrap(), 9).await.unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        let facts = (row.caller.as_str(), row.attestor.as_str(), row.entry.as_str());
        assert_eq!(facts, ("spiffe://cluster.local/ns/shop/sa/web", "agent", "a"));
        assert_eq!(row.authority, server.authority.status().await.unwrap().authorities[0].id);
    }
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
    assert_eq!(jwt.code(), Code::Unimplemented);
    let mut anonymous = AgentsClient::new(server.anonymous());
    let refused = anonymous.issue_x509(IssueX509Request::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    // The connection is older than its certificate.
    server.clock.advance(Duration::from_secs(3_700));
    assert_eq!(client.issue_x509(IssueX509Request::default()).await.unwrap_err().code(), Code::Unauthenticated);
    server.stop().await;
}
