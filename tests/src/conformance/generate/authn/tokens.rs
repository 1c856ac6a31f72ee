//! Requests with tokens: in the right place or near it, right or wrong in one way.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use palisade_policies::{JwksSource, JwtRule, RequestAuthentication};
use serde_json::{Map, Value, json};

use super::super::claims;
use super::super::world::World;
use super::keys::{ALGORITHMS, Algorithm, Keys};
use crate::conformance::dice::Dice;
use crate::conformance::scene::Ask;

/// Far beyond every clock skew.
const AN_HOUR: u64 = 3_600;

/// Puts tokens into a request, mostly one.
pub(in super::super) fn carry(
    dice: &mut Dice,
    world: &World,
    keys: &Keys,
    policies: &[impl AsRef<RequestAuthentication>],
    draft: &Map<String, Value>,
    ask: &mut Ask,
) {
    let rules: Vec<&JwtRule> = policies.iter().flat_map(|policy| &policy.as_ref().rules).collect();
    let confusing = rules.iter().all(|rule| names_algorithms(rule));
    for _ in 0..*dice.pick(&[0, 1, 1, 1, 1, 2, 3]) {
        let Some(rule) = dice.pick_any(&rules) else { return };
        let token = token(dice, (world, keys), rule, confusing, draft);
        // Mostly where the rule looks, else where another does.
        let place = if dice.chance(85) { *rule } else { dice.pick(&rules) };
        put(dice, place, &token, ask);
    }
    if ask.target.is_some() && dice.chance(5) {
        ask.method = "OPTIONS".to_owned();
        ask.headers.push(("origin".to_owned(), b"https://a.com".to_vec()));
        ask.headers.push(("access-control-request-method".to_owned(), b"GET".to_vec()));
    }
    for name in ["x-payload", "x-claim-0"] {
        if dice.chance(6) {
            ask.headers.push((name.to_owned(), b"forged".to_vec()));
        }
    }
}

/// A token for a rule: good, or spoilt in one way.
fn token(
    dice: &mut Dice,
    (world, keys): (&World, &Keys),
    rule: &JwtRule,
    confusing: bool,
    draft: &Map<String, Value>,
) -> String {
    let mut payload = claims::claims(dice, world);
    payload.extend(draft.clone());
    if !rule.issuer.is_empty() && dice.chance(90) {
        payload.insert("iss".to_owned(), rule.issuer.clone().into());
    }
    if dice.chance(85) && !rule.audiences.is_empty() {
        let configured = dice.pick(&rule.audiences).clone();
        let audience = audience(dice, &configured);
        payload.insert("aud".to_owned(), audience);
    }
    times(dice, &mut payload);
    if dice.chance(12) {
        wrong_types(dice, &mut payload);
    }
    let algorithm = *dice.pick(&ALGORITHMS);
    let mut head = json!({ "alg": algorithm.name(), "kid": algorithm.name(), "typ": "JWT" });
    let text = head_text(dice, &mut head, confusing);
    let body = Value::Object(payload).to_string();
    let body = if dice.chance(3) { body_text(dice, &body) } else { body };
    let token = keys.token(algorithm, &text, &body);
    if dice.chance(12) { spoilt(dice, &token, algorithm) } else { token }
}

fn audience(dice: &mut Dice, configured: &str) -> Value {
    let bare = configured.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let text = match dice.below(6) {
        0 => format!("https://{bare}/"),
        1 => format!("http://{bare}"),
        2 => format!("{bare}/"),
        3 => format!("{bare}x"),
        _ => configured.to_owned(),
    };
    if dice.chance(50) { text.into() } else { json!(["zz", text]) }
}

fn times(dice: &mut Dice, payload: &mut Map<String, Value>) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let (past, future) = (now.saturating_sub(AN_HOUR), now + 24 * AN_HOUR);
    let mut set = |name: &str, value: Value| _ = payload.insert(name.to_owned(), value);
    match dice.below(20) {
        0 => set("exp", past.into()),
        1 => set("nbf", future.into()),
        2 => set("iat", future.into()),
        3..=8 => set("exp", future.into()),
        9 => {
            set("exp", future.into());
            set("nbf", past.into());
            set("iat", past.into());
        }
        _ => {}
    }
}

/// Registered claims of a type that they cannot have, or that one would not expect.
fn wrong_types(dice: &mut Dice, payload: &mut Map<String, Value>) {
    let name = dice.text(&["iss", "sub", "aud", "exp", "nbf", "iat", "jti"]);
    let values = [
        json!(1),
        json!("1"),
        json!(null),
        json!(true),
        json!([]),
        json!(["a1", 1]),
        json!({}),
        json!(-1),
        json!(1.5),
        json!(1e30),
        json!(0),
    ];
    payload.insert(name, dice.pick(&values).clone());
}

/// Whether every key says what it is for. Where one does not, Envoy verifies with it what says to be of another kind; the
/// engine refuses that on purpose, so tokens that name another algorithm or key are no cases then.
fn names_algorithms(rule: &JwtRule) -> bool {
    let JwksSource::Inline(text) = &rule.jwks else { return false };
    let set: Value = serde_json::from_str(text).unwrap_or_default();
    set["keys"].as_array().into_iter().flatten().all(|key| key["alg"].is_string())
}

