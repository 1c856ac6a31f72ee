//! What a provider's answer means for the request it was asked about.
//!
//! Envoy carries an answer out on its header map step by step. The same steps are taken here on the values that the
//! request has, and what comes out is told as edits; so a value that continues the one that is there needs nobody's
//! attention later.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::edits::Edits;
use crate::is_joined_header;

use super::check::CheckRequest;
use super::field::{Malformed, is_hop_by_hop, is_name};
use super::query;
use super::response::{Response, ResponseEdits, is_a_responses};

/// Header fields that one answer may change, and the bytes of their names and values (Envoy's limits of a whole head).
const MAX_CHANGES: usize = 100;
const MAX_CHANGED_BYTES: usize = 60 * 1024;

/// A well-formed answer.
#[derive(Debug)]
pub(super) enum Answer {
    Allowed(Box<Changes>),
    Denied(Response),
}

/// What an allowing answer changes.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) edits: Edits,
    pub(super) response: ResponseEdits,
    pub(super) metadata: Option<Arc<Value>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the circuit is open, or too many checks wait")]
    Rejected,
    #[error("no connection to the provider")]
    Unreachable(#[source] std::io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("the exchange broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the provider answered with an error ({0})")]
    Status(i32),
    /// The error comes with what to tell the caller; the status may be left to the configuration.
    #[error("the provider answered with an error and a response for it")]
    Told(Option<u16>, Response),
    #[error("the answer cannot be obeyed as it stands")]
    Malformed,
    #[error("the request cannot be put to this provider")]
    Question,
}

impl From<Malformed> for Failure {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// What an allowing answer asks for, in the order in which Envoy does it.
#[derive(Default)]
pub(super) struct Wanted {
    /// Fields that replace those of the same name; the last one stays.
    pub(super) set: Vec<(String, Vec<u8>)>,
    /// Values that continue those that are there then; where none is, nothing happens.
    pub(super) join: Vec<(String, Vec<u8>)>,
    pub(super) remove: Vec<String>,
    pub(super) set_query: Vec<(String, String)>,
    pub(super) remove_query: Vec<String>,
}

impl Wanted {
    /// The edits that do this to `request`.
    pub(super) fn edits(self, request: &CheckRequest) -> Result<Edits, Malformed> {
        within_limits(self.set.iter().chain(&self.join).map(|(name, value)| (name, value)))?;
        let mut fields = Fields { request, now: BTreeMap::new() };
        for (name, value) in self.set {
            if let Some(values) = fields.values(name) {
                *values = vec![value];
            }
        }
        for (name, value) in self.join {
            let delimiter: &[u8] = if name == "cookie" { b"; " } else { b"," };
            if let Some(first) = fields.values(name).and_then(|values| values.first_mut()) {
                if !first.is_empty() && !value.is_empty() {
                    first.extend_from_slice(delimiter);
                }
                first.extend(value);
            }
        }
        let mut edits = Edits::default();
        for name in self.remove {
            let name = name.to_ascii_lowercase();
            if is_name(&name) && name != "host" && !is_hop_by_hop(&name) {
                fields.now.remove(&name);
                edits.remove_header(&name);
            }
        }
        fields.tell(&mut edits)?;
        let target = edits.target.as_deref().or(request.target.as_deref());
        if let Some(target) = target.filter(|_| !(self.set_query.is_empty() && self.remove_query.is_empty())) {
            edits.target = Some(query::rewritten(target, &self.set_query, &self.remove_query)?);
        }
        Ok(edits)
    }
}

/// Whether an answer changes no more than a head may hold.
pub(super) fn within_limits<'a>(changes: impl Iterator<Item = (&'a String, &'a Vec<u8>)>) -> Result<(), Malformed> {
    let (count, bytes) =
        changes.fold((0, 0), |(count, bytes), (name, value)| (count + 1, bytes + name.len() + value.len()));
    if count > MAX_CHANGES || bytes > MAX_CHANGED_BYTES { Err(Malformed) } else { Ok(()) }
}

