//! What only several resources together show: permissions whose end opens everything, policies in force for nobody,
//! tokens that nobody asks for, providers that cannot be asked.

use std::collections::BTreeSet;

use palisade_authz::{Outcome, Semantics};
use palisade_policies::{
    Action, AuthorizationPolicy, Meta, ProviderKind, RequestAuthentication, Resources, Selector, Workload,
};

use super::draft::Draft;
use super::scene::{Asked, Scene};
use super::slot::{Field, Side, lists};
use super::{Example, Stage, Trap};

/// Traps of whole policies.
pub(super) fn find(scene: &Scene<'_>) -> Vec<Trap> {
    let mut traps = Vec::new();
    for policy in &scene.resources.authorization_policies {
        if scene.is_spent() || traps.len() > super::MAX_TRAPS {
            return traps;
        }
        traps.extend(dry_run_allow(scene, policy));
        traps.extend(last_allow(scene, policy));
        traps.extend(empty_selector(scene, policy));
        traps.extend(provider(scene, policy));
        traps.extend(targets(scene, policy));
    }
    for tokens in &scene.resources.request_authentications {
        traps.extend(token_optional(scene, tokens));
    }
    traps.extend(nobody(scene));
    traps
}

fn trap(code: &'static str, policy: &AuthorizationPolicy, field: &str, message: String, example: Example) -> Trap {
    of("AuthorizationPolicy", code, &policy.meta, field, (message, example))
}

fn of(kind: &'static str, code: &'static str, meta: &Meta, field: &str, shown: (String, Example)) -> Trap {
    let (message, example) = shown;
    let resource = (kind, meta.namespace.clone(), meta.name.clone());
    Trap { code, resource, field: field.to_owned(), message, example }
}

/// A request with what the whole set answers, if that is `outcome`.
fn example(
    scene: &Scene<'_>,
    draft: &Draft,
    outcome: Outcome,
    policy: Option<&AuthorizationPolicy>,
) -> Option<Example> {
    let asked = Asked::of(draft, scene.mesh)?;
    let evaluation = scene.evaluate(&asked, policy);
    if evaluation.outcome != outcome {
        return None;
    }
    Some(Example { request: draft.json()?, decision: scene.answer(&asked, &evaluation)? })
}

/// A request that a policy which allows something hardly allows.
fn stranger(stage: Stage<'_>, code: &'static str) -> Draft {
    let mut draft = stage.setting(code).blank(Semantics::Http);
    draft.source.principal = Some("other.example/ns/other/sa/other".to_owned());
    draft.source.ip = std::net::IpAddr::from([192, 0, 2, 55]);
    draft.path("/other");
    draft
}

/// Requests of which a policy that does not allow everything refuses one: by another method, on another port, of
/// another host, without an identity, without a path, without HTTP.
fn strangers(stage: Stage<'_>, code: &'static str) -> [Draft; 7] {
    let changed = |change: &dyn Fn(&mut Draft)| {
        let mut draft = stranger(stage, code);
        change(&mut draft);
        draft
    };
    [
        stranger(stage, code),
        changed(&|draft| draft.header(":method", "POST")),
        changed(&|draft| draft.destination.port = 9000),
        changed(&|draft| draft.host("other.example")),
        changed(&Draft::plaintext),
        changed(&Draft::connect),
        changed(&|draft| draft.speak(Semantics::Tcp)),
    ]
}

/// A dry-run ALLOW where none is in force: nothing is closed.
fn dry_run_allow(scene: &Scene<'_>, policy: &AuthorizationPolicy) -> Option<Trap> {
    const CODE: &str = "PAL0730";
    if policy.action != Action::Allow || !policy.dry_run {
        return None;
    }
    let (workload, draft) = scene.stages(policy).into_iter().find_map(|workload| {
        let closed =
            scene.attached(&workload, Semantics::Http).iter().any(|one| one.action == Action::Allow && !one.dry_run);
        let draft = stranger(Stage { scene, policy, workload: &workload, base: None }, CODE);
        let asked = Asked::of(&draft, scene.mesh)?;
        let refused = !scene.passes(&asked, policy, Some(policy));
        (!closed && refused).then_some((workload, draft))
    })?;
    let shown = example(scene, &draft, Outcome::Allow, None)?;
    let message = format!("no ALLOW policy is in force for {}: what this one does not allow passes", who(&workload));
    Some(trap(CODE, policy, "metadata.annotations[\"istio.io/dry-run\"]", message, shown))
}

