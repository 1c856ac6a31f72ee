//! One question, as both protocols ask it: owned, normalised, and with what is not known marked as such.

use std::net::IpAddr;
use std::time::SystemTime;

use bytes::Bytes;
use palisade_authz::{
    Attribute, Destination, Headers, HttpRequest, Known, Peer, Request, Semantics, normalize::without_query,
};
use serde_json::Value;

use crate::doubts::Doubts;

/// Header names in lower case with their values, outer white space trimmed, in order.
pub(crate) type HeaderList = Vec<(String, Vec<u8>)>;

/// A request that somebody wants decided.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) source: Source,
    pub(crate) destination: Target,
    pub(crate) sni: Option<String>,
    /// `None` on a connection without HTTP.
    pub(crate) http: Option<Http>,
    /// Claims that the enforcer has verified; tokens of the request are then not looked at.
    pub(crate) claims: Option<Value>,
    pub(crate) metadata: Option<Value>,
    pub(crate) known: Known,
    /// When the request began, as far as the enforcer says.
    pub(crate) time: SystemTime,
}

/// The calling side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source {
    /// SPIFFE ID without its scheme.
    pub(crate) principal: Option<String>,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    pub(crate) remote_ip: Option<IpAddr>,
}

/// The called side.
#[derive(Debug, Clone, Default)]
pub(crate) struct Target {
    pub(crate) ip: Option<IpAddr>,
    pub(crate) port: Option<u16>,
    /// Service host that was asked for, where known.
    pub(crate) service: Option<String>,
}

/// The head of an HTTP request, and what of its body is known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Http {
    pub(crate) method: Option<String>,
    /// Path and query, normalised; `None` for CONNECT.
    pub(crate) target: Option<String>,
    /// Path and query as the enforcer has them.
    pub(crate) raw: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) scheme: Option<String>,
    pub(crate) protocol: String,
    pub(crate) headers: HeaderList,
    /// Whether the enforcer has joined repeated headers, and told bytes that are no UTF-8 as `!`.
    pub(crate) joined: bool,
    pub(crate) body: Option<Bytes>,
    pub(crate) body_size: Option<u64>,
}

impl Question {
    /// Whose semantics decide.
    pub(crate) fn semantics(&self) -> Semantics {
        if self.http.is_some() { Semantics::Http } else { Semantics::Tcp }
    }

    /// `http` or `tcp`.
    pub(crate) fn protocol(&self) -> &'static str {
        if self.http.is_some() { "http" } else { "tcp" }
    }

    /// The evaluator's view.
    pub(crate) fn request(&self) -> Request<'_> {
        self.view(self.http.as_ref().map(|http| (http, http.target.as_deref(), &http.headers as &dyn Headers)))
    }

    /// Asks `decide` about each other way in which what is behind the enforcer could read the same request, until one has
    /// something to say. Headers outside `read` are nobody's to read. Where the ways are too many to try, headers are
    /// unknown instead: what passes then passes in all of them.
    pub(crate) fn other_reading<T>(
        &self,
        read: &[String],
        decide: &mut dyn FnMut(&Request<'_>, Known) -> Option<T>,
    ) -> Option<T> {
        let http = self.http.as_ref()?;
        let targets = [http.target.as_deref(), http.raw.as_deref()];
        let targets = if targets[0] == targets[1] { &targets[..1] } else { &targets[..] };
        let doubts = Doubts::of(&http.headers, if http.joined { read } else { &[] });
        let Some(ways) = doubts.ways() else {
            let known = self.known.without(Attribute::Headers);
            let mut blind =
                targets.iter().map(|target| self.view(Some((http, *target, &http.headers as &dyn Headers))));
            return blind.find_map(|request| decide(&request, known));
        };
        for way in 0..ways {
            let headers = doubts.way(way);
            // The first of all is the one that was decided.
            for target in targets.iter().skip(usize::from(way == 0)) {
                let found = decide(&self.view(Some((http, *target, &headers as &dyn Headers))), self.known);
                if found.is_some() {
                    return found;
                }
            }
        }
        None
    }

    /// Whether a header of those names may be several.
    pub(crate) fn tokens_in_doubt(&self, names: &[String]) -> bool {
        let joined = self.http.as_ref().filter(|http| http.joined);
        joined.is_some_and(|http| Doubts::of(&http.headers, names).any())
    }

    fn view<'a>(&'a self, http: Option<(&'a Http, Option<&'a str>, &'a dyn Headers)>) -> Request<'a> {
        let http = http.map(|(http, target, headers)| HttpRequest {
            method: http.method.as_deref(),
            path: target.map(without_query),
            host: http.host.as_deref(),
            scheme: http.scheme.as_deref(),
            headers,
            raw_target: target,
        });
        Request {
            source: Peer {
                principal: self.source.principal.as_deref(),
                ip: self.source.ip,
                remote_ip: self.source.remote_ip,
            },
            destination: Destination { ip: self.destination.ip, port: self.destination.port },
            sni: self.sni.as_deref(),
            http,
            claims: self.claims.as_ref(),
            metadata: self.metadata.as_ref(),
        }
    }
}
