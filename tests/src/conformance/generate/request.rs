//! A draft as a request: what it leaves open is chosen, and something may be spoilt.

use std::net::IpAddr;

use serde_json::Value;

use crate::conformance::dice::Dice;
use crate::conformance::scene::{Ask, TOKEN};

use super::aim::Draft;
use super::world::World;
use super::{Keys, claims, text};

/// A path that a pattern or a template of a policy matches, in one of the spellings that a client can choose.
pub(super) fn path_like(dice: &mut Dice, world: &World, pattern: &str) -> String {
    let mut path = if pattern.contains("{*}") || pattern.contains("{**}") {
        filled(dice, world, pattern)
    } else {
        text::instance(dice, pattern, &world.segments)
    };
    if dice.chance(25) {
        path = respelt(dice, &path);
    }
    path
}

fn filled(dice: &mut Dice, world: &World, template: &str) -> String {
    let mut path = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        path.push_str(before);
        let all = after.starts_with("**}");
        let count = if all { dice.below(4) } else { 1 };
        let segments: Vec<String> = (0..count).map(|_| dice.pick(&world.segments).clone()).collect();
        path.push_str(&segments.join("/"));
        rest = after.split_once('}').map_or("", |(_, rest)| rest);
    }
    path.push_str(rest);
    path
}

/// The same path as far as some normalisation is concerned.
fn respelt(dice: &mut Dice, path: &str) -> String {
    let at = path.char_indices().map(|(at, _)| at).nth(dice.below(path.chars().count().max(1))).unwrap_or_default();
    let (head, tail) = path.split_at(at);
    let mut rest = tail.chars();
    let escaped = rest.next().map_or_else(String::new, |first| {
        let mut bytes = [0; 4];
        first.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02x}")).collect()
    });
    match dice.below(9) {
        0 | 1 => format!("{head}{escaped}{}", rest.as_str()),
        2 => format!("{head}{}{}", escaped.to_ascii_uppercase(), rest.as_str()),
        3 => format!("/x/..{path}"),
        4 => format!("/.{path}"),
        5 => path.replacen('/', "//", 2),
        6 => path.replacen('/', "\\", 2),
        7 => path.replacen('/', "%2F", 2),
        _ => format!("{path}/."),
    }
}

/// The target of a request line.
fn target(dice: &mut Dice, world: &World, path: Option<String>) -> String {
    let mut target = path.unwrap_or_else(|| {
        let segments: Vec<String> = (0..dice.between(1, 3)).map(|_| dice.pick(&world.segments).clone()).collect();
        format!("/{}", segments.join("/"))
    });
    if dice.chance(12) {
        target = text::near(dice, &target);
    }
    match dice.below(20) {
        0..=2 => target.push_str("?q=1"),
        3 => target.push_str("?/../%61\\"),
        4 => target.push('?'),
        5 => target.push_str("#frag"),
        6 => target.push_str("?a#b?c"),
        _ => {}
    }
    // The codec takes visible ASCII that begins with a slash; anything else never reaches a policy.
    let mut target: String = target.chars().filter(|byte| ('!'..='~').contains(byte)).collect();
    if !target.starts_with('/') {
        target.insert(0, '/');
    }
    target
}

