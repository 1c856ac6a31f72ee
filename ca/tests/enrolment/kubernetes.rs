//! Projected tokens, verified without a cluster: over real TLS, with keys from files and from a real HTTP server.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use palisade_ca::attest::kubernetes::{KeySource, KubernetesTokens, OfflineConfig, OfflineTokens};
use palisade_identity::UnixTime;
use rcgen::KeyPair;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tonic::{Code, Request};

use crate::harness::{Server, WEB, csr, domain, identity, web};
use crate::issuer::{ISSUER, Issuer, claims, encode, jwks};

pub(crate) async fn reviewer(keys: KeySource) -> KubernetesTokens<OfflineTokens> {
    let audiences = vec!["istio-ca".to_owned()];
    let offline = OfflineTokens::start(OfflineConfig { issuer: ISSUER.into(), audiences, keys }).await;
    KubernetesTokens::new(domain(), offline)
}

pub(crate) async fn start(keys: KeySource) -> Server {
    let tokens = reviewer(keys).await;
    Server::start_service(|service| service.with_attestor(Box::new(tokens))).await
}

pub(crate) fn now() -> u64 {
    UnixTime::now().as_secs()
}

async fn outcome(server: &Server, token: &str) -> Result<(), Code> {
    let key = KeyPair::generate().unwrap();
    let answer = server.connect(None).ask(&csr(&key, &[WEB]), 0, Some(token)).await;
    let answer = answer.map_err(|status| {
        assert!(!format!("{status:?}").contains(token), "the token is in the answer");
        status.code()
    })?;
    assert_eq!(identity(&answer, &key).svid.id(), &web());
    Ok(())
}

#[tokio::test]
async fn a_projected_token_enrols_with_every_algorithm_of_clusters() {
    let dir = tempfile::tempdir().unwrap();
    let issuers = [Issuer::rsa("r"), Issuer::ec("a", "ES256"), Issuer::ec("b", "ES384"), Issuer::ec("c", "ES512")];
    let path = dir.path().join("jwks.json");
    fs::write(&path, jwks(&issuers.each_ref())).unwrap();
    let server = start(KeySource::File(path)).await;
    for issuer in &issuers {
        outcome(&server, &issuer.token(&claims("shop", "web", now()))).await.unwrap();
    }
    let rows = server.issued(&web(), 9).await;
    assert!(rows.len() == 4 && rows.iter().all(|row| row.attestor == "kubernetes"));
    server.stop().await;
}

/// An agent sends both: what it is now counts, and the token may have ended long ago.
#[tokio::test]
async fn a_current_certificate_renews_beside_a_token_that_has_lapsed() {
    let dir = tempfile::tempdir().unwrap();
    let (issuer, path) = (Issuer::rsa("r"), dir.path().join("jwks.json"));
    fs::write(&path, jwks(&[&issuer])).unwrap();
    let server = start(KeySource::File(path)).await;
    let key = KeyPair::generate().unwrap();
    let token = issuer.token(&claims("shop", "web", now()));
    let answer = server.connect(None).ask(&csr(&key, &[WEB]), 0, Some(&token)).await.unwrap();
    let lapsed = issuer.token(&claims("shop", "web", now() - 7_200));
    assert_eq!(outcome(&server, &lapsed).await, Err(Code::Unauthenticated));
    let current = identity(&answer, &key);
    server.connect(Some(&current)).ask(&csr(&key, &[WEB]), 0, Some(&lapsed)).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn the_cluster_header_is_taken_and_decides_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (issuer, path) = (Issuer::rsa("r"), dir.path().join("jwks.json"));
    fs::write(&path, jwks(&[&issuer])).unwrap();
    let server = start(KeySource::File(path)).await;
    let token = issuer.token(&claims("shop", "web", now()));
    for cluster in ["", "Kubernetes", "another"] {
        let message = palisade_wire::istio_ca::IstioCertificateRequest {
            csr: csr(&KeyPair::generate().unwrap(), &[WEB]),
            ..Default::default()
        };
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request.metadata_mut().insert("clusterid", cluster.parse().unwrap());
        server.connect(None).send_whole(request).await.unwrap();
    }
    server.stop().await;
}

type Cases = Vec<(String, &'static str)>;

fn bad_signatures(issuer: &Issuer, other: &Issuer, good: &serde_json::Value) -> Cases {
    let signature = |token: String| token.rsplit_once('.').unwrap().1.to_owned();
    let token = issuer.token(good);
    let swapped = format!("{}.{}", token.rsplit_once('.').unwrap().0, signature(issuer.token(&json!({}))));
    let unsigned = format!("{}.{}.", encode(b"{\"alg\":\"none\",\"kid\":\"r\"}"), encode(good.to_string().as_bytes()));
    let with = |header: serde_json::Value| issuer.sign(&header, good);
    vec![
        (other.token(good), "token-signature"),
        (swapped, "token-signature"),
        (unsigned, "token-algorithm"),
        (with(json!({"alg": "HS256", "kid": "r"})), "token-algorithm"),
        (with(json!({"alg": "RS512", "kid": "r"})), "token-algorithm"),
        (with(json!({"alg": "ES256", "kid": "r"})), "token-signature"),
        (with(json!({"alg": "RS256", "kid": "e"})), "token-signature"),
        (with(json!({"alg": "RS256"})), "token-without-key"),
        (with(json!({"alg": "RS256", "kid": "new"})), "token-key-unknown"),
        (with(json!({"alg": "RS256", "kid": "r", "crit": ["b64"]})), "token-malformed"),
        ("ey.ey.ey".to_owned(), "token-malformed"),
    ]
}

fn bad_claims(issuer: &Issuer, good: &serde_json::Value) -> Cases {
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().insert(name.to_owned(), value);
        issuer.token(&claims)
    };
    vec![
        (with("aud", json!(["istio"])), "token-audience"),
        (with("iss", json!("https://elsewhere")), "token-issuer"),
        (with("exp", json!(now() - 60)), "token-expired"),
        (with("nbf", json!(now() + 60)), "token-not-yet-valid"),
        (with("sub", json!("system:serviceaccount:shop:web:x")), "token-subject"),
    ]
}

