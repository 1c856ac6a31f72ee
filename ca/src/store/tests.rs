use std::collections::BTreeSet;

use super::*;

const NOW: i64 = 1_800_000_000;

async fn open(dir: &Path) -> Result<Store, StoreError> {
    let path = dir.join("ca.db");
    if !path.exists() {
        std::fs::write(&path, "").unwrap();
    }
    Store::open(path, Metrics::default()).await
}

fn row(serial: &str, key: &str) -> IssuanceRow {
    IssuanceRow {
        serial: serial.into(),
        spiffe_id: "spiffe://cluster.local/ns/shop/sa/web".into(),
        caller: "127.0.0.1:1".into(),
        attestor: "join-token".into(),
        not_before: NOW - 60,
        not_after: NOW + 3_600,
        requested_ttl: 0,
        shortened: true,
        key_sha256: key.into(),
        issued_at: NOW,
        authority: "aa".into(),
        entry: String::new(),
    }
}

/// The newest issuances of [`row`]'s ID.
fn web(limit: u32) -> IssuanceQuery {
    IssuanceQuery { target: Some(Target::Id(row("", "").spiffe_id)), since: 0, limit }
}

/// The evidence of a join token with this hash.
fn token_evidence(hash: &str) -> Evidence {
    Evidence { redeem: Some(hash.to_owned()), presented: None }
}

fn token(hash: &str, expires_at: i64) -> TokenRow {
    TokenRow {
        secret_sha256: hash.into(),
        spiffe_id: "spiffe://cluster.local/ns/shop/sa/web".into(),
        created_at: NOW - 10,
        expires_at,
        used_key_sha256: None,
    }
}

#[tokio::test]
async fn rows_survive_reopening_without_a_clean_close() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    store.record(row("0a", "k1"), Evidence::default()).await.unwrap();
    // The first store stays open, as after kill -9: nothing was checkpointed or closed.
    let again = open(dir.path()).await.unwrap();
    let rows = again.issuances(&web(10)).await.unwrap();
    assert_eq!(rows, [row("0a", "k1")]);
    drop(store);
}

#[tokio::test]
async fn records_that_gather_share_a_transaction_and_keep_their_own_answers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    store.add_token(token("t", NOW + 100)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..500 {
        let store = store.clone();
        let evidence = if n % 100 == 0 { token_evidence("t") } else { Evidence::default() };
        tasks.spawn(async move { store.record(row(&format!("{n:04x}"), &format!("key {n}")), evidence).await });
    }
    let results = tasks.join_all().await;
    let spent = results.iter().filter(|result| matches!(result, Err(StoreError::TokenSpent))).count();
    assert_eq!((results.len(), spent), (500, 4), "one of five keys gets the token");
    let rows = store.issuances(&web(1_000)).await.unwrap();
    assert_eq!(rows.len(), 496);
}

/// One statement takes so many rows and no more: nothing is lost or doubled around that.
#[tokio::test]
async fn batches_of_every_size_are_written_whole() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let mut all = Vec::new();
    for size in [1, 3, 4, 5, 31, 32, 33, 37, 64, 70] {
        let from = all.len();
        all.extend((from..from + size).map(|n| row(&format!("{n:04x}"), &format!("key {n}"))));
        let records = all[from..].iter().map(|row| store.record(row.clone(), Evidence::default()));
        for result in futures_util::future::join_all(records).await {
            result.unwrap();
        }
    }
    let everything = IssuanceQuery { target: None, since: 0, limit: 1_000 };
    let mut found = store.issuances(&everything).await.unwrap();
    found.sort_by(|a, b| a.serial.cmp(&b.serial));
    assert_eq!(found, all);
}

#[tokio::test]
async fn a_token_belongs_to_the_first_key_while_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    store.add_token(token("t", NOW + 100)).await.unwrap();
    let redeem = |serial: &str, key: &str, at: i64| {
        let row = IssuanceRow { issued_at: at, ..row(serial, key) };
        let store = store.clone();
        async move { store.record(row, token_evidence("t")).await }
    };
    redeem("01", "mine", NOW).await.unwrap();
    redeem("02", "mine", NOW + 50).await.unwrap();
    assert!(matches!(redeem("03", "yours", NOW + 50).await, Err(StoreError::TokenSpent)));
    assert!(matches!(redeem("04", "mine", NOW + 100).await, Err(StoreError::TokenSpent)), "expired");
    let missing = store.record(row("05", "mine"), token_evidence("unknown")).await;
    assert!(matches!(missing, Err(StoreError::TokenSpent)));
    assert_eq!(store.token("t").await.unwrap().unwrap().used_key_sha256.as_deref(), Some("mine"));
    assert_eq!(store.issuances(&web(9)).await.unwrap().len(), 2, "no row without a grant");
}

