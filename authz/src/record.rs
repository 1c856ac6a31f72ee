//! What every decision leaves behind, and where it goes.
//!
//! The record is a fact sheet in plain owned data: the audit room turns it into its wire form. What stays the
//! same for a whole connection is shared, so that a request costs only its own strings.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use palisade_policies::RequestAuthentication;

use crate::evaluation::{Evaluation, Outcome, Phase};

/// Stable reason codes.
pub mod reason {
    /// A DENY rule matched.
    pub const DENY_MATCHED: &str = "deny-matched";
    /// An ALLOW rule matched.
    pub const ALLOW_MATCHED: &str = "allow-matched";
    /// Allowed: no ALLOW policy is attached.
    pub const NO_ALLOW_POLICY: &str = "no-allow-policy";
    /// Denied: ALLOW policies are attached, none matched.
    pub const NO_ALLOW_MATCHED: &str = "no-allow-matched";
    /// Denied: a CUSTOM rule matched whose provider cannot be asked.
    pub const NO_PROVIDER: &str = "no-provider";
    /// Not decided: an attribute that is not known would decide. Never a reason of enforcement.
    pub const UNDECIDED: &str = "undecided";
    /// Denied: the provider of a CUSTOM policy said no.
    pub const CUSTOM_DENIED: &str = "custom-denied";
    /// Denied: the provider of a CUSTOM policy could not be reached, or its answer not be read.
    pub const CUSTOM_ERROR: &str = "custom-error";
    /// Refused: the request's token is not valid.
    pub const TOKEN_INVALID: &str = "token-invalid";
    /// Refused: the request's token is meant for others.
    pub const TOKEN_AUDIENCE: &str = "token-audience";
    /// Refused: plaintext where STRICT asks for mutual TLS.
    pub const STRICT_PLAINTEXT: &str = "strict-plaintext";
    /// Refused: the TLS handshake failed.
    pub const HANDSHAKE_FAILED: &str = "handshake-failed";
    /// Refused: the peer's certificate is no valid SVID.
    pub const PEER_INVALID: &str = "peer-invalid";
    /// Refused, or an open connection closed: the peer's certificate is revoked.
    pub const PEER_REVOKED: &str = "peer-revoked";
    /// Refused: no policy snapshot has arrived yet.
    pub const NO_SNAPSHOT: &str = "no-snapshot";
    /// Refused: bytes that turned out to be HTTP after they had passed as opaque ones.
    pub const HTTP_UNDETECTED: &str = "http-undetected";
    /// An open connection was closed because policy changed.
    pub const POLICY_CHANGED: &str = "policy-changed";
}

/// Whether values of that field let their holder in somewhere. Policies may read them; a record never holds them.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    ["authorization", "cookie", "proxy-authorization", "set-cookie"]
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known))
}

/// Which of `headers_read` ([`crate::CompiledSet::headers_read`]) a record may hold. Policies may read credentials, and
/// so may the token rules that stand beside them; a record never holds those, nor fields in which tokens come or claims
/// are handed on.
#[must_use]
pub fn recorded_headers(headers_read: &[String], tokens: &[Arc<RequestAuthentication>]) -> Vec<String> {
    let rules = || tokens.iter().flat_map(|one| &one.rules);
    let sources = || rules().flat_map(|rule| &rule.from_headers).map(|from| from.name.as_str());
    let payloads = || rules().filter_map(|rule| rule.output_payload_to_header.as_deref());
    let holds_token = |name: &str| sources().chain(payloads()).any(|one| one.eq_ignore_ascii_case(name));
    let secret = |name: &str| is_credential(name) || holds_token(name);
    headers_read.iter().filter(|name| !secret(name)).cloned().collect()
}

/// Takes records; the audit room implements it.
pub trait DecisionSink: Send + Sync {
    /// Whether a record fits right now.
    fn has_room(&self) -> bool;
    /// Resolves when a record fits.
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
    /// Takes one record; never blocks.
    fn record(&self, record: DecisionRecord);
}

