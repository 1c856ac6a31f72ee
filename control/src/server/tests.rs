use std::fs;

use rustls_pki_types::UnixTime;

use super::*;
use crate::testing::{WORKLOADS, caller};

#[derive(Debug)]
struct Now;

impl Clock for Now {
    fn now(&self) -> UnixTime {
        UnixTime::now()
    }
}

fn control(config: ControlConfig) -> (Control, Registry) {
    let mut registry = Registry::default();
    (Control::new(config, Arc::new(Now), &mut registry), registry)
}

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).expect("encode");
    text
}

#[test]
fn starts_on_a_broken_directory_red_and_with_the_reason() {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("a.yaml"), "apiVersion: security.istio.io/v1\nkind: Unheard\n").expect("write");
    let (control, registry) = control(ControlConfig::new(dir.path()));
    let handle = control.handle();
    assert!(!*handle.ready().borrow());
    let status = handle.status();
    assert!(status.configuration.is_none());
    assert!(status.problem.expect("a problem").to_string().contains("a.yaml"));
    assert!(!text(&registry).contains("palisade_config_errors 0"));
    let cart = caller("cluster.local", "spiffe://cluster.local/ns/shop/sa/cart");
    let early = handle.enforcer_of(&cart, "shop/cart-0").expect_err("nothing to authorise by");
    assert_eq!(early.code(), tonic::Code::Unavailable);
}

#[test]
fn starts_green_on_a_good_one_and_counts_it() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (control, registry) = control(ControlConfig::new(dir.path()));
    assert!(*control.handle().ready().borrow(), "an empty directory is a configuration");
    let metrics = text(&registry);
    for line in [
        "palisade_config_revisions_total 1",
        "palisade_config_errors 0",
        "palisade_xds_connected_proxies 0",
        "palisade_xds_pushes_total{outcome=\"ack\"} 0",
        "palisade_xds_pushes_total{outcome=\"nack\"} 0",
        "palisade_xds_ack_lag_seconds_count 0",
    ] {
        assert!(metrics.contains(line), "{line} missing in:\n{metrics}");
    }
}

#[test]
fn an_enforcer_is_who_its_certificate_says() {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("workloads.yaml"), WORKLOADS).expect("write");
    let (control, _registry) = control(ControlConfig::new(dir.path()));
    let handle = control.handle();
    let cart = caller("cluster.local", "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(handle.enforcer_of(&cart, "shop/cart-0").expect("itself"), "shop/cart-0");
    let cases = [
        (&cart, "web/front-0", tonic::Code::PermissionDenied),
        (&cart, "shop/cart-9", tonic::Code::NotFound),
        (&cart, "cart-0", tonic::Code::InvalidArgument),
        (&Caller::default(), "shop/cart-0", tonic::Code::Unauthenticated),
    ];
    for (caller, claimed, code) in cases {
        assert_eq!(handle.enforcer_of(caller, claimed).expect_err(claimed).code(), code, "{claimed}");
    }
}
