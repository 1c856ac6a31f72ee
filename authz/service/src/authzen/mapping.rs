//! Subject, action, resource and context as a question.
//!
//! The standard leaves their vocabulary to each decision point; ours is closed. A property that this service does not know may
//! be the one that the caller relies on, so it is refused by name. What is left out is unknown, not absent.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use palisade_authz::{Attribute, Known, head, remote_ip};
use palisade_identity::SpiffeId;
use palisade_policies::WorkloadEntry;
use palisade_policies::json::{Fields, Problem, wrong};
use serde_json::Value;

use super::resource::{self, Place};
use crate::question::{HeaderList, Http, Question, Source, Target};
use crate::source::PolicySnapshot;
use crate::workload::{LookupError, by_name};

/// One evaluation as it was sent, defaults filled in.
#[derive(Debug, Clone, Default)]
pub(super) struct Evaluation {
    pub(super) subject: Option<Value>,
    pub(super) action: Option<Value>,
    pub(super) resource: Option<Value>,
    pub(super) context: Option<Value>,
}

/// What is asked.
pub(super) struct Asked {
    pub(super) question: Question,
    /// The workload that decides, or why there is none.
    pub(super) entry: Result<Arc<WorkloadEntry>, LookupError>,
}

struct Context {
    ip: Option<IpAddr>,
    remote_ip: Option<IpAddr>,
    sni: Option<String>,
    headers: Option<HeaderList>,
    metadata: Option<Value>,
}

/// What an action is.
enum Action {
    Method(String),
    Connect,
}

impl Evaluation {
    /// Reads one evaluation.
    pub(super) fn read(self, snapshot: &PolicySnapshot, now: SystemTime) -> Result<Asked, Problem> {
        let Self { subject, action, resource, context } = self;
        let missing = |field: &str, fix: &str| Problem::new(field, "missing", fix);
        let subject =
            subject.ok_or_else(|| missing("subject", "say who wants access: {\"type\":\"spiffe\",\"id\":..}"))?;
        let action = action.ok_or_else(|| missing("action", "say what for: {\"name\":\"GET\"}"))?;
        let resource = resource
            .ok_or_else(|| missing("resource", "say to what: {\"type\":\"workload\",\"id\":\"namespace/name\"}"))?;
        let (principal, claims) = read_subject(subject, snapshot)?;
        let action = read_action(action)?;
        let place = resource::read(resource, snapshot)?;
        let context = read_context(context)?;
        question(principal, claims, action, place, context, now)
    }
}

/// The principal (`None` for a caller without identity) and the verified claims.
type Subject = (Option<String>, Option<Value>);

fn read_subject(value: Value, snapshot: &PolicySnapshot) -> Result<Subject, Problem> {
    let mut fields = Fields::of("subject", value)?;
    let kind = fields.required("type", "write `spiffe`, `workload` or `anonymous`")?;
    let id = fields.required("id", "write the identifier, such as `spiffe://cluster.local/ns/web/sa/front`")?;
    let mut properties = fields.object_or_empty("properties")?;
    let claims = properties.map("claims")?;
    properties.finish("claims")?;
    let principal = match kind.as_str() {
        "spiffe" => Some(spiffe(&id)?),
        "workload" => Some(identity(&id, snapshot)?),
        "anonymous" => None,
        other => {
            let fix = "write `spiffe`, `workload` or `anonymous`; an end user is told by `subject.properties.claims`";
            return Err(Problem::new("subject.type", format!("`{other}` is unknown"), fix));
        }
    };
    Ok((principal, claims))
}

/// A SPIFFE ID, with or without its scheme.
fn spiffe(id: &str) -> Result<String, Problem> {
    let text = if id.starts_with("spiffe://") { id.to_owned() } else { format!("spiffe://{id}") };
    SpiffeId::parse(&text).map(|id| id.principal().to_owned()).map_err(|error| {
        let fix = "write a SPIFFE ID such as `spiffe://cluster.local/ns/web/sa/front`";
        Problem::new("subject.id", format!("`{id}`: {error}"), fix)
    })
}

/// The identity of a workload of the registry.
fn identity(id: &str, snapshot: &PolicySnapshot) -> Result<String, Problem> {
    let fix = "name a workload of the registry as `namespace/name`, or write its SPIFFE ID with type `spiffe`";
    match by_name(snapshot, id).map(|entry| snapshot.identity_of(&entry)) {
        Ok(Some(id)) => Ok(id.principal().to_owned()),
        Ok(None) => Err(Problem::new("subject.id", format!("`{id}` has no identity"), fix)),
        Err(error) => Err(Problem::new("subject.id", error.to_string(), fix)),
    }
}

fn read_action(value: Value) -> Result<Action, Problem> {
    let mut fields = Fields::of("action", value)?;
    let fix = "write an HTTP method such as `GET`, or `connect` for a connection without HTTP";
    let name = fields.required("name", fix)?;
    fields.object_or_empty("properties")?.finish("none")?;
    if name == "connect" {
        return Ok(Action::Connect);
    }
    let method = name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    if method {
        Ok(Action::Method(name))
    } else {
        Err(Problem::new("action.name", format!("`{name}` is unknown"), fix))
    }
}

