//! One caller that asks without end, and everybody else.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_ca::{Admission, AdmissionLimits, AgentsService, CaService, NoEntries};
use palisade_identity::{SpiffeId, VerifiedPeer, verify_peer};
use palisade_wire::Caller;
use palisade_wire::agents::agents_server::Agents as _;
use palisade_wire::agents::{IssueX509Request, X509Order};
use palisade_wire::istio_ca::IstioCertificateRequest;
use palisade_wire::istio_ca::istio_certificate_service_server::IstioCertificateService;
use rcgen::KeyPair;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use crate::harness::{Server, WEB, csr, domain, web};

const LIMITS: AdmissionLimits = AdmissionLimits { rate: 100, burst: 200, waiting: 1_000 };

/// A server, and its service for whoever would need too many sockets.
async fn start() -> (Server, CaService) {
    let shared = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&shared);
    let server = Server::start_service(move |service| {
        let service = service.with_admission(Admission::new(LIMITS));
        *slot.lock().unwrap() = Some(service.clone());
        service
    })
    .await;
    let service = shared.lock().unwrap().take().unwrap();
    (server, service)
}

fn request(csr: &str, peer: &Arc<VerifiedPeer>) -> Request<IstioCertificateRequest> {
    let mut request = Request::new(IstioCertificateRequest { csr: csr.into(), ..Default::default() });
    request.extensions_mut().insert(Caller { peer: Some(Arc::clone(peer)), ..Caller::default() });
    request
}

fn pause(status: &Status) -> Duration {
    let text = status.metadata().get("retry-after-ms").unwrap().to_str().unwrap();
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), text);
    Duration::from_millis(text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_requests_of_one_caller_leave_the_others_served() {
    let (server, service) = start().await;
    let bank = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/bank").unwrap();
    let (greedy, modest) = (server.enrol(&web()).await, server.enrol(&bank).await);
    let now = palisade_identity::UnixTime::now();
    let peer = Arc::new(verify_peer(greedy.svid.chain(), &greedy.bundles, now).unwrap());
    let csr_of_greedy = csr(&KeyPair::generate().unwrap(), &[WEB]);
    let mut flood = JoinSet::new();
    for _ in 0..8 {
        let (service, csr, peer) = (service.clone(), csr_of_greedy.clone(), Arc::clone(&peer));
        flood.spawn(async move {
            let mut refused = 0;
            for _ in 0..12_500 {
                if let Err(status) = service.create_certificate(request(&csr, &peer)).await {
                    assert_eq!(status.code(), Code::ResourceExhausted);
                    assert!(pause(&status) <= Duration::from_secs(1));
                    refused += 1;
                }
                tokio::task::yield_now().await;
            }
            refused
        });
    }
    let mut agent = server.connect(Some(&modest));
    for _ in 0..50 {
        let key = KeyPair::generate().unwrap();
        agent.ask(&csr(&key, &[]), 0, None).await.expect("somebody else is served");
    }
    let refused: usize = flood.join_all().await.into_iter().sum();
    assert!(refused > 90_000, "{refused}");
    let issued = server.issued(&web(), 200_000).await.len();
    assert_eq!(issued - 1, 100_000 - refused, "what was not refused was served and recorded");
    assert!(server.counted("palisade_ca_refused_total{reason=\"rate-limited\"}"));
    server.stop().await;
}

#[tokio::test]
async fn who_comes_back_when_told_is_served() {
    let (server, _) = start().await;
    let current = server.enrol(&web()).await;
    let (mut agent, csr) = (server.connect(Some(&current)), csr(&KeyPair::generate().unwrap(), &[]));
    let mut served = 0;
    let status = loop {
        match agent.ask(&csr, 0, None).await {
            Ok(_) => served += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(served >= 200 && status.message().contains("try again in"), "{served}: {}", status.message());
    // The pause is what is tested.
    tokio::time::sleep(pause(&status)).await;
    agent.ask(&csr, 0, None).await.unwrap();
    server.stop().await;
}

/// Guessing costs its address the right to guess, not those their certificates who have one.
#[tokio::test]
async fn guessing_is_ended_and_renewing_goes_on() {
    let (server, _) = start().await;
    let current = server.enrol(&web()).await;
    let csr = csr(&KeyPair::generate().unwrap(), &[]);
    let mut guesser = server.connect(None);
    let status = loop {
        let status = guesser.ask(&csr, 0, Some("pjt1.guess.guess")).await.unwrap_err();
        if status.code() != Code::Unauthenticated {
            break status;
        }
    };
    assert_eq!((status.code(), pause(&status) <= Duration::from_secs(1)), (Code::ResourceExhausted, true));
    assert!(server.counted("palisade_ca_refused_total{reason=\"too-many-failures\"}"));
    server.connect(Some(&current)).ask(&csr, 0, None).await.unwrap();
    assert_eq!(server.authority.bundle().trust_domain(), &domain());
    server.stop().await;
}

/// A call that asks for the certificates of many workloads costs what they cost, and is served as a whole.
#[tokio::test]
async fn an_agent_pays_for_every_certificate_of_a_call() {
    let (server, _) = start().await;
    let agent = server.enrol(&web()).await;
    let now = palisade_identity::UnixTime::now();
    let peer = Arc::new(verify_peer(agent.svid.chain(), &agent.bundles, now).unwrap());
    let (authority, closing) = (Arc::clone(&server.authority), CancellationToken::new());
    let limits = AdmissionLimits { rate: 1, ..LIMITS };
    let service = AgentsService::new(authority, Arc::new(NoEntries), closing).with_admission(Admission::new(limits));
    let ask = async |orders: usize| {
        let mut request = Request::new(IssueX509Request { orders: vec![X509Order::default(); orders] });
        request.extensions_mut().insert(Caller { peer: Some(Arc::clone(&peer)), ..Caller::default() });
        service.issue_x509(request).await.map(|answer| answer.into_inner().answers.len())
    };
    assert_eq!(ask(199).await.unwrap(), 199);
    assert_eq!(ask(500).await.unwrap(), 500, "more than a bucket holds is served, and owed");
    let later = ask(1).await.unwrap_err();
    assert_eq!(later.code(), Code::ResourceExhausted);
    assert!((200..=500).contains(&pause(&later).as_secs()), "{later:?}");
    server.stop().await;
}
