//! The operator's questions, as the admin API puts them.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use palisade_wire::admin::audit_answer::Item;
use palisade_wire::admin::{AuditAnswer, AuditQuery, Completeness};
use palisade_wire::audit::Event;
use tonic::Status;

use crate::query::{self, Query};
use crate::store::{BEHIND, Behind, Following, Store, StoreError};

/// Answers as they go out.
pub type Answers = Pin<Box<dyn Stream<Item = Result<AuditAnswer, Status>> + Send>>;

/// `QueryAudit` and `FollowAudit` of the admin service.
#[derive(Debug, Clone)]
pub struct AdminAudit {
    store: Store,
}

impl AdminAudit {
    /// Answers from `store`.
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The matching rows, oldest first, then whether they are complete.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` with a text for the user; `INTERNAL` if the store cannot be read.
    pub async fn query(&self, asked: AuditQuery) -> Result<Answers, Status> {
        let query = parse(asked)?;
        let answer = self.store.query(&query).await.map_err(unreadable)?;
        let completeness = Completeness {
            complete: answer.completeness.complete(),
            reasons: answer.completeness.reasons.iter().map(ToString::to_string).collect(),
            rows: answer.events.len() as u64,
        };
        let rows = answer.events.into_iter().map(Item::Event);
        let items = rows.chain([Item::Completeness(completeness)]).map(|item| Ok(AuditAnswer { item: Some(item) }));
        Ok(Box::pin(stream::iter(items)))
    }

    /// Matching rows as they are stored, and gap events whatever the filter. With `since_ns` or `limit` the rows that are there
    /// come first. Ends only with the caller, or with `DATA_LOSS` for one who reads more slowly than rows arrive.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub async fn follow(&self, asked: AuditQuery) -> Result<Answers, Status> {
        let query = parse(asked)?;
        // Followed before the past is read, so that nothing falls between.
        let following = self.store.follow(query.clone());
        let (past, seen) = if query.since > 0 || query.limit > 0 {
            let (answer, last) = self.store.query_until(&query).await.map_err(unreadable)?;
            (answer.events, last)
        } else {
            (Vec::new(), 0)
        };
        let past = stream::iter(past.into_iter().map(Ok));
        let live = stream::unfold(Some(following), move |following| next(following, seen));
        Ok(Box::pin(past.chain(live).map(|event| event.map(|event| AuditAnswer { item: Some(Item::Event(event)) }))))
    }
}

/// The next row after `seen`, and nothing after an error.
async fn next(following: Option<Following>, seen: i64) -> Option<(Result<Event, Status>, Option<Following>)> {
    let mut following = following?;
    loop {
        match following.next().await? {
            Ok((id, _)) if id <= seen => {}
            Ok((_, event)) => return Some((Ok(event), Some(following))),
            Err(Behind) => {
                let text = format!(
                    "rows arrive faster than they are read, and more than {BEHIND} were waiting; narrow the filter, or query with --since"
                );
                return Some((Err(Status::data_loss(text)), None));
            }
        }
    }
}

fn parse(asked: AuditQuery) -> Result<Query, Status> {
    Query::try_from(asked).map_err(|error: query::QueryError| Status::invalid_argument(error.to_string()))
}

fn unreadable(error: StoreError) -> Status {
    tracing::error!(%error, cause = std::error::Error::source(&error).map(ToString::to_string), "cannot answer an audit query");
    Status::internal(error.to_string())
}
