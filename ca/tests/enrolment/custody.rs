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

use crate::harness::{Server, TestClock, WEB, certificates, csr, explain, issued, open, request, web};

const DAY: u64 = 86_400;

/// Trap 36: key files that others can read.
#[tokio::test]
async fn trap_36_a_restart_keeps_root_and_records_for_the_owner_alone() {
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
    assert_eq!(issued(&first, &web(), 9).await.len(), 1);
    let files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 5, "version, journal, database, two keys: {files:?}");
    for file in files {
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = entries.filter(|name| !name.starts_with("ca.db")).collect();
    names.sort();
    names
}

fn copy(from: &Path, to: &Path, files: &[String]) {
    for file in files {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

/// Whatever the moment of death on first start, the next start works and keeps what was made.
#[tokio::test]
async fn every_half_made_directory_is_usable() {
    let clock = Arc::new(TestClock::default());
    let whole = tempfile::tempdir().unwrap();
    drop(open(whole.path(), &clock).await.unwrap());
    let mut steps = names(whole.path());
    // In the order in which they are made: the version, the keys, the journal that names them.
    steps.sort_by_key(|name| (name != "format-version", name == "authorities.json"));
    assert_eq!((steps.len(), steps[5].as_str()), (6, "authorities.json"));
    let journal = fs::read(whole.path().join("authorities.json")).unwrap();
    for reached in 0..=steps.len() {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path(), &steps[..reached]);
        // No process has this number: it is above the kernel's highest.
        fs::write(dir.path().join(".tmp-4194305-0-key.pem"), "half a key").unwrap();
        open(dir.path(), &clock).await.unwrap_or_else(|error| panic!("step {reached}: {}", explain(&error)));
        if reached == steps.len() {
            assert_eq!(fs::read(dir.path().join("authorities.json")).unwrap(), journal);
        }
        assert!(!dir.path().join(".tmp-4194305-0-key.pem").exists());
    }
}

/// A process killed between making keys and naming them leaves keys that nobody needs.
#[tokio::test]
async fn abandoned_keys_are_destroyed() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
    drop(open(dir.path(), &clock).await.unwrap());
    let before = names(dir.path());
    let key = before.iter().find(|name| name.starts_with("key-")).unwrap();
    for (name, age) in [("key-0000000000000000000000000000000000000000.pem", 2), ("key-00.pem", 0)] {
        copy_over(dir.path(), key, name);
        let file = fs::File::open(dir.path().join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age * 3_600)).unwrap();
    }
    for name in &before {
        let file = fs::File::open(dir.path().join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(2 * 3_600)).unwrap();
    }
    open(dir.path(), &clock).await.unwrap();
    let mut expected = before;
    expected.push("key-00.pem".to_owned());
    expected.sort();
    assert_eq!(names(dir.path()), expected, "another process may be about to use a new one");
}

/// A directory of the first format: its root stays the root, at whatever moment of the change the process dies.
#[tokio::test]
async fn the_first_format_is_brought_up_to_date() {
    let clock = Arc::new(TestClock::default());
    let old = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("format-version", "1\n"),
        ("root.pem", include_str!("../testdata/format-1/root.pem")),
        ("intermediate.pem", include_str!("../testdata/format-1/intermediate.pem")),
    ] {
        fs::write(old.path().join(name), text).unwrap();
        mode(&old.path().join(name), 0o600);
    }
    let before = names(old.path());
    let new = tempfile::tempdir().unwrap();
    copy(old.path(), new.path(), &before);
    let authority = open(new.path(), &clock).await.unwrap();
    let root = certificates(include_str!("../testdata/format-1/root.pem"));
    assert_eq!(authority.bundle().authorities(), root);
    let after = names(new.path());
    assert!(!after.contains(&"root.pem".to_owned()) && after.len() == 6, "{after:?}");
    let journal = fs::read(new.path().join("authorities.json")).unwrap();
    let mut steps: Vec<_> = after.into_iter().filter(|name| name != "format-version").collect();
    steps.sort_by_key(|name| name == "authorities.json");
    for reached in 0..=steps.len() {
        let dir = tempfile::tempdir().unwrap();
        copy(old.path(), dir.path(), &before);
        copy(new.path(), dir.path(), &steps[..reached]);
        let authority = open(dir.path(), &clock).await.unwrap_or_else(|error| panic!("{reached}: {}", explain(&error)));
        assert_eq!(authority.bundle().authorities(), root, "step {reached}");
        assert!(!dir.path().join("root.pem").exists() && !dir.path().join("intermediate.pem").exists());
        if reached == steps.len() {
            assert_eq!(fs::read(dir.path().join("authorities.json")).unwrap(), journal);
        }
    }
}

/// Trap 49: of several that start first, each makes a root.
#[tokio::test]
async fn trap_49_of_two_that_start_at_once_both_have_one_root() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(TestClock::default()));
    let (one, two) = tokio::join!(open(dir.path(), &clock), open(dir.path(), &clock));
    assert_eq!(one.unwrap().bundle().authorities(), two.unwrap().bundle().authorities());
}

#[tokio::test]
async fn what_is_wrong_is_named_with_its_cure() {
    let clock = Arc::new(TestClock::default());
    let whole = tempfile::tempdir().unwrap();
    drop(open(whole.path(), &clock).await.unwrap());
    let files = names(whole.path());
    let keys: Vec<_> = files.iter().filter(|name| name.starts_with("key-")).cloned().collect();
    let journal = fs::read_to_string(whole.path().join("authorities.json")).unwrap();
    let other = journal.replace("cluster.local", "other.test");
    type Damage<'a> = (&'a str, &'a str, &'a dyn Fn(&Path));
    let damaged: [Damage<'_>; 7] = [
        ("chmod 600", &keys[0], &|dir| mode(&dir.join(&keys[0]), 0o644)),
        ("is not the one that its name says", &keys[0], &|dir| copy_over(dir, &keys[1], &keys[0])),
        ("restore it from a backup", "key-", &|dir| {
            keys.iter().for_each(|key| fs::remove_file(dir.join(key)).unwrap())
        }),
        ("private key: restore it", &keys[1], &|dir| fs::write(dir.join(&keys[1]), "").unwrap()),
        ("restore it from a backup", "authorities.json", &|dir| fs::write(dir.join("authorities.json"), "{").unwrap()),
        ("keeps its trust domain", "authorities.json", &|dir| fs::write(dir.join("authorities.json"), &other).unwrap()),
        ("newer release", "format-version", &|dir| fs::write(dir.join("format-version"), "9").unwrap()),
    ];
    for (cure, file, damage) in damaged {
        let dir = tempfile::tempdir().unwrap();
        copy(whole.path(), dir.path(), &files);
        damage(dir.path());
        let text = explain(&open(dir.path(), &clock).await.unwrap_err());
        assert!(text.contains(cure) && text.contains(file), "{cure}: {text}");
    }
    let text = explain(&open(Path::new("/proc/palisade-ca"), &clock).await.unwrap_err());
    assert!(text.contains("/proc/palisade-ca") && text.contains("writable"), "{text}");
}

fn copy_over(dir: &Path, from: &str, to: &str) {
    fs::copy(dir.join(from), dir.join(to)).unwrap();
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
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
    assert_eq!(issued(&authority, second.svid.id(), 9).await.len(), 2, "each has its row");
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
async fn trap_43_without_a_record_callers_are_told_to_come_back_and_the_token_lives() {
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
    assert!(text.contains("root of authority") && text.contains("check the clock"), "{text}");
    assert!(UnixTime::now() < clock.now());
}
