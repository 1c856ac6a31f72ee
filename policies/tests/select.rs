//! Which policies a workload gets: the table of Istio's attachment, row by row, and the traps that follow from it.

use palisade_policies::{
    MeshConfig, Resources, SourceText, Workload, load,
    select::{
        Attachment, Registry, Target, ambient_authorization_policies, authorization_policies,
        authorization_policies_at, request_authentications, request_authentications_at,
    },
};

fn resources(text: &str) -> Resources {
    let loaded = load(&[SourceText::new("f", text)], "default");
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    loaded.resources
}

fn workload(namespace: &str, labels: &[(&str, &str)]) -> Workload {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Workload { namespace: namespace.to_owned(), name: "w".to_owned(), labels }
}

fn policy(namespace: &str, name: &str, attach: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: \
         {namespace}}}\nspec: {{{attach}}}\n"
    )
}

fn attached(resources: &Resources, workload: &Workload) -> Vec<String> {
    let policies = authorization_policies(resources, &MeshConfig::default(), workload);
    policies.iter().map(|policy| policy.meta.to_string()).collect()
}

#[test]
fn policies_attach_by_namespace_root_and_labels() {
    let text = policy("shop", "all", "")
        + &policy("shop", "empty", "selector: {}")
        + &policy("shop", "web", "selector: {matchLabels: {app: web}}")
        + &policy("shop", "both", "selector: {matchLabels: {app: web, tier: front}}")
        + &policy("shop", "refs", "targetRefs: [{kind: Service, name: web}]")
        + &policy("other", "all", "")
        + &policy("istio-system", "mesh", "")
        + &policy("istio-system", "mesh-web", "selector: {matchLabels: {app: web}}");
    let resources = resources(&text);
    let web = workload("shop", &[("app", "web"), ("x", "y")]);
    assert_eq!(
        attached(&resources, &web),
        ["istio-system/mesh", "istio-system/mesh-web", "shop/all", "shop/empty", "shop/web"]
    );
    assert_eq!(attached(&resources, &workload("nowhere", &[])), ["istio-system/mesh"]);
    let in_root = workload("istio-system", &[("app", "web")]);
    assert_eq!(attached(&resources, &in_root), ["istio-system/mesh", "istio-system/mesh-web"], "root policies once");
}

fn tokens(namespace: &str, name: &str, attach: &str) -> String {
    policy(namespace, name, attach).replace("AuthorizationPolicy", "RequestAuthentication")
}

/// Every way of attaching, in the workload's, the root and another namespace; as both kinds that share the rules.
fn everything() -> Resources {
    let mut text = String::new();
    for namespace in ["shop", "istio-system", "other"] {
        for (name, attach) in [
            ("plain", ""),
            ("empty", "selector: {}"),
            ("web", "selector: {matchLabels: {app: web}}"),
            ("api", "selector: {matchLabels: {app: api}}"),
            ("gateway", "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gate}]"),
            ("one-ref", "targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: gate}"),
            ("other-gateway", "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: another}]"),
            ("service", "targetRefs: [{kind: Service, name: cart}]"),
            ("core", "targetRefs: [{group: core, kind: Service, name: cart}]"),
            ("entry", "targetRefs: [{group: networking.istio.io, kind: ServiceEntry, name: cart}]"),
            ("class", "targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}]"),
            ("other-class", "targetRefs: [{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio}]"),
            ("either", "targetRefs: [{kind: Service, name: none}, {group: core, kind: Service, name: cart}]"),
        ] {
            text += &policy(namespace, name, attach);
            text += &tokens(namespace, name, attach);
        }
    }
    resources(&text)
}

/// What a proxy gets; AuthorizationPolicies and RequestAuthentications have to agree.
fn gets(workload: &Workload, attachment: &Attachment<'_>) -> Vec<String> {
    let (resources, mesh) = (everything(), MeshConfig::default());
    let policies = authorization_policies_at(&resources, &mesh, workload, attachment);
    let policies: Vec<String> = policies.iter().map(|policy| policy.meta.to_string()).collect();
    let tokens = request_authentications_at(&resources, &mesh, workload, attachment);
    let tokens: Vec<String> = tokens.iter().map(|policy| policy.meta.to_string()).collect();
    assert_eq!(policies, tokens);
    policies
}