fn read_context(value: Option<Value>) -> Result<Context, Problem> {
    let given = value.filter(|value| !value.is_null());
    let mut fields = given.map_or_else(|| Ok(Fields::none("context")), |value| Fields::of("context", value))?;
    let context = Context {
        ip: fields.parsed::<IpAddr>("ip", "10.0.0.7")?.map(|ip| ip.to_canonical()),
        remote_ip: fields.parsed::<IpAddr>("remoteIp", "203.0.113.9")?.map(|ip| ip.to_canonical()),
        sni: fields.string("sni")?,
        headers: headers(fields.value("headers"))?,
        metadata: fields.map("metadata")?,
    };
    // The standard's own example of a context. No policy asks for the time, so it changes nothing.
    fields.string("time")?;
    fields.finish("ip, remoteIp, sni, headers, metadata, time")?;
    Ok(context)
}

/// `[["name","value"],..]`: raw, in order, repeated names repeated.
fn headers(value: Option<Value>) -> Result<Option<HeaderList>, Problem> {
    let items = match value {
        None => return Ok(None),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong("context.headers", "an array of [name, value] pairs", &other)),
    };
    let mut list = HeaderList::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        match item.as_array().map(Vec::as_slice) {
            Some([Value::String(name), Value::String(value)]) => list.push(header(index, name, value)?),
            _ => {
                return Err(wrong(
                    &format!("context.headers[{index}]"),
                    "a pair of strings: [\"x-token\",\"a\"]",
                    &item,
                ));
            }
        }
    }
    Ok(Some(list))
}

/// A header that can be sent, and that has no field of its own: with both there would be two answers to what was sent.
fn header(index: usize, name: &str, value: &str) -> Result<(String, Vec<u8>), Problem> {
    let (name, value) = (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']));
    let (message, fix) = match name.as_str() {
        "host" | ":authority" => ("is no header here", "write it as `resource.properties.host`, or in the URL"),
        ":method" => ("is no header here", "write it as `action.name`"),
        ":path" => ("is no header here", "write it as `resource.properties.path`, or in the URL"),
        ":scheme" => ("is no header here", "write it as `resource.properties.scheme`, or in the URL"),
        _ if head::header(name.as_str(), value) => return Ok((name, value.as_bytes().to_vec())),
        _ => ("cannot be sent", "write a name and a value of HTTP/1.1, raw"),
    };
    Err(Problem::new(format!("context.headers[{index}]"), format!("`{}` {message}", name.escape_debug()), fix))
}

fn question(
    principal: Option<String>,
    claims: Option<Value>,
    action: Action,
    mut place: Place,
    context: Context,
    now: SystemTime,
) -> Result<Asked, Problem> {
    let mut known = Unknown(Known::ALL);
    let headers = known.given(Attribute::Headers, context.headers).unwrap_or_default();
    let remote_ip = context.remote_ip.or_else(|| remote_ip(context.ip, &headers));
    let http = match action {
        Action::Connect => {
            refuse_http(&place, &headers)?;
            None
        }
        Action::Method(method) => Some(http(method, &mut place, headers, &mut known)?),
    };
    let question = Question {
        source: Source {
            principal,
            ip: known.given(Attribute::SourceIp, context.ip),
            port: None,
            remote_ip: known.given(Attribute::RemoteIp, remote_ip),
        },
        destination: Target {
            ip: known.given(Attribute::DestinationIp, place.ip),
            port: known.given(Attribute::DestinationPort, place.port),
            service: place.service,
        },
        // An empty name says that none was sent.
        sni: known.given(Attribute::Sni, context.sni).filter(|sni| !sni.is_empty()),
        http,
        claims,
        metadata: known.given(Attribute::Metadata, context.metadata),
        known: known.0,
        time: now,
    };
    Ok(Asked { question, entry: place.entry })
}

/// A connection without HTTP has nothing of HTTP.
fn refuse_http(place: &Place, headers: &HeaderList) -> Result<(), Problem> {
    let field = place.http.or((!headers.is_empty()).then_some("context.headers"));
    let Some(field) = field else { return Ok(()) };
    let fix = "leave it out, or name an HTTP method as the action";
    Err(Problem::new(field, "a connection without HTTP has none", fix))
}

fn http(method: String, place: &mut Place, headers: HeaderList, known: &mut Unknown) -> Result<Http, Problem> {
    match (method.as_str(), &place.target) {
        ("CONNECT", Some(_)) => {
            let fix = "leave it out: CONNECT has no path";
            return Err(Problem::new("resource.properties.path", "CONNECT with a path", fix));
        }
        ("CONNECT", None) => {}
        (_, target) => {
            known.given(Attribute::Path, target.as_ref());
        }
    }
    Ok(Http {
        method: Some(method),
        host: known.given(Attribute::Host, place.host.take()),
        scheme: known.given(Attribute::Scheme, place.scheme.take()),
        target: place.target.take(),
        raw: place.raw.take(),
        protocol: "HTTP/1.1".to_owned(),
        headers,
        ..Http::default()
    })
}

/// Collects what is not known.
struct Unknown(Known);

impl Unknown {
    fn given<T>(&mut self, attribute: Attribute, value: Option<T>) -> Option<T> {
        if value.is_none() {
            self.0 = self.0.without(attribute);
        }
        value
    }
}
