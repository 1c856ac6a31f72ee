//! What is asked of the records.

use std::collections::BTreeSet;

use futures_util::TryStreamExt as _;
use sqlx::Row;
use sqlx::sqlite::{SqlitePool, SqliteRow};

use super::{IssuanceQuery, IssuanceRow, Revocation, Store, StoreError, Target, TokenRow};

/// Two halves that each walk one end of an index. Rows of an older release name no authority: they count for every one.
const LEAVES_UNTIL: &str = "SELECT max(last) FROM (\
     SELECT * FROM (SELECT not_after AS last FROM issuance WHERE authority = ?1 AND attestor <> 'self' \
     ORDER BY not_after DESC LIMIT 1) \
     UNION ALL SELECT * FROM (SELECT not_after AS last FROM issuance WHERE authority = '' AND attestor <> 'self' \
     ORDER BY not_after DESC LIMIT 1))";
const UNFOLLOWED_UNTIL: &str = "SELECT not_after FROM issuance WHERE authority = ?1 AND not_after > ?2 \
     AND issued_at <= ?3 AND attestor <> 'self' AND spiffe_id NOT IN (SELECT value FROM json_each(?4)) \
     AND caller NOT IN (SELECT value FROM json_each(?4)) ORDER BY not_after DESC LIMIT 1";

/// Newest first, in the order in which they were written, which needs no index of its own.
const ISSUED: &str = "SELECT * FROM issuance ORDER BY rowid DESC";
/// The order of writing is that of time unless the clock was set back: up to so many seconds of that are looked behind.
const CLOCK_STEPS: i64 = 3_600;
const ISSUED_TO: &str = "SELECT * FROM issuance WHERE spiffe_id = ?1 AND issued_at >= ?2 \
     ORDER BY issued_at DESC, rowid DESC LIMIT ?3";
/// An identifier of a token may begin with an octet of zero, which a serial number is spelled without.
const ISSUED_AS: &str =
    "SELECT * FROM issuance WHERE serial IN (?1, '00' || ?1) AND issued_at >= ?2 ORDER BY rowid DESC LIMIT ?3";

/// Every serial number that was ever revoked.
pub(super) async fn serials(pool: &SqlitePool) -> Result<BTreeSet<String>, sqlx::Error> {
    let all: Vec<String> = sqlx::query_scalar("SELECT serial FROM revocation").fetch_all(pool).await?;
    Ok(all.into_iter().collect())
}

impl Store {
    /// The token whose secret has this hash.
    pub(crate) async fn token(&self, secret_sha256: &str) -> Result<Option<TokenRow>, StoreError> {
        let query = "SELECT secret_sha256, spiffe_id, created_at, expires_at, used_key_sha256 FROM join_token \
                     WHERE secret_sha256 = ?1";
        let row = sqlx::query(query).bind(secret_sha256).fetch_optional(&self.readers).await;
        row.and_then(|row| row.map(|row| token_row(&row)).transpose()).map_err(|error| self.failed(error))
    }

    /// The newest issuances that were asked for, newest first.
    pub(crate) async fn issuances(&self, wanted: &IssuanceQuery) -> Result<Vec<IssuanceRow>, StoreError> {
        let (query, what) = match &wanted.target {
            None => return self.newest(wanted).await.map_err(|error| self.failed(error)),
            Some(Target::Id(id)) => (ISSUED_TO, id.as_str()),
            Some(Target::Serial(serial)) => (ISSUED_AS, serial.as_str()),
        };
        let rows = sqlx::query(query).bind(what).bind(wanted.since).bind(wanted.limit).fetch_all(&self.readers).await;
        let rows = rows.and_then(|rows| rows.iter().map(issuance_row).collect());
        rows.map_err(|error| self.failed(error))
    }

