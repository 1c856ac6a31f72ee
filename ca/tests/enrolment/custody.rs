//! Keys, certificates and records across restarts, renewals and accidents.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use palisade_ca::CaService;
use palisade_identity::{Clock, TrustBundles, UnixTime, verify_peer};
use palisade_wire::istio_ca::IstioCertificateRequest;
use palisade_wire::istio_ca::istio_certificate_service_server::IstioCertificateService;
use rcgen::KeyPair;
use sqlx::SqlitePool;
use sqlx::sqlite::SqliteConnectOptions;
use tonic::Code;

use crate::harness::{Server, TestClock, WEB, certificates, csr, explain, open, request, web};

const DAY: u64 = 86_400;

#[tokio::test]
async fn a_restart_keeps_root_and_records() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
    let first = open(dir.path(), &clock).await.unwrap();
    let token = first.create_join_token(&web(), Duration::ZERO).await.unwrap();
    // The first stays open: nothing is closed or flushed, as after kill -9.
    let second = open(dir.path(), &clock).await.unwrap();
    assert_eq!(second.bundle().authorities(), first.bundle().authorities());
    let (mine, theirs) = (first.server_identity(), second.server_identity());
    assert_eq!(mine.svid.chain()[1..], theirs.svid.chain()[1..], "the intermediate is kept too");
    let message = IstioCertificateRequest { csr: csr(&KeyPair::generate().unwrap(), &[WEB]), ..Default::default() };
    let service = CaService::new(Arc::clone(&second));
    service.create_certificate(request(message, Some(&token.token))).await.unwrap();
    assert_eq!(first.issuances(&web(), 9).await.unwrap().len(), 1);
    for file in ["root.pem", "intermediate.pem", "ca.db", "format-version"] {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

/// Whatever the moment of death on first start, the next start works and keeps what was made.
#[tokio::test]
async fn every_half_made_directory_is_usable() {
    let clock = Arc::new(TestClock::default());
    let whole = tempfile::tempdir().unwrap();
    drop(open(whole.path(), &clock).await.unwrap());
    let root = fs::read(whole.path().join("root.pem")).unwrap();
    let steps = ["format-version", "root.pem", "intermediate.pem"];
    for reached in 0..=steps.len() {
        let dir = tempfile::tempdir().unwrap();
        for file in &steps[..reached] {
            fs::copy(whole.path().join(file), dir.path().join(file)).unwrap();
        }
        // No process has this number: it is above the kernel's highest.
        fs::write(dir.path().join(".tmp-4194305-0-root.pem"), "half a key").unwrap();
        open(dir.path(), &clock).await.unwrap_or_else(|error| panic!("step {reached}: {}", explain(&error)));
        if reached >= 2 {
            assert_eq!(fs::read(dir.path().join("root.pem")).unwrap(), root);
        }
        assert!(!dir.path().join(".tmp-4194305-0-root.pem").exists());
    }
}

#[tokio::test]
async fn of_two_that_start_at_once_both_have_one_root() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
    let (one, two) = tokio::join!(open(dir.path(), &clock), open(dir.path(), &clock));
    assert_eq!(one.unwrap().bundle().authorities(), two.unwrap().bundle().authorities());
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_cure() {
    let clock = Arc::new(TestClock::default());
    let whole = tempfile::tempdir().unwrap();
    drop(open(whole.path(), &clock).await.unwrap());
    let other = tempfile::tempdir().unwrap();
    drop(open(other.path(), &clock).await.unwrap());
    let root = |dir: &Path| fs::read_to_string(dir.join("root.pem")).unwrap();
    let mixed = {
        let (mine, foreign) = (root(whole.path()), root(other.path()));
        let certificate = "-----BEGIN CERTIFICATE-----";
        let (key, _) = mine.split_once(certificate).unwrap();
        let (_, rest) = foreign.split_once(certificate).unwrap();
        format!("{key}{certificate}{rest}")
    };
    type Damage<'a> = (&'a str, &'a str, &'a dyn Fn(&Path));
    let damaged: [Damage<'_>; 6] = [
        ("chmod 600", "root.pem", &|dir| mode(&dir.join("root.pem"), 0o644)),
        ("do not belong together", "root.pem", &|dir| fs::write(dir.join("root.pem"), &mixed).unwrap()),
        ("restore it from a backup", "root.pem", &|dir| fs::remove_file(dir.join("root.pem")).unwrap()),
        ("one PRIVATE KEY", "intermediate.pem", &|dir| fs::write(dir.join("intermediate.pem"), "").unwrap()),
        ("newer release", "format-version", &|dir| fs::write(dir.join("format-version"), "9").unwrap()),
        ("is a database", "ca.db", &|dir| fs::write(dir.join("ca.db"), "x".repeat(4_096)).unwrap()),
    ];
    for (cure, file, damage) in damaged {
        let dir = tempfile::tempdir().unwrap();
        for file in ["format-version", "root.pem", "intermediate.pem"] {
            fs::copy(whole.path().join(file), dir.path().join(file)).unwrap();
        }
        damage(dir.path());
        let text = explain(&open(dir.path(), &clock).await.unwrap_err());
        assert!(text.contains(cure) && text.contains(file), "{text}");
    }
    let text = explain(&open(Path::new("/proc/palisade-ca"), &clock).await.unwrap_err());
    assert!(text.contains("/proc/palisade-ca") && text.contains("writable"), "{text}");
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A restored root beside an intermediate of another one: the intermediate gives way.
#[tokio::test]
async fn an_intermediate_of_another_root_is_replaced() {
    let clock = Arc::new(TestClock::default());
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(open(one.path(), &clock).await.unwrap());
    drop(open(two.path(), &clock).await.unwrap());
    fs::copy(two.path().join("root.pem"), one.path().join("root.pem")).unwrap();
    let authority = open(one.path(), &clock).await.unwrap();
    let identity = authority.server_identity();
    identity.svid.usable(&identity.bundles, clock.now()).unwrap();
}

#[tokio::test]
async fn the_server_certificate_renews_at_half_its_life() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
    let authority = open(dir.path(), &clock).await.unwrap();
    let first = authority.server_identity();
    assert_eq!(first.svid.id().as_str(), "spiffe://cluster.local/ns/palisade-system/sa/palisade");
    assert_eq!(first.svid.chain().last(), authority.bundle().authorities().first(), "it ends with the root");
    clock.advance(Duration::from_secs(11 * 3_600));
    authority.maintain().await;
    assert_eq!(authority.server_identity().svid.serial(), first.svid.serial());
    clock.advance(Duration::from_secs(3_600));
    authority.maintain().await;
    let second = authority.server_identity();
    assert_ne!(second.svid.serial(), first.svid.serial());
    second.svid.usable(&second.bundles, clock.now()).unwrap();
    assert_eq!(authority.issuances(second.svid.id(), 9).await.unwrap().len(), 2, "each has its row");
}