#[tokio::test]
async fn a_failed_batch_redeems_nothing_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    store.add_token(token("t", NOW + 100)).await.unwrap();
    store.record(row("01", "k"), Evidence::default()).await.unwrap();
    // The same serial again breaks the batch, whether that is one statement or several.
    let broken = store.record(row("01", "k"), Evidence::default()).await;
    assert!(matches!(broken, Err(StoreError::Database { .. })));
    let broken = store.record(row("01", "k"), token_evidence("t")).await;
    assert!(matches!(broken, Err(StoreError::Database { .. })));
    assert!(store.failing());
    assert_eq!(store.token("t").await.unwrap().unwrap().used_key_sha256, None);
    store.record(row("02", "k"), token_evidence("t")).await.unwrap();
    assert!(!store.failing());
}

#[tokio::test]
async fn newer_and_broken_databases_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    drop(store);
    let path = dir.path().join("ca.db");
    let options = SqliteConnectOptions::new().filename(&path);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 7").execute(&pool).await.unwrap();
    pool.close().await;
    let error = open(dir.path()).await.unwrap_err().to_string();
    assert!(error.contains("ca.db") && error.contains('7'), "{error}");
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("ca.db"), "this is no database, whatever its name says").unwrap();
    let error = open(other.path()).await.unwrap_err().to_string();
    assert!(error.contains("ca.db") && error.contains("check that it is a database"), "{error}");
}

#[tokio::test]
async fn a_revoked_certificate_is_no_evidence_for_what_is_recorded_after() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let id = row("", "").spiffe_id;
    store.record(row("01", "k"), Evidence::default()).await.unwrap();
    store.record(IssuanceRow { not_after: NOW - 1, ..row("02", "k") }, Evidence::default()).await.unwrap();
    // All in the queue at once: each knows of what stands before it, though they share a transaction.
    let renewal = |serial: &str, presented: &str| {
        let evidence = Evidence { redeem: None, presented: Some(presented.to_owned()) };
        store.record(row(serial, "k"), evidence)
    };
    let revoke = store.revoke(Target::Id(id.clone()), "stolen".to_owned(), NOW);
    let (before, revoked, after) = tokio::join!(biased; renewal("03", "01"), revoke, renewal("04", "03"));
    before.unwrap();
    revoked.unwrap();
    assert!(matches!(after, Err(StoreError::CallerRevoked)));
    let serials = |all: Vec<Revocation>| all.into_iter().map(|one| one.serial).collect::<Vec<_>>();
    assert_eq!(serials(store.revocations(NOW).await.unwrap()), ["01", "03"], "the expired one needs no revocation");
    assert!(store.revocations(NOW + 3_600).await.unwrap().is_empty(), "nobody needs to be told any more");
    assert_eq!(serials(store.revoked(&Target::Serial("03".to_owned()), NOW).await.unwrap()), ["03"]);
    // A restart knows it, too.
    let again = open(dir.path()).await.unwrap();
    let evidence = Evidence { redeem: None, presented: Some("01".to_owned()) };
    assert!(matches!(again.record(row("05", "k"), evidence).await, Err(StoreError::CallerRevoked)));
    assert_eq!(again.revocations(NOW).await.unwrap()[0].reason, "stolen");
}