fn head_text(dice: &mut Dice, head: &mut Value, confusing: bool) -> String {
    match dice.below(40) {
        0 => head["alg"] = "none".into(),
        1 => head["alg"] = "NONE".into(),
        2 if confusing => head["alg"] = dice.pick(&ALGORITHMS).name().into(),
        3 => head["alg"] = json!(1),
        4 => head["kid"] = "unknown".into(),
        5 if confusing => head["kid"] = dice.pick(&ALGORITHMS).name().into(),
        6 => head["kid"] = json!(1),
        7..=12 => {
            if let Value::Object(fields) = head {
                fields.remove("kid");
            }
        }
        13 => head["typ"] = json!(["JWT"]),
        14 => return "not json".to_owned(),
        15 => return "[]".to_owned(),
        16 => return format!("{{\"alg\":\"none\",{}", head.to_string().trim_start_matches('{')),
        _ => {}
    }
    head.to_string()
}

fn body_text(dice: &mut Dice, body: &str) -> String {
    match dice.below(6) {
        0 => "not json".to_owned(),
        1 => "[]".to_owned(),
        2 => "\"text\"".to_owned(),
        3 => String::new(),
        4 => format!("{{\"iss\":\"forged\",{}", body.trim_start_matches('{')),
        _ => format!("{body} "),
    }
}

/// A token that is none any more.
fn spoilt(dice: &mut Dice, token: &str, algorithm: Algorithm) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let [head, body, signature] = parts.as_slice() else { return token.to_owned() };
    match dice.below(12) {
        0 => format!("{head}.{body}"),
        1 => format!("{head}.{body}."),
        2 => format!("{head}.{body}.{signature}="),
        3 => format!("{head}.{body}.{signature}.x"),
        4 => format!("{head}.{body}.{}", signature.replacen(char::is_alphanumeric, "A", 3)),
        5 => format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode("{\"iss\":\"i\",\"sub\":\"root\"}")),
        6 => format!(".{body}.{signature}"),
        7 => format!("{head}..{signature}"),
        8 => "garbage".to_owned(),
        9 => String::new(),
        10 => format!("{head}.{body}.!{}", algorithm.name()),
        _ => format!("{token},x"),
    }
}

/// Where a rule looks for tokens, or a little beside it.
fn put(dice: &mut Dice, rule: &JwtRule, token: &str, ask: &mut Ask) {
    let mut places = Vec::new();
    places.extend(rule.from_headers.iter().map(|header| Place::Header(&header.name, &header.prefix)));
    places.extend(rule.from_params.iter().map(|name| Place::Param(name)));
    places.extend(rule.from_cookies.iter().map(|name| Place::Cookie(name)));
    if places.is_empty() || dice.chance(8) {
        places.extend([Place::Header("authorization", "Bearer "), Place::Param("access_token")]);
    }
    match dice.pick(&places) {
        Place::Header(name, prefix) => {
            let value = in_header(dice, prefix, token);
            ask.headers.push(((*name).to_owned(), value.into_bytes()));
        }
        Place::Param(name) => {
            if let Some(target) = &mut ask.target {
                in_query(dice, name, token, target);
            }
        }
        Place::Cookie(name) => {
            let value = in_cookie(dice, name, token);
            ask.headers.push(("cookie".to_owned(), value.into_bytes()));
        }
    }
}

enum Place<'a> {
    Header(&'a str, &'a str),
    Param(&'a str),
    Cookie(&'a str),
}

fn in_header(dice: &mut Dice, prefix: &str, token: &str) -> String {
    match dice.below(20) {
        0 => token.to_owned(),
        1 => format!("foo {prefix}{token}"),
        2 => format!("{}{token}", prefix.to_ascii_lowercase()),
        3 => format!("{prefix} {token}"),
        4 => format!("{prefix}{token} trailing"),
        5 => prefix.to_owned(),
        6 => "Basic dTpw".to_owned(),
        7 => format!("{prefix}{token},{prefix}{token}"),
        8 => format!("{prefix}({token})"),
        _ => format!("{prefix}{token}"),
    }
}

fn in_query(dice: &mut Dice, name: &str, token: &str, target: &mut String) {
    let (before, fragment) = target.split_once('#').map_or((target.as_str(), ""), |(before, rest)| (before, rest));
    let joint = if before.contains('?') { "&" } else { "?" };
    let query = match dice.below(12) {
        0 => format!("{name}="),
        1 => name.to_owned(),
        2 => format!("{name}={token}&{name}=second"),
        3 => format!("{name}=first&{name}={token}"),
        4 => format!("a=1&{name}={token}&b=2"),
        5 => format!("{}={token}", name.to_ascii_uppercase()),
        6 => format!("x{name}={token}"),
        7 => format!("{name}={}", token.replace('.', "%2E")),
        8 => format!("a&{name}={token}&&c=%20;d=1"),
        9 => format!("z=1&{name}={token}&b=%2F&a=+&z=0&=x&y=1=2"),
        _ => format!("{name}={token}"),
    };
    let end = if fragment.is_empty() { String::new() } else { format!("#{fragment}") };
    *target = format!("{before}{joint}{query}{end}");
}

fn in_cookie(dice: &mut Dice, name: &str, token: &str) -> String {
    match dice.below(10) {
        0 => format!("a=1; {name}={token}; b=2"),
        1 => format!("a=1;{name}={token}"),
        2 => format!("{name}=\"{token}\""),
        3 => format!("{name} = {token}"),
        4 => format!("{name}={token}; {name}=second"),
        5 => format!("x{name}={token}"),
        6 => format!("{name}="),
        _ => format!("{name}={token}"),
    }
}
