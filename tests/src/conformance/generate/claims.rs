//! Claims of every shape that JSON has.

use serde_json::{Map, Value, json};

use crate::conformance::dice::Dice;

use super::text;
use super::world::World;

/// The claims of a token: a few of those that the vocabulary knows.
pub(super) fn claims(dice: &mut Dice, world: &World) -> Map<String, Value> {
    let mut claims = Map::new();
    if dice.chance(80) {
        claims.insert("iss".to_owned(), dice.pick(&world.issuers).clone().into());
    }
    if dice.chance(80) {
        claims.insert("sub".to_owned(), dice.pick(&world.subjects).clone().into());
    }
    for path in &world.claims {
        if dice.chance(60) {
            let value = shape(dice, world, 2);
            set(&mut claims, path, value);
        }
    }
    claims
}

/// Puts a value where `path` leads, through objects; other values on the way are replaced.
pub(super) fn set(claims: &mut Map<String, Value>, path: &[String], value: Value) {
    let [first, rest @ ..] = path else { return };
    if rest.is_empty() {
        // A verified token has texts here, else it is refused before any policy.
        let valid = match first.as_str() {
            "iss" | "sub" => value.is_string(),
            "aud" => value.as_array().map_or(value.is_string(), |items| items.iter().all(Value::is_string)),
            _ => true,
        };
        if valid {
            claims.insert(first.clone(), value);
        }
        return;
    }
    let inner = claims.entry(first.clone()).or_insert_with(|| json!({}));
    if !inner.is_object() {
        *inner = json!({});
    }
    if let Value::Object(inner) = inner {
        set(inner, rest, value);
    }
}

/// Any JSON, mostly texts and lists of them.
pub(super) fn shape(dice: &mut Dice, world: &World, depth: usize) -> Value {
    let word = |dice: &mut Dice| dice.pick(&world.texts).clone();
    match dice.below(20) {
        0..=6 => word(dice).into(),
        7 => Value::from(format!("{} {}", word(dice), word(dice))),
        8 => Value::from(format!(" {}  {}\t{}", word(dice), word(dice), word(dice))),
        9 => Value::from(format!("{}\n{}", word(dice), word(dice))),
        10..=13 => (0..dice.below(4)).map(|_| word(dice)).collect(),
        14 if depth > 0 => (0..dice.below(4)).map(|_| shape(dice, world, depth - 1)).collect(),
        15 if depth > 0 => json!({ word(dice): shape(dice, world, depth - 1) }),
        16 => dice.pick(&[json!(true), json!(false), json!(null)]).clone(),
        17 => dice.pick(&[json!(1), json!(0), json!(-1), json!(1.5), json!(12_345_678_901_i64), json!(1e30)]).clone(),
        18 => json!({}),
        _ => json!([]),
    }
}

/// A value that a claim's pattern matches: the text, or a list with it.
pub(super) fn instance(dice: &mut Dice, world: &World, pattern: &str) -> Value {
    let text = text::instance(dice, pattern, &world.texts);
    match dice.below(6) {
        0..=2 => text.into(),
        3 => json!([text]),
        4 => json!([shape(dice, world, 1), text, shape(dice, world, 1)]),
        _ => Value::from(format!("{} {text}", dice.pick(&world.texts))),
    }
}
