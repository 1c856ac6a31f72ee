//! One rule, compiled: where its tokens stand, what they must say, what they leave behind.

use std::sync::Arc;

use palisade_policies::{JwksSource, JwtRule};

use super::cookie;
use super::place::{Found, Place};
use super::query;
use super::status::Status;
use super::token::Token;
use crate::jwks::{KeySet, KeySource, Mismatch};
use crate::{Headers, is_joined_header};

/// Claims that Istio always splits at spaces.
const SPACE_DELIMITED: [&str; 2] = ["scope", "permission"];

/// Headers that a claim must not reach and whose removal would break the message: framing and pseudo headers.
const UNTOUCHED: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) struct Provider {
    pub(super) rule: JwtRule,
    /// Keys that stand in the rule itself; the inner `None` where they are unusable.
    inline: Option<Option<Arc<KeySet>>>,
    /// In the order of Envoy's map: by name followed by prefix.
    headers: Vec<HeaderPlace>,
    params: Vec<String>,
    cookies: Vec<String>,
    audiences: Vec<String>,
    pub(super) payload_header: Option<String>,
    /// Header and claim.
    pub(super) claim_headers: Vec<(String, String)>,
    pub(super) split_claims: Vec<String>,
}

pub(super) struct HeaderPlace {
    /// Lower case.
    pub(super) name: String,
    prefix: String,
}

impl Provider {
    pub(super) fn compile(rule: &JwtRule) -> Self {
        let inline = match &rule.jwks {
            JwksSource::Inline(text) => Some(KeySet::parse(text).ok().map(Arc::new)),
            JwksSource::Uri(_) | JwksSource::Discovery => None,
        };
        let mut split_claims: Vec<String> = SPACE_DELIMITED.iter().map(|claim| (*claim).to_owned()).collect();
        split_claims.extend(rule.space_delimited_claims.iter().cloned());
        let touchable = |name: &String| Some(name.to_ascii_lowercase()).filter(|name| !is_untouched(name));
        Self {
            inline,
            headers: header_places(rule),
            params: params(rule),
            cookies: distinct(&rule.from_cookies),
            audiences: rule.audiences.iter().map(|audience| bare_audience(audience).to_owned()).collect(),
            payload_header: rule.output_payload_to_header.as_ref().and_then(touchable),
            claim_headers: (rule.output_claim_to_headers.iter())
                .filter_map(|output| Some((touchable(&output.header)?, output.claim.clone())))
                .collect(),
            split_claims,
            rule: rule.clone(),
        }
    }

    /// Headers that only this rule may write: whatever a caller sends in them is removed.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &str> {
        let claims = self.claim_headers.iter().map(|(header, _)| header);
        self.payload_header.iter().chain(claims).map(String::as_str)
    }

    pub(super) fn header_names(&self) -> impl Iterator<Item = &str> {
        let cookie = (!self.cookies.is_empty()).then_some("cookie");
        self.headers.iter().map(|place| place.name.as_str()).chain(cookie)
    }

    pub(super) fn params(&self) -> impl Iterator<Item = &str> {
        self.params.iter().map(String::as_str)
    }

    /// Every token that stands in a place of this rule, in Envoy's order: headers, parameters, cookies.
    pub(super) fn extract(&self, headers: &dyn Headers, target: Option<&str>) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for place in &self.headers {
            place.each_value(headers, &mut |value| {
                if let Some(token) = after_prefix(value, &place.prefix) {
                    found.push(Found { token: token.to_vec(), place: Place::Header(&place.name) });
                }
            });
        }
        for name in &self.params {
            if let Some(token) = target.and_then(|target| query::first(target, name)) {
                found.push(Found { token, place: Place::Param(name) });
            }
        }
        for name in &self.cookies {
            let mut first = None;
            headers.for_each("cookie", &mut |value| {
                if first.is_none() {
                    first = cookie::first(value, name).map(<[u8]>::to_vec);
                }
            });
            found.extend(first.map(|token| Found { token, place: Place::Cookie }));
        }
        found
    }

    /// Everything that Envoy checks behind the parsing, in its order: the first complaint is the answer.
    pub(super) fn verify(&self, token: &Token, keys: &dyn KeySource, now: u64) -> Result<(), Status> {
        if !self.rule.issuer.is_empty() && self.rule.issuer != token.issuer {
            return Err(Status::UnknownIssuer);
        }
        token.check_time(now)?;
        if !self.allows_audience(token) {
            return Err(Status::Audience);
        }
        let set = match &self.inline {
            Some(set) => set.clone().ok_or(Status::NoValidKeys)?,
            None => keys.keys(&self.rule).ok_or(Status::FetchFails)?,
        };
        let kid = token.kid.as_deref();
        set.verify(kid, token.alg, &token.signed, &token.signature).map_err(|mismatch| {
            if self.inline.is_none() && kid.is_some_and(|kid| !set.knows(kid)) {
                keys.unknown_key(&self.rule);
            }
            match mismatch {
                Mismatch::NoKey => Status::KidAlgMismatch,
                Mismatch::Signature => Status::VerificationFails,
                Mismatch::Ed25519Length => Status::Ed25519Length,
            }
        })
    }

    /// Whether the keys have to be fetched.
    pub(super) const fn is_remote(&self) -> bool {
        self.inline.is_none()
    }

    fn allows_audience(&self, token: &Token) -> bool {
        self.audiences.is_empty()
            || token.audiences.iter().any(|audience| self.audiences.iter().any(|own| own == bare_audience(audience)))
    }
}

