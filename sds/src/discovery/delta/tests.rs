use std::collections::HashMap;
use std::sync::Arc;

use palisade_wire::envoy::google::rpc;
use tonic::Code;

use super::*;
use crate::fixtures::{self, Authority, TestClock, TestSource};
use crate::secrets::Feed;

const ID: &str = "spiffe://a.test/ns/web/sa/front";

struct Case {
    authority: Authority,
    source: Arc<TestSource>,
    feed: Feed,
    metrics: Metrics,
    stream: Subscription,
}

impl Case {
    fn new() -> Self {
        let authority = Authority::new("a");
        let source = TestSource::new(Some(authority.identity(ID)));
        let (feed, _) = fixtures::feed(&source, &TestClock::new());
        Self { authority, source, feed, metrics: Metrics::default(), stream: Subscription::default() }
    }

    fn send(&mut self, request: DeltaDiscoveryRequest) -> Option<DeltaDiscoveryResponse> {
        self.stream.hear(request, &self.metrics).unwrap();
        self.reply()
    }

    fn reply(&mut self) -> Option<DeltaDiscoveryResponse> {
        self.stream.reply(&fixtures::view(&self.feed))
    }
}

fn subscribe(names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: SECRET_TYPE_URL.to_owned(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn ack(response: &DeltaDiscoveryResponse) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { response_nonce: response.nonce.clone(), ..subscribe(&[]) }
}

fn names(response: &DeltaDiscoveryResponse) -> Vec<&str> {
    response.resources.iter().map(|resource| resource.name.as_str()).collect()
}

#[test]
fn only_what_changed_is_sent() {
    let mut case = Case::new();
    let both = case.send(subscribe(&["default", "ROOTCA", "unknown"])).unwrap();
    assert_eq!(names(&both), ["ROOTCA", "default"]);
    assert!(both.removed_resources.is_empty());
    assert_eq!(case.send(ack(&both)), None);
    case.source.set(case.authority.identity(ID));
    let one = case.reply().unwrap();
    assert_eq!(names(&one), ["default"]);
    assert_ne!(one.nonce, both.nonce);
    assert_eq!(case.send(ack(&one)), None);
}

#[test]
fn a_rejection_is_counted_and_waits_for_other_content() {
    let mut case = Case::new();
    let response = case.send(subscribe(&["default"])).unwrap();
    let error = rpc::Status { code: 13, message: "no".to_owned(), details: Vec::new() };
    let nack = DeltaDiscoveryRequest { error_detail: Some(error), ..ack(&response) };
    assert_eq!(case.send(nack.clone()), None);
    assert_eq!(case.metrics.nacks.get(), 1);
    let stale = DeltaDiscoveryRequest { response_nonce: "99".to_owned(), ..nack };
    assert_eq!(case.send(stale), None);
    assert_eq!(case.metrics.nacks.get(), 1);
    case.source.set(case.authority.identity(ID));
    assert!(case.reply().is_some());
}

#[test]
fn names_come_and_go() {
    let mut case = Case::new();
    let first = case.send(subscribe(&["default"])).unwrap();
    let gone = DeltaDiscoveryRequest { resource_names_unsubscribe: vec!["default".to_owned()], ..ack(&first) };
    assert_eq!(case.send(gone), None);
    case.source.set(case.authority.identity(ID));
    assert_eq!(case.reply(), None);
    assert!(case.send(subscribe(&["default"])).is_some());
    assert!(case.send(subscribe(&["default"])).is_some(), "asked for again means sent again");
}

#[test]
fn a_reconnecting_client_gets_only_what_it_lacks() {
    let mut case = Case::new();
    let before = case.send(subscribe(&["default", "ROOTCA"])).unwrap();
    let held: HashMap<String, String> =
        before.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect();
    case.stream = Subscription::default();
    let again = DeltaDiscoveryRequest { initial_resource_versions: held, ..subscribe(&["default", "ROOTCA"]) };
    assert_eq!(case.send(again.clone()), None);
    case.source.set(case.authority.identity(ID));
    case.stream = Subscription::default();
    assert_eq!(names(&case.send(again).unwrap()), ["default"]);
}

#[test]
fn a_star_and_an_empty_first_request_mean_everything() {
    let mut case = Case::new();
    assert_eq!(case.send(subscribe(&["*"])).unwrap().resources.len(), 2);
    let mut case = Case::new();
    assert_eq!(case.send(subscribe(&[])).unwrap().resources.len(), 2);
}

#[test]
fn names_are_bounded_over_the_life_of_the_stream() {
    let mut stream = Subscription::default();
    let metrics = Metrics::default();
    let mut outcome = Ok(());
    for n in 0..257 {
        outcome = stream.hear(subscribe(&[&n.to_string()]), &metrics);
    }
    assert_eq!(outcome.unwrap_err().code(), Code::ResourceExhausted);
}