/// A whole request.
pub(super) fn ask(dice: &mut Dice, world: &World, mut draft: Draft, keys: Option<&Keys>, certified: bool) -> Ask {
    let principal = draft.principal.take().or_else(|| dice.chance(60).then(|| world.principal(dice)));
    let principal = principal.map(|id| if dice.chance(8) { text::near(dice, &id) } else { id });
    let method = draft.method.take().unwrap_or_else(|| dice.pick(&world.methods).clone());
    let method = token(&if dice.chance(4) { text::near(dice, &method) } else { method });
    let mut host = draft.host.take().unwrap_or_else(|| dice.pick(&world.hosts).clone());
    if dice.chance(10) {
        host = text::near(dice, &host);
    }
    let host: String = host.chars().filter(|byte| byte.is_ascii_alphanumeric() || "-._:[]".contains(*byte)).collect();
    let connect = method == "CONNECT";
    let host = if connect { authority(&host) } else { host };
    let target = (!connect).then(|| target(dice, world, draft.path.take()));
    let mut ask = Ask {
        principal: principal.filter(|id| !certified && is_plain(id)),
        method,
        target,
        host,
        headers: headers(dice, world, &mut draft),
        claims: None,
        metadata: draft.metadata.take().or_else(|| dice.chance(30).then(|| claims::shape(dice, world, 1))),
    };
    // istiod asks for tokens where paths begin with a slash: CONNECT has none.
    if let Some(keys) = keys.filter(|_| !connect && (!draft.claims.is_empty() || dice.chance(50))) {
        let mut claims = claims::claims(dice, world);
        claims.extend(draft.claims);
        let claims = Value::Object(claims);
        ask.headers.push((TOKEN.to_owned(), keys.trusted(&claims).into_bytes()));
        ask.claims = Some(claims);
    }
    ask
}

/// A host with a port, without which CONNECT is none.
fn authority(host: &str) -> String {
    let plain = |name: &str| !name.is_empty() && !name.contains([':', '[', ']', '_']);
    match host.rsplit_once(':') {
        Some((name, port)) if plain(name) && port.parse::<u16>().is_ok() => host.to_owned(),
        _ => format!("x{}:80", host.replace([':', '[', ']', '_'], "x")),
    }
}

/// A method that the codec takes.
fn token(text: &str) -> String {
    let token: String = text.chars().filter(|byte| byte.is_ascii_alphanumeric() || "-_.*".contains(*byte)).collect();
    if token.is_empty() || token == "HEAD" { "GET".to_owned() } else { token }
}

/// Whether an identity can stand in a header and in a certificate.
pub(super) fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic())
}

fn headers(dice: &mut Dice, world: &World, draft: &mut Draft) -> Vec<(String, Vec<u8>)> {
    let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
    let mut push = |dice: &mut Dice, name: &str, value: &str| {
        let forbidden = name.starts_with(':') || name.eq_ignore_ascii_case("host") || name == "x-missing";
        if !forbidden {
            let name = if dice.chance(20) { name.to_ascii_uppercase() } else { name.to_owned() };
            headers.push((name, bytes(dice, value)));
        }
    };
    for (name, value) in std::mem::take(&mut draft.headers) {
        // Some headers are one value however often they are sent, others are not.
        match value.split_once(',') {
            Some((first, second)) if dice.chance(50) => {
                push(dice, &name, first);
                push(dice, &name, second);
            }
            _ => push(dice, &name, &value),
        }
        if dice.chance(25) {
            let other = dice.pick(&world.texts).clone();
            push(dice, &name, &other);
        }
    }
    for _ in 0..*dice.pick(&[0, 0, 1, 2, 3]) {
        let (name, value) = (dice.pick(&world.headers).clone(), dice.pick(&world.texts).clone());
        push(dice, &name, &value);
    }
    if let Some(ip) = draft.remote.filter(|_| dice.chance(60)) {
        headers.push(("x-forwarded-for".to_owned(), forwarded(dice, world, ip).into_bytes()));
    }
    headers
}

/// Bytes of a header value: now and then such that no text has.
fn bytes(dice: &mut Dice, value: &str) -> Vec<u8> {
    let mut bytes = value.as_bytes().to_vec();
    match dice.below(40) {
        0 => bytes.push(0x80),
        1 => bytes.insert(0, 0xFF),
        2 => bytes.push(b'\t'),
        3 => bytes.insert(0, b' '),
        _ => {}
    }
    bytes
}

fn forwarded(dice: &mut Dice, world: &World, ip: IpAddr) -> String {
    let other = dice.pick(&world.addresses);
    match dice.below(12) {
        0..=4 => ip.to_string(),
        5 | 6 => format!("{other}, {ip}"),
        7 => format!("{other},{ip} "),
        8 => format!("{ip}, {other}, 10.9.8.7"),
        9 => format!("{ip}:80"),
        10 => format!("[{ip}]"),
        _ => format!("{other}, {ip}, garbage"),
    }
}
