//! Headers: present, empty, absent, and the one that is no header.

use palisade_authz::{Semantics, is_joined_header};
use palisade_policies::{Action, Condition};

use super::slot::{Field, List, Side, Slot};
use super::witness::concrete;
use super::{Proposal, Stage};

/// The name of a header that a request may lack.
fn name<'a>(list: &'a List<'_>) -> Option<&'a str> {
    match &list.field {
        Field::Header(name) if !name.starts_with(':') && name != "host" => Some(name),
        _ => None,
    }
}

/// A header that is required, and may be empty.
pub(super) fn empty(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let name = name(slot.list)?;
    if slot.value != "*" || stage.closes(slot.list) {
        return None;
    }
    let mut request = stage.setting("PAL0709").matching(slot, Semantics::Http);
    request.header(name, "");
    Some(Proposal {
        code: "PAL0709",
        field: slot.path(),
        message: format!("an empty `{name}` passes"),
        request,
        meant: Some(slot.instead(stage.policy, &["x"])?),
        passes: true,
    })
}

/// A header of which some values are refused, and which may be missing.
pub(super) fn absent(stage: Stage<'_>, list: &List<'_>) -> Option<Proposal> {
    let name = name(list)?;
    let Side::When(index) = list.side else { return None };
    if !list.negated || stage.policy.action != Action::Allow {
        return None;
    }
    let mut request = stage.setting("PAL0710").matching_side(list.rule, list.side, Semantics::Http);
    request.without_header(name);
    let mut meant = stage.policy.clone();
    let rule = meant.rules.get_mut(list.rule)?;
    let key = rule.when.get(index)?.key.clone();
    rule.when.push(Condition { key, values: vec!["*".to_owned()], not_values: Vec::new() });
    Some(Proposal {
        code: "PAL0710",
        field: list.path(),
        message: format!("a request without `{name}` passes"),
        request,
        meant: Some(meant),
        passes: true,
    })
}

/// Headers that are not sent twice, whatever a caller wants: the codec refuses or reads them.
const FRAMING: &[&str] = &["connection", "content-length", "keep-alive", "te", "transfer-encoding", "upgrade"];

/// What may stand in the other line, so that one of them is matched by no value of the list.
const OTHERS: &[&str] = &["x", "y", "z", "q", "0", "-"];

/// Whether a value of a header matches a text.
fn matches(value: &str, text: &str) -> bool {
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(suffix), _) => text.ends_with(suffix),
        (None, Some(prefix)) => text.starts_with(prefix),
        (None, None) => value == text,
    }
}

/// A value that is kept out, of a header whose lines are joined before they are compared.
pub(super) fn joined(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let name = name(slot.list)?;
    if slot.value == "*" || !stage.closes(slot.list) || !is_joined_header(name) || FRAMING.contains(&name) {
        return None;
    }
    let own = concrete(slot.value, "a");
    let setting = stage.setting("PAL0739");
    let joined = |other: &'static str| match slot.value.ends_with('*') {
        true => (other, own.as_str()),
        false => (own.as_str(), other),
    };
    let (first, second) = OTHERS.iter().map(|other| joined(other)).find(|(first, second)| {
        let whole = format!("{first},{second}");
        !slot.list.values.iter().any(|value| matches(value, &whole))
    })?;
    let mut request = setting.matching(slot, Semantics::Http);
    request.repeat_header(name, &[first, second]);
    let whole = format!("{first},{second}");
    Some(Proposal {
        code: "PAL0739",
        field: slot.path(),
        message: format!("`{name}` sent as `{first}` and as `{second}` is compared as `{whole}`, and passes"),
        request,
        meant: Some(slot.instead(stage.policy, &[slot.value, &whole])?),
        passes: true,
    })
}

/// The Host header, compared with letter case.
pub(super) fn host(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let Field::Header(name) = &slot.list.field else { return None };
    if name != "host" && name != ":authority" {
        return None;
    }
    let mut request = stage.setting("PAL0711").matching(slot, Semantics::Http);
    let written = request.http.as_ref()?.host.clone();
    let (first, rest) = written.split_at_checked(1)?;
    let flipped =
        format!("{}{rest}", if first == first.to_uppercase() { first.to_lowercase() } else { first.to_uppercase() });
    request.host(&flipped);
    Some(Proposal {
        code: "PAL0711",
        field: slot.path(),
        message: format!("`{flipped}` is the same host as `{written}`, and is not matched"),
        request,
        meant: Some(slot.instead(stage.policy, &[slot.value, &flipped])?),
        passes: stage.closes(slot.list),
    })
}
