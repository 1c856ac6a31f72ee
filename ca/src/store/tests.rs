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
    }
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
    store.record(row("0a", "k1"), None).await.unwrap();
    // The first store stays open, as after kill -9: nothing was checkpointed or closed.
    let again = open(dir.path()).await.unwrap();
    let rows = again.issuances("spiffe://cluster.local/ns/shop/sa/web", 10).await.unwrap();
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
        let redeem = (n % 100 == 0).then(|| "t".to_owned());
        tasks.spawn(async move { store.record(row(&format!("{n:04x}"), &format!("key {n}")), redeem).await });
    }
    let results = tasks.join_all().await;
    let spent = results.iter().filter(|result| matches!(result, Err(StoreError::TokenSpent))).count();
    assert_eq!((results.len(), spent), (500, 4), "one of five keys gets the token");
    let rows = store.issuances("spiffe://cluster.local/ns/shop/sa/web", 1_000).await.unwrap();
    assert_eq!(rows.len(), 496);
}

#[tokio::test]
async fn a_token_belongs_to_the_first_key_while_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    store.add_token(token("t", NOW + 100)).await.unwrap();
    let redeem = |serial: &str, key: &str, at: i64| {
        let row = IssuanceRow { issued_at: at, ..row(serial, key) };
        let store = store.clone();
        async move { store.record(row, Some("t".into())).await }
    };
    redeem("01", "mine", NOW).await.unwrap();
    redeem("02", "mine", NOW + 50).await.unwrap();
    assert!(matches!(redeem("03", "yours", NOW + 50).await, Err(StoreError::TokenSpent)));
    assert!(matches!(redeem("04", "mine", NOW + 100).await, Err(StoreError::TokenSpent)), "expired");
    let missing = store.record(row("05", "mine"), Some("unknown".into())).await;
    assert!(matches!(missing, Err(StoreError::TokenSpent)));
    assert_eq!(store.token("t").await.unwrap().unwrap().used_key_sha256.as_deref(), Some("mine"));
    assert_eq!(store.issuances(&row("", "").spiffe_id, 9).await.unwrap().len(), 2, "no row without a grant");
}

#[tokio::test]
async fn a_failed_batch_redeems_nothing_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).await.unwrap();
    store.add_token(token("t", NOW + 100)).await.unwrap();
    store.record(row("01", "k"), None).await.unwrap();
    // The same serial again breaks the batch.
    let broken = store.record(row("01", "k"), Some("t".into())).await;
    assert!(matches!(broken, Err(StoreError::Database { .. })));
    assert!(store.failing());
    assert_eq!(store.token("t").await.unwrap().unwrap().used_key_sha256, None);
    store.record(row("02", "k"), Some("t".into())).await.unwrap();
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