#[tokio::test]
async fn the_records_know_the_last_leaf_of_an_authority() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let add = |serial: &str, authority: &str, attestor: &str, until: i64| {
        let (authority, attestor) = (authority.to_owned(), attestor.to_owned());
        store.record(IssuanceRow { authority, attestor, not_after: until, ..row(serial, "k") }, Evidence::default())
    };
    assert_eq!(store.leaves_until("aa").await.unwrap(), None);
    add("01", "aa", "join-token", NOW + 10).await.unwrap();
    add("02", "aa", "self", NOW + 99).await.unwrap();
    add("03", "bb", "join-token", NOW + 50).await.unwrap();
    assert_eq!(store.leaves_until("aa").await.unwrap(), Some(NOW + 10), "the server replaces its own");
    add("04", "", "join-token", NOW + 20).await.unwrap();
    assert_eq!(store.leaves_until("aa").await.unwrap(), Some(NOW + 20), "a row of an older release counts for all");
    let (nobody, web) = (BTreeSet::new(), BTreeSet::from([row("", "").spiffe_id]));
    let caller = BTreeSet::from([row("", "").caller]);
    for (now, since, followers, expected) in [
        (NOW, NOW, &nobody, Some(NOW + 50)),
        (NOW + 50, NOW, &nobody, None),
        (NOW, NOW - 1, &nobody, None),
        (NOW, NOW, &web, None),
        (NOW, NOW, &caller, None),
    ] {
        assert_eq!(store.unfollowed_until("bb", (now, since), followers).await.unwrap(), expected, "{now} {since}");
    }
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.db");
    std::fs::write(&path, "").unwrap();
    let pool = SqlitePool::connect_with(SqliteConnectOptions::new().filename(&path)).await.unwrap();
    sqlx::raw_sql(include_str!("testdata/version-1.sql")).execute(&pool).await.unwrap();
    pool.close().await;
    let store = open(dir.path()).await.unwrap();
    let rows = store.issuances(&web(9)).await.unwrap();
    assert_eq!((rows.len(), rows[0].serial.as_str(), rows[0].authority.as_str()), (1, "0a", ""));
    store.record(row("0b", "k"), Evidence::default()).await.unwrap();
    store.revoke(Target::Serial("0a".to_owned()), String::new(), NOW).await.unwrap();
    assert_eq!(open(dir.path()).await.unwrap().revocations(NOW).await.unwrap().len(), 1);
}

#[tokio::test]
async fn tokens_are_not_among_what_is_revoked() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let token = IssuanceRow { attestor: "agent-token".into(), ..row("0b", "") };
    for row in [row("0a", "k1"), token] {
        store.record(row, Evidence::default()).await.unwrap();
    }
    for target in [Target::Serial("0b".into()), Target::Id(row("", "").spiffe_id)] {
        store.revoke(target, "stolen".into(), NOW).await.unwrap();
    }
    let revoked: Vec<_> = store.revocations(NOW).await.unwrap().into_iter().map(|revoked| revoked.serial).collect();
    assert_eq!(revoked, ["0a"]);
}

#[tokio::test]
async fn a_revocation_that_was_not_written_denies_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    store.record(row("0a", "k1"), Evidence::default()).await.unwrap();
    let other = SqlitePool::connect_with(SqliteConnectOptions::new().filename(dir.path().join("ca.db"))).await.unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON issuance BEGIN SELECT RAISE(ROLLBACK, 'full'); END";
    sqlx::raw_sql(full).execute(&other).await.unwrap();
    // Both wait for the writer at once: one transaction.
    let target = Target::Serial("0a".into());
    let (revoked, recorded) =
        tokio::join!(store.revoke(target, "stolen".into(), NOW), store.record(row("0b", "k1"), Evidence::default()));
    assert!(revoked.is_err() && recorded.is_err());
    sqlx::raw_sql("DROP TRIGGER full").execute(&other).await.unwrap();
    let evidence = Evidence { redeem: None, presented: Some("0a".into()) };
    store.record(row("0c", "k1"), evidence).await.unwrap();
}

#[tokio::test]
async fn what_is_written_moves_from_the_log_into_the_database_and_the_log_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
    let (mut rounds, mut largest) = (0, 0);
    // The log is as large as it ever was; a second use of it leaves that so.
    while rounds < 20 || size("ca.db") < 4 << 20 {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..1_000 {
            let store = store.clone();
            tasks.spawn(
                async move { store.record(row(&format!("{rounds:04x}{n:04x}"), "k"), Evidence::default()).await },
            );
        }
        tasks.join_all().await.into_iter().collect::<Result<(), _>>().unwrap();
        rounds += 1;
        largest = largest.max(size("ca.db-wal"));
        assert!(rounds < 200, "the database has {} bytes, its log {largest}", size("ca.db"));
    }
    let everything: i64 = sqlx::query_scalar("SELECT count(*) FROM issuance").fetch_one(&store.readers).await.unwrap();
    assert_eq!(everything, rounds * 1_000);
}