/// The short answer of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Passed.
    Allow,
    /// Refused.
    Deny,
}

/// One decision and its circumstances.
#[derive(Debug, Clone)]
pub struct DecisionRecord {
    /// What was asked.
    pub facts: RequestFacts,
    /// Passed or refused.
    pub verdict: Verdict,
    /// What the evaluator said; phase [`Phase::Authn`] without a policy where no policy was asked.
    pub evaluation: Evaluation,
    /// One of [`reason`].
    pub reason: &'static str,
}

impl DecisionRecord {
    /// A connection refused before any policy was asked: STRICT against plaintext, a failed handshake.
    #[must_use]
    pub fn connection_refused(reason: &'static str, facts: RequestFacts) -> Self {
        Self { facts, verdict: Verdict::Deny, evaluation: Evaluation::refused(Phase::Authn), reason }
    }

    pub(crate) fn decided(evaluation: Evaluation, reason: &'static str, facts: RequestFacts) -> Self {
        let verdict = match evaluation.outcome {
            Outcome::Allow => Verdict::Allow,
            Outcome::Deny | Outcome::Undecided => Verdict::Deny,
        };
        Self { facts, verdict, evaluation, reason }
    }
}

/// The circumstances of a decision, normalised as the evaluator saw them.
#[derive(Debug, Clone, Default)]
pub struct RequestFacts {
    /// When, in Unix nanoseconds.
    pub time_ns: u64,
    /// Revision of the snapshot that decided.
    pub revision: Arc<str>,
    /// Who called.
    pub source: Arc<SourceFacts>,
    /// What was called.
    pub destination: Arc<DestinationFacts>,
    /// The HTTP head; `None` on TCP.
    pub http: Option<HttpFacts>,
    /// `http`, `tcp` or `l4`.
    pub protocol: &'static str,
    /// `mtls` or `plaintext`.
    pub transport: &'static str,
    /// Server name as sent.
    pub sni: Option<Arc<str>>,
    /// HTTP status that the caller saw; 0 where there is none.
    pub status: u16,
    /// From the head to the end of the response.
    pub duration: Duration,
}

/// The calling side of [`RequestFacts`].
#[derive(Debug, Clone, Default)]
pub struct SourceFacts {
    /// SPIFFE ID without the scheme; `None` in plaintext.
    pub principal: Option<String>,
    /// TCP peer.
    pub ip: Option<IpAddr>,
    /// TCP port of the peer.
    pub port: Option<u16>,
    /// Workload name found by address: a hint, never an identity.
    pub hint: Option<String>,
}

/// The called side of [`RequestFacts`].
#[derive(Debug, Clone, Default)]
pub struct DestinationFacts {
    /// SPIFFE ID without the scheme.
    pub principal: Option<String>,
    /// Namespace of the workload.
    pub namespace: String,
    /// Name of the workload.
    pub workload: String,
    /// Address of the workload.
    pub ip: Option<IpAddr>,
    /// The application's port.
    pub port: Option<u16>,
    /// Service host that the caller asked for, where known.
    pub service: Option<String>,
}

/// The HTTP head of [`RequestFacts`].
#[derive(Debug, Clone, Default)]
pub struct HttpFacts {
    /// Method.
    pub method: String,
    /// Host or `:authority` as sent.
    pub host: Option<String>,
    /// Normalised path without the query; `None` for CONNECT.
    pub path: Option<String>,
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// The headers that attached policies read ([`crate::CompiledSet::headers_read`]), raw values in order.
    pub headers: Vec<(String, Vec<u8>)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_recognised_in_any_case() {
        for name in ["Authorization", "authorization", "COOKIE", "Proxy-Authorization", "set-cookie"] {
            assert!(is_credential(name), "{name}");
        }
        for name in ["x-authorization", "cookies", "host", ""] {
            assert!(!is_credential(name), "{name}");
        }
    }
}
