//! The explanation for a terminal.

use std::fmt::Write;

use serde_json::Value;

use super::{Explained, Matched, PhaseReport, Policy, Seen, State};

/// How many policies without a say are listed; the others are counted.
const MAX_LISTED: usize = 20;

/// Writing to a string cannot fail, so results of that are dropped.
pub(super) fn render(explained: &Explained) -> String {
    let mut text = headline(explained);
    let _ = writeln!(text, "\nrequest   {}", request(&explained.request));
    let _ = writeln!(text, "workload  {}", workload(explained));
    let _ = writeln!(text, "mTLS      {}", mtls(explained));
    text.push('\n');
    for phase in &explained.phases {
        write_phase(&mut text, phase);
    }
    if !explained.phases.is_empty() {
        text.push('\n');
    }
    let policies = &explained.policies;
    write_policies(&mut text, "attached", &policies.attached);
    write_policies(&mut text, "not attached", &policies.not_attached);
    text
}

fn headline(explained: &Explained) -> String {
    let get = |name: &str| explained.answer.get(name);
    let text = |name: &str| get(name).and_then(Value::as_str).unwrap_or_default();
    let mut line = text("decision").to_owned();
    if let Some(status) = get("status") {
        let _ = write!(line, " {status}");
    }
    let by = match (&explained.decided_by, text("phase"), text("decision")) {
        (Some(rule), phase, _) => format!(" by {} ({}), phase {phase}", rule.policy, rule.at),
        (None, "default", "allow") => ": no ALLOW policy is attached".to_owned(),
        (None, "default", "deny") if !explained.phases.is_empty() => ": no ALLOW rule matches".to_owned(),
        (None, phase, "undecided") => format!(" in phase {phase}: an attribute that is not given would decide"),
        (None, phase, _) => format!(", phase {phase}"),
    };
    line.push_str(&by);
    if let Some(reason) = explained.reason.as_deref().filter(|_| text("decision") == "deny") {
        let _ = write!(line, " ({reason})");
    }
    if text("decision") != "deny" && explained.mtls.as_ref().is_some_and(|mtls| mtls.refuses) {
        line.push_str("; but the port refuses plaintext");
    }
    line.push('\n');
    line
}

fn request(seen: &Seen) -> String {
    let from = seen.principal.as_deref().map_or_else(|| "plaintext".to_owned(), str::to_owned);
    if seen.semantics != "http" {
        return format!("a connection ({}) from {from}", seen.semantics);
    }
    let part = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".to_owned());
    let mut path = part(&seen.raw_path);
    if let (Some(compared), true) = (&seen.path, seen.path != seen.raw_path) {
        let _ = write!(path, " (compared as {compared})");
    }
    format!("{} {path} at {} from {from}", part(&seen.method), part(&seen.host))
}

fn workload(explained: &Explained) -> String {
    let called = &explained.workload;
    let name = if called.name.is_empty() { "-" } else { called.name.as_str() };
    let labels: Vec<String> = called.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{}/{name} {}", called.namespace, labels.join(",")).trim_end().to_owned()
}

fn mtls(explained: &Explained) -> String {
    let Some(mtls) = &explained.mtls else { return "unknown: the request does not say its port".to_owned() };
    let by = match (&mtls.policy, &mtls.at) {
        (Some(policy), Some(at)) => format!("by {policy} ({at})"),
        _ => "by default".to_owned(),
    };
    let refuses = if mtls.refuses { "; plaintext is refused there before any policy is asked" } else { "" };
    format!("port {} is {} {by}{refuses}", mtls.port, mtls.mode)
}

fn write_phase(text: &mut String, phase: &PhaseReport) {
    let rules = match phase.rules {
        1 => "1 rule".to_owned(),
        rules => format!("{rules} rules"),
    };
    let would = if phase.matched.is_empty() { String::new() } else { ", would match".to_owned() };
    let state = match phase.state {
        State::Unattached if phase.phase == "authn" => "not asked".to_owned(),
        State::Unattached => "no policy".to_owned(),
        State::NotReached => format!("not reached{would}"),
        State::Matched => format!("{rules}, {} match", phase.matched.len()),
        State::Unmatched => format!("{rules}, none matches"),
        State::Undecided => format!("{rules}, undecided"),
        State::Passed => "passed".to_owned(),
        State::Refused => "refused".to_owned(),
    };
    let note = phase.note.as_ref().map(|note| format!(": {note}")).unwrap_or_default();
    let decided = if phase.decided { "  <- decided" } else { "" };
    let _ = writeln!(text, "{:<13} {state}{note}{decided}", phase.phase);
    for Matched { policy, at } in &phase.matched {
        let _ = writeln!(text, "    matches {policy} ({at})");
    }
    if phase.state == State::NotReached {
        return;
    }
    for near in &phase.nearest {
        let all = near.held + near.failed.len();
        let _ = writeln!(text, "    nearest {} ({}): {} of {all} hold", near.rule.policy, near.rule.at, near.held);
        for failed in &near.failed {
            let _ = writeln!(text, "        {}: expected {}, found {}", failed.field, failed.expected, failed.actual);
        }
    }
}

fn write_policies(text: &mut String, title: &str, policies: &[Policy]) {
    let none = if policies.is_empty() { " none" } else { "" };
    let _ = writeln!(text, "{title}:{none}");
    for policy in policies.iter().take(MAX_LISTED) {
        let action = policy.action.map_or("tokens", |action| action);
        let dry = if policy.dry_run { " (dry run)" } else { "" };
        let why = policy.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let _ = writeln!(text, "    {} {action}{dry} ({}){why}", policy.policy, policy.at);
    }
    if let Some(more) = policies.len().checked_sub(MAX_LISTED).filter(|more| *more > 0) {
        let _ = writeln!(text, "    and {more} more");
    }
}
