//! Events as a table.

use palisade_wire::audit::{Event, Party, Shadow};

use super::{escape, place, verdict};
use crate::window;

const COLUMNS: [&str; 9] =
    ["TIME", "VERDICT", "SOURCE", "DESTINATION", "REQUEST", "STATUS", "PHASE", "POLICY", "SHADOW"];
/// Widths for rows that come one by one; a longer value pushes its own row only.
const FOLLOWED: [usize; 9] = [24, 7, 36, 22, 28, 6, 7, 48, 0];
/// Longest value shown; JSON has the whole.
const LONGEST: usize = 120;

/// All events under one heading, columns as wide as their values, every line ended.
#[must_use]
pub fn table(events: &[Event]) -> String {
    let rows: Vec<[String; 9]> = events.iter().map(cells).collect();
    let mut widths = COLUMNS.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = line(&COLUMNS.map(str::to_owned), &widths);
    for row in &rows {
        out.push_str(&line(row, &widths));
    }
    out
}

/// The heading for rows of [`follow_row`].
#[must_use]
pub fn follow_header() -> String {
    line(&COLUMNS.map(str::to_owned), &FOLLOWED)
}

/// One row with the widths of [`follow_header`].
#[must_use]
pub fn follow_row(event: &Event) -> String {
    line(&cells(event), &FOLLOWED)
}

fn line(cells: &[String; 9], widths: &[usize; 9]) -> String {
    let mut out = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        out.push_str(cell);
        let padding = width.saturating_sub(cell.chars().count()).saturating_add(2);
        out.extend(std::iter::repeat_n(' ', padding));
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn cells(event: &Event) -> [String; 9] {
    let shown = |text: String| {
        if text.is_empty() {
            return "-".to_owned();
        }
        let mut escaped = escape::text(&text);
        if let Some((cut, _)) = escaped.char_indices().nth(LONGEST) {
            escaped.truncate(cut);
            escaped.push('…');
        }
        escaped
    };
    [
        window::format(event.time_ns),
        verdict(event.kind, event.verdict).to_owned(),
        shown(source(event)),
        shown(destination(event.destination.as_ref())),
        shown(request(event)),
        shown(if event.status == 0 { String::new() } else { event.status.to_string() }),
        shown(event.phase.clone()),
        shown(policy(event)),
        shown(shadows(event)),
    ]
}

/// Who is proven to call, or from where; a name that is only likely has a question mark.
fn source(event: &Event) -> String {
    if event.gap.is_some() {
        return event.enforcer.clone();
    }
    let Some(party) = &event.source else { return String::new() };
    match (party.principal.as_str(), event.source_hint.as_str()) {
        ("", "") => party.ip.clone(),
        ("", hint) => format!("{} ({hint}?)", party.ip),
        (principal, _) => principal.to_owned(),
    }
}

fn destination(party: Option<&Party>) -> String {
    let Some(party) = party else { return String::new() };
    let name = match (party.namespace.as_str(), party.workload.as_str()) {
        ("", "") if !party.service.is_empty() => party.service.clone(),
        ("", "") => party.ip.clone(),
        ("", workload) => workload.to_owned(),
        (namespace, "") => namespace.to_owned(),
        (namespace, workload) => format!("{namespace}/{workload}"),
    };
    if party.port == 0 { name } else { format!("{name}:{}", party.port) }
}

fn request(event: &Event) -> String {
    if let Some(gap) = &event.gap {
        return match gap.to_sequence {
            0 => "events lost: unknown".to_owned(),
            to => format!("events lost: {}", to.saturating_sub(gap.from_sequence).saturating_add(1)),
        };
    }
    match &event.http {
        Some(http) => format!("{} {}", http.method, http.path),
        None if event.sni.is_empty() => event.protocol.clone(),
        None => format!("{} {}", event.protocol, event.sni),
    }
}

/// The rule that decided, or why there is none.
fn policy(event: &Event) -> String {
    if event.policy.is_empty() {
        return if event.reason.is_empty() { String::new() } else { format!("({})", event.reason) };
    }
    with_place(&event.policy, &place(&event.policy_file, event.policy_line))
}

fn with_place(policy: &str, place: &str) -> String {
    if place.is_empty() { policy.to_owned() } else { format!("{policy} ({place})") }
}

fn shadows(event: &Event) -> String {
    let one = |name: &str, shadow: Option<&Shadow>| {
        let shadow = shadow?;
        let rule = with_place(&shadow.policy, &place(&shadow.policy_file, shadow.policy_line));
        Some(format!("{name}={} {rule}", shadow.result).trim_end().to_owned())
    };
    [one("allow", event.shadow_allow.as_ref()), one("deny", event.shadow_deny.as_ref())]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(", ")
}
