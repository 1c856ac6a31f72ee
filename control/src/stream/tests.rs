use palisade_wire::envoy::google::rpc;

use super::*;

fn node() -> Node {
    Node::parse("shop/cart-0").expect("a node")
}

fn snapshot(revision: &str) -> Encoded {
    Encoded { revision: revision.to_owned(), bytes: vec![1, 2, 3] }
}

fn first(has: Option<&str>) -> xds::DeltaDiscoveryRequest {
    let has = has.map(|revision| ("shop/cart-0".to_owned(), revision.to_owned()));
    xds::DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["shop/cart-0".to_owned()],
        initial_resource_versions: has.into_iter().collect(),
        ..Default::default()
    }
}

fn reply(nonce: &str, error: Option<&str>) -> xds::DeltaDiscoveryRequest {
    let error = error.map(|message| rpc::Status { message: message.to_owned(), ..Default::default() });
    xds::DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), error_detail: error, ..Default::default() }
}

fn opened(has: Option<&str>) -> Delivery {
    let mut delivery = Delivery::default();
    assert_eq!(delivery.receive(&node(), &first(has), Instant::now()), Answer::None);
    delivery
}

/// Nonce and version of the push that is due, if one is.
fn due(delivery: &mut Delivery, revision: &str) -> Option<(String, String)> {
    let response = delivery.push(&node(), &snapshot(revision), Instant::now())?;
    let [resource] = response.resources.as_slice() else { panic!("one resource, not {}", response.resources.len()) };
    assert_eq!(resource.name, "shop/cart-0");
    Some((response.nonce.clone(), resource.version.clone()))
}

#[test]
fn pushes_once_and_again_only_for_another_revision() {
    let mut delivery = opened(None);
    let (nonce, version) = due(&mut delivery, "a").expect("first push");
    assert_eq!(version, "a");
    let answer = delivery.receive(&node(), &reply(&nonce, None), Instant::now());
    assert!(matches!(answer, Answer::Ack { revision, .. } if revision == "a"));
    assert!(due(&mut delivery, "a").is_none());
    let (second, _) = due(&mut delivery, "b").expect("changed");
    assert_ne!(nonce, second);
}

#[test]
fn one_push_at_a_time_and_the_newest_wins() {
    let mut delivery = opened(None);
    let (nonce, _) = due(&mut delivery, "a").expect("first push");
    assert!(due(&mut delivery, "b").is_none());
    assert!(due(&mut delivery, "c").is_none());
    let _ = delivery.receive(&node(), &reply(&nonce, None), Instant::now());
    let (_, version) = due(&mut delivery, "d").expect("after the ACK");
    assert_eq!(version, "d");
}

#[test]
fn a_refused_revision_is_not_sent_again_but_the_next_is() {
    let mut delivery = opened(None);
    let (nonce, _) = due(&mut delivery, "a").expect("first push");
    let answer = delivery.receive(&node(), &reply(&nonce, Some("cannot compile")), Instant::now());
    assert!(matches!(answer, Answer::Nack { revision, message, .. } if revision == "a" && message == "cannot compile"));
    assert!(due(&mut delivery, "a").is_none());
    assert!(due(&mut delivery, "b").is_some());
}

#[test]
fn a_stale_nonce_answers_nothing() {
    let mut delivery = opened(None);
    let (nonce, _) = due(&mut delivery, "a").expect("first push");
    for stale in ["", "0", "999"] {
        assert_eq!(delivery.receive(&node(), &reply(stale, None), Instant::now()), Answer::None, "{stale}");
        assert!(due(&mut delivery, "b").is_none(), "the push is still outstanding");
    }
    assert!(matches!(delivery.receive(&node(), &reply(&nonce, None), Instant::now()), Answer::Ack { .. }));
    assert_eq!(delivery.receive(&node(), &reply(&nonce, None), Instant::now()), Answer::None, "answered twice");
}

#[test]
fn a_reconnecting_proxy_that_has_the_revision_gets_nothing() {
    assert!(due(&mut opened(Some("a")), "a").is_none());
    assert!(due(&mut opened(Some("a")), "b").is_some());
}

#[test]
fn asking_again_sends_again_and_unsubscribing_ends_it() {
    let mut delivery = opened(Some("a"));
    let again = xds::DeltaDiscoveryRequest { resource_names_subscribe: vec!["*".to_owned()], ..Default::default() };
    let _ = delivery.receive(&node(), &again, Instant::now());
    let (nonce, _) = due(&mut delivery, "a").expect("asked for");
    let _ = delivery.receive(&node(), &reply(&nonce, None), Instant::now());
    let leave =
        xds::DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["shop/cart-0".to_owned()], ..Default::default() };
    let _ = delivery.receive(&node(), &leave, Instant::now());
    assert!(due(&mut delivery, "b").is_none());
}
