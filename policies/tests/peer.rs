//! The mTLS mode of a port: which PeerAuthentications count, and how they are put together.

use palisade_policies::{MeshConfig, MtlsMode, Resources, SourceText, Workload, load, select::mtls_mode};

fn resources(text: &str) -> Resources {
    let loaded = load(&[SourceText::new("f", text)], "default");
    assert!(!loaded.has_errors(), "{:?}", loaded.diagnostics);
    loaded.resources
}

fn workload(namespace: &str, labels: &[(&str, &str)]) -> Workload {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Workload { namespace: namespace.to_owned(), name: "w".to_owned(), labels }
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

/// The rows of the composition: mode of the mesh, the namespace and the workload (`-`: no policy, ` `: without mTLS),
/// and what comes out.
const COMPOSED: [(&str, &str, &str, MtlsMode); 16] = [
    ("-", "-", "-", MtlsMode::Permissive),
    (" ", "-", "-", MtlsMode::Permissive),
    ("UNSET", "UNSET", "UNSET", MtlsMode::Permissive),
    ("STRICT", "-", "-", MtlsMode::Strict),
    ("DISABLE", "-", "-", MtlsMode::Disable),
    ("-", "STRICT", "-", MtlsMode::Strict),
    ("-", "-", "STRICT", MtlsMode::Strict),
    ("STRICT", "PERMISSIVE", "-", MtlsMode::Permissive),
    ("PERMISSIVE", "STRICT", "-", MtlsMode::Strict),
    ("STRICT", "UNSET", "-", MtlsMode::Strict),
    ("STRICT", " ", "-", MtlsMode::Strict),
    ("STRICT", "PERMISSIVE", "DISABLE", MtlsMode::Disable),
    ("STRICT", "PERMISSIVE", "UNSET", MtlsMode::Permissive),
    ("STRICT", "-", "UNSET", MtlsMode::Strict),
    ("STRICT", "-", " ", MtlsMode::Strict),
    ("PERMISSIVE", "DISABLE", "STRICT", MtlsMode::Strict),
];

#[test]
fn modes_compose_row_by_row() {
    for (mesh, namespace, one, expected) in COMPOSED {
        let mtls = |mode: &str| if mode == " " { String::new() } else { format!("mtls: {{mode: {mode}}}") };
        let mut text = String::new();
        for (mode, place, name, selector) in
            [(mesh, "istio-system", "mesh", ""), (namespace, "shop", "ns", ""), (one, "shop", "one", WEB)]
        {
            let comma = if selector.is_empty() || mode == " " { "" } else { ", " };
            if mode != "-" {
                text += &peer(place, name, &format!("{selector}{comma}{}", mtls(mode)));
            }
        }
        assert_eq!(mode(&text, 80).0, expected, "{mesh} {namespace} {one}");
    }
}

const OLD: &str = ", creationTimestamp: \"2026-01-01T00:00:00Z\"|";
const NEW: &str = ", creationTimestamp: \"2026-01-01T00:00:01Z\"|";

#[test]
fn of_each_scope_the_oldest_counts() {
    for (namespace, labels) in [("istio-system", ""), ("shop", ""), ("shop", "selector: {}, "), ("shop", "WEB, ")] {
        let labels = labels.replace("WEB", WEB);
        let new = peer(namespace, "aaa", &format!("{NEW}{labels}mtls: {{mode: STRICT}}"));
        let old = peer(namespace, "zzz", &format!("{OLD}{labels}mtls: {{mode: DISABLE}}"));
        for text in [new.clone() + &old, old + &new] {
            assert_eq!(mode(&text, 80), (MtlsMode::Disable, format!("{namespace}/zzz")), "{text}");
        }
        let same = |name: &str, mode: &str| peer(namespace, name, &format!("{OLD}{labels}mtls: {{mode: {mode}}}"));
        let text = same("b", "STRICT") + &same("a", "DISABLE");
        assert_eq!(mode(&text, 80), (MtlsMode::Disable, format!("{namespace}/a")), "of one age the first by name");
    }
}

#[test]
fn an_oldest_policy_that_says_nothing_still_counts() {
    let silent = peer("shop", "old", &format!("{OLD}mtls: {{mode: UNSET}}"));
    let newer = peer("shop", "new", &format!("{NEW}mtls: {{mode: STRICT}}"));
    assert_eq!(mode(&(silent + &newer), 80).0, MtlsMode::Permissive);
}

#[test]
fn ports_are_read_of_the_workload_and_of_no_wider_scope() {
    let port = |mode: &str| format!("{WEB}, portLevelMtls: {{80: {{mode: {mode}}}}}");
    let namespace = peer("shop", "ns", "mtls: {mode: STRICT}");
    let one = peer("shop", "one", &port("DISABLE"));
    assert_eq!(mode(&(namespace.clone() + &one), 80), (MtlsMode::Disable, "shop/one".to_owned()));
    assert_eq!(mode(&(namespace.clone() + &one), 81), (MtlsMode::Strict, "shop/ns".to_owned()));
    let unset = peer("shop", "one", &port("UNSET"));
    assert_eq!(mode(&(namespace + &unset), 80), (MtlsMode::Strict, "shop/ns".to_owned()));
    let others = one.replace("app: web", "app: api");
    assert_eq!(mode(&others, 80).0, MtlsMode::Permissive, "another workload's ports");
}

#[test]
fn trap_48_two_workload_policies_older_decides() {
    let older = peer("shop", "zzz", &format!("{OLD}{WEB}, mtls: {{mode: PERMISSIVE}}"));
    let newer = peer("shop", "aaa", &format!("{NEW}{WEB}, portLevelMtls: {{8080: {{mode: STRICT}}}}"));
    assert_eq!(mode(&(newer.clone() + &older), 8080), (MtlsMode::Permissive, "shop/zzz".to_owned()));
    assert_eq!(mode(&newer, 8080).0, MtlsMode::Strict, "alone it would decide");
}

#[test]
fn trap_49_a_root_policy_with_a_selector_is_ignored() {
    let text = peer("istio-system", "p", &format!("{WEB}, mtls: {{mode: STRICT}}"));
    let ports = peer("istio-system", "p", &format!("{WEB}, portLevelMtls: {{80: {{mode: STRICT}}}}"));
    for namespace in ["shop", "istio-system"] {
        let web = workload(namespace, &[("app", "web")]);
        for text in [&text, &ports] {
            let decided = mtls_mode(&resources(text), &MeshConfig::default(), &web, 80);
            assert_eq!((decided.mode, decided.policy), (MtlsMode::Permissive, None), "{namespace}");
        }
    }
}

#[test]
fn an_empty_selector_makes_a_policy_one_of_the_whole_scope() {
    for selector in ["selector: {}", "selector: {matchLabels: {}}"] {
        let mesh = peer("istio-system", "p", &format!("{selector}, mtls: {{mode: STRICT}}"));
        assert_eq!(mode(&mesh, 80), (MtlsMode::Strict, "istio-system/p".to_owned()));
        let namespace = peer("shop", "p", &format!("{selector}, mtls: {{mode: STRICT}}"));
        let one = peer("shop", "one", &format!("{WEB}, mtls: {{mode: DISABLE}}"));
        assert_eq!(mode(&(namespace.clone() + &one), 80).0, MtlsMode::Disable, "it is no workload policy");
        assert_eq!(mode(&namespace, 80).0, MtlsMode::Strict);
    }
}