#[tokio::test]
async fn trap_44_tokens_that_prove_nothing_are_refused_for_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (issuer, other, path) = (Issuer::rsa("r"), Issuer::rsa("r"), dir.path().join("jwks.json"));
    fs::write(&path, jwks(&[&issuer, &Issuer::ec("e", "ES256")])).unwrap();
    let server = start(KeySource::File(path)).await;
    let good = claims("shop", "web", now());
    let token = issuer.token(&good);
    let mut cases = bad_signatures(&issuer, &other, &good);
    cases.extend(bad_claims(&issuer, &good));
    for (token, reason) in cases {
        assert_eq!(outcome(&server, &token).await, Err(Code::Unauthenticated), "{reason}");
        assert!(server.counted(&format!("palisade_ca_refused_total{{reason=\"{reason}\"}}")), "{reason}");
    }
    // The header list is bounded before anybody looks at the token.
    assert!(outcome(&server, &format!("ey{}.a.b", "x".repeat(20_000))).await.is_err());
    outcome(&server, &token).await.expect("the good one passes");
    server.stop().await;
}

/// Trap 31, trap 32: the file is a symlink into a directory that is swapped, and it is looked at by its path each time.
#[tokio::test]
async fn trap_31_32_a_swapped_file_is_read_and_a_broken_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let publish = |name: &str, text: &str| {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("jwks.json"), text).unwrap();
        let next = dir.path().join("..next");
        symlink(name, &next).unwrap();
        fs::rename(&next, dir.path().join("..data")).unwrap();
    };
    let (old, new) = (Issuer::rsa("old"), Issuer::rsa("new"));
    publish("1", &jwks(&[&old]));
    symlink(Path::new("..data").join("jwks.json"), dir.path().join("jwks.json")).unwrap();
    let server = start(KeySource::File(dir.path().join("jwks.json"))).await;
    let (first, second) = (old.token(&claims("shop", "web", now())), new.token(&claims("shop", "web", now())));
    outcome(&server, &first).await.unwrap();
    publish("2", &jwks(&[&old, &new]));
    eventually(&server, &second, Ok(())).await;
    publish("3", "{ not a key set");
    outcome(&server, &first).await.expect("the last good keys stay");
    publish("4", &jwks(&[&new]));
    eventually(&server, &first, Err(Code::Unauthenticated)).await;
    outcome(&server, &second).await.unwrap();
    // Trap 45: no key is a statement, too.
    publish("5", r#"{"keys":[]}"#);
    eventually(&server, &second, Err(Code::Unauthenticated)).await;
    server.stop().await;
}

/// Asks until the outcome is this one. Each question is one over the network: no pause is needed in between.
async fn eventually(server: &Server, token: &str, expected: Result<(), Code>) {
    let asking = async { while outcome(server, token).await != expected {} };
    tokio::time::timeout(Duration::from_secs(30), asking).await.expect("in time");
}

#[tokio::test]
async fn trap_43_without_keys_callers_are_told_to_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (issuer, path) = (Issuer::rsa("r"), dir.path().join("jwks.json"));
    let server = start(KeySource::File(path.clone())).await;
    let token = issuer.token(&claims("shop", "web", now()));
    assert_eq!(outcome(&server, &token).await, Err(Code::Unavailable));
    assert!(server.counted("palisade_ca_refused_total{reason=\"keys-unavailable\"}"));
    fs::write(&path, jwks(&[&issuer])).unwrap();
    eventually(&server, &token, Ok(())).await;
    server.stop().await;
}

/// Answers each connection with what is there at the moment; counts.
struct KeyServer {
    url: String,
    answer: tokio::sync::watch::Sender<String>,
    asked: Arc<AtomicUsize>,
}

impl KeyServer {
    async fn start(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/openid/v1/jwks", listener.local_addr().unwrap());
        let (answer, asked) = (tokio::sync::watch::Sender::new(answer), Arc::new(AtomicUsize::new(0)));
        let (answers, counter) = (answer.subscribe(), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                let text = answers.borrow().clone();
                let mut head = [0; 1_024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        Self { url, answer, asked }
    }
}

fn http(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn keys_come_over_http_once_and_are_kept() {
    let issuer = Issuer::rsa("r");
    let keys = KeyServer::start(http(&jwks(&[&issuer]))).await;
    let server = start(KeySource::Url(keys.url.clone())).await;
    let token = issuer.token(&claims("shop", "web", now()));
    eventually(&server, &token, Ok(())).await;
    let stranger = issuer.sign(&json!({"alg": "RS256", "kid": "stranger"}), &json!({}));
    for _ in 0..20 {
        assert_eq!(outcome(&server, &stranger).await, Err(Code::Unauthenticated));
    }
    assert_eq!(keys.asked.load(Ordering::Relaxed), 1, "unknown keys do not fetch at will");
    keys.answer.send_replace(String::new());
    outcome(&server, &token).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn answers_without_end_or_use_are_no_keys() {
    let issuer = Issuer::rsa("r");
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(2 << 20));
    for answer in [endless, "HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n".into(), http("{}"), http("<html>")] {
        let keys = KeyServer::start(answer).await;
        let server = start(KeySource::Url(keys.url.clone())).await;
        let token = issuer.token(&claims("shop", "web", now()));
        assert_eq!(outcome(&server, &token).await, Err(Code::Unavailable));
        server.stop().await;
    }
}
