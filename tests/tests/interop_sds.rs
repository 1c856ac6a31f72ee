//! The certificate authority and the agent, with subscribers that nobody here wrote: a real Envoy on SDS, in both protocols
//! and in both roles of a handshake, and py-spiffe on the Workload API.

#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "interop_sds/envoy.rs"]
mod envoy;
#[path = "interop_sds/mesh.rs"]
mod mesh;
#[path = "interop_sds/names.rs"]
mod names;
#[path = "interop_sds/node.rs"]
mod node;
#[path = "interop_sds/peer.rs"]
mod peer;
#[path = "interop_sds/python.rs"]
mod python;
#[path = "interop_sds/revoked.rs"]
mod revoked;

use envoy::{Envoy, Protocol};
use mesh::{CART, FRONT, Mesh};
use palisade_tests::poll_async;
use peer::Upstream;

/// Envoy as server and as client: each side checks the other's identity, and nobody else gets in.
#[tokio::test(flavor = "multi_thread")]
async fn envoy_presents_and_checks_our_identities() {
    let Some(binary) = envoy::binary("envoy_presents_and_checks_our_identities") else { return };
    let mesh = Mesh::start().await;
    let (cart, front) = (mesh.agent(CART).await, mesh.agent(FRONT).await);
    let upstream = Upstream::start(front.handle.clone()).await;
    let envoy = Envoy::start(&binary, &cart.socket(), Protocol::Whole, upstream.address);

    let served = peer::serial_shown_to(&front.identity(), envoy.mtls().await, CART).await.expect("a handshake");
    assert_eq!(served, cart.identity().svid.serial());
    let called = peer::ask_through(envoy.plain().await).await.expect("a call through Envoy");
    assert_eq!(called, format!("{CART} {}", cart.identity().svid.serial()));

    let nobody = peer::serial_shown_without_certificate(&front.identity(), envoy.mtls().await).await;
    assert!(nobody.is_err(), "a client without a certificate was let in");
    let stranger = Mesh::start().await;
    let mallory = stranger.agent(FRONT).await;
    let same_id_other_root = peer::serial_shown_by_anybody_to(&mallory.identity(), envoy.mtls().await).await;
    assert!(same_id_other_root.is_err(), "a certificate of another authority was let in");

    assert_eq!(envoy.stat("sds.default.update_rejected"), 0);
    assert_eq!(envoy.stat("sds.ROOTCA.update_rejected"), 0);
    envoy.stop();
    upstream.stop().await;
    for agent in [cart, front, mallory] {
        agent.stop().await;
    }
    stranger.stop().await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_certificate_reaches_envoy() {
    rotation("a_rotated_certificate_reaches_envoy", Protocol::Whole).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_certificate_reaches_envoy_by_delta() {
    rotation("a_rotated_certificate_reaches_envoy_by_delta", Protocol::Delta).await;
}

/// New handshakes show the new certificate, the old connection lives, and nothing is sent without need.
async fn rotation(test: &str, protocol: Protocol) {
    let Some(binary) = envoy::binary(test) else { return };
    let mesh = Mesh::start().await;
    let (cart, front) = (mesh.agent(CART).await, mesh.agent(FRONT).await);
    let upstream = Upstream::start(front.handle.clone()).await;
    let envoy = Envoy::start(&binary, &cart.socket(), protocol, upstream.address);
    let mut old = peer::connect(&front.identity(), envoy.mtls().await, CART).await.expect("a handshake");
    peer::echo(&mut old).await.expect("an echo");

    for round in 1..=3 {
        let before = cart.identity().svid.serial().to_owned();
        cart.handle.renew_now();
        let serial = poll_async("a new certificate in the agent", || async {
            let serial = cart.identity().svid.serial().to_owned();
            if serial == before { Err(cart.handle.health()) } else { Ok(serial) }
        })
        .await;
        poll_async("the new certificate on Envoy's handshakes", || async {
            let shown = peer::serial_shown_to(&front.identity(), envoy.mtls().await, CART).await;
            if shown.as_ref().is_ok_and(|shown| *shown == serial) { Ok(()) } else { Err(shown) }
        })
        .await;
        let called = peer::ask_through(envoy.plain().await).await.expect("a call through Envoy");
        assert_eq!(called, format!("{CART} {serial}"), "round {round}");
    }
    peer::echo(&mut old).await.expect("the old connection still works");
    // Two streams were opened and answered; each rotation is one push more, and no acknowledgement was answered.
    assert_eq!(cart.metric("palisade_sds_streams"), 2);
    assert_eq!(cart.metric("palisade_sds_pushes_total"), 2 + 3);
    assert_eq!(cart.metric("palisade_sds_nacks_total"), 0);
    assert_eq!(envoy.stat("sds.default.update_success"), 4);
    assert_eq!(envoy.stat("sds.default.update_rejected"), 0);
    envoy.stop();
    upstream.stop().await;
    cart.stop().await;
    front.stop().await;
    mesh.stop().await;
}

/// The authority goes, Envoy restarts, then the agent restarts: everything is served from what the agent kept.
#[tokio::test(flavor = "multi_thread")]
async fn envoy_and_agent_restart_while_the_authority_is_away() {
    let Some(binary) = envoy::binary("envoy_and_agent_restart_while_the_authority_is_away") else { return };
    let mut mesh = Mesh::start().await;
    let (cart, front) = (mesh.agent(CART).await, mesh.agent(FRONT).await);
    let upstream = Upstream::start(front.handle.clone()).await;
    let serial = cart.identity().svid.serial().to_owned();
    mesh.take_away().await;
    cart.handle.renew_now();
    poll_async("a failed renewal", || async { cart.handle.health().last_error.ok_or(cart.handle.health()) }).await;

    let envoy = Envoy::start(&binary, &cart.socket(), Protocol::Whole, upstream.address);
    let shown = peer::serial_shown_to(&front.identity(), envoy.mtls().await, CART).await.expect("a handshake");
    assert_eq!(shown, serial, "an Envoy that started after the authority went");

    let cart = cart.restart().await;
    assert_eq!(cart.identity().svid.serial(), serial, "kept on disk");
    peer::serial_shown_to(&front.identity(), envoy.mtls().await, CART).await.expect("Envoy did not notice");
    envoy.stop();
    let envoy = Envoy::start(&binary, &cart.socket(), Protocol::Delta, upstream.address);
    let shown = peer::serial_shown_to(&front.identity(), envoy.mtls().await, CART).await.expect("a handshake");
    assert_eq!(shown, serial, "both restarted");

    mesh.bring_back().await;
    cart.handle.renew_now();
    poll_async("the new certificate on Envoy's handshakes", || async {
        let shown = peer::serial_shown_to(&front.identity(), envoy.mtls().await, CART).await;
        if shown.as_ref().is_ok_and(|shown| *shown != serial) { Ok(()) } else { Err(shown) }
    })
    .await;
    envoy.stop();
    upstream.stop().await;
    cart.stop().await;
    front.stop().await;
    mesh.stop().await;
}

/// py-spiffe checks what it gets more strictly than the standard asks.
#[tokio::test(flavor = "multi_thread")]
async fn py_spiffe_fetches_and_follows() {
    let Some(python) = python::interpreter("py_spiffe_fetches_and_follows") else { return };
    let mesh = Mesh::start().await;
    let cart = mesh.agent(CART).await;
    assert_eq!(python.once(&cart.socket()), python::expected(&cart.identity()));

    let mut watch = python.watch(&cart.socket());
    assert_eq!(watch.next(), python::expected(&cart.identity()));
    let before = cart.identity().svid.serial().to_owned();
    cart.handle.renew_now();
    poll_async("a new certificate in the agent", || async {
        if cart.identity().svid.serial() == before { Err(cart.handle.health()) } else { Ok(()) }
    })
    .await;
    assert_eq!(watch.next(), python::expected(&cart.identity()));
    watch.stop();
    cart.stop().await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_break_the_rules_get_the_codes_of_the_standard() {
    let Some(python) = python::interpreter("callers_that_break_the_rules_get_the_codes_of_the_standard") else {
        return;
    };
    let mesh = Mesh::start().await;
    let cart = mesh.agent(CART).await;
    assert_eq!(
        python.raw(&cart.socket()),
        serde_json::json!({
            "no_header": "INVALID_ARGUMENT",
            "no_header_bundles": "INVALID_ARGUMENT",
            "wrong_value": "INVALID_ARGUMENT",
            "good": "OK",
            "jwt": "UNIMPLEMENTED",
            "jwt_bundles": "OK",
            "validate": "INVALID_ARGUMENT",
            "unknown_method": "UNIMPLEMENTED",
        })
    );
    if rustix::process::geteuid().is_root() {
        let answer = python.as_uid(&cart.socket(), 65_534);
        assert_eq!(answer, serde_json::json!({ "code": "PERMISSION_DENIED" }), "another user");
    }
    cart.stop().await;
    mesh.stop().await;
}
