use super::*;
use crate::testing::{WORKLOADS, caller, index};

fn node(text: &str) -> Node {
    Node::parse(text).unwrap()
}

#[test]
fn a_workload_speaks_for_itself_and_its_equals_only() {
    let index = index(&[("workloads.yaml", WORKLOADS)]);
    let cart = caller("cluster.local", "spiffe://cluster.local/ns/shop/sa/cart");
    let granted = authorize(Some(&index), &cart, &node("shop/cart-0")).unwrap();
    assert_eq!(granted.as_str(), "spiffe://cluster.local/ns/shop/sa/cart");
    assert!(authorize(Some(&index), &cart, &node("shop/cart-1")).is_ok(), "same account, same right");
    let refused = authorize(Some(&index), &cart, &node("web/front-0")).unwrap_err();
    assert!(matches!(refused, Refusal::Foreign { .. }), "{refused:?}");
}

#[test]
fn account_namespace_and_trust_domain_must_all_be_those_of_the_entry() {
    let index = index(&[("workloads.yaml", WORKLOADS)]);
    let others = [
        ("cluster.local", "spiffe://cluster.local/ns/shop/sa/other"),
        ("cluster.local", "spiffe://cluster.local/ns/web/sa/cart"),
        ("other.example", "spiffe://other.example/ns/shop/sa/cart"),
        ("cluster.local", "spiffe://cluster.local/ns/shop/sa/cart/extra"),
    ];
    for (domain, id) in others {
        let refused = authorize(Some(&index), &caller(domain, id), &node("shop/cart-0")).unwrap_err();
        assert!(matches!(refused, Refusal::Foreign { .. }), "{id}: {refused:?}");
        assert_eq!(Status::from(refused).code(), tonic::Code::PermissionDenied);
    }
}

#[test]
fn an_entry_without_service_account_is_the_default_account() {
    let index = index(&[("workloads.yaml", WORKLOADS)]);
    let front = caller("cluster.local", "spiffe://cluster.local/ns/web/sa/default");
    assert!(authorize(Some(&index), &front, &node("web/front-0")).is_ok());
}

#[test]
fn an_unknown_workload_is_named_to_its_own_namespace_only() {
    let index = index(&[("workloads.yaml", WORKLOADS)]);
    let cart = caller("cluster.local", "spiffe://cluster.local/ns/shop/sa/cart");
    let unknown = authorize(Some(&index), &cart, &node("shop/cart-9")).unwrap_err();
    let status = Status::from(unknown);
    assert_eq!(status.code(), tonic::Code::NotFound);
    for part in ["shop/cart-9", "WorkloadEntry `cart-9`", "namespace `shop`", "serviceAccount is `cart`"] {
        assert!(status.message().contains(part), "{}", status.message());
    }
    let elsewhere = authorize(Some(&index), &cart, &node("web/nobody")).unwrap_err();
    assert_eq!(Status::from(elsewhere).code(), tonic::Code::PermissionDenied);
}

#[test]
fn without_certificate_or_configuration_nobody_is_anybody() {
    let index = index(&[("workloads.yaml", WORKLOADS)]);
    let nobody = authorize(Some(&index), &Caller::default(), &node("shop/cart-0")).unwrap_err();
    assert_eq!(nobody, Refusal::NoPeer);
    assert_eq!(Status::from(nobody).code(), tonic::Code::Unauthenticated);
    let cart = caller("cluster.local", "spiffe://cluster.local/ns/shop/sa/cart");
    let early = authorize(None, &cart, &node("shop/cart-0")).unwrap_err();
    assert_eq!(early, Refusal::NoConfiguration);
    assert_eq!(Status::from(early).code(), tonic::Code::Unavailable);
}

#[test]
fn node_ids_have_exactly_two_kubernetes_names() {
    assert_eq!((node("shop/cart-0").namespace(), node("shop/cart-0").workload()), ("shop", "cart-0"));
    let long = format!("shop/{}", "a".repeat(254));
    for bad in ["", "/", "shop", "shop/", "/cart", "shop/cart/0", "Shop/cart", "shop/c art", "shop/cart\n", &long] {
        let refused = Node::parse(bad).unwrap_err();
        assert_eq!(Status::from(refused).code(), tonic::Code::InvalidArgument, "{bad:?}");
    }
}
