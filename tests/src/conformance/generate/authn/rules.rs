//! Token rules: issuers, audiences, places.

use std::sync::Arc;

use palisade_policies::{ClaimToHeader, JwksSource, JwtRule, RequestAuthentication, TokenHeader};
use serde_json::{Value, json};

use super::super::policy;
use super::super::world::World;
use super::keys::{ALGORITHMS, Keys};
use crate::conformance::dice::Dice;
use crate::conformance::scene::NAMESPACE;

const HEADERS: &[(&str, &str)] = &[
    ("x-tok", ""),
    ("X-Tok", "Token "),
    ("authorization", "Bearer "),
    ("Authorization", ""),
    ("x-tok", "jwt="),
    ("x-other", " "),
    ("cookie", "sess="),
];
const AUDIENCES: &[&str] = &["a1", "https://a1/", "http://a1", "svc.example.com", "https://svc.example.com/x/", "a2/"];

/// One or two policies with a few rules in all; no two rules of one issuer in different policies, since their order
/// would be nobody's promise.
pub(in super::super) fn policies(dice: &mut Dice, world: &World, keys: &Keys) -> Vec<Arc<RequestAuthentication>> {
    let mut issuers = world.issuers.clone();
    if dice.chance(15) {
        issuers.push(String::new());
    }
    let issuers = {
        let count = *dice.pick(&[1, 1, 2, 3]);
        dice.some(&issuers, count)
    };
    let rules: Vec<JwtRule> = issuers.into_iter().map(|issuer| rule(dice, world, keys, issuer)).collect();
    let cut = dice.below(rules.len() + 1);
    let (first, second) = rules.split_at(cut);
    [("tokens", first), ("more-tokens", second)]
        .into_iter()
        .filter(|(_, rules)| !rules.is_empty())
        .map(|(name, rules)| {
            Arc::new(RequestAuthentication {
                meta: policy::meta(name.to_owned(), NAMESPACE),
                selector: None,
                target_refs: Vec::new(),
                rules: rules.to_vec(),
            })
        })
        .collect()
}

fn rule(dice: &mut Dice, world: &World, keys: &Keys, issuer: String) -> JwtRule {
    let texts = |items: Vec<&str>| items.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let few = |dice: &mut Dice, items: &[&'static str], percent: usize| {
        let count = if dice.chance(percent) { dice.between(1, 2) } else { 0 };
        texts(dice.some(items, count))
    };
    let headers = if dice.chance(45) { dice.between(1, 2) } else { 0 };
    let from_headers = dice.some(HEADERS, headers).into_iter();
    let from_headers =
        from_headers.map(|(name, prefix)| TokenHeader { name: name.to_owned(), prefix: prefix.to_owned() });
    let outputs = if dice.chance(40) { dice.between(1, 3) } else { 0 };
    JwtRule {
        issuer,
        audiences: few(dice, AUDIENCES, 35),
        jwks: JwksSource::Inline(key_set(dice, keys)),
        from_headers: from_headers.collect(),
        from_params: few(dice, &["tok", "access_token", "TOK"], 25),
        from_cookies: few(dice, &["sess", "tok"], 25),
        output_payload_to_header: dice.chance(30).then(|| "x-payload".to_owned()),
        output_claim_to_headers: (0..outputs).map(|number| output(dice, world, number)).collect(),
        forward_original_token: dice.chance(40),
        timeout: JwtRule::DEFAULT_TIMEOUT,
        space_delimited_claims: few(dice, &["g", "n", "l", "scope"], 25),
        origin: policy::origin(),
    }
}

fn output(dice: &mut Dice, world: &World, number: usize) -> ClaimToHeader {
    let claim = dice.pick(&world.claims).join(".");
    ClaimToHeader { header: format!("x-claim-{number}"), claim }
}

/// Some of the keys, now and then without their names or algorithms.
fn key_set(dice: &mut Dice, keys: &Keys) -> String {
    let mut chosen = {
        let count = dice.between(1, ALGORITHMS.len());
        dice.some(&ALGORITHMS, count)
    };
    if dice.chance(50) && !chosen.contains(&ALGORITHMS[0]) {
        chosen.push(ALGORITHMS[0]);
    }
    let set = chosen.into_iter().map(|algorithm| {
        let mut key = keys.jwk(algorithm);
        for field in ["kid", "alg"] {
            if dice.chance(25)
                && let Value::Object(fields) = &mut key
            {
                fields.remove(field);
            }
        }
        if dice.chance(20) {
            key["use"] = "sig".into();
        }
        key
    });
    json!({ "keys": set.collect::<Vec<_>>() }).to_string()
}