impl HeaderPlace {
    /// Each value as Envoy's header map holds it: instances of some headers are one value, and those that
    /// are not empty are joined by commas.
    fn each_value(&self, headers: &dyn Headers, f: &mut dyn FnMut(&[u8])) {
        if !is_joined_header(&self.name) {
            return headers.for_each(&self.name, f);
        }
        let mut joined: Option<Vec<u8>> = None;
        headers.for_each(&self.name, &mut |value| {
            let joined = joined.get_or_insert_default();
            if !joined.is_empty() && !value.is_empty() {
                joined.push(b',');
            }
            joined.extend_from_slice(value);
        });
        if let Some(joined) = joined {
            f(&joined);
        }
    }
}

/// The token behind the first occurrence of `prefix`, wherever that stands; `None` where it does not. Behind it,
/// bytes that no token begins with are skipped; without any that does, Envoy takes the whole value.
fn after_prefix<'a>(value: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    if prefix.is_empty() {
        return Some(value);
    }
    let at = value.windows(prefix.len()).position(|window| window == prefix.as_bytes())?;
    let rest = value.get(at + prefix.len()..).unwrap_or_default();
    let start = rest.iter().position(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    Some(start.and_then(|start| rest.get(start..)).unwrap_or(value))
}

/// Envoy compares audiences without `http://` or `https://` and without one slash at the end.
fn bare_audience(audience: &str) -> &str {
    let bare = audience.strip_prefix("http://").or_else(|| audience.strip_prefix("https://")).unwrap_or(audience);
    bare.strip_suffix('/').unwrap_or(bare)
}

fn has_default_places(rule: &JwtRule) -> bool {
    rule.from_headers.is_empty() && rule.from_params.is_empty() && rule.from_cookies.is_empty()
}

fn header_places(rule: &JwtRule) -> Vec<HeaderPlace> {
    let place = |name: &str, prefix: &str| HeaderPlace { name: name.to_ascii_lowercase(), prefix: prefix.to_owned() };
    if has_default_places(rule) {
        return vec![place("authorization", "Bearer ")];
    }
    let mut places: Vec<_> = rule.from_headers.iter().map(|header| place(&header.name, &header.prefix)).collect();
    places.sort_by_key(HeaderPlace::map_key);
    places.dedup_by_key(|place| place.map_key());
    places
}

impl HeaderPlace {
    /// Two places whose name and prefix give the same text are one to Envoy.
    fn map_key(&self) -> String {
        format!("{}{}", self.name, self.prefix)
    }
}

fn is_untouched(name: &str) -> bool {
    UNTOUCHED.contains(&name)
}

fn distinct(names: &[String]) -> Vec<String> {
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    names
}

fn params(rule: &JwtRule) -> Vec<String> {
    if has_default_places(rule) { vec!["access_token".to_owned()] } else { distinct(&rule.from_params) }
}
