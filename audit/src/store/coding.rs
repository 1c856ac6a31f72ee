//! An event as a row and back.

use palisade_wire::audit::{Event, Party};
use prost::Message;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// Principal, namespace, workload, address, service.
pub(super) type PartyKey = [String; 5];

/// What the deciding rule and its circumstances have in common between many events.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RuleKey {
    pub(super) policy: String,
    pub(super) file: String,
    pub(super) line: u32,
    pub(super) phase: String,
    pub(super) reason: String,
    pub(super) revision: String,
    pub(super) protocol: String,
    pub(super) transport: String,
}

/// The parts of an event that go to the dictionaries.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) source: Option<PartyKey>,
    pub(super) destination: Option<PartyKey>,
    pub(super) rule: RuleKey,
}

/// Takes out what the columns and dictionaries hold; the rest is the body.
pub(super) fn split(mut event: Event) -> (Keys, Vec<u8>) {
    let keys = Keys {
        source: event.source.as_mut().map(take_party),
        destination: event.destination.as_mut().map(take_party),
        rule: RuleKey {
            policy: std::mem::take(&mut event.policy),
            file: std::mem::take(&mut event.policy_file),
            line: std::mem::take(&mut event.policy_line),
            phase: std::mem::take(&mut event.phase),
            reason: std::mem::take(&mut event.reason),
            revision: std::mem::take(&mut event.revision),
            protocol: std::mem::take(&mut event.protocol),
            transport: std::mem::take(&mut event.transport),
        },
    };
    let body = Event {
        enforcer: String::new(),
        epoch: 0,
        sequence: 0,
        time_ns: 0,
        kind: 0,
        verdict: 0,
        ingested_ns: 0,
        ..event
    };
    (keys, body.encode_to_vec())
}

fn take_party(party: &mut Party) -> PartyKey {
    [&mut party.principal, &mut party.namespace, &mut party.workload, &mut party.ip, &mut party.service]
        .map(std::mem::take)
}

/// The columns that [`join`] reads, in its order. `e`, `n`, `s`, `d`, `r` are the event, the enforcer, both parties, the rule.
pub(super) const COLUMNS: &str = "e.id, e.time_ns, e.ingested_ns, n.name, e.epoch, e.sequence, e.kind, e.verdict, e.body, \
     s.principal, s.namespace, s.workload, s.ip, s.service, d.principal, d.namespace, d.workload, d.ip, d.service, \
     r.policy, r.file, r.line, r.phase, r.reason, r.revision, r.protocol, r.transport";

/// The event of a row of [`COLUMNS`].
pub(super) fn join(row: &SqliteRow) -> Result<Event, sqlx::Error> {
    let body: &[u8] = row.try_get(8)?;
    let mut event = Event::decode(body).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let number = |index: usize| row.try_get::<i64, _>(index).map(|value| u64::try_from(value).unwrap_or(0));
    let code = |index: usize| row.try_get::<i64, _>(index).map(|value| i32::try_from(value).unwrap_or(0));
    (event.time_ns, event.ingested_ns) = (number(1)?, number(2)?);
    event.enforcer = row.try_get(3)?;
    (event.epoch, event.sequence) = (number(4)?, number(5)?);
    (event.kind, event.verdict) = (code(6)?, code(7)?);
    fill_party(event.source.as_mut(), row, 9)?;
    fill_party(event.destination.as_mut(), row, 14)?;
    event.policy = row.try_get(19)?;
    event.policy_file = row.try_get(20)?;
    event.policy_line = u32::try_from(row.try_get::<i64, _>(21)?).unwrap_or(0);
    event.phase = row.try_get(22)?;
    event.reason = row.try_get(23)?;
    event.revision = row.try_get(24)?;
    event.protocol = row.try_get(25)?;
    event.transport = row.try_get(26)?;
    Ok(event)
}

fn fill_party(party: Option<&mut Party>, row: &SqliteRow, first: usize) -> Result<(), sqlx::Error> {
    let Some(party) = party else { return Ok(()) };
    let fields = [&mut party.principal, &mut party.namespace, &mut party.workload, &mut party.ip, &mut party.service];
    for (index, field) in fields.into_iter().enumerate() {
        *field = row.try_get(first + index)?;
    }
    Ok(())
}
