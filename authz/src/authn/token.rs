//! A JSON Web Token taken apart, before anything of it is believed: the checks and their order are those of Envoy's
//! `Jwt::parseFromString`, because the first complaint is the body of the answer.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::status::Status;
use crate::jwks::Algorithm;
use crate::{base64url, strict_json};

/// Longer tokens are refused unread. Proxies limit a request's head to less.
const MAX_BYTES: usize = 64 * 1024;

/// The clocks of issuer and verifier may differ by this many seconds.
const SKEW: u64 = 60;

/// A token that is well formed. Nothing says yet that its claims are true.
pub(super) struct Token {
    /// `header.payload`, as signed.
    pub(super) signed: Vec<u8>,
    pub(super) signature: Vec<u8>,
    pub(super) alg: Algorithm,
    pub(super) kid: Option<String>,
    /// The payload as it stands in the token.
    pub(super) payload_text: Vec<u8>,
    pub(super) claims: Arc<Map<String, Value>>,
    /// Empty where the token names none.
    pub(super) issuer: String,
    pub(super) audiences: Vec<String>,
    not_before: u64,
    expires: u64,
}

impl Token {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Status> {
        let mut parts = text.split(|byte| *byte == b'.').filter(|part| !part.is_empty());
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Status::BadFormat);
        };
        if text.len() > MAX_BYTES {
            return Err(Status::BadFormat);
        }
        let (alg, kid) = read_header(header)?;
        let decoded = base64url::decode(payload).ok_or(Status::PayloadBase64)?;
        let claims = object(&decoded).ok_or(Status::PayloadJson)?;
        let issuer = string(&claims, "iss", Status::IssNotString)?.unwrap_or_default().to_owned();
        string(&claims, "sub", Status::SubNotString)?;
        seconds(&claims, "iat", Status::IatNotInteger, Status::IatRange)?;
        let not_before = seconds(&claims, "nbf", Status::NbfNotInteger, Status::NbfRange)?;
        let expires = seconds(&claims, "exp", Status::ExpNotInteger, Status::ExpRange)?;
        string(&claims, "jti", Status::JtiNotString)?;
        let audiences = audiences(&claims)?;
        let signature = base64url::decode(signature).ok_or(Status::SignatureBase64)?;
        let signed = [header, b".", payload].concat();
        let payload_text = payload.to_vec();
        let claims = Arc::new(claims);
        Ok(Self { signed, signature, alg, kid, payload_text, claims, issuer, audiences, not_before, expires })
    }

    /// `now` in Unix seconds. An `exp` of zero is none, as in Envoy.
    pub(super) fn check_time(&self, now: u64) -> Result<(), Status> {
        if now.saturating_add(SKEW) < self.not_before {
            Err(Status::NotYetValid)
        } else if self.expires != 0 && now > self.expires.saturating_add(SKEW) {
            Err(Status::Expired)
        } else {
            Ok(())
        }
    }
}

fn read_header(text: &[u8]) -> Result<(Algorithm, Option<String>), Status> {
    let decoded = base64url::decode(text).ok_or(Status::HeaderBase64)?;
    let header = object(&decoded).ok_or(Status::HeaderJson)?;
    let alg = header.get("alg").and_then(Value::as_str).ok_or(Status::HeaderAlg)?;
    let alg = Algorithm::parse(alg).ok_or(Status::AlgUnknown)?;
    let kid = string(&header, "kid", Status::HeaderKid)?.filter(|kid| !kid.is_empty()).map(str::to_owned);
    if header.contains_key("crit") {
        return Err(Status::HeaderCrit);
    }
    Ok((alg, kid))
}

/// An object; `null` counts as an empty one, as in protobuf.
fn object(text: &[u8]) -> Option<Map<String, Value>> {
    match strict_json::parse(text) {
        Ok(Value::Object(object)) => Some(object),
        Ok(Value::Null) => Some(Map::new()),
        _ => None,
    }
}

fn string<'a>(object: &'a Map<String, Value>, name: &str, wrong: Status) -> Result<Option<&'a str>, Status> {
    object.get(name).map(|value| value.as_str().ok_or(wrong)).transpose()
}

/// A time, cut to whole seconds; zero where there is none. Envoy holds all numbers as doubles.
fn seconds(object: &Map<String, Value>, name: &str, wrong: Status, range: Status) -> Result<u64, Status> {
    let Some(value) = object.get(name) else { return Ok(0) };
    let number = value.as_f64().ok_or(wrong)?;
    #[expect(clippy::cast_precision_loss, reason = "the limit of Envoy's comparison is this double")]
    let limit = u64::MAX as f64;
    if number < 0.0 || number >= limit {
        return Err(range);
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to lie within the type")]
    let seconds = number as u64;
    Ok(seconds)
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, Status> {
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(several)) => {
            several.iter().map(|audience| audience.as_str().map(str::to_owned).ok_or(Status::AudNotString)).collect()
        }
        Some(_) => Err(Status::AudNotString),
    }
}