/// The one ALLOW policy of a workload: without it everything passes.
fn last_allow(scene: &Scene<'_>, policy: &AuthorizationPolicy) -> Option<Trap> {
    const CODE: &str = "PAL0731";
    // One without rules is there to close everything; nobody takes it for a permission.
    if policy.action != Action::Allow || policy.dry_run || policy.rules.is_empty() {
        return None;
    }
    scene.stages(policy).into_iter().find_map(|workload| {
        let stage = Stage { scene, policy, workload: &workload, base: None };
        let attached = scene.attached(&workload, Semantics::Http);
        if attached.iter().any(|one| one.action == Action::Allow && !one.dry_run && one.meta != policy.meta) {
            return None;
        }
        let shown = strangers(stage, CODE).into_iter().find_map(|draft| {
            let asked = Asked::of(&draft, scene.mesh)?;
            if scene.passes(&asked, policy, Some(policy)) || !scene.passes(&asked, policy, None) {
                return None;
            }
            example(scene, &draft, Outcome::Deny, None)
        })?;
        let message = format!(
            "it is the only ALLOW policy of {}: without it this request passes, and every other",
            who(&workload)
        );
        Some(trap(CODE, policy, "metadata.name", message, shown))
    })
}

fn who(workload: &Workload) -> String {
    let labels: Vec<String> = workload.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    match (workload.name.as_str(), labels.is_empty()) {
        ("", true) => format!("the workloads of `{}`", workload.namespace),
        ("", false) => format!("the workloads of `{}` with `{}`", workload.namespace, labels.join(",")),
        (name, _) => format!("`{}/{name}`", workload.namespace),
    }
}

/// `selector: {}`, which takes everything or nothing. The loader warns of it; here is the request.
fn empty_selector(scene: &Scene<'_>, policy: &AuthorizationPolicy) -> Option<Trap> {
    if policy.selector.as_ref().is_none_or(|selector| !selector.is_empty()) {
        return None;
    }
    let mut without = policy.clone();
    without.selector = None;
    scene.stages(policy).into_iter().find_map(|workload| {
        let setting = Stage { scene, policy, workload: &workload, base: None }.setting("PAL0204");
        let draft = setting.matching_side(0, Side::To(0), Semantics::L4);
        let asked = Asked::of(&draft, scene.mesh)?;
        let passes = scene.passes(&asked, policy, Some(policy));
        let outcome = if passes { Outcome::Allow } else { Outcome::Deny };
        if scene.passes(&asked, policy, Some(&without)) == passes {
            return None;
        }
        let shown = example(scene, &draft, outcome, None)?;
        Some(trap("PAL0204", policy, "spec.selector", "in ambient mode it applies to nothing".to_owned(), shown))
    })
}

/// A CUSTOM policy whose provider is not there, or not the only one of the workload.
fn provider(scene: &Scene<'_>, policy: &AuthorizationPolicy) -> Option<Trap> {
    let Action::Custom { provider } = &policy.action else { return None };
    let known = scene.mesh.extension_providers.iter().any(|one| {
        one.name == *provider && matches!(one.kind, ProviderKind::ExtAuthzGrpc(_) | ProviderKind::ExtAuthzHttp(_))
    });
    let unknown = scene.mesh_given && !known;
    scene.stages(policy).into_iter().find_map(|workload| {
        let other = second_provider(scene, policy, provider, &workload);
        let (code, message) = match (unknown, other) {
            (true, _) => ("PAL0734", format!("`{provider}` is no ext_authz provider of the mesh configuration")),
            (false, Some(other)) => ("PAL0733", two_providers(provider, &other)),
            (false, None) => return None,
        };
        let setting = Stage { scene, policy, workload: &workload, base: None }.setting(code);
        let draft = setting.matching_side(0, Side::To(0), Semantics::Http);
        let shown = example(scene, &draft, Outcome::Deny, Some(policy))?;
        Some(trap(code, policy, "spec.provider.name", message, shown))
    })
}

