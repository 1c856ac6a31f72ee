use super::*;
use crate::testing::{WORKLOADS, configuration, policy};

fn names(index: &Index, namespace: &str) -> Vec<String> {
    let snapshot = index.snapshot(namespace).expect("a namespace with workloads");
    let message = control::Snapshot::decode(snapshot.bytes.as_slice()).expect("readable");
    assert_eq!(message.revision, snapshot.revision);
    message.documents.iter().map(|document| format!("{}:{}", document.file, document.first_line)).collect()
}

fn revision(index: &Index, namespace: &str) -> String {
    index.snapshot(namespace).expect("a namespace with workloads").revision.clone()
}

fn index_of(files: &[(&str, &str)]) -> Index {
    Index::new(configuration(files))
}

#[test]
fn a_proxy_gets_root_and_own_policies_and_every_workload() {
    let (own, root, other) = (policy("shop", "own"), policy("istio-system", "root"), policy("bank", "other"));
    let index = index_of(&[
        ("a-own.yaml", &own),
        ("b-root.yaml", &root),
        ("c-other.yaml", &other),
        ("d-workloads.yaml", WORKLOADS),
    ]);
    let shop = names(&index, "shop");
    assert_eq!(shop.len(), 5, "{shop:?}");
    assert!(shop.iter().any(|name| name.starts_with("a-own.yaml:")));
    assert!(shop.iter().any(|name| name.starts_with("b-root.yaml:")));
    assert!(!shop.iter().any(|name| name.starts_with("c-other.yaml:")));
    let web = names(&index, "web");
    assert_eq!(web.len(), 4, "{web:?}");
    assert!(!web.iter().any(|name| name.starts_with("a-own.yaml:")));
}

#[test]
fn token_rules_go_where_policies_go_and_providers_to_everybody() {
    let tokens = |namespace: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: idp, namespace: {namespace}}}\n\
             spec: {{jwtRules: [{{issuer: a, jwksUri: 'https://a.example/keys'}}]}}\n"
        )
    };
    let service = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: asker, namespace: bank}\n\
                   spec:\n  hosts: [asker.bank]\n  resolution: STATIC\n  ports: [{number: 9000, name: grpc, protocol: GRPC}]\n  \
                   endpoints: [{address: 127.0.0.1}]\n";
    let provider = |timeout: u8| {
        format!(
            "extensionProviders: [{{name: asker, envoyExtAuthzGrpc: {{service: asker.bank, port: 9000, timeout: {timeout}s}}}}]\n"
        )
    };
    let (own, root, other, mesh) = (tokens("shop"), tokens("istio-system"), tokens("bank"), provider(1));
    let files = [
        ("a-own.yaml", own.as_str()),
        ("b-root.yaml", &root),
        ("c-other.yaml", &other),
        ("d-service.yaml", service),
        ("e-workloads.yaml", WORKLOADS),
        ("mesh.yaml", &mesh),
    ];
    let index = index_of(&files);
    let shop: Vec<String> = names(&index, "shop").iter().map(|name| name[..1].to_owned()).collect();
    assert_eq!(shop, ["a", "b", "d", "e", "e", "e"]);
    let snapshot = index.snapshot("shop").expect("a namespace with workloads");
    let message = control::Snapshot::decode(snapshot.bytes.as_slice()).expect("readable");
    assert_eq!(message.mesh.expect("the mesh configuration").text, mesh);
    let slower = provider(2);
    let edited = index_of(&[&files[..5], &[("mesh.yaml", slower.as_str())]].concat());
    assert_ne!(revision(&index, "shop"), revision(&edited, "shop"), "another provider is another snapshot");
}

#[test]
fn the_root_namespace_is_the_mesh_configurations() {
    let root = policy("security", "root");
    let files = [("root.yaml", root.as_str()), ("workloads.yaml", WORKLOADS)];
    assert_eq!(names(&index_of(&files), "shop").len(), 3);
    let meshed = [files[0], files[1], ("mesh.yaml", "rootNamespace: security\n")];
    assert_eq!(names(&index_of(&meshed), "shop").len(), 4);
}

#[test]
fn equal_content_has_equal_revisions_and_other_namespaces_do_not_count() {
    let bank = policy("bank", "one");
    let before = index_of(&[("bank.yaml", &bank), ("workloads.yaml", WORKLOADS)]);
    let again = index_of(&[("bank.yaml", &bank), ("workloads.yaml", WORKLOADS)]);
    assert_eq!(revision(&before, "shop"), revision(&again, "shop"), "same content, another directory");
    let bank = policy("bank", "two");
    let edited_elsewhere = index_of(&[("bank.yaml", &bank), ("workloads.yaml", WORKLOADS)]);
    assert_eq!(revision(&before, "shop"), revision(&edited_elsewhere, "shop"));
    assert_ne!(before.revision(), edited_elsewhere.revision());
    let shop = policy("shop", "one");
    let edited = index_of(&[("bank.yaml", &bank), ("shop.yaml", &shop), ("workloads.yaml", WORKLOADS)]);
    assert_ne!(revision(&before, "shop"), revision(&edited, "shop"));
    assert_eq!(revision(&before, "web"), revision(&edited, "web"));
}

#[test]
fn a_namespace_without_workloads_has_no_snapshot() {
    let index = index_of(&[("workloads.yaml", WORKLOADS)]);
    assert!(index.snapshot("bank").is_none());
    assert!(index_of(&[]).snapshot("shop").is_none());
}
