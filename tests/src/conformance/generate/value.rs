//! One value of one list of a policy.

use crate::conformance::dice::Dice;

use super::text;
use super::world::World;

/// What a list or a condition is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Principal,
    RequestPrincipal,
    Namespace,
    ServiceAccount,
    TrustDomain,
    Ip,
    RemoteIp,
    DestinationIp,
    Host,
    Method,
    Path,
    Port,
    Sni,
    Metadata,
    Header,
    Claim,
    Audience,
    Presenter,
}

/// A value, mostly one that admission accepts.
pub(super) fn value(dice: &mut Dice, world: &World, field: Field) -> String {
    let value = match field {
        Field::Principal => principal(dice, world),
        Field::RequestPrincipal => request_principal(dice, world),
        Field::Namespace => namespace(dice, world),
        Field::ServiceAccount => service_account(dice, world),
        Field::TrustDomain => text::pattern(dice, &world.trust_domains).replace('/', ""),
        Field::Ip => {
            let address = dice.pick(&world.callers).to_string();
            if dice.chance(80) { block(dice, &address) } else { any_block(dice, world) }
        }
        Field::RemoteIp | Field::DestinationIp => any_block(dice, world),
        Field::Host => host(dice, world),
        Field::Method => text::pattern(dice, &world.methods),
        Field::Path => path(dice, world),
        Field::Port => port(dice, world),
        Field::Sni => text::pattern(dice, &world.servers),
        Field::Metadata => match text::pattern(dice, &world.texts) {
            value if dice.chance(40) => format!("[{value}]"),
            value => value,
        },
        Field::Header | Field::Claim | Field::Audience | Field::Presenter => text::pattern(dice, &world.texts),
    };
    if value.is_empty() { "*".to_owned() } else { value }
}

fn principal(dice: &mut Dice, world: &World) -> String {
    let full = world.principal(dice);
    let parts: Vec<&str> = full.split('/').collect();
    match dice.below(12) {
        0..=3 => full,
        5 => format!("{}/*", parts.first().copied().unwrap_or_default()),
        6 => format!("*/{}", parts.iter().skip(1).copied().collect::<Vec<_>>().join("/")),
        7 => match parts.as_slice() {
            [domain, ns, namespace, sa, _] => format!("{domain}/{ns}/{namespace}/{sa}/*"),
            _ => full,
        },
        8 => format!("spiffe://{full}"),
        9 => "*".to_owned(),
        4 | 10 => match parts.as_slice() {
            [domain, rest @ ..] if domain.len() > 2 => {
                let rest = rest.join("/");
                match dice.below(3) {
                    0 => format!("{}*/{rest}", domain.get(..2).unwrap_or_default()),
                    _ => format!("*{}/{rest}", domain.get(2..).unwrap_or_default()),
                }
            }
            _ => full,
        },
        _ => text::pattern(dice, &[full]),
    }
}

fn request_principal(dice: &mut Dice, world: &World) -> String {
    let (issuer, subject) = (dice.pick(&world.issuers).clone(), dice.pick(&world.subjects).clone());
    match dice.below(10) {
        0..=3 => format!("{issuer}/{subject}"),
        4 => format!("{issuer}/*"),
        5 => format!("*/{subject}"),
        6 => "*".to_owned(),
        7 => issuer,
        8 => format!("{}/{}", text::pattern(dice, &[issuer]), text::pattern(dice, &[subject])),
        _ => text::pattern(dice, &[format!("{issuer}/{subject}")]),
    }
}

fn namespace(dice: &mut Dice, world: &World) -> String {
    let one = text::pattern(dice, &world.namespaces);
    if dice.chance(15) { format!("{}*{}", one, dice.pick(&world.namespaces)) } else { one }
}

fn service_account(dice: &mut Dice, world: &World) -> String {
    let account = dice.pick(&world.accounts).clone();
    if dice.chance(50) { account } else { format!("{}/{account}", dice.pick(&world.namespaces)) }
}

/// An address or a prefix of any length.
fn block(dice: &mut Dice, address: &str) -> String {
    let most = if address.contains(':') { 128 } else { 32 };
    match dice.below(10) {
        0..=4 => address.to_owned(),
        5..=7 => format!("{address}/{}", dice.between(0, most)),
        8 => format!("{address}/{}", dice.pick(&[0, 1, most - 1, most])),
        _ => format!("{address}/{}", most / 4 * dice.between(1, 3)),
    }
}

fn any_block(dice: &mut Dice, world: &World) -> String {
    let address = dice.pick(&world.addresses).to_string();
    match dice.below(60) {
        // What admission refuses.
        0 => {
            dice.text(&["10.0.0.0/33", "nonsense", "10.0.0", "::/129", "010.0.0.1", "10.0.0.1/08", "1.2.3.4/ 8", "/8"])
        }
        1 => "::/0".to_owned(),
        2 => "0.0.0.0/0".to_owned(),
        _ => block(dice, &address),
    }
}

fn host(dice: &mut Dice, world: &World) -> String {
    match dice.below(10) {
        0 => format!("{}:*", dice.pick(&world.hosts)),
        1 => format!("*.{}", dice.pick(&world.hosts)),
        _ => text::pattern(dice, &world.hosts),
    }
}

fn port(dice: &mut Dice, world: &World) -> String {
    let port = dice.pick(&world.ports).to_string();
    match dice.below(30) {
        0 => format!("0{port}"),
        1 => dice.text(&["65536", "-1", "x", "+80", "8 0", "4294967376"]),
        _ => port,
    }
}

fn path(dice: &mut Dice, world: &World) -> String {
    if dice.chance(40) {
        return template(dice, world);
    }
    let mut path = String::new();
    for _ in 0..dice.between(1, 3) {
        path.push('/');
        path.push_str(&dice.pick(&world.segments).replace(['{', '}'], ""));
    }
    match dice.below(10) {
        0 => format!("{path}/"),
        1 | 2 => format!("{path}/*"),
        3 => format!("*{path}"),
        4..=6 => text::pattern(dice, &[path]),
        _ => path,
    }
}

/// A path template that admission accepts and that Envoy can read.
fn template(dice: &mut Dice, world: &World) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut all = false;
    for _ in 0..dice.between(1, 4) {
        match dice.below(4) {
            0 if !all => parts.push("{*}".to_owned()),
            1 if !all => {
                parts.push("{**}".to_owned());
                all = true;
            }
            _ => {
                let literal = dice.pick(&world.segments);
                // Envoy takes no template of more than 256 bytes.
                let valid = !literal.is_empty() && literal.len() < 40 && literal.bytes().all(is_template_byte);
                parts.push(if valid { literal.clone() } else { "a".to_owned() });
            }
        }
    }
    if !parts.iter().any(|part| part.starts_with('{')) {
        parts.push("{*}".to_owned());
    }
    let end = if dice.chance(15) { "/" } else { "" };
    format!("/{}{end}", parts.join("/"))
}

fn is_template_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}