fn two_providers(provider: &str, other: &str) -> String {
    let (short, long) = if provider.len() < other.len() { (provider, other) } else { (other, provider) };
    let mut message =
        format!("`{provider}` and `{other}` are both asked for a workload: what either matches is denied");
    if long.starts_with(short) {
        // With several providers switched on, Envoy tells them apart by the begin of the name.
        message.push_str(&format!("; where Istio allows two, `{long}` is also asked for what only `{short}` matches"));
    }
    message
}

/// Another provider of the same workload, in a policy that is read before this one, so that each pair is told once.
fn second_provider(
    scene: &Scene<'_>,
    policy: &AuthorizationPolicy,
    provider: &str,
    workload: &Workload,
) -> Option<String> {
    let attached = scene.attached(workload, Semantics::Http);
    attached.iter().take_while(|one| one.meta != policy.meta).find_map(|one| match &one.action {
        Action::Custom { provider: other } if other != provider => Some(other.clone()),
        _ => None,
    })
}

/// Target references where only sidecars enforce. The loader warns of them; here is the request.
fn targets(scene: &Scene<'_>, policy: &AuthorizationPolicy) -> Option<Trap> {
    const CODE: &str = "PAL0227";
    let gateways = scene.workloads.iter().any(|workload| workload.gateway_name().is_some());
    if policy.target_refs.is_empty() || policy.action == Action::Audit || gateways {
        return None;
    }
    let known = scene.workloads.iter().find(|workload| scene.reaches(&policy.meta.namespace, workload)).cloned();
    let made = || Workload { namespace: scene.home(&policy.meta.namespace), ..Workload::default() };
    let workload = &known.unwrap_or_else(made);
    let stage = Stage { scene, policy, workload, base: None };
    let draft = stage.setting(CODE).matching_side(0, Side::To(0), Semantics::Http);
    let draft = if policy.action == Action::Allow { stranger(stage, CODE) } else { draft };
    let mut attached = policy.clone();
    attached.target_refs.clear();
    let asked = Asked::of(&draft, scene.mesh)?;
    if !scene.passes(&asked, policy, Some(policy)) || scene.passes(&asked, policy, Some(&attached)) {
        return None;
    }
    let shown = example(scene, &draft, Outcome::Allow, None)?;
    Some(trap(CODE, policy, "spec.targetRefs", format!("it does not apply to the sidecar of {}", who(workload)), shown))
}

/// Token rules of a workload for which no policy asks for a token.
fn token_optional(scene: &Scene<'_>, tokens: &RequestAuthentication) -> Option<Trap> {
    const CODE: &str = "PAL0722";
    if tokens.rules.is_empty() || !tokens.target_refs.is_empty() {
        return None;
    }
    let selected = |workload: &&Workload| {
        scene.reaches(&tokens.meta.namespace, workload)
            && tokens.selector.as_ref().is_none_or(|selector| selector.matches(&workload.labels))
    };
    let known = scene.workloads.iter().find(selected).cloned();
    let labels = tokens.selector.as_ref().map(|selector| selector.labels().clone()).unwrap_or_default();
    let home = scene.home(&tokens.meta.namespace);
    let workload = known.unwrap_or_else(|| Workload { namespace: home, name: String::new(), labels });
    let attached = scene.attached(&workload, Semantics::Http);
    if attached.iter().any(|policy| asks_for_token(policy)) {
        return None;
    }
    let mut drafts =
        attached.iter().filter(|policy| policy.action == Action::Allow && !policy.rules.is_empty()).map(|policy| {
            Stage { scene, policy, workload: &workload, base: None }.setting(CODE).matching_side(
                0,
                Side::To(0),
                Semantics::Http,
            )
        });
    let blank = Draft::new(CODE, &workload, scene.mesh.trust_domain.as_str(), Semantics::Http);
    let mut draft = drafts.next().unwrap_or(blank);
    draft.without_token();
    draft.header("authorization", "bearer forged");
    let shown = example(scene, &draft, Outcome::Allow, None)?;
    let message = format!("no policy of {} asks for a token", who(&workload));
    Some(of("RequestAuthentication", CODE, &tokens.meta, "spec.jwtRules", (message, shown)))
}

