//! Which policies a workload gets, and which mode its ports have: the tables of Istio's selection.

use palisade_policies::{
    MeshConfig, MtlsMode, PathNormalization, Resources, SourceText, Workload, load,
    select::{authorization_policies, mtls_mode},
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

fn peer(namespace: &str, name: &str, rest: &str) -> String {
    let (metadata, spec) = rest.split_once('|').unwrap_or(("", rest));
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: \
         {namespace}{metadata}}}\nspec: {{{spec}}}\n"
    )
}

fn mode(text: &str, port: u16) -> (MtlsMode, String) {
    let web = workload("shop", &[("app", "web")]);
    let decided = mtls_mode(&resources(text), &MeshConfig::default(), &web, port);
    assert_eq!(decided.policy.is_some(), decided.origin.is_some());
    (decided.mode, decided.policy.unwrap_or_default())
}

const WEB: &str = "selector: {matchLabels: {app: web}}";

#[test]
fn the_narrowest_scope_that_says_something_decides() {
    let mesh = peer("istio-system", "mesh", "mtls: {mode: STRICT}");
    let namespace = peer("shop", "ns", "mtls: {mode: DISABLE}");
    let unset = peer("shop", "web", &format!("{WEB}, mtls: {{mode: UNSET}}"));
    let empty = peer("shop", "web", WEB);
    let strict = peer("shop", "web", &format!("{WEB}, mtls: {{mode: PERMISSIVE}}"));
    for (text, expected, by) in [
        (String::new(), MtlsMode::Permissive, ""),
        (mesh.clone(), MtlsMode::Strict, "istio-system/mesh"),
        (mesh.clone() + &namespace, MtlsMode::Disable, "shop/ns"),
        (mesh.clone() + &namespace + &unset, MtlsMode::Disable, "shop/ns"),
        (mesh.clone() + &empty, MtlsMode::Strict, "istio-system/mesh"),
        (mesh.clone() + &namespace + &strict, MtlsMode::Permissive, "shop/web"),
        (peer("istio-system", "mesh", "selector: {}, mtls: {mode: STRICT}"), MtlsMode::Strict, "istio-system/mesh"),
        (peer("istio-system", "x", &format!("{WEB}, mtls: {{mode: STRICT}}")), MtlsMode::Permissive, ""),
        (peer("other", "ns", "mtls: {mode: STRICT}"), MtlsMode::Permissive, ""),
    ] {
        assert_eq!(mode(&text, 80), (expected, by.to_owned()), "{text}");
    }
}

#[test]
fn in_the_root_namespace_only_mesh_policies_count() {
    let text = peer("istio-system", "mesh", "mtls: {mode: STRICT}")
        + &peer("istio-system", "web", &format!("{WEB}, mtls: {{mode: DISABLE}}"));
    let decided = mtls_mode(&resources(&text), &MeshConfig::default(), &workload("istio-system", &[("app", "web")]), 1);
    assert_eq!(decided.mode, MtlsMode::Strict);
}

#[test]
fn ports_are_read_from_the_one_workload_policy_only() {
    let ports = |name: &str, rest: &str| peer("shop", name, &format!("{rest}{WEB}, {PORTS}"));
    const PORTS: &str = "mtls: {mode: PERMISSIVE}, portLevelMtls: {80: {mode: STRICT}, 81: {mode: UNSET}, 82: {}}";
    let one = peer("istio-system", "mesh", "mtls: {mode: DISABLE}") + &ports("web", "");
    assert_eq!(mode(&one, 80), (MtlsMode::Strict, "shop/web".to_owned()));
    assert_eq!(mode(&one, 81).0, MtlsMode::Permissive, "UNSET takes the policy's mode");
    assert_eq!(mode(&one, 82).0, MtlsMode::Permissive);
    assert_eq!(mode(&one, 443).0, MtlsMode::Permissive);
    let older =
        peer("shop", "zzz", &format!(", creationTimestamp: \"2026-01-01T00:00:00Z\"|{WEB}, mtls: {{mode: DISABLE}}"));
    let newer = ports("aaa", ", creationTimestamp: \"2026-01-01T00:00:01Z\"|");
    assert_eq!(mode(&(newer.clone() + &older), 80), (MtlsMode::Disable, "shop/zzz".to_owned()), "the oldest, whole");
    let by_name = ports("aaa", "") + &peer("shop", "zzz", &format!("{WEB}, mtls: {{mode: DISABLE}}"));
    assert_eq!(mode(&by_name, 80), (MtlsMode::Strict, "shop/aaa".to_owned()), "without timestamps by name");
}

#[test]
fn the_mesh_configuration_is_read_and_has_istios_defaults() {
    let parse = |text: &str| MeshConfig::parse(&SourceText::new("mesh", text));
    let (empty, found) = parse("# nothing\n");
    assert_eq!((empty, found.len()), (Some(MeshConfig::default()), 0));
    let (sample, found) = parse(include_str!("../samples/mesh.yaml"));
    assert_eq!(found, []);
    let sample = sample.unwrap();
    assert_eq!(
        (sample.trust_domain.as_str(), sample.path_normalization),
        ("shop.example", PathNormalization::MergeSlashes)
    );
    assert_eq!(sample.trust_domain_aliases, ["cluster.local"]);
    let (warned, found) =
        parse("enableAutoMtls: true\nrootNamespace: root\npalisade: {}\ntrustDomainAliases: ['*', 'a*']\n");
    assert_eq!((warned.unwrap().root_namespace.as_str(), found[0].code, found.len()), ("root", "PAL0502", 1));
    for broken in
        ["[", "a: 1\n---\nb: 2", "- x", "palisade: {ambiguousRequests: istio}", "trustDomains: x", "trustDomain:"]
    {
        let (config, found) = parse(broken);
        assert!(config.is_none() && found.iter().any(|found| found.is_error()), "{broken}");
    }
}
