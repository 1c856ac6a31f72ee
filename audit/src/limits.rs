//! What one event may hold.
//!
//! Callers choose paths, hosts and header values, so a field is never trusted to be small: too long a value is cut and the event
//! says so, because a record that is refused for its size would be a way to act unrecorded. Only what no enforcer writes (no
//! number, a gap that ends before it begins) is refused.

use palisade_wire::audit::{Event, Http, Kind, Party, Shadow, Verdict};

/// How far ahead of ours an enforcer's clock may be before its time is replaced: nanoseconds.
const AHEAD: u64 = 300 * 1_000_000_000;
const MAX_HEADERS: usize = 64;
/// Names of nested fields, as `altered` gives them.
const SHADOW_ALLOW: [&str; 3] = ["shadow_allow.result", "shadow_allow.policy", "shadow_allow.policy_file"];
const SHADOW_DENY: [&str; 3] = ["shadow_deny.result", "shadow_deny.policy", "shadow_deny.policy_file"];
const SOURCE: [&str; 5] = ["source.principal", "source.namespace", "source.workload", "source.ip", "source.service"];
const DESTINATION: [&str; 5] =
    ["destination.principal", "destination.namespace", "destination.workload", "destination.ip", "destination.service"];

/// Why an event is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Nonsense {
    /// Epoch or sequence is 0 or beyond 2^63.
    #[error("epoch and sequence must be between 1 and 2^63")]
    Number,
    /// A kind that is no kind.
    #[error("kind is not set")]
    Kind,
    /// A decision that decides nothing.
    #[error("verdict is not set")]
    Verdict,
    /// Only a gap event has a gap; it begins at its own sequence and ends no earlier, or at 0 for unknown.
    #[error("the gap does not fit its event")]
    Gap,
}

/// Refuses what no enforcer writes.
pub(crate) fn check(event: &Event) -> Result<(), Nonsense> {
    let number = |value: u64| value >= 1 && i64::try_from(value).is_ok();
    if !number(event.epoch) || !number(event.sequence) {
        return Err(Nonsense::Number);
    }
    if event.kind == i32::from(Kind::Unspecified) {
        return Err(Nonsense::Kind);
    }
    match (&event.gap, event.kind == i32::from(Kind::Gap)) {
        (Some(gap), true) => {
            let to = gap.to_sequence;
            let fits = gap.from_sequence == event.sequence && (to == 0 || (to >= event.sequence && number(to)));
            if fits { Ok(()) } else { Err(Nonsense::Gap) }
        }
        (None, false) if event.verdict == i32::from(Verdict::Unspecified) => Err(Nonsense::Verdict),
        (None, false) => Ok(()),
        (Some(_), false) | (None, true) => Err(Nonsense::Gap),
    }
}

/// Replaces a time that cannot be by the present, so that no event hides from a query by its date.
pub(crate) fn settle_time(event: &mut Event, now: u64) {
    if event.time_ns == 0 || event.time_ns > now.saturating_add(AHEAD) {
        event.time_ns = now;
        note(&mut event.altered, "time_ns");
    }
}

/// Cuts every field to its limit and names the ones that were cut.
pub(crate) fn clamp(event: &mut Event) {
    let mut altered = std::mem::take(&mut event.altered);
    altered.truncate(64);
    for name in &mut altered {
        shorten(name, 64);
    }
    let fields = [
        (&mut event.enforcer, 512, "enforcer"),
        (&mut event.phase, 32, "phase"),
        (&mut event.reason, 128, "reason"),
        (&mut event.policy, 1024, "policy"),
        (&mut event.policy_file, 1024, "policy_file"),
        (&mut event.revision, 128, "revision"),
        (&mut event.protocol, 32, "protocol"),
        (&mut event.transport, 32, "transport"),
        (&mut event.sni, 255, "sni"),
        (&mut event.source_hint, 512, "source_hint"),
    ];
    cut(fields, &mut altered);
    clamp_shadow(event.shadow_allow.as_mut(), SHADOW_ALLOW, &mut altered);
    clamp_shadow(event.shadow_deny.as_mut(), SHADOW_DENY, &mut altered);
    clamp_party(event.source.as_mut(), SOURCE, &mut altered);
    clamp_party(event.destination.as_mut(), DESTINATION, &mut altered);
    clamp_http(event.http.as_mut(), &mut altered);
    if let Some(gap) = &mut event.gap {
        cut([(&mut gap.cause, 64, "gap.cause")], &mut altered);
    }
    event.altered = altered;
}

