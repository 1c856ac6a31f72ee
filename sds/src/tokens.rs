//! JWT-SVIDs from the server, each kept for half of its life.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use palisade_identity::{Clock, SpiffeId, error_chain};
use palisade_wire::agents::IssueJwtRequest;
use palisade_wire::agents::agents_client::AgentsClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::attest::DENIED;
use crate::jwt;

/// Most tokens kept. More are asked for anew each time.
const MAX_KEPT: usize = 1000;
/// For one call. A client's own patience is short, and a token that is still good is better than none.
const DEADLINE: Duration = Duration::from_secs(5);

/// Entry and audience, the latter sorted.
type Key = (String, Vec<String>);

/// Tokens by entry and audience.
pub(crate) struct Tokens {
    /// The channel of the moment.
    channel: Box<dyn Fn() -> Result<Channel, Status> + Send + Sync>,
    clock: Arc<dyn Clock>,
    kept: Mutex<HashMap<Key, Kept>>,
}

#[derive(Clone)]
struct Kept {
    id: SpiffeId,
    token: String,
    half: u64,
    end: u64,
}

impl Tokens {
    pub(crate) fn new(
        channel: impl Fn() -> Result<Channel, Status> + Send + Sync + 'static,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { channel: Box::new(channel), clock, kept: Mutex::default() }
    }

    /// A token of `id` for `audience` (sorted, without repetition); of the agent itself for the empty entry.
    ///
    /// While the server is away a token is given out as long as it is valid.
    pub(crate) async fn get(&self, entry: &str, id: &SpiffeId, audience: &[String]) -> Result<String, Status> {
        let key = (entry.to_owned(), audience.to_vec());
        let now = self.clock.now().as_secs();
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        let kept = kept.filter(|kept| kept.id == *id && now < kept.end);
        if let Some(kept) = kept.as_ref().filter(|kept| now < kept.half) {
            return Ok(kept.token.clone());
        }
        match (self.ask(&key).await, kept) {
            (Ok(fresh), _) => {
                let fresh = check(fresh, id.clone(), now)?;
                let token = fresh.token.clone();
                self.keep(key, fresh, now);
                Ok(token)
            }
            (Err(status), Some(kept)) if !is_final(&status) => {
                tracing::warn!(%id, reason = %error_chain(&status), "no new token; the last one is good still");
                Ok(kept.token)
            }
            (Err(status), _) => {
                tracing::warn!(%id, reason = %error_chain(&status), "no token");
                Err(match status.code() {
                    Code::Unimplemented => Status::unimplemented("the server makes no JWT-SVIDs"),
                    _ if is_final(&status) => Status::permission_denied(DENIED),
                    _ => Status::unavailable("the server gives no token now"),
                })
            }
        }
    }

    async fn ask(&self, (entry, audience): &Key) -> Result<palisade_wire::agents::IssueJwtResponse, Status> {
        let message = IssueJwtRequest { entry_id: entry.clone(), audience: audience.clone() };
        let mut request = Request::new(message);
        request.set_timeout(DEADLINE);
        let mut client = AgentsClient::new((self.channel)()?);
        let answer = tokio::time::timeout(DEADLINE, client.issue_jwt(request)).await;
        answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time"))).map(tonic::Response::into_inner)
    }

    fn keep(&self, key: Key, fresh: Kept, now: u64) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, kept| now < kept.half);
        }
        if kept.len() < MAX_KEPT {
            kept.insert(key, fresh);
        }
    }
}

/// What is handed out must be a token for the caller, whoever made it.
fn check(fresh: palisade_wire::agents::IssueJwtResponse, id: SpiffeId, now: u64) -> Result<Kept, Status> {
    let (from, end) = (u64::try_from(fresh.issued_at), u64::try_from(fresh.expires_at));
    let (Ok(from), Ok(end)) = (from, end) else { return Err(Status::unavailable("the server's token has no dates")) };
    if jwt::subject(&fresh.token).as_ref() != Some(&id) || end <= now {
        tracing::error!(%id, "the server's token is for somebody else, or over already");
        return Err(Status::unavailable("the server gives no usable token"));
    }
    Ok(Kept { id, token: fresh.token, half: from.saturating_add(end.saturating_sub(from) / 2), end })
}

/// The server will not give this entry a token, however often it is asked.
fn is_final(status: &Status) -> bool {
    matches!(status.code(), Code::PermissionDenied | Code::NotFound | Code::InvalidArgument | Code::Unimplemented)
}
