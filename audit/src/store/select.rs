//! Questions as SQL. Values are bound, never spliced; only fixed text is pushed.

use palisade_wire::audit::{Event, Verdict};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::coding::{COLUMNS, join};
use super::writer::signed;
use crate::query::{PartyFilter, Query};

/// The newest matching rows, oldest first, and whether there are more.
pub(super) async fn events(
    connection: &mut SqliteConnection,
    query: &Query,
) -> Result<(Vec<Event>, bool), sqlx::Error> {
    let limit = i64::from(query.rows());
    let mut sql = statement(query, limit.saturating_add(1));
    let rows = sql.build().persistent(false).fetch_all(connection).await?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > most;
    let events = rows.iter().take(most).rev().map(join).collect::<Result<_, _>>()?;
    Ok((events, more))
}

fn statement(query: &Query, limit: i64) -> QueryBuilder<Sqlite> {
    // The numbers of the rows are found, and limited, in one index before anything else is read.
    let mut sql = QueryBuilder::<Sqlite>::new("SELECT ");
    sql.push(COLUMNS);
    sql.push(" FROM (SELECT id FROM events WHERE 1 = 1");
    match query.verdict {
        // Written out, because a bound value cannot choose the partial index.
        Some(Verdict::Deny) => sql.push(" AND verdict = 2"),
        Some(Verdict::Allow) => sql.push(" AND verdict = 1"),
        Some(Verdict::Unspecified) => sql.push(" AND verdict = 0"),
        None => &mut sql,
    };
    if query.since > 0 {
        sql.push(" AND time_ns >= ").push_bind(signed(query.since));
    }
    if query.until > 0 {
        sql.push(" AND time_ns < ").push_bind(signed(query.until));
    }
    if let Some(from) = &query.from {
        sql.push(" AND src_id IN ");
        push_parties(&mut sql, from);
    }
    if let Some(to) = &query.to {
        sql.push(" AND dst_id IN ");
        push_parties(&mut sql, to);
    }
    sql.push(" ORDER BY time_ns DESC, id DESC LIMIT ").push_bind(limit);
    sql.push(
        ") k CROSS JOIN events e ON e.id = k.id CROSS JOIN enforcers n ON n.id = e.enforcer_id \
         CROSS JOIN rules r ON r.id = e.rule_id \
         LEFT JOIN parties s ON s.id = e.src_id LEFT JOIN parties d ON d.id = e.dst_id \
         ORDER BY e.time_ns DESC, e.id DESC",
    );
    sql
}

/// The parties that a filter means.
fn push_parties(sql: &mut QueryBuilder<Sqlite>, filter: &PartyFilter) {
    sql.push("(SELECT id FROM parties WHERE ");
    for column in ["principal", "workload", "namespace", "ip"] {
        sql.push("(").push(column).push(" <> '' AND ");
        push_fit(sql, column, filter);
        sql.push(") OR ");
    }
    sql.push("(namespace <> '' AND workload <> '' AND ");
    push_fit(sql, "namespace || '/' || workload", filter);
    sql.push("))");
}

fn push_fit(sql: &mut QueryBuilder<Sqlite>, value: &'static str, filter: &PartyFilter) {
    if filter.is_prefix() {
        // `LIKE` and `GLOB` would give meaning to characters of the value.
        let length = i64::try_from(filter.text().chars().count()).unwrap_or(i64::MAX);
        sql.push("substr(")
            .push(value)
            .push(", 1, ")
            .push_bind(length)
            .push(") = ")
            .push_bind(filter.text().to_owned());
    } else {
        sql.push(value).push(" = ").push_bind(filter.text().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row, SqlSafeStr};

    use super::*;

    /// How SQLite would find the rows.
    async fn plan(query: Query) -> String {
        let dir = tempfile::tempdir().unwrap();
        let options =
            sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("a.db")).create_if_missing(true);
        let (mut connection, _) = super::super::schema::connect(&options).await.unwrap();
        // A plan does not depend on the values, so they need not be bound.
        let text = format!("EXPLAIN QUERY PLAN {}", statement(&query, 100).sql().as_str());
        let rows = sqlx::query(AssertSqlSafe(text).into_sql_str()).fetch_all(&mut connection).await.unwrap();
        rows.iter().map(|row| row.get::<String, _>(3)).collect::<Vec<_>>().join("\n")
    }

    #[tokio::test]
    async fn each_question_has_its_index() {
        let party = Some(PartyFilter::parse("shop/*").unwrap());
        for (query, index) in [
            (Query::default(), "USING COVERING INDEX events_time"),
            (Query { since: 5, ..Query::default() }, "USING COVERING INDEX events_time (time_ns>?)"),
            (Query { verdict: Some(Verdict::Deny), ..Query::default() }, "USING COVERING INDEX events_deny"),
            (Query { from: party.clone(), ..Query::default() }, "USING COVERING INDEX events_src (src_id=?)"),
            (Query { to: party, ..Query::default() }, "USING COVERING INDEX events_dst (dst_id=?)"),
        ] {
            let plan = plan(query).await;
            assert!(plan.contains(index), "{index} in\n{plan}");
            assert!(!plan.contains("SCAN e\n"), "{plan}");
        }
    }
}