fn clamp_shadow(shadow: Option<&mut Shadow>, [result, policy, file]: [&'static str; 3], altered: &mut Vec<String>) {
    if let Some(shadow) = shadow {
        cut(
            [
                (&mut shadow.result, 32, result),
                (&mut shadow.policy, 1024, policy),
                (&mut shadow.policy_file, 1024, file),
            ],
            altered,
        );
    }
}

fn clamp_party(
    party: Option<&mut Party>,
    [principal, namespace, workload, ip, service]: [&'static str; 5],
    altered: &mut Vec<String>,
) {
    let Some(party) = party else { return };
    let fields = [
        (&mut party.principal, 2048, principal),
        (&mut party.namespace, 253, namespace),
        (&mut party.workload, 253, workload),
        (&mut party.ip, 64, ip),
        (&mut party.service, 512, service),
    ];
    cut(fields, altered);
}

fn clamp_http(http: Option<&mut Http>, altered: &mut Vec<String>) {
    let Some(http) = http else { return };
    let fields = [
        (&mut http.method, 64, "http.method"),
        (&mut http.host, 512, "http.host"),
        (&mut http.path, 4096, "http.path"),
        (&mut http.scheme, 32, "http.scheme"),
    ];
    cut(fields, altered);
    let mut cut_headers = http.headers.len() > MAX_HEADERS;
    http.headers.truncate(MAX_HEADERS);
    for header in &mut http.headers {
        cut_headers |= shorten(&mut header.name, 256) || header.value.len() > 1024;
        header.value.truncate(1024);
        header.value.shrink_to_fit();
    }
    if cut_headers {
        note(altered, "http.headers");
    }
}

fn cut<const N: usize>(fields: [(&mut String, usize, &'static str); N], altered: &mut Vec<String>) {
    for (text, limit, name) in fields {
        if shorten(text, limit) {
            note(altered, name);
        }
    }
}

fn shorten(text: &mut String, limit: usize) -> bool {
    let long = text.len() > limit;
    if long {
        text.truncate(text.floor_char_boundary(limit));
        text.shrink_to_fit();
    }
    long
}

fn note(altered: &mut Vec<String>, name: &str) {
    if !altered.iter().any(|known| known == name) {
        altered.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_wire::audit::{Gap, Header};

    fn decision() -> Event {
        Event {
            epoch: 1,
            sequence: 1,
            kind: Kind::Decision.into(),
            verdict: Verdict::Deny.into(),
            time_ns: 5,
            ..Event::default()
        }
    }

    #[test]
    fn a_long_value_is_cut_at_a_character_and_named() {
        let long = "é".repeat(5000);
        let mut event = decision();
        event.sni = long.clone();
        event.source = Some(Party { principal: long.clone(), ..Party::default() });
        let header = Header { name: "x".into(), value: vec![b'a'; 5000] };
        event.http = Some(Http { path: format!("/{long}"), headers: vec![header; 100], ..Http::default() });
        clamp(&mut event);
        let http = event.http.clone().unwrap();
        assert_eq!((event.sni.len(), http.path.len(), http.headers.len()), (254, 4095, 64));
        assert_eq!(http.headers[0].value.len(), 1024);
        assert_eq!(event.altered, ["sni", "source.principal", "http.path", "http.headers"]);
        let once = event.clone();
        clamp(&mut event);
        assert_eq!(event, once, "a second pass changes nothing");
    }

    #[test]
    fn an_ordinary_event_is_left_alone() {
        let mut event = decision();
        event.http = Some(Http { path: "/a".into(), ..Http::default() });
        let before = event.clone();
        clamp(&mut event);
        settle_time(&mut event, 10);
        assert_eq!(event, before);
    }

    #[test]
    fn a_time_that_cannot_be_becomes_the_present() {
        let now = 1_000_000_000_000;
        for (time, settled) in [(0, now), (u64::MAX, now), (now + AHEAD + 1, now), (now + AHEAD, now + AHEAD), (1, 1)] {
            let mut event = Event { time_ns: time, ..decision() };
            settle_time(&mut event, now);
            assert_eq!(event.time_ns, settled);
            assert_eq!(event.altered.is_empty(), time == settled);
        }
    }

    #[test]
    fn nonsense_is_refused_by_kind() {
        assert_eq!(check(&decision()), Ok(()));
        let gap = |from, to| Some(Gap { from_sequence: from, to_sequence: to, cause: String::new() });
        let gap_event =
            |from, to| Event { kind: Kind::Gap.into(), gap: gap(from, to), sequence: 5, epoch: 1, ..Event::default() };
        for (event, expected) in [
            (Event { epoch: 0, ..decision() }, Nonsense::Number),
            (Event { sequence: 0, ..decision() }, Nonsense::Number),
            (Event { sequence: u64::MAX, ..decision() }, Nonsense::Number),
            (Event { kind: 0, ..decision() }, Nonsense::Kind),
            (Event { verdict: 0, ..decision() }, Nonsense::Verdict),
            (Event { gap: gap(1, 1), ..decision() }, Nonsense::Gap),
            (Event { gap: None, ..gap_event(5, 5) }, Nonsense::Gap),
            (gap_event(5, 4), Nonsense::Gap),
            (gap_event(4, 9), Nonsense::Gap),
            (gap_event(5, u64::MAX), Nonsense::Gap),
        ] {
            assert_eq!(check(&event), Err(expected), "{event:?}");
        }
        assert_eq!(check(&gap_event(5, 0)), Ok(()));
        assert_eq!(check(&Event { kind: 99, ..decision() }), Ok(()), "a newer enforcer's kind is kept");
    }
}