/// Whether a policy reads what only a token says.
fn asks_for_token(policy: &AuthorizationPolicy) -> bool {
    !policy.dry_run && lists(policy).iter().any(|list| matches!(list.field, Field::RequestPrincipal | Field::Claim(_)))
}

/// A selector that no known workload has.
fn nobody(scene: &Scene<'_>) -> Vec<Trap> {
    if scene.workloads.is_empty() {
        return Vec::new();
    }
    let alone = |meta: &Meta, selector: Option<&Selector>, root_reaches: bool| {
        let selector = selector.filter(|selector| !selector.is_empty())?;
        let reaches = |workload: &&Workload| {
            workload.namespace == meta.namespace || (root_reaches && meta.namespace == scene.mesh.root_namespace)
        };
        let none = !scene.workloads.iter().filter(reaches).any(|workload| selector.matches(&workload.labels));
        none.then(|| nobody_example(scene, meta, selector)).flatten()
    };
    let Resources { authorization_policies, request_authentications, peer_authentications, .. } = scene.resources;
    let one = |kind, meta: &Meta, shown| of(kind, "PAL0732", meta, "spec.selector.matchLabels", shown);
    let mut traps = Vec::new();
    for policy in authorization_policies.iter().filter(|policy| policy.target_refs.is_empty()) {
        let shown = alone(&policy.meta, policy.selector.as_ref(), true);
        traps.extend(shown.map(|shown| one("AuthorizationPolicy", &policy.meta, shown)));
    }
    for policy in request_authentications.iter().filter(|policy| policy.target_refs.is_empty()) {
        let shown = alone(&policy.meta, policy.selector.as_ref(), true);
        traps.extend(shown.map(|shown| one("RequestAuthentication", &policy.meta, shown)));
    }
    for policy in peer_authentications.iter().filter(|policy| policy.meta.namespace != scene.mesh.root_namespace) {
        let shown = alone(&policy.meta, policy.selector.as_ref(), false);
        traps.extend(shown.map(|shown| one("PeerAuthentication", &policy.meta, shown)));
    }
    traps
}

/// A request to the workload that comes nearest, which the policy does not concern.
fn nobody_example(scene: &Scene<'_>, meta: &Meta, selector: &Selector) -> Option<(String, Example)> {
    let shared = |workload: &&Workload| {
        selector.labels().iter().filter(|(key, value)| workload.labels.get(*key) == Some(*value)).count()
    };
    let reached: Vec<_> = scene.workloads.iter().filter(|workload| scene.reaches(&meta.namespace, workload)).collect();
    let keys = |workload: &&Workload| selector.labels().keys().filter(|key| workload.labels.contains_key(*key)).count();
    let nearest = reached.into_iter().max_by_key(|workload| (shared(workload), keys(workload)));
    let empty = Workload { namespace: scene.home(&meta.namespace), ..Workload::default() };
    let workload = nearest.unwrap_or(&empty);
    let draft = Draft::new("PAL0732", workload, scene.mesh.trust_domain.as_str(), Semantics::Http);
    let asked = Asked::of(&draft, scene.mesh)?;
    let evaluation = scene.evaluate(&asked, None);
    let shown = Example { request: draft.json()?, decision: scene.answer(&asked, &evaluation)? };
    let pairs: BTreeSet<String> = selector.labels().iter().map(|(key, value)| format!("{key}={value}")).collect();
    let labels = pairs.into_iter().collect::<Vec<_>>().join(",");
    let message = match nearest {
        Some(workload) => format!("`{labels}` selects no workload; the nearest is {}", who(workload)),
        None => format!("`{labels}` selects no workload, and `{}` has none", meta.namespace),
    };
    Some((message, shown))
}