    /// From the newest back in time, as far as is asked for and no further: the record is never short.
    async fn newest(&self, wanted: &IssuanceQuery) -> Result<Vec<IssuanceRow>, sqlx::Error> {
        let mut walk = sqlx::query(ISSUED).fetch(&self.readers);
        let (mut found, limit) = (Vec::new(), usize::try_from(wanted.limit).unwrap_or(usize::MAX));
        while found.len() < limit
            && let Some(row) = walk.try_next().await?
        {
            let row = issuance_row(&row)?;
            if row.issued_at < wanted.since.saturating_sub(CLOCK_STEPS) {
                break;
            }
            if row.issued_at >= wanted.since {
                found.push(row);
            }
        }
        Ok(found)
    }

    /// The end of the last leaf that an authority has signed, unix time; the server's own do not count.
    pub(crate) async fn leaves_until(&self, authority: &str) -> Result<Option<i64>, StoreError> {
        let row = sqlx::query_scalar(LEAVES_UNTIL).bind(authority).fetch_one(&self.readers).await;
        row.map_err(|error| self.failed(error))
    }

    /// The end of the last leaf of `authority` that was issued by `since`, has not expired by `now`, and belongs to nobody among
    /// `followers`, neither as its ID nor as the one who asked for it.
    pub(crate) async fn unfollowed_until(
        &self,
        authority: &str,
        (now, since): (i64, i64),
        followers: &BTreeSet<String>,
    ) -> Result<Option<i64>, StoreError> {
        let followers = serde_json::to_string(followers).unwrap_or_else(|_| "[]".to_owned());
        let query = sqlx::query_scalar(UNFOLLOWED_UNTIL).bind(authority).bind(now).bind(since).bind(followers);
        query.fetch_optional(&self.readers).await.map_err(|error| self.failed(error))
    }

    /// Revocations of certificates that end after `now`, by serial number.
    pub(crate) async fn revocations(&self, now: i64) -> Result<Vec<Revocation>, StoreError> {
        let query = sqlx::query("SELECT * FROM revocation WHERE not_after > ?1 ORDER BY serial").bind(now);
        let rows = query.fetch_all(&self.readers).await;
        let rows = rows.and_then(|rows| rows.iter().map(revocation).collect());
        rows.map_err(|error| self.failed(error))
    }

    /// What of `target` is revoked and has not expired by `now`.
    pub(crate) async fn revoked(&self, target: &Target, now: i64) -> Result<Vec<Revocation>, StoreError> {
        let mut all = self.revocations(now).await?;
        all.retain(|revocation| match target {
            Target::Id(id) => revocation.spiffe_id == *id,
            Target::Serial(serial) => revocation.serial == *serial,
        });
        Ok(all)
    }
}

fn revocation(row: &SqliteRow) -> Result<Revocation, sqlx::Error> {
    Ok(Revocation {
        serial: row.try_get("serial")?,
        spiffe_id: row.try_get("spiffe_id")?,
        not_after: row.try_get("not_after")?,
        reason: row.try_get("reason")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}

fn token_row(row: &SqliteRow) -> Result<TokenRow, sqlx::Error> {
    Ok(TokenRow {
        secret_sha256: row.try_get("secret_sha256")?,
        spiffe_id: row.try_get("spiffe_id")?,
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        used_key_sha256: row.try_get("used_key_sha256")?,
    })
}

fn issuance_row(row: &SqliteRow) -> Result<IssuanceRow, sqlx::Error> {
    Ok(IssuanceRow {
        serial: row.try_get("serial")?,
        spiffe_id: row.try_get("spiffe_id")?,
        caller: row.try_get("caller")?,
        attestor: row.try_get("attestor")?,
        not_before: row.try_get("not_before")?,
        not_after: row.try_get("not_after")?,
        requested_ttl: row.try_get("requested_ttl")?,
        shortened: row.try_get("shortened")?,
        key_sha256: row.try_get("key_sha256")?,
        issued_at: row.try_get("issued_at")?,
        authority: row.try_get("authority")?,
        entry: row.try_get("entry")?,
    })
}
