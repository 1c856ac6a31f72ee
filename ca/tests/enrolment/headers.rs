//! The `authorization` header: the first one counts, whatever stands behind it, and no answer repeats it.

use palisade_identity::SpiffeId;
use palisade_wire::istio_ca::IstioCertificateRequest;
use rcgen::KeyPair;
use tonic::{Code, Request};

use crate::harness::{Agent, Server, WEB, csr, identity, web};

async fn ask(agent: &mut Agent, headers: &[&str]) -> Result<(), tonic::Status> {
    let key = KeyPair::generate().unwrap();
    let message = IstioCertificateRequest { csr: csr(&key, &[WEB]), ..IstioCertificateRequest::default() };
    let mut request = Request::new(message);
    for header in headers {
        request.metadata_mut().append("authorization", header.parse().unwrap());
    }
    let answer = agent.send_whole(request).await?;
    assert_eq!(identity(&answer, &key).svid.id(), &web());
    Ok(())
}

#[tokio::test]
async fn of_two_authorization_headers_the_first_must_be_valid() {
    let server = Server::start().await;
    let (token, second) = (server.token(&web()).await, server.token(&web()).await);
    let (good, also_good) = (format!("Bearer {token}"), format!("bearer  {second}"));
    let mut agent = server.pinned(&token);
    for first in ["Bearer wrong", "Bearer ", "Basic dXNlcjpwYXNz", "Bearer pjt1.x.y", "", "Bearer"] {
        let status = ask(&mut agent, &[first, &good]).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "attestation failed"), "{first}");
    }
    ask(&mut agent, &[&good, "Bearer wrong"]).await.expect("the first is valid");
    ask(&mut agent, &[&also_good]).await.expect("the scheme's case and spaces do not count");
    server.stop().await;
}

/// Trap 42: Envoy's word for who called is anybody's on a port of this machine.
#[tokio::test]
async fn trap_42_a_header_about_a_certificate_proves_nothing() {
    let server = Server::start().await;
    let bank = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/bank").unwrap();
    let current = server.enrol(&bank).await;
    let key = KeyPair::generate().unwrap();
    let forged = || {
        let message = IstioCertificateRequest { csr: csr(&key, &[]), ..IstioCertificateRequest::default() };
        let mut request = Request::new(message);
        let header = format!("By=spiffe://cluster.local/ns/istio-system/sa/istiod;Hash={};URI={WEB}", "0".repeat(64));
        request.metadata_mut().insert("x-forwarded-client-cert", header.parse().unwrap());
        request
    };
    let status = server.connect(None).send_whole(forged()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "attestation failed"));
    assert!(server.metric("palisade_ca_refused_total{reason=\"no-evidence\"} 1"));
    let answer = server.connect(Some(&current)).send_whole(forged()).await.unwrap();
    assert_eq!(identity(&answer, &key).svid.id(), &bank, "who the handshake says it is");
    server.stop().await;
}

/// Trap 43: the caller learns what to change about its request, nobody learns the token.
#[tokio::test]
async fn trap_43_no_answer_holds_the_token() {
    let server = Server::start().await;
    let token = server.token(&web()).await;
    let mut agent = server.pinned(&token);
    let secret = token.split('.').nth(1).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut answers = Vec::new();
    for csr in ["garbage", &csr(&key, &["spiffe://cluster.local/ns/shop/sa/bank"]), &csr(&key, &[WEB])] {
        answers.push(agent.ask(csr, 0, Some(&token)).await.map(|_| ()));
    }
    let other = csr(&KeyPair::generate().unwrap(), &[WEB]);
    answers.push(agent.ask(&other, 0, Some(&token)).await.map(|_| ()));
    answers.push(agent.ask(&other, 0, Some(&format!("{token}x"))).await.map(|_| ()));
    let codes: Vec<_> = answers.iter().map(|answer| answer.as_ref().map_err(tonic::Status::code).err()).collect();
    let (bad, denied) = (Some(Code::InvalidArgument), Some(Code::Unauthenticated));
    assert_eq!(codes, [bad, bad, None, denied, denied]);
    assert!(!format!("{answers:?}").contains(secret));
    server.stop().await;
}
