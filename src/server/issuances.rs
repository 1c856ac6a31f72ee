//! What the authority has issued, and what others need to verify it.

use std::pin::Pin;

use futures_util::{Stream, stream};
use palisade_ca::{Authority, IssuanceQuery, IssuanceRow, Target};
use palisade_identity::SpiffeId;
use palisade_wire::admin::{Issuance, ListIssuancesRequest, TrustBundle};
use tonic::Status;

use crate::exit::chain;

/// So many if nobody says how many.
const DEFAULT_LIMIT: u32 = 100;
const LARGEST_LIMIT: u32 = 10_000;

/// Answers as they go out.
pub(super) type Answers = Pin<Box<dyn Stream<Item = Result<Issuance, Status>> + Send>>;

/// The issuances asked for, newest first.
pub(super) async fn list(authority: &Authority, request: ListIssuancesRequest) -> Result<Answers, Status> {
    let limit = if request.limit == 0 { DEFAULT_LIMIT } else { request.limit.min(LARGEST_LIMIT) };
    let query = IssuanceQuery { target: target(&request)?, since: request.since, limit };
    let rows = authority.issuances(&query).await.map_err(|error| Status::internal(chain(&error)))?;
    Ok(Box::pin(stream::iter(rows.into_iter().map(|row| Ok(issuance(row))))))
}

fn target(request: &ListIssuancesRequest) -> Result<Option<Target>, Status> {
    let refused = |text: String| Err(Status::invalid_argument(text));
    match (request.spiffe_id.as_str(), request.serial.as_str()) {
        ("", "") => Ok(None),
        (id, "") => match SpiffeId::parse(id) {
            Ok(id) => Ok(Some(Target::Id(id.as_str().to_owned()))),
            Err(error) => refused(format!("`{id}` is not a SPIFFE ID: {error}")),
        },
        ("", serial) => match Target::serial(serial) {
            Some(target) => Ok(Some(target)),
            None => refused(format!("`{serial}` is not a serial number: write it in hexadecimal")),
        },
        _ => refused("name a SPIFFE ID or a serial number, not both".to_owned()),
    }
}

fn issuance(row: IssuanceRow) -> Issuance {
    Issuance {
        reason: row.reason().to_owned(),
        serial: row.serial,
        spiffe_id: row.spiffe_id,
        caller: row.caller,
        attestor: row.attestor,
        entry: row.entry,
        issued_at: row.issued_at,
        not_before: row.not_before,
        not_after: row.not_after,
        requested_ttl: row.requested_ttl,
        shortened: row.shortened,
        key_sha256: row.key_sha256,
        authority: row.authority,
    }
}

/// The public keys of this moment.
pub(super) fn bundle(authority: &Authority) -> TrustBundle {
    TrustBundle { spiffe: authority.documents().bundle.to_string(), pem: authority.bundle().to_pem() }
}
