//! A disk that takes its time. Nobody has a certificate before its record is on it, whoever comes meanwhile shares the next flush, and
//! nobody who needs no record waits at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use palisade_tests::disk::Disk;
use palisade_tests::{http, poll};
use rcgen::KeyPair;
use serde_json::Value;
use tokio::task::JoinSet;

use crate::caller::{Ca, WellBehaved, csr};

const CALLERS: usize = 8;

/// A server with this disk whose log is in order: a flush is a transaction from here on.
async fn start(disk: &Disk) -> (Ca, WellBehaved) {
    let ca = Ca::start(|mesh| mesh.start_by = disk.command());
    let mut web = ca.well_behaved("web").await;
    // What a start left in SQLite's log is moved beside the first commits, in two steps, and the next begins the log anew.
    while disk.moved().unwrap() < 2 {
        web.renew().await;
    }
    for _ in 0..5 {
        web.renew().await;
    }
    (ca, web)
}

/// As soon as the disk has been asked for so many flushes, the last of which waits.
fn blocked(disk: &Disk, flushes: u64) {
    poll("a flush to wait", || match (disk.begun().unwrap(), disk.done().unwrap()) {
        (begun, done) if (begun, done) == (flushes, flushes - 1) => Ok(()),
        other => Err(other),
    });
}

/// As soon as the records of so many requests have been handed in and are not durable.
fn waiting(ca: &Ca, records: u64) {
    poll("the records to be handed in", || match ca.count("palisade_ca_store_waiting") {
        found if found == records => Ok(()),
        other => Err(other),
    });
}

/// Serial numbers of everything that was issued, as an operator asks for them.
fn issued(ca: &Ca) -> Vec<String> {
    let output = ca.mesh.palisade(&["ca", "issued", "-o", "json"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["issued"].as_array().unwrap().iter().map(|row| row["serial"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_a_flush_is_slow_shares_the_next_one() {
    let disk = Disk::new("ca.db").unwrap();
    let (ca, mut web) = start(&disk).await;
    let mut crowd = Vec::new();
    for caller in 0..CALLERS {
        let mut caller = ca.well_behaved(&format!("cart-{caller}")).await;
        // Its connection is there, so that only the record is waited for.
        caller.renew().await;
        crowd.push(caller);
    }
    let (before, flushes) = (issued(&ca).len(), disk.done().unwrap());
    disk.block().unwrap();
    let first = tokio::spawn(async move { web.renew().await });
    blocked(&disk, flushes + 1);
    let (answered, mut others) = (Arc::new(AtomicUsize::new(0)), JoinSet::new());
    for mut caller in crowd {
        let answered = Arc::clone(&answered);
        others.spawn(async move {
            caller.renew().await;
            answered.fetch_add(1, Ordering::SeqCst);
        });
    }
    waiting(&ca, 1 + CALLERS as u64);
    assert!(!first.is_finished() && answered.load(Ordering::SeqCst) == 0, "answered before the flush");
    assert_eq!(issued(&ca).len(), before, "and in the record before it");

    disk.pass().unwrap();
    first.await.unwrap();
    blocked(&disk, flushes + 2);
    assert_eq!(answered.load(Ordering::SeqCst), 0, "answered before the second flush");
    assert_eq!(issued(&ca).len(), before + 1);
    disk.pass().unwrap();
    while let Some(served) = others.join_next().await {
        served.unwrap();
    }
    assert_eq!((disk.done().unwrap(), issued(&ca).len()), (flushes + 2, before + 1 + CALLERS), "one flush for all");
    disk.open().unwrap();
}

/// Whatever becomes of the request that waits: nobody else notices the disk, and a crash takes nothing that anybody was given.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_flush_holds_up_no_reader_and_a_crash_under_it_costs_nobody_a_certificate() {
    let disk = Disk::new("ca.db").unwrap();
    let (mut ca, _) = start(&disk).await;
    let agent = ca.mesh.start_agent("shop", "node").unwrap();
    let socket = agent.socket.display().to_string();
    let fetch = ["identity", "fetch", "--socket", &socket];
    poll("the agent's identity", || Some(()).filter(|()| ca.mesh.palisade(&fetch).unwrap().status.success()).ok_or(()));
    let token = ca.mesh.join_token("shop", "late").unwrap();
    let (held, flushes) = (issued(&ca), disk.done().unwrap());

    disk.block().unwrap();
    let key = csr(&KeyPair::generate().unwrap(), &[]);
    let asking = |evidence: &str| {
        let (mut stranger, key, evidence) = (ca.connect(None), key.clone(), evidence.to_owned());
        tokio::spawn(async move { stranger.ask(&key, Some(&evidence)).await })
    };
    let first = asking(&token);
    blocked(&disk, flushes + 1);
    let second = asking(&ca.token(&Ca::claims("bank", 0)));
    for question in [&["ca", "status"][..], &["ca", "revoked"], &["ca", "entry", "list"], &fetch] {
        let output = ca.mesh.palisade(question).unwrap();
        assert!(output.status.success(), "{question:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(issued(&ca), held);
    assert_eq!((ca.page("/livez").0, ca.bundle().authorities().len()), (200, 1));
    let ready = http::request(agent.addresses["metrics"], "GET", "/readyz", "localhost").unwrap();
    assert_eq!((ready.status, disk.done().unwrap()), (200, flushes), "and the flush was waiting all the time");

    ca.mesh.server().unwrap().kill_9().unwrap();
    first.await.unwrap().unwrap_err();
    second.await.unwrap().unwrap_err();
    disk.open().unwrap();
    ca.mesh.start_server().unwrap();
    let kept = issued(&ca);
    assert!(held.iter().all(|serial| kept.contains(serial)), "what was answered is recorded");
    ca.connect(None)
        .ask(&key, Some(&token))
        .await
        .expect("the same key: the token is its own, whether it was used or not");
    ca.well_behaved("bank").await.renew().await;
}
