//! No log, at any level and of any library below, holds a token or a key. A process of its own: the
//! subscriber is the process's.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

#[expect(dead_code, reason = "the other tests use the rest of it")]
#[path = "enrolment/harness.rs"]
mod harness;

#[expect(dead_code, reason = "the other tests use the rest of it")]
#[path = "enrolment/issuer.rs"]
mod issuer;

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use palisade_ca::attest::kubernetes::{KeySource, KubernetesTokens, OfflineConfig, OfflineTokens};
use palisade_identity::UnixTime;
use rcgen::KeyPair;
use tracing_subscriber::fmt::MakeWriter;

use harness::{Server, WEB, csr, domain, web};
use issuer::{ISSUER, Issuer, claims};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// A server that believes this issuer, too.
async fn start(issuer: &Issuer) -> Server {
    let keys = tempfile::NamedTempFile::new().unwrap();
    fs::write(keys.path(), issuer::jwks(&[issuer])).unwrap();
    let config = OfflineConfig {
        issuer: ISSUER.into(),
        audiences: vec!["istio-ca".into()],
        keys: KeySource::File(keys.path().into()),
    };
    let projected = KubernetesTokens::new(domain(), OfflineTokens::start(config).await);
    Server::start_service(|service| service.with_attestor(Box::new(projected))).await
}

#[tokio::test]
async fn logs_hold_no_token_and_no_key() {
    let captured = Captured::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(captured.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let issuer = Issuer::rsa("r");
    let server = start(&issuer).await;
    let token = server.token(&web()).await;
    let key = KeyPair::generate().unwrap();
    let mut agent = server.pinned(&token);
    agent.ask("garbage", 0, Some(&token)).await.unwrap_err();
    agent.ask(&csr(&key, &[WEB]), 0, Some(&token)).await.unwrap();
    agent.ask(&csr(&KeyPair::generate().unwrap(), &[WEB]), 0, Some(&token)).await.unwrap_err();
    let now = UnixTime::now().as_secs();
    let (projected, lapsed) = (issuer.token(&claims("shop", "web", now)), issuer.token(&claims("shop", "web", 0)));
    agent.ask(&csr(&key, &[WEB]), 0, Some(&projected)).await.unwrap();
    agent.ask(&csr(&key, &[WEB]), 0, Some(&lapsed)).await.unwrap_err();
    server.authority.maintain().await;
    server.authority.prepare(false, None).await.unwrap();
    let files = fs::read_dir(server.dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let keys = files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("key-"));
    let files: Vec<_> = keys.map(|path| fs::read_to_string(path).unwrap()).collect();
    assert_eq!(files.len(), 4, "two roots and two intermediates");
    server.stop().await;

    let log = String::from_utf8_lossy(&captured.0.lock().unwrap()).into_owned();
    for expected in ["certificate issued", "certificate refused", "token-used", "join token created", "token-expired"] {
        assert!(log.contains(expected), "the capture works: {expected}");
    }
    let mut secrets: Vec<String> = vec![token.split('.').nth(1).unwrap().to_owned()];
    secrets.extend([&projected, &lapsed].iter().flat_map(|token| token.split('.').skip(1)).map(str::to_owned));
    for file in files {
        let (key, _) = file.split_once("-----END PRIVATE KEY-----").unwrap();
        secrets.extend(key.lines().skip(1).map(str::to_owned));
    }
    assert!(secrets.len() > 4);
    for secret in secrets {
        let place = log.find(&secret).map(|at| log[at.saturating_sub(300)..at].to_owned());
        assert_eq!(place, None, "a secret is in the log");
    }
}
