//! What a check comes to: leave to go on, with what changes on the way, or a refusal ready to be sent.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::edits::Edits;
use crate::permit::Approval;
use crate::record::reason;

use super::answer::within_limits;
use super::field::{Malformed, is_hop_by_hop};

/// The body of a refusal by policy, as Envoy writes it.
pub(crate) const DENIED: &str = "RBAC: access denied";

/// The outcome of [`crate::provider::Providers::check`].
#[derive(Debug)]
pub enum Verdict {
    /// The provider lets the request pass, or could not be asked and fails open.
    Approved {
        /// What the engine takes for the provider's yes.
        approval: Approval,
        /// What changes in the request.
        edits: Edits,
        /// What changes in the response that the caller gets.
        response_headers: ResponseEdits,
        /// Dynamic metadata of the provider's making, an object: what `experimental.envoy.filters.*` conditions of
        /// the policies behind it see.
        metadata: Option<Arc<Value>>,
    },
    /// The request is refused.
    Refused {
        /// For the caller.
        response: Response,
        /// `custom-denied`, `custom-error` or `no-provider` of [`crate::reason`].
        reason: &'static str,
    },
}

impl Verdict {
    pub(super) fn no_provider() -> Self {
        Self::Refused { response: Response::denied(), reason: reason::NO_PROVIDER }
    }
}

/// A response in place of the workload's. `Debug` prints names of headers only.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// HTTP status, 200 to 599.
    pub status: u16,
    /// Lower-case names, valid values, nothing about framing: `content-length` is the sender's.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body; the answer to HEAD leaves it out.
    pub body: Bytes,
}

impl Response {
    /// Envoy's own answers: a text, or nothing.
    #[must_use]
    pub fn text(status: u16, text: &'static str) -> Self {
        let headers = if text.is_empty() { Vec::new() } else { vec![content_type("text/plain")] };
        Self { status, headers, body: Bytes::from_static(text.as_bytes()) }
    }

    /// The refusal of a policy: 403, `RBAC: access denied`.
    #[must_use]
    pub fn denied() -> Self {
        Self::text(403, DENIED)
    }

    /// The same refusal for a gRPC caller, who understands it only as trailers inside status 200: `grpc-status` by
    /// the HTTP status unless the headers have one, and the text as `grpc-message`.
    #[must_use]
    pub fn for_grpc(&self) -> Self {
        let mut headers = self.headers.clone();
        headers.retain(|(name, _)| name != "content-type");
        headers.push(content_type("application/grpc"));
        let has = |wanted: &str| headers.iter().any(|(name, _)| name == wanted);
        let (status, message) = (!has("grpc-status"), !self.body.is_empty());
        if status {
            headers.push(("grpc-status".into(), grpc_status(self.status).into()));
        }
        if message {
            headers.retain(|(name, _)| name != "grpc-message");
            headers.push(("grpc-message".into(), percent_encoded(&self.body)));
        }
        Self { status: 200, headers, body: Bytes::new() }
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("headers", &names)
            .field("body", &self.body.len())
            .finish()
    }
}

fn content_type(value: &str) -> (String, Vec<u8>) {
    ("content-type".to_owned(), value.as_bytes().to_vec())
}

/// How Envoy translates a status (`Grpc::Utility::httpToGrpcStatus`).
const fn grpc_status(status: u16) -> &'static str {
    match status {
        400 => "13",
        401 => "16",
        403 => "7",
        404 => "12",
        429 | 502 | 503 | 504 => "14",
        _ => "2",
    }
}

/// As gRPC writes messages: what is not printable ASCII, and `%`, escaped; a space where it would be trimmed, too.
fn percent_encoded(text: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(text.len());
    let (start, end) = (text.len() - text.trim_ascii_start().len(), text.trim_ascii_end().len());
    for (at, byte) in text.iter().enumerate() {
        if (0x20..0x7f).contains(byte) && *byte != b'%' && (start..end).contains(&at) {
            encoded.push(*byte);
        } else {
            encoded.extend(format!("%{byte:02X}").bytes());
        }
    }
    encoded
}

/// What happens to a header that may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum How {
    /// Stands beside what is there.
    Add,
    /// Replaces what is there.
    Set,
    /// Only where none is.
    AddIfAbsent,
    /// Only where one is.
    OverwriteIfExists,
}

/// Whether a provider may give a response this field: no pseudo-header, no request's, none of one hop.
pub(super) fn is_a_responses(name: &str) -> bool {
    !name.starts_with(':') && name != "host" && !is_hop_by_hop(name)
}

/// One change of a header: a lower-case name, a valid value.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Mutation {
    pub(super) name: String,
    pub(super) value: Vec<u8>,
    pub(super) how: How,
}

/// Changes to the headers of the workload's response, in order. `Debug` prints names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ResponseEdits(Vec<Mutation>);

/// [`ResponseEdits`] against the headers that a response has.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// Headers of the response that go.
    pub remove: Vec<&'a str>,
    /// Headers that come, behind the rest.
    pub add: Vec<(&'a str, &'a [u8])>,
}

impl ResponseEdits {
    /// The changes in Envoy's order, by kind; those that are not for another hop to make, and pseudo-headers, left out.
    pub(super) fn new(mut changes: Vec<Mutation>) -> Result<Self, Malformed> {
        within_limits(changes.iter().map(|change| (&change.name, &change.value)))?;
        changes.retain(|change| is_a_responses(&change.name));
        changes.sort_by_key(|change| change.how);
        Ok(Self(changes))
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What to remove and what to add, given which headers (lower case) the response has.
    #[must_use]
    pub fn resolve<'a>(&'a self, has: &dyn Fn(&str) -> bool) -> Resolved<'a> {
        let mut resolved = Resolved::default();
        for Mutation { name, value, how } in &self.0 {
            let name = name.as_str();
            let brought = resolved.add.iter().any(|(added, _)| *added == name);
            let present = brought || (has(name) && !resolved.remove.contains(&name));
            let replaces = match how {
                How::Set => true,
                How::OverwriteIfExists if present => true,
                How::AddIfAbsent if present => continue,
                How::OverwriteIfExists => continue,
                How::Add | How::AddIfAbsent => false,
            };
            if replaces {
                resolved.add.retain(|(added, _)| *added != name);
                if has(name) && !resolved.remove.contains(&name) {
                    resolved.remove.push(name);
                }
            }
            resolved.add.push((name, value));
        }
        resolved
    }

    /// Carries the changes out on a list; names compare case-insensitively.
    pub fn apply(&self, headers: &mut Vec<(String, Vec<u8>)>) {
        let present: Vec<String> = headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        let resolved = self.resolve(&|name| present.iter().any(|other| other == name));
        headers.retain(|(name, _)| !resolved.remove.iter().any(|gone| gone.eq_ignore_ascii_case(name)));
        headers.extend(resolved.add.into_iter().map(|(name, value)| (name.to_owned(), value.to_vec())));
    }
}

impl fmt::Debug for ResponseEdits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|change| (&change.name, change.how))).finish()
    }
}

impl fmt::Debug for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mutation").field(&self.name).field(&self.how).finish()
    }
}
