//! Questions with a plainer request.

use serde_json::{Map, Value};

use super::text::{shorter, without_one};
use crate::conformance::generate::Keys;
use crate::conformance::oracle::Question;
use crate::conformance::scene::{Ask, Call, TOKEN};
use crate::conformance::translate::Chain;

/// The same question with less in its one request.
pub(super) fn plainer(question: &Question, keys: &Keys) -> Vec<Question> {
    let mut questions = Vec::new();
    let (Some(call), Some(ask)) = (question.calls.first(), question.calls.first().and_then(|call| call.asks.first()))
    else {
        return questions;
    };
    for call in calls(call) {
        questions.push(Question { calls: vec![call], ..question.clone() });
    }
    if question.scene.chain == Chain::Http {
        for ask in asks(ask, keys, question.scene.trusts_claims()) {
            questions.push(Question { calls: vec![Call { asks: vec![ask], ..call.clone() }], ..question.clone() });
        }
    }
    questions
}

fn calls(call: &Call) -> Vec<Call> {
    let mut calls = Vec::new();
    for (present, change) in [
        (call.principal.is_some(), (|call: &mut Call| call.principal = None) as fn(&mut Call)),
        (call.sni.is_some(), |call| call.sni = None),
        (call.metadata.is_some(), |call| call.metadata = None),
    ] {
        if present {
            let mut call = call.clone();
            change(&mut call);
            calls.push(call);
        }
    }
    calls
}

fn asks(ask: &Ask, keys: &Keys, trusted: bool) -> Vec<Ask> {
    let mut asks = Vec::new();
    for headers in without_one(&ask.headers) {
        // The token of claims goes with them.
        let token = |headers: &[(String, Vec<u8>)]| headers.iter().any(|(name, _)| name == TOKEN);
        if !trusted || token(&headers) == token(&ask.headers) {
            asks.push(Ask { headers, ..ask.clone() });
        }
    }
    asks.extend(fewer_claims(ask, keys));
    for (present, change) in [
        (ask.principal.is_some(), (|ask: &mut Ask| ask.principal = None) as fn(&mut Ask)),
        (ask.metadata.is_some(), |ask| ask.metadata = None),
        (ask.method != "GET" && ask.target.is_some(), |ask| ask.method = "GET".to_owned()),
        (ask.host != "a" && ask.target.is_some(), |ask| ask.host = "a".to_owned()),
    ] {
        if present {
            let mut ask = ask.clone();
            change(&mut ask);
            asks.push(ask);
        }
    }
    if let Some(target) = &ask.target {
        let shorter = shorter(target).into_iter().filter(|target| target.starts_with('/'));
        asks.extend(shorter.map(|target| Ask { target: Some(target), ..ask.clone() }));
    }
    for (at, (name, value)) in ask.headers.iter().enumerate() {
        let Some(text) = std::str::from_utf8(value).ok().filter(|text| text.len() < 40 && name != TOKEN) else {
            continue;
        };
        for shorter in shorter(text) {
            let mut ask = ask.clone();
            if let Some(slot) = ask.headers.get_mut(at) {
                slot.1 = shorter.into_bytes();
            }
            asks.push(ask);
        }
    }
    asks
}

/// Without each of the claims, signed anew.
fn fewer_claims(ask: &Ask, keys: &Keys) -> Vec<Ask> {
    let Some(Value::Object(claims)) = &ask.claims else { return Vec::new() };
    let mut headers = ask.headers.clone();
    headers.retain(|(name, _)| name != TOKEN);
    let mut asks = vec![Ask { claims: None, headers: headers.clone(), ..ask.clone() }];
    let entries: Vec<(String, Value)> = claims.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    for fewer in without_one(&entries) {
        let claims = Value::Object(fewer.into_iter().collect::<Map<_, _>>());
        let mut headers = headers.clone();
        headers.push((TOKEN.to_owned(), keys.trusted(&claims).into_bytes()));
        asks.push(Ask { claims: Some(claims), headers, ..ask.clone() });
    }
    asks
}
