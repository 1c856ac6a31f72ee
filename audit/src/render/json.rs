//! One event as one line of JSON; the README lists the fields.

use palisade_wire::audit::{Event, Http, Kind, Party, Shadow};
use serde_json::{Map, Value};

use super::{escape, place, verdict};
use crate::window;

/// An object that leaves out what is empty.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn text(mut self, name: &str, value: &str) -> Self {
        if !value.is_empty() {
            self.0.insert(name.to_owned(), Value::from(value));
        }
        self
    }

    fn number(mut self, name: &str, value: u64) -> Self {
        if value != 0 {
            self.0.insert(name.to_owned(), Value::from(value));
        }
        self
    }

    fn value(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    fn object(mut self, name: &str, object: Object) -> Self {
        if !object.0.is_empty() {
            self.0.insert(name.to_owned(), Value::Object(object.0));
        }
        self
    }
}

/// The event as one line, without the line's end. Absent means unknown or not applicable.
#[must_use]
pub fn json(event: &Event) -> String {
    let pep = Object::default().text("id", &event.enforcer).value("epoch", event.epoch).value("seq", event.sequence);
    let shadow = Object::default()
        .object("allow", shadow(event.shadow_allow.as_ref()))
        .object("deny", shadow(event.shadow_deny.as_ref()));
    let mut object = Object::default()
        .text("schema", "palisade.audit.v1")
        .value("id", format!("{}/{}/{}", event.enforcer, event.epoch, event.sequence))
        .text("kind", kind(event.kind))
        .value("time", window::format_exact(event.time_ns));
    if event.ingested_ns != 0 {
        object = object.value("ingest_time", window::format_exact(event.ingested_ns));
    }
    object = object.object("pep", pep);
    if event.gap.is_none() {
        object = object.text("decision", verdict(event.kind, event.verdict));
    }
    object = object
        .text("phase", &event.phase)
        .text("reason", &event.reason)
        .object("policy", policy(event))
        .object("shadow", shadow);
    if event.audited {
        object = object.value("audited", true);
    }
    object = object
        .object("src", source(event))
        .object("dst", party(event.destination.as_ref()))
        .text("proto", &event.protocol)
        .text("tls", if event.transport == "plaintext" { "none" } else { &event.transport })
        .text("sni", &event.sni);
    object = http(object, event.http.as_ref())
        .number("status", event.status.into())
        .number("duration_ns", event.duration_ns);
    object = object.object("gap", gap(event));
    if !event.altered.is_empty() {
        object = object.value("altered", event.altered.clone());
    }
    escape::json(&Value::Object(object.0).to_string())
}

fn kind(kind: i32) -> &'static str {
    match Kind::try_from(kind) {
        Ok(Kind::Decision) => "authz.decision",
        Ok(Kind::Connection) => "authn.handshake",
        Ok(Kind::Gap) => "audit.gap",
        _ => "unknown",
    }
}

fn policy(event: &Event) -> Object {
    Object::default()
        .text("id", &event.policy)
        .text("source_ref", &place(&event.policy_file, event.policy_line))
        .text("revision", &event.revision)
}

fn shadow(shadow: Option<&Shadow>) -> Object {
    let Some(shadow) = shadow else { return Object::default() };
    Object::default()
        .text("result", &shadow.result)
        .text("policy", &shadow.policy)
        .text("source_ref", &place(&shadow.policy_file, shadow.policy_line))
}

/// A guessed workload stands in `hint` alone: `ns` and `workload` are for what was proven.
fn source(event: &Event) -> Object {
    let proven = event.source.clone().map(|source| match event.source_hint.as_str() {
        "" => source,
        _ => Party { namespace: String::new(), workload: String::new(), ..source },
    });
    party(proven.as_ref()).text("hint", &event.source_hint)
}

fn party(party: Option<&Party>) -> Object {
    let Some(party) = party else { return Object::default() };
    let spiffe = if party.principal.is_empty() { String::new() } else { format!("spiffe://{}", party.principal) };
    Object::default()
        .text("spiffe", &spiffe)
        .text("ns", &party.namespace)
        .text("workload", &party.workload)
        .text("addr", &party.ip)
        .number("port", party.port.into())
        .text("service", &party.service)
}

fn http(object: Object, http: Option<&Http>) -> Object {
    let Some(http) = http else { return object };
    let headers: Vec<Value> = http
        .headers
        .iter()
        .map(|header| Value::from(vec![header.name.clone(), String::from_utf8_lossy(&header.value).into_owned()]))
        .collect();
    let object = object
        .text("method", &http.method)
        .text("host", &http.host)
        .text("path", &http.path)
        .text("scheme", &http.scheme);
    if headers.is_empty() { object } else { object.value("headers", headers) }
}

fn gap(event: &Event) -> Object {
    let Some(gap) = &event.gap else { return Object::default() };
    let object = Object::default().value("from_seq", gap.from_sequence);
    let object = if gap.to_sequence == 0 {
        object
    } else {
        let count = gap.to_sequence.saturating_sub(gap.from_sequence).saturating_add(1);
        object.value("to_seq", gap.to_sequence).value("count", count)
    };
    object.text("cause", &gap.cause)
}
