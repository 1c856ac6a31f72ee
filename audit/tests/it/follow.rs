//! Rows as they are stored.

use std::time::Duration;

use futures_util::StreamExt;
use palisade_audit::{AdminAudit, Answers, NanoClock, Store};
use palisade_wire::admin::AuditQuery;
use palisade_wire::admin::audit_answer::Item;
use tokio::time::timeout;
use tonic::Code;

use crate::support::{gap, numbered};

async fn store(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path().join("audit.db"), NanoClock::system()).await.unwrap()
}

/// The sequences of the next `count` events.
async fn next(answers: &mut Answers, count: usize) -> Vec<u64> {
    let mut found = Vec::new();
    while found.len() < count {
        let answer = timeout(Duration::from_secs(30), answers.next()).await;
        match answer.unwrap_or_else(|_| panic!("only {found:?}")).unwrap().unwrap().item {
            Some(Item::Event(event)) => found.push(event.sequence),
            other => panic!("{other:?}"),
        }
    }
    found
}

#[tokio::test]
async fn a_follower_gets_what_matches_and_every_gap() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    store.insert_batch(vec![numbered("a/b", 1, 1), numbered("a/b", 1, 3)]).await.unwrap();
    let admin = AdminAudit::new(store.clone());
    let mut denied = admin.follow(AuditQuery { verdict: "deny".into(), ..AuditQuery::default() }).await.unwrap();
    // Every third is denied; one arrives for the second time.
    let events = (1..=9).map(|sequence| numbered("a/b", 1, sequence)).chain([gap("a/b", 1, 10, 14, "overflow")]);
    store.insert_batch(events.collect()).await.unwrap();
    store.insert_batch(vec![numbered("a/b", 1, 15), numbered("a/b", 1, 16)]).await.unwrap();
    assert_eq!(next(&mut denied, 4).await, [6, 9, 10, 15]);
}

#[tokio::test]
async fn the_past_comes_first_and_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        for sequence in 1..=300 {
            writer.insert_batch(vec![numbered("a/b", 1, sequence)]).await.unwrap();
        }
    });
    let admin = AdminAudit::new(store.clone());
    for _ in 0..5 {
        let mut answers = admin.follow(AuditQuery { since_ns: 1, ..AuditQuery::default() }).await.unwrap();
        assert_eq!(next(&mut answers, 50).await, (1..=50).collect::<Vec<_>>());
    }
    writing.await.unwrap();
}

#[tokio::test]
async fn who_reads_too_slowly_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let mut answers = AdminAudit::new(store.clone()).follow(AuditQuery::default()).await.unwrap();
    for start in [1, 2001, 4001] {
        let events = (start..start + 2000).map(|sequence| numbered("a/b", 1, sequence));
        store.insert_batch(events.collect()).await.unwrap();
    }
    assert_eq!(next(&mut answers, 4096).await, (1..=4096).collect::<Vec<_>>(), "what was kept is still given");
    let status = answers.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DataLoss);
    assert!(
        status.message().starts_with("rows arrive faster than they are read, and more than 4096 were waiting"),
        "{status}"
    );
    assert!(answers.next().await.is_none(), "and it ends");
}

#[tokio::test]
async fn rows_that_are_not_wanted_make_nobody_slow() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir).await;
    let asked = AuditQuery { from: "nobody".into(), ..AuditQuery::default() };
    let mut answers = AdminAudit::new(store.clone()).follow(asked).await.unwrap();
    for start in [1, 2001, 4001] {
        let events = (start..start + 2000).map(|sequence| numbered("a/b", 1, sequence));
        store.insert_batch(events.collect()).await.unwrap();
    }
    store.insert_batch(vec![gap("a/b", 1, 6001, 0, "crash")]).await.unwrap();
    assert_eq!(next(&mut answers, 1).await, [6001]);
}
