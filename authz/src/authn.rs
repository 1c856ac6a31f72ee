//! Request authentication: which token of a request is verified by which issuer's keys, as Istio configures Envoy's
//! `jwt_authn`. It never asks for a token: it refuses bad ones and tells the policies what the good one says.

use std::fmt;
use std::sync::Arc;

use palisade_policies::{JwtRule, RequestAuthentication};
use serde_json::Value;

use crate::jwks::KeySource;
use crate::{Edits, Headers, NoHeaders};

mod cookie;
mod output;
mod place;
mod protobuf_json;
mod provider;
mod query;
mod session;
mod status;
mod token;

use provider::Provider;
use session::Session;
use status::Status;

/// Envoy repeats this much of the path in `www-authenticate`, in bytes.
const MAX_REALM_PATH: usize = 256;

/// The rules of all RequestAuthentications that apply to one workload, compiled.
pub struct Authenticator {
    providers: Vec<Provider>,
    /// Lives as long as this authenticator: how a key cache knows what is still followed.
    lease: Arc<()>,
}

/// What of a request is looked at. Build it with `..TokenRequest::default()`.
#[derive(Clone, Copy)]
pub struct TokenRequest<'a> {
    /// Method, case kept.
    pub method: Option<&'a str>,
    /// The normalised path with its query; `None` for CONNECT.
    pub target: Option<&'a str>,
    /// `http` or `https`; only repeated in `www-authenticate`.
    pub scheme: Option<&'a str>,
    /// Host or `:authority`; only repeated in `www-authenticate`.
    pub host: Option<&'a str>,
    /// The other headers.
    pub headers: &'a dyn Headers,
}

impl Default for TokenRequest<'_> {
    fn default() -> Self {
        Self { method: None, target: None, scheme: None, host: None, headers: &NoHeaders }
    }
}

/// The outcome of [`Authenticator::authenticate`].
#[derive(Debug)]
pub enum Authn {
    /// Nothing is wrong with the request's tokens, if it has any.
    Accepted(Accepted),
    /// Answer with this.
    Refused(Refusal),
}

/// A request that goes on.
#[derive(Default)]
pub struct Accepted {
    /// The claims of the verified token, as Envoy puts them into its metadata: `scope`, `permission` and the rule's
    /// space-delimited claims are lists. `None` without a token.
    pub claims: Option<Arc<Value>>,
    /// Taken out: the token, unless it is to be forwarded, and headers that only a rule may write. Put in: those.
    pub edits: Edits,
}

/// A request that ends here.
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal {
    /// 401, or 403 where only the audience is wrong.
    pub status: u16,
    /// Envoy's text, as `text/plain`.
    pub body: &'static str,
    /// The value of the header `www-authenticate`.
    pub www_authenticate: Option<String>,
    /// The reason code for the record.
    pub reason: &'static str,
}

impl Authenticator {
    /// Puts the rules of all policies in the order in which Istio hands them to Envoy: by issuer.
    #[must_use]
    pub fn compile(policies: &[Arc<RequestAuthentication>]) -> Self {
        let mut rules: Vec<&JwtRule> = policies.iter().flat_map(|policy| &policy.rules).collect();
        rules.sort_by(|one, other| one.issuer.cmp(&other.issuer));
        Self { providers: rules.into_iter().map(Provider::compile).collect(), lease: Arc::new(()) }
    }

    /// Whether there is no rule: every request passes unchanged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.providers.is_empty()
    }

    /// The headers (lower case) that authentication reads or removes; some may come twice.
    pub fn headers_read(&self) -> impl Iterator<Item = &str> {
        let preflight = ["origin", "access-control-request-method"].into_iter().filter(|_| !self.is_empty());
        self.providers.iter().flat_map(|provider| provider.header_names().chain(provider.outputs())).chain(preflight)
    }

    /// Judges the tokens of a request. `now` is in Unix seconds.
    pub fn authenticate(&self, request: &TokenRequest<'_>, keys: &dyn KeySource, now: u64) -> Authn {
        let outputs = self.providers.iter().flat_map(Provider::outputs);
        let mut session = Session::new(request, keys, now, outputs);
        let status = if session::is_exempt(request) { Status::Ok } else { session.require(&self.providers) };
        if status != Status::Ok {
            return Authn::Refused(self.refusal(request, status));
        }
        Authn::Accepted(Accepted { claims: session.claims, edits: session.edits })
    }

    /// The rules with keys to be fetched that the request carries a token for: what to wait for before
    /// [`Authenticator::authenticate`], with [`KeySource::first_outcome`].
    #[must_use]
    pub fn presented(&self, request: &TokenRequest<'_>) -> Vec<&JwtRule> {
        let remote = self.providers.iter().filter(|provider| provider.is_remote());
        if session::is_exempt(request) {
            return Vec::new();
        }
        remote
            .filter(|provider| !provider.extract(request.headers, request.target).is_empty())
            .map(|provider| &provider.rule)
            .collect()
    }

    /// The rules whose keys have to be fetched.
    pub(crate) fn remote_rules(&self) -> impl Iterator<Item = &JwtRule> {
        self.providers.iter().filter(|provider| provider.is_remote()).map(|provider| &provider.rule)
    }

    pub(crate) fn lease(&self) -> &Arc<()> {
        &self.lease
    }

    fn refusal(&self, request: &TokenRequest<'_>, status: Status) -> Refusal {
        let realm = self.realm(request);
        Refusal {
            status: status.http(),
            body: status.text(),
            www_authenticate: Some(format!("Bearer realm=\"{realm}\", error=\"invalid_token\"")),
            reason: status.reason(),
        }
    }

    /// The request's URI, as Envoy repeats it; without its query where that holds a token.
    fn realm(&self, request: &TokenRequest<'_>) -> String {
        let Some(target) = request.target else { return String::new() };
        let names = self.providers.iter().flat_map(Provider::params);
        let path = if query::has_any(target, names) { target.split('?').next().unwrap_or_default() } else { target };
        let path = path.get(..path.floor_char_boundary(MAX_REALM_PATH)).unwrap_or_default();
        format!("{}://{}{path}", request.scheme.unwrap_or_default(), request.host.unwrap_or_default())
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.providers.iter().map(|provider| &provider.rule.issuer)).finish()
    }
}

impl fmt::Debug for Accepted {
    /// Claims are personal: only whether there are any is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let edits = &self.edits;
        f.debug_struct("Accepted").field("claims", &self.claims.is_some()).field("edits", edits).finish()
    }
}

impl fmt::Debug for Refusal {
    /// Without `www_authenticate`, which repeats what the caller sent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { status, body, reason, .. } = self;
        f.debug_struct("Refusal").field("status", status).field("body", body).field("reason", reason).finish()
    }
}