const GATE: (&str, &str) = ("gateway.networking.k8s.io/gateway-name", "gate");

/// What applies by selector, in the workload's and the root namespace.
const BY_SELECTOR: [&str; 6] =
    ["istio-system/empty", "istio-system/plain", "istio-system/web", "shop/empty", "shop/plain", "shop/web"];

#[test]
fn sidecars_and_classic_gateways_take_selectors_and_no_target_refs() {
    let sidecar = workload("shop", &[("app", "web")]);
    assert_eq!(gets(&sidecar, &Attachment::Proxy), BY_SELECTOR);
    let classic = workload("istio-system", &[("app", "web"), ("istio", "ingressgateway")]);
    assert_eq!(gets(&classic, &Attachment::Proxy), ["istio-system/empty", "istio-system/plain", "istio-system/web"]);
    let (resources, mesh) = (everything(), MeshConfig::default());
    assert_eq!(attached(&resources, &sidecar), BY_SELECTOR, "the plain question is the sidecar's");
    assert_eq!(request_authentications(&resources, &mesh, &sidecar).len(), BY_SELECTOR.len());
}

#[test]
fn gateways_of_the_gateway_api_take_their_own_gateway_and_selectors() {
    let mut expected = BY_SELECTOR.to_vec();
    expected.extend(["shop/gateway", "shop/one-ref"]);
    expected.sort_unstable();
    assert_eq!(gets(&workload("shop", &[("app", "web"), GATE]), &Attachment::Proxy), expected);
    let unnamed = gets(&workload("shop", &[("app", "web"), (GATE.0, "none")]), &Attachment::Proxy);
    assert_eq!(unnamed, BY_SELECTOR, "the name of the gateway counts");
}

const CART: Target<'_> = Target { registry: Registry::Kubernetes, namespace: "shop", name: "cart" };

#[test]
fn waypoints_take_references_and_no_selectors() {
    let waypoint = workload("shop", &[("app", "web"), GATE]);
    let own = ["istio-system/class", "shop/gateway", "shop/one-ref"];
    assert_eq!(gets(&waypoint, &Attachment::Waypoint { services: &[] }), own);
    let service = ["istio-system/class", "shop/core", "shop/either", "shop/gateway", "shop/one-ref", "shop/service"];
    assert_eq!(gets(&waypoint, &Attachment::Waypoint { services: &[CART] }), service);
    let entry = Target { registry: Registry::ServiceEntry, ..CART };
    let by_entry = ["istio-system/class", "shop/entry", "shop/gateway", "shop/one-ref"];
    assert_eq!(gets(&waypoint, &Attachment::Waypoint { services: &[entry] }), by_entry);
    let pay = Target { name: "pay", ..CART };
    assert_eq!(gets(&waypoint, &Attachment::Waypoint { services: &[pay] }), own, "the name of the service counts");
}

/// What enforces knows what it is: a label alone must not take policies away from a sidecar, nor from a gateway.
#[test]
fn a_label_takes_no_policy_away_from_a_proxy() {
    const MANAGED: (&str, &str) = ("gateway.istio.io/managed", "istio.io-mesh-controller");
    for labels in [&[("app", "web")][..], &[("app", "web"), GATE]] {
        let managed = [labels, &[MANAGED]].concat();
        let (with, without) = (workload("shop", &managed), workload("shop", labels));
        assert_eq!(gets(&with, &Attachment::Proxy), gets(&without, &Attachment::Proxy));
        assert_eq!(with.says_waypoint(), labels.contains(&GATE));
        assert!(!without.says_waypoint());
    }
}

#[test]
fn a_waypoint_takes_the_policies_of_its_services_namespaces() {
    let waypoint = workload("waypoints", &[GATE]);
    let other = Target { namespace: "other", ..CART };
    let expected = ["istio-system/class", "other/core", "other/either", "other/service"];
    assert_eq!(gets(&waypoint, &Attachment::Waypoint { services: &[other] }), expected);
    let both = gets(&waypoint, &Attachment::Waypoint { services: &[CART, other] });
    assert_eq!(both.len(), 7, "{both:?}");
}

