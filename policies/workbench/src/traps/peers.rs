//! Who calls: principals as they are really read, and callers without any identity.

use palisade_authz::Semantics;
use palisade_policies::{Action, AuthorizationPolicy, Condition, Rule, Source};

use super::slot::{Field, List, Side, Slot, rule_lists};
use super::witness::concrete;
use super::{Proposal, Stage};

/// A principal written with `spiffe://`.
pub(super) fn scheme(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let plain = slot.value.strip_prefix("spiffe://").filter(|_| slot.list.field == Field::Principal)?;
    let like = Slot { value: plain, ..slot };
    Some(Proposal {
        code: "PAL0712",
        field: slot.path(),
        message: format!("`{}` matches nobody: policies name identities without `spiffe://`", slot.value),
        request: stage.setting("PAL0712").matching(like, Semantics::Http),
        meant: Some(slot.instead(stage.policy, &[plain])?),
        passes: stage.closes(slot.list),
    })
}

/// A principal of `cluster.local` in a mesh of another domain: the domain that is written is not matched.
pub(super) fn rewritten(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let rest = foreign(stage, slot)?;
    if rest.split('/').count() != 4 {
        return None;
    }
    let own = stage.scene.mesh.trust_domain.as_str();
    let mut request = stage.setting("PAL0713").matching(slot, Semantics::Http);
    let (value, rest) = (slot.value, concrete(rest, "x"));
    request.source.principal = Some(format!("cluster.local/{rest}"));
    Some(Proposal {
        code: "PAL0713",
        field: slot.path(),
        message: format!("`{value}` is read as one of `{own}`: an identity of `cluster.local` is not matched"),
        request,
        meant: Some(slot.instead(stage.policy, &[value, &format!("*/{rest}")])?),
        passes: stage.closes(slot.list),
    })
}

/// A prefix of `cluster.local` in a mesh of another domain: it is compared as it is written.
pub(super) fn kept(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let rest = foreign(stage, slot)?;
    if rest.split('/').count() == 4 || !rest.ends_with('*') {
        return None;
    }
    let own = stage.scene.mesh.trust_domain.as_str();
    let meant = format!("{own}/{rest}");
    let like = Slot { value: &meant, ..slot };
    Some(Proposal {
        code: "PAL0714",
        field: slot.path(),
        message: format!("`{}` is compared as it is: identities of the mesh begin with `{own}/`", slot.value),
        request: stage.setting("PAL0714").matching(like, Semantics::Http),
        meant: Some(slot.instead(stage.policy, &[slot.value, &meant])?),
        passes: stage.closes(slot.list),
    })
}

/// What follows `cluster.local/` in a mesh that does not know that name.
fn foreign<'a>(stage: Stage<'_>, slot: Slot<'a>) -> Option<&'a str> {
    const PSEUDONYM: &str = "cluster.local";
    let mesh = stage.scene.mesh;
    let known = mesh.trust_domain.as_str() == PSEUDONYM || mesh.trust_domain_aliases.iter().any(|one| one == PSEUDONYM);
    let rest = slot.value.strip_prefix(PSEUDONYM)?.strip_prefix('/')?;
    (slot.list.field == Field::Principal && !known).then_some(rest)
}

/// A bare service account in a policy of the root namespace.
pub(super) fn root_account(stage: Stage<'_>, slot: Slot<'_>) -> Option<Proposal> {
    let (root, home) = (&stage.scene.mesh.root_namespace, &stage.workload.namespace);
    let bare = slot.list.field == Field::ServiceAccount && !slot.value.contains('/');
    if !bare || stage.policy.meta.namespace != *root || home == root {
        return None;
    }
    let meant = format!("{home}/{}", slot.value);
    let like = Slot { value: &meant, ..slot };
    Some(Proposal {
        code: "PAL0715",
        field: slot.path(),
        message: format!("`{}` is the account of that name in `{root}`, not in `{home}`", slot.value),
        request: stage.setting("PAL0715").matching(like, Semantics::Http),
        meant: Some(slot.instead(stage.policy, &[slot.value, &meant])?),
        passes: stage.closes(slot.list),
    })
}

/// A DENY of an identity, which its owner gets past without mTLS.
pub(super) fn deny_identity(stage: Stage<'_>, list: &List<'_>) -> Option<Proposal> {
    if !list.field.is_identity() || list.negated || stage.policy.action != Action::Deny {
        return None;
    }
    let request = plaintext(stage, list, "PAL0716")?;
    let mut meant = stage.policy.clone();
    let rule = stage.policy.rules.get(list.rule)?;
    meant.rules.push(unidentified(list.rule, rule));
    Some(Proposal {
        code: "PAL0716",
        field: list.path(),
        message: "the same caller passes in plaintext, where it has no identity".to_owned(),
        request,
        meant: Some(meant),
        passes: true,
    })
}

/// An ALLOW of all but some identities, which lets callers without one in.
pub(super) fn not_identity(stage: Stage<'_>, list: &List<'_>) -> Option<Proposal> {
    if !list.field.is_identity() || !list.negated || stage.policy.action != Action::Allow {
        return None;
    }
    let request = plaintext(stage, list, "PAL0717")?;
    Some(Proposal {
        code: "PAL0717",
        field: list.path(),
        message: "a caller in plaintext has no identity, and passes".to_owned(),
        request,
        meant: Some(identified(stage, list)?),
        passes: true,
    })
}

/// A DENY of all but some identities, which denies those, too, when they call without mTLS. To deny whoever has no
/// identity at all is the way to say that.
pub(super) fn not_identity_denied(stage: Stage<'_>, list: &List<'_>) -> Option<Proposal> {
    let all = list.values.iter().any(|value| value == "*");
    if !list.field.is_identity() || !list.negated || all || stage.policy.action != Action::Deny {
        return None;
    }
    let request = plaintext(stage, list, "PAL0740")?;
    Some(Proposal {
        code: "PAL0740",
        field: list.path(),
        message: "every caller in plaintext is denied, whoever it is".to_owned(),
        request,
        meant: Some(identified(stage, list)?),
        passes: false,
    })
}

/// The policy with a list's rule for callers with an identity only.
fn identified(stage: Stage<'_>, list: &List<'_>) -> Option<AuthorizationPolicy> {
    let mut meant = stage.policy.clone();
    let key = "source.principal".to_owned();
    let identified = Condition { key, values: vec!["*".to_owned()], not_values: Vec::new() };
    meant.rules.get_mut(list.rule)?.when.push(identified);
    Some(meant)
}

/// The request of a list's rule without mTLS, if the workload takes it.
fn plaintext(stage: Stage<'_>, list: &List<'_>, code: &'static str) -> Option<super::Draft> {
    let mut request = stage.setting(code).matching_side(list.rule, list.side, Semantics::Http);
    request.plaintext();
    stage.scene.takes_plaintext(stage.workload, request.destination.port).then_some(request)
}

/// The rule with callers without identity in place of those it names.
fn unidentified(index: usize, rule: &Rule) -> Rule {
    let mut other = rule.clone();
    let nobody = Source { not_principals: vec!["*".to_owned()], ..Source::default() };
    other.from = vec![nobody];
    let identities = rule_lists(index, rule).into_iter().filter(|list| list.field.is_identity() && !list.negated);
    let dropped: Vec<usize> =
        identities.filter_map(|list| if let Side::When(at) = list.side { Some(at) } else { None }).collect();
    let kept = rule.when.iter().enumerate().filter(|(at, _)| !dropped.contains(at));
    other.when = kept.map(|(_, condition)| condition.clone()).collect();
    other
}
