//! Paths: what a spelling, a template or a star leaves out.

use palisade_authz::Semantics;
use palisade_policies::Action;

use super::slot::{Field, List, Side, Slot};
use super::witness::{is_template, path};
use super::{Proposal, Stage};

const HTTP: Semantics = Semantics::Http;

/// A value of `paths` or `notPaths`.
fn is_path(slot: Slot<'_>) -> bool {
    slot.list.field == Field::Path
}

/// What passes a value, with the value widened by exactly that.
fn variant(stage: Stage<'_>, slot: Slot<'_>, code: &'static str, path: &str, message: String) -> Option<Proposal> {
    let mut request = stage.setting(code).matching(slot, HTTP);
    request.path(path);
    Some(Proposal {
        code,
        field: slot.path(),
        message,
        request,
        meant: Some(slot.instead(stage.policy, &[slot.value, path])?),
        passes: stage.closes(slot.list),
    })
}

/// An exact path or a template that is closed, and stays open with a slash behind it.
pub(super) fn spelling(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let value = slot.value;
    let ended = !value.contains('*') || (is_template(value) && !value.trim_end_matches('/').ends_with("{**}"));
    if !is_path(slot) || !stage.closes(slot.list) || !ended || !value.starts_with('/') || value == "/" {
        return None;
    }
    let path = path(value);
    let other = path.strip_suffix('/').map_or_else(|| format!("{path}/"), str::to_owned);
    variant(stage, slot, "PAL0701", &other, format!("`{value}` is closed, and `{other}` is open"))
}

/// A path that is closed, and open with one slash more at its begin.
pub(super) fn slashes(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let value = slot.value;
    let told = value.len() < 2 || value == "/*" || value.starts_with("//");
    if !is_path(slot) || !stage.closes(slot.list) || !value.starts_with('/') || told {
        return None;
    }
    let other = format!("/{}", path(value));
    variant(stage, slot, "PAL0702", &other, format!("`{value}` is closed, and `{other}` is open"))
}

/// A path that is closed, and open with one slash more within: where an ALLOW asks for how it begins, that is what
/// gets past.
pub(super) fn slashes_within(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let value = slot.value;
    if !is_path(slot) || !stage.closes(slot.list) || !value.starts_with('/') {
        return None;
    }
    // Behind a star, or beside one of many segments, a slash more is matched.
    let fixed = |(at, _): &(usize, &str)| {
        value.split_at_checked(*at).is_some_and(|(head, tail)| {
            *at > 0
                && !head.ends_with('/')
                && !head.ends_with("{**}")
                && !matches!(tail, "/" | "/*")
                && !tail.starts_with("/{**}")
        })
    };
    let (at, _) = value.rmatch_indices('/').find(fixed)?;
    let (head, tail) = value.split_at_checked(at)?;
    let other = format!("{}/{}", path(head), path(tail));
    variant(stage, slot, "PAL0702", &other, format!("`{value}` is closed, and `{other}` is open"))
}

/// A template that is closed, and open to a bracket.
pub(super) fn bracket(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    if !is_path(slot) || !stage.closes(slot.list) || !is_template(slot.value) {
        return None;
    }
    let at = slot.value.rfind("{*")?;
    let (head, tail) = slot.value.split_at_checked(at)?;
    let other = format!("{}{}", path(head), path(&tail.replacen("{**}", "a[b]", 1).replacen("{*}", "a[b]", 1)));
    variant(stage, slot, "PAL0703", &other, format!("`{}` does not match `{other}`", slot.value))
}

/// A template whose `{**}` seems to stand for nothing or for a file, and does not.
pub(super) fn segments(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    if !is_path(slot) || !slot.value.contains("{**}") {
        return None;
    }
    let (head, tail) = slot.value.split_once("/{**}")?;
    let head = path(head);
    let other = match tail {
        "/" => format!("{head}/bar/baz.txt"),
        _ if head.is_empty() && tail.is_empty() => return None,
        tail => format!("{head}{}", path(tail)),
    };
    variant(stage, slot, "PAL0704", &other, format!("`{}` does not match `{other}`", slot.value))
}

/// A star that is meant to stand for text, and is a star.
pub(super) fn inner_star(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let (field, value) = (&slot.list.field, slot.value);
    let texts = matches!(field, Field::Path | Field::Host | Field::Method | Field::Principal | Field::Sni);
    let texts = texts || matches!(field, Field::Header(_) | Field::Claim(_) | Field::Metadata(..));
    let literal = value.strip_prefix('*').or_else(|| value.strip_suffix('*')).unwrap_or(value);
    if !texts || !literal.contains('*') || (*field == Field::Path && is_template(value)) {
        return None;
    }
    // Stars at the ends keep their meaning; the others are what their author thinks of.
    let filled = value
        .strip_prefix('*')
        .map(|rest| format!("*{}", rest.replace('*', "x")))
        .or_else(|| value.strip_suffix('*').map(|rest| format!("{}*", rest.replace('*', "x"))))
        .unwrap_or_else(|| value.replace('*', "x"));
    let like = Slot { value: &filled, ..slot };
    Some(Proposal {
        code: "PAL0705",
        field: slot.path(),
        message: format!("`{value}` does not match what has other text for the star"),
        request: stage.setting("PAL0705").matching(like, semantics(field)),
        meant: Some(slot.instead(stage.policy, &[&filled])?),
        passes: stage.closes(slot.list),
    })
}

/// What is there without HTTP is shown without it.
const fn semantics(field: &Field) -> Semantics {
    if matches!(field, Field::Sni) { Semantics::Tcp } else { HTTP }
}

/// `notPaths` of an ALLOW rule that lets CONNECT through, which has no path.
pub(super) fn connect(stage: Stage<'_>, list: &List<'_>) -> Option<Proposal> {
    let Side::To(index) = list.side else { return None };
    if list.field != Field::Path || !list.negated || stage.policy.action != Action::Allow {
        return None;
    }
    let mut request = stage.setting("PAL0706").matching_side(list.rule, list.side, HTTP);
    request.connect();
    let mut meant = stage.policy.clone();
    meant.rules.get_mut(list.rule)?.to.get_mut(index)?.paths.push("/*".to_owned());
    Some(Proposal {
        code: "PAL0706",
        field: list.path(),
        message: "a CONNECT request has no path, and passes".to_owned(),
        request,
        meant: Some(meant),
        passes: true,
    })
}
