//! The file: what it keeps over a restart, what it refuses, who may read it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use palisade_audit::{Inserted, NanoClock, Query, Store, StoreError};
use sqlx::{Connection, SqliteConnection};

use crate::support::{gap, numbered};

fn clock() -> NanoClock {
    NanoClock::new(|| 1_700_000_001_000_000_000)
}

#[tokio::test]
async fn rows_and_marks_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.db");
    let events: Vec<_> = (1..=300).map(|sequence| numbered("a/b", 1, sequence)).collect();
    let store = Store::open(&file, clock()).await.unwrap();
    assert_eq!(store.insert_batch(events.clone()).await.unwrap(), Inserted { new: 300, duplicates: 0 });
    drop(store);
    let store = Store::open(&file, clock()).await.unwrap();
    let mut more = events;
    more.push(numbered("a/b", 1, 301));
    assert_eq!(store.insert_batch(more).await.unwrap(), Inserted { new: 1, duplicates: 300 });
    let account = store.accounts().await.unwrap().remove(0);
    assert_eq!((account.rows, account.high, account.missing), (301, 301, 0));
    assert_eq!(store.query(&Query::default()).await.unwrap().events.len(), 301);
}

#[tokio::test]
async fn the_same_number_twice_in_a_batch_is_one_row() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.db"), clock()).await.unwrap();
    let events = vec![numbered("a/b", 1, 1), numbered("a/b", 1, 1), numbered("a/c", 1, 1), numbered("a/b", 2, 1)];
    assert_eq!(store.insert_batch(events).await.unwrap(), Inserted { new: 3, duplicates: 1 });
    assert_eq!(store.insert_batch(Vec::new()).await.unwrap(), Inserted { new: 0, duplicates: 0 });
}

#[tokio::test]
async fn holes_open_shrink_split_and_close() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.db"), clock()).await.unwrap();
    let reasons = async || {
        let answer = store.query(&Query::default()).await.unwrap();
        let all = answer.completeness.reasons.iter().map(ToString::to_string);
        all.filter(|reason| !reason.contains("not connected")).collect::<Vec<_>>()
    };
    for (sequence, expected) in [
        (1, vec![]),
        (10, vec!["pending: numbers 2 to 9 of a/b have not arrived"]),
        (5, vec!["pending: numbers 2 to 4 of a/b have not arrived", "pending: numbers 6 to 9 of a/b have not arrived"]),
        (2, vec!["pending: numbers 3 to 4 of a/b have not arrived", "pending: numbers 6 to 9 of a/b have not arrived"]),
        (9, vec!["pending: numbers 3 to 4 of a/b have not arrived", "pending: numbers 6 to 8 of a/b have not arrived"]),
    ] {
        store.insert_batch(vec![numbered("a/b", 1, sequence)]).await.unwrap();
        assert_eq!(reasons().await, expected, "after {sequence}");
    }
    assert_eq!(store.accounts().await.unwrap()[0].missing, 5);
    store.insert_batch(vec![gap("a/b", 1, 6, 8, "corrupt")]).await.unwrap();
    assert_eq!(
        reasons().await,
        ["gap: a/b lost 3 events, numbers 6 to 8 (corrupt)", "pending: numbers 3 to 4 of a/b have not arrived"]
    );
    store.insert_batch(vec![numbered("a/b", 1, 3), numbered("a/b", 1, 4)]).await.unwrap();
    let account = store.accounts().await.unwrap().remove(0);
    assert_eq!((account.rows, account.lost, account.missing, account.high), (7, 3, 0, 10));
}

#[tokio::test]
async fn an_event_that_no_enforcer_writes_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.db"), clock()).await.unwrap();
    let error = store.insert_batch(vec![numbered("a/b", 1, 1), numbered("a/b", 1, 0)]).await.unwrap_err();
    assert_eq!(error.to_string(), "event 1 of the batch is refused");
    assert_eq!(store.query(&Query::default()).await.unwrap().events, []);
}

/// As on a full disk: SQLite ends the transaction by itself, and the next one must begin all the same.
#[tokio::test]
async fn a_transaction_that_ended_by_itself_holds_up_none_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.db");
    let store = Store::open(&file, clock()).await.unwrap();
    let mut other = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE(ROLLBACK, 'full'); END";
    sqlx::raw_sql(full).execute(&mut other).await.unwrap();
    for _ in 0..2 {
        let error = store.insert_batch(vec![numbered("a/b", 1, 1)]).await.unwrap_err();
        assert!(format!("{error:?}").contains("full"), "{error:?}");
    }
    sqlx::raw_sql("DROP TRIGGER full").execute(&mut other).await.unwrap();
    let inserted = store.insert_batch(vec![numbered("a/b", 1, 1)]).await.unwrap();
    assert_eq!(inserted, Inserted { new: 1, duplicates: 0 });
}

#[tokio::test]
async fn a_file_that_is_not_ours_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let open = async |name: &str| Store::open(dir.path().join(name), clock()).await.unwrap_err();
    let shown = |name: &str| dir.path().join(name).display().to_string();

    fs::write(dir.path().join("text"), "this is not a database, but it is long enough to be one".repeat(20)).unwrap();
    let error = open("text").await;
    assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
    assert!(error.to_string().contains(&shown("text")), "{error}");

    let other = format!("sqlite://{}?mode=rwc", shown("other"));
    let mut connection = SqliteConnection::connect(&other).await.unwrap();
    sqlx::raw_sql("CREATE TABLE pets (name TEXT)").execute(&mut connection).await.unwrap();
    let error = open("other").await;
    assert_eq!(error.to_string(), format!("`{}` is not an audit store; name another file", shown("other")));

    drop(Store::open(dir.path().join("newer"), clock()).await.unwrap());
    let mut connection = SqliteConnection::connect(&format!("sqlite://{}", shown("newer"))).await.unwrap();
    sqlx::raw_sql("UPDATE meta SET value = 9").execute(&mut connection).await.unwrap();
    let error = open("newer").await;
    let expected = format!(
        "the audit store `{}` has schema 9, this version knows 1; use the version that wrote it",
        shown("newer")
    );
    assert_eq!(error.to_string(), expected);

    let error = open("text/audit.db").await;
    let expected = format!(
        "cannot create the audit store `{}`; make its directory writable for this user",
        shown("text/audit.db")
    );
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn only_the_owner_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("audit.db"), clock()).await.unwrap();
    store.insert_batch(vec![numbered("a/b", 1, 1)]).await.unwrap();
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(Result::unwrap).collect();
    assert!(names.len() >= 2, "the write-ahead log too");
    for name in names {
        assert_eq!(name.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", name.path());
    }
}