#[tokio::test]
async fn the_record_is_asked_by_id_serial_number_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let other = || "spiffe://cluster.local/ns/shop/sa/bank".to_owned();
    for (number, serial) in ["0a1b", "5f00", "00cd"].into_iter().enumerate() {
        let issued_at = NOW + i64::try_from(number).unwrap();
        let spiffe_id = if number == 1 { other() } else { row("", "").spiffe_id };
        store.record(IssuanceRow { issued_at, spiffe_id, ..row(serial, "k") }, Evidence::default()).await.unwrap();
    }
    let serials = async |target: Option<Target>, since, limit| -> Vec<String> {
        let rows = store.issuances(&IssuanceQuery { target, since, limit }).await.unwrap();
        rows.into_iter().map(|row| row.serial).collect()
    };
    assert_eq!(serials(None, 0, 9).await, ["00cd", "5f00", "0a1b"]);
    assert_eq!(serials(None, NOW + 1, 9).await, ["00cd", "5f00"]);
    assert_eq!(serials(None, 0, 1).await, ["00cd"]);
    assert_eq!(serials(Some(Target::Id(other())), 0, 9).await, ["5f00"]);
    assert_eq!(serials(web(9).target, NOW + 1, 9).await, ["00cd"]);
    for (spelled, serial) in [("0A:1B", "0a1b"), ("a1b", "0a1b"), ("0x5f00", "5f00"), ("00:cd", "00cd")] {
        assert_eq!(serials(Target::serial(spelled), 0, 9).await, [serial], "{spelled}");
    }
    assert_eq!(serials(Target::serial("0a1b"), NOW + 1, 9).await, [""; 0]);
    assert!(["", "0", "xyz", "5f 00"].iter().all(|bad| Target::serial(bad).is_none()));
}

/// A question about the last hour must not read the rows of years; and a clock that was set back does not hide the hour before.
#[tokio::test]
async fn the_record_is_walked_back_as_far_as_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let issued = [("01", NOW + 5), ("02", NOW - 3_601), ("03", NOW + 9), ("04", NOW - 3_600), ("05", NOW)];
    for (serial, issued_at) in issued {
        store.record(IssuanceRow { issued_at, ..row(serial, "k") }, Evidence::default()).await.unwrap();
    }
    let serials = async |since, limit| -> Vec<String> {
        let rows = store.issuances(&IssuanceQuery { target: None, since, limit }).await.unwrap();
        rows.into_iter().map(|row| row.serial).collect()
    };
    assert_eq!(serials(NOW, 9).await, ["05", "03"], "behind a row that is much older nothing is looked for");
    assert_eq!(serials(NOW, 1).await, ["05"]);
    assert_eq!(serials(NOW - 1, 9).await, ["05", "03", "01"]);
    assert_eq!(serials(i64::MIN, 9).await.len(), 5);
}

/// As on a full disk: SQLite ends the transaction by itself, and the next one must begin all the same.
#[tokio::test]
async fn a_transaction_that_ended_by_itself_holds_up_none_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    let options = SqliteConnectOptions::new().filename(dir.path().join("ca.db"));
    let other = SqlitePool::connect_with(options).await.unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON issuance BEGIN SELECT RAISE(ROLLBACK, 'full'); END";
    sqlx::raw_sql(full).execute(&other).await.unwrap();
    for _ in 0..2 {
        let error = store.record(row("0a", "k1"), Evidence::default()).await.unwrap_err();
        assert!(store.failing() && format!("{error:?}").contains("full"), "{error:?}");
    }
    store.probe().await.unwrap_err();
    assert!(store.failing());
    sqlx::raw_sql("DROP TRIGGER full").execute(&other).await.unwrap();
    store.probe().await.unwrap();
    assert!(!store.failing() && store.issuances(&web(9)).await.unwrap().is_empty(), "a probe leaves nothing");
    store.record(row("0a", "k1"), Evidence::default()).await.unwrap();
    assert_eq!(store.issuances(&web(9)).await.unwrap(), [row("0a", "k1")]);
}
