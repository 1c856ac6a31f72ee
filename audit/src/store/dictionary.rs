//! Strings that return, each combination once, and a cache of their numbers for the one writer.

use std::collections::HashMap;
use std::hash::Hash;

use sqlx::SqliteConnection;

use super::coding::{PartyKey, RuleKey};

/// Entries of one cache; at more it starts again from nothing, which costs look-ups but no memory.
const CACHED: usize = 50_000;

/// Known numbers. Forget them all when a transaction did not commit.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    enforcers: HashMap<String, i64>,
    parties: HashMap<PartyKey, i64>,
    rules: HashMap<RuleKey, i64>,
}

impl Dictionary {
    pub(super) async fn enforcer(&mut self, connection: &mut SqliteConnection, name: &str) -> Result<i64, sqlx::Error> {
        if let Some(id) = self.enforcers.get(name) {
            return Ok(*id);
        }
        sqlx::query("INSERT INTO enforcers (name) VALUES (?) ON CONFLICT DO NOTHING")
            .bind(name)
            .execute(&mut *connection)
            .await?;
        let id = sqlx::query_scalar("SELECT id FROM enforcers WHERE name = ?").bind(name).fetch_one(connection).await?;
        Ok(remember(&mut self.enforcers, name.to_owned(), id))
    }

    pub(super) async fn party(
        &mut self,
        connection: &mut SqliteConnection,
        key: Option<PartyKey>,
    ) -> Result<Option<i64>, sqlx::Error> {
        let Some(key) = key else { return Ok(None) };
        if let Some(id) = self.parties.get(&key) {
            return Ok(Some(*id));
        }
        let mut insert = sqlx::query(
            "INSERT INTO parties (principal, namespace, workload, ip, service) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        );
        let mut select = sqlx::query_scalar(
            "SELECT id FROM parties WHERE principal = ? AND namespace = ? AND workload = ? AND ip = ? AND service = ?",
        );
        for value in &key {
            insert = insert.bind(value);
            select = select.bind(value);
        }
        insert.execute(&mut *connection).await?;
        let id = select.fetch_one(connection).await?;
        Ok(Some(remember(&mut self.parties, key, id)))
    }

    pub(super) async fn rule(&mut self, connection: &mut SqliteConnection, key: RuleKey) -> Result<i64, sqlx::Error> {
        if let Some(id) = self.rules.get(&key) {
            return Ok(*id);
        }
        let texts = [&key.policy, &key.file, &key.phase, &key.reason, &key.revision, &key.protocol, &key.transport];
        let mut insert = sqlx::query(
            "INSERT INTO rules (line, policy, file, phase, reason, revision, protocol, transport) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(i64::from(key.line));
        let mut select = sqlx::query_scalar(
            "SELECT id FROM rules WHERE line = ? AND policy = ? AND file = ? AND phase = ? AND reason = ? AND revision = ? \
             AND protocol = ? AND transport = ?",
        )
        .bind(i64::from(key.line));
        for value in texts {
            insert = insert.bind(value);
            select = select.bind(value);
        }
        insert.execute(&mut *connection).await?;
        let id = select.fetch_one(connection).await?;
        Ok(remember(&mut self.rules, key, id))
    }
}

fn remember<K: Eq + Hash>(cache: &mut HashMap<K, i64>, key: K, id: i64) -> i64 {
    if cache.len() >= CACHED {
        cache.clear();
    }
    cache.insert(key, id);
    id
}