#[tokio::test]
async fn the_intermediate_renews_while_running() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
    let authority = open(dir.path(), &clock).await.unwrap();
    let service = CaService::new(Arc::clone(&authority));
    let bundles = TrustBundles::from_iter([(*authority.bundle()).clone()]);
    let mut intermediates = Vec::new();
    for days in [0, 59, 2] {
        clock.advance(Duration::from_secs(days * DAY));
        authority.maintain().await;
        let token = authority.create_join_token(&web(), Duration::ZERO).await.unwrap();
        let message = IstioCertificateRequest { csr: csr(&KeyPair::generate().unwrap(), &[WEB]), ..Default::default() };
        let answer = service.create_certificate(request(message, Some(&token.token))).await.unwrap().into_inner();
        let chain: Vec<_> = answer.cert_chain[..2].iter().flat_map(|pem| certificates(pem)).collect();
        verify_peer(&chain, &bundles, clock.now()).unwrap();
        intermediates.push(chain[1].clone());
    }
    assert_eq!(intermediates[0], intermediates[1]);
    assert_ne!(intermediates[1], intermediates[2], "less than thirty days were left");
    assert!(*authority.ready().borrow());
}

#[tokio::test]
async fn without_a_record_there_is_no_certificate_and_the_token_lives() {
    let server = Server::start().await;
    let token = server.token(&web()).await;
    let key = KeyPair::generate().unwrap();
    let options = SqliteConnectOptions::new().filename(server.dir.path().join("ca.db"));
    let database = SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql("ALTER TABLE issuance RENAME TO away").execute(&database).await.unwrap();
    let mut agent = server.pinned(&token);
    let status = agent.ask(&csr(&key, &[WEB]), 0, Some(&token)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    server.authority.maintain().await;
    assert!(!*server.authority.ready().borrow(), "not ready while nothing can be recorded");
    sqlx::raw_sql("ALTER TABLE away RENAME TO issuance").execute(&database).await.unwrap();
    let other = KeyPair::generate().unwrap();
    agent.ask(&csr(&other, &[WEB]), 0, Some(&token)).await.expect("the token was not used up");
    server.authority.maintain().await;
    assert!(*server.authority.ready().borrow());
    database.close().await;
    server.stop().await;
}

#[tokio::test]
async fn a_clock_outside_the_roots_dates_is_named() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
    drop(open(dir.path(), &clock).await.unwrap());
    clock.advance(Duration::from_secs(11 * 365 * DAY));
    let text = explain(&open(dir.path(), &clock).await.unwrap_err());
    assert!(text.contains("root.pem") && text.contains("check the clock"), "{text}");
    assert!(UnixTime::now() < clock.now());
}