/// The header map on which the steps are taken: values by name, copied when a name is first touched.
struct Fields<'a> {
    request: &'a CheckRequest,
    now: BTreeMap<String, Vec<Vec<u8>>>,
}

impl Fields<'_> {
    fn original(&self, name: &str) -> Vec<Vec<u8>> {
        let one = |value: &Option<String>| value.iter().map(|value| value.as_bytes().to_vec()).collect();
        match name {
            ":path" => one(&self.request.target),
            ":authority" => one(&self.request.host),
            ":method" => one(&self.request.method),
            _ => {
                let fields = self.request.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
                let values: Vec<Vec<u8>> = fields.map(|(_, value)| value.clone()).collect();
                // Envoy holds these in one piece from the start.
                if values.len() < 2 || !is_joined_header(name) {
                    return values;
                }
                vec![values.into_iter().filter(|value| !value.is_empty()).collect::<Vec<_>>().join(&b","[..])]
            }
        }
    }

    /// The values of a field that may be changed.
    fn values(&mut self, name: String) -> Option<&mut Vec<Vec<u8>>> {
        let name = if name == "host" { ":authority".to_owned() } else { name };
        if is_hop_by_hop(&name) {
            return None;
        }
        let original = self.original(&name);
        Some(self.now.entry(name).or_insert(original))
    }

    /// Says what became of the fields.
    fn tell(mut self, edits: &mut Edits) -> Result<(), Malformed> {
        for (name, values) in std::mem::take(&mut self.now) {
            if values == self.original(&name) {
                continue;
            }
            let mut values = values.into_iter();
            let Some(first) = values.next() else { continue };
            match name.as_str() {
                ":path" => edits.target = Some(target(first)?),
                ":authority" => edits.host = Some(host(first)?),
                ":method" => edits.method = Some(method(first)?),
                // The scheme is the connection's, and there are no others on a request.
                pseudo if pseudo.starts_with(':') => {}
                name => {
                    edits.set_header(name, first);
                    edits.append.extend(values.map(|value| (name.to_owned(), value)));
                }
            }
        }
        Ok(())
    }
}

fn target(value: Vec<u8>) -> Result<String, Malformed> {
    String::from_utf8(value).ok().filter(|target| query::is_target(target)).ok_or(Malformed)
}

/// One that nobody can read in two ways.
fn host(value: Vec<u8>) -> Result<String, Malformed> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+;=".contains(&byte);
    String::from_utf8(value)
        .ok()
        .filter(|host| !host.is_empty() && host.len() <= 261 && host.bytes().all(plain))
        .ok_or(Malformed)
}

fn method(value: Vec<u8>) -> Result<String, Malformed> {
    let known =
        |method: &str| !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
    // The body of a request that becomes a tunnel, or of a tunnel that becomes a request, has no meaning.
    String::from_utf8(value).ok().filter(|method| known(method) && method != "CONNECT").ok_or(Malformed)
}

/// The response of a refusal: a status that ends an exchange, and fields that can be forwarded.
pub(super) fn refusal(status: i32, headers: Vec<(String, Vec<u8>)>, body: bytes::Bytes) -> Result<Response, Malformed> {
    let status = u16::try_from(status).ok().filter(|status| (200..1000).contains(status)).ok_or(Malformed)?;
    within_limits(headers.iter().map(|(name, value)| (name, value)))?;
    let body = if matches!(status, 204 | 304) { bytes::Bytes::new() } else { body };
    let mut headers = headers;
    headers.retain(|(name, _)| is_a_responses(name));
    if body.is_empty() {
        headers.retain(|(name, _)| name != "content-type");
    } else if !headers.iter().any(|(name, _)| name == "content-type") {
        headers.push(("content-type".to_owned(), b"text/plain".to_vec()));
    }
    Ok(Response { status, headers, body })
}