#[test]
fn the_root_namespace_is_the_one_that_the_mesh_names() {
    let resources = everything();
    let mesh = MeshConfig { root_namespace: "other".to_owned(), ..MeshConfig::default() };
    let policies = authorization_policies(&resources, &mesh, &workload("shop", &[]));
    let policies: Vec<String> = policies.iter().map(|policy| policy.meta.to_string()).collect();
    assert_eq!(policies, ["other/empty", "other/plain", "shop/empty", "shop/plain"]);
    let waypoint = Attachment::Waypoint { services: &[] };
    let policies = authorization_policies_at(&resources, &mesh, &workload("shop", &[GATE]), &waypoint);
    let policies: Vec<String> = policies.iter().map(|policy| policy.meta.to_string()).collect();
    assert_eq!(policies, ["other/class", "shop/gateway", "shop/one-ref"]);
}

#[test]
fn trap_44_target_refs_pass_sidecars_by_and_selectors_pass_waypoints_by() {
    let by_ref = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gate}]";
    let deny = ", action: DENY, rules: [{}]";
    let by_ref = resources(&policy("shop", "p", &format!("{by_ref}{deny}")));
    assert!(attached(&by_ref, &workload("shop", &[("app", "web")])).is_empty());
    let by_labels = resources(&policy("shop", "p", &format!("selector: {{matchLabels: {{app: web}}}}{deny}")));
    let waypoint = workload("shop", &[("app", "web"), GATE]);
    let at = Attachment::Waypoint { services: &[CART] };
    assert!(authorization_policies_at(&by_labels, &MeshConfig::default(), &waypoint, &at).is_empty());
    let everywhere = resources(&policy("istio-system", "p", "action: DENY, rules: [{}]"));
    assert!(authorization_policies_at(&everywhere, &MeshConfig::default(), &waypoint, &at).is_empty());
}

fn ambient(text: &str, workload: &Workload) -> Vec<String> {
    let policies = ambient_authorization_policies(&resources(text), &MeshConfig::default(), workload);
    policies.iter().map(|policy| policy.meta.to_string()).collect()
}

#[test]
fn ambient_workloads_get_what_ztunnel_can_enforce() {
    let dry = |action: &str| {
        policy("shop", "dry", &format!("{action}rules: [{{}}]"))
            .replace("namespace: shop", "namespace: shop, annotations: {istio.io/dry-run: \"true\"}")
    };
    let text = policy("shop", "namespace", "")
        + &policy("istio-system", "mesh", "")
        + &policy("other", "namespace", "")
        + &policy("shop", "web", "selector: {matchLabels: {app: web}}")
        + &policy("shop", "api", "selector: {matchLabels: {app: api}}")
        + &policy("istio-system", "web", "selector: {matchLabels: {app: web}}")
        + &policy("shop", "deny", "action: DENY, rules: [{}]")
        + &policy("shop", "audit", "action: AUDIT, rules: [{}]")
        + &policy("shop", "custom", "action: CUSTOM, provider: {name: ext}, rules: [{}]")
        + &policy("shop", "refs", "targetRefs: [{kind: Service, name: web}]")
        + &dry("action: DENY, ");
    let expected = ["istio-system/mesh", "istio-system/web", "shop/deny", "shop/namespace", "shop/web"];
    assert_eq!(ambient(&text, &workload("shop", &[("app", "web")])), expected);
    assert_eq!(ambient(&dry(""), &workload("shop", &[])), [""; 0]);
}

#[test]
fn trap_54_an_empty_selector_takes_all_sidecars_and_no_ambient_workload() {
    for (namespace, attach) in
        [("shop", "selector: {}"), ("istio-system", "selector: {}"), ("shop", "selector: {matchLabels: {}}")]
    {
        let text = policy(namespace, "p", &format!("{attach}, action: DENY, rules: [{{}}]"));
        let web = workload("shop", &[("app", "web")]);
        assert_eq!(attached(&resources(&text), &web), [format!("{namespace}/p")]);
        assert_eq!(ambient(&text, &web), [""; 0]);
    }
}
