use std::collections::HashMap;
use std::sync::Arc;

use palisade_wire::envoy::google::rpc;
use tonic::Code;

use super::*;
use crate::fixtures::{self, Authority, TestClock, TestSource, entry, register, view_of};
use crate::roster::Roster;
use crate::secrets::Feed;

const ID: &str = "spiffe://a.test/ns/web/sa/front";

struct Case {
    authority: Authority,
    source: Arc<TestSource>,
    feed: Feed,
    roster: Arc<Roster>,
    metrics: Metrics,
    stream: Subscription,
}

impl Case {
    fn new() -> Self {
        let authority = Authority::new("a");
        let source = TestSource::new(Some(authority.identity(ID)));
        let (feed, roster) = fixtures::feed(&source, &TestClock::new());
        Self { authority, source, feed, roster, metrics: Metrics::default(), stream: Subscription::default() }
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

/// What matters for a new root is whether the client has it.
#[test]
fn a_rejected_bundle_stays_rejected_until_another_is_taken() {
    let mut case = Case::new();
    let error = || rpc::Status { code: 13, message: "no".to_owned(), details: Vec::new() };
    let nack = |to: &DeltaDiscoveryResponse| DeltaDiscoveryRequest { error_detail: Some(error()), ..ack(to) };
    let both = case.send(subscribe(&["default", "ROOTCA"])).unwrap();
    assert_eq!(case.stream.answer(), Answer::Open);
    case.send(nack(&both));
    let rejected = |stream: &Subscription| matches!(stream.answer(), Answer::Rejected(why) if why.ends_with(": no"));
    assert!(rejected(&case.stream));
    case.source.set(case.authority.identity(ID));
    let leaf = case.reply().unwrap();
    assert_eq!((case.stream.answer(), names(&leaf)), (Answer::Open, vec!["default"]));
    case.send(ack(&leaf));
    assert!(rejected(&case.stream), "it has the other bundle still");
    case.authority = Authority::new("other");
    case.source.set(case.authority.identity(ID));
    let other = case.reply().unwrap();
    case.source.set(case.authority.identity(ID));
    let leaf = case.reply().unwrap();
    case.send(ack(&leaf));
    assert!(rejected(&case.stream));
    case.send(ack(&other));
    assert_eq!(case.stream.answer(), Answer::Taken);
    case.source.set(case.authority.identity(ID));
    let leaf = case.reply().unwrap();
    case.send(nack(&leaf));
    assert_eq!(case.stream.answer(), Answer::Taken, "that was no bundle");
}

#[test]
fn a_rejection_counts_for_the_names_that_it_was_about() {
    let mut case = Case::new();
    let error = || rpc::Status { code: 13, message: "no".to_owned(), details: Vec::new() };
    let nack = |to: &DeltaDiscoveryResponse| DeltaDiscoveryRequest { error_detail: Some(error()), ..ack(to) };
    let roots = case.send(subscribe(&["ROOTCA"])).unwrap();
    let all = case.send(subscribe(&["ALL"])).unwrap();
    assert_eq!((names(&roots), names(&all)), (vec!["ROOTCA"], vec!["ALL"]));
    case.send(nack(&roots));
    assert_eq!(case.stream.answer(), Answer::Open);
    case.send(ack(&all));
    assert!(matches!(case.stream.answer(), Answer::Rejected(_)), "of the roots it has said no");
    case.send(ack(&roots));
    assert_eq!(case.stream.answer(), Answer::Taken);
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
fn names_outlive_the_star_and_the_star_outlives_names() {
    let drop_name = |name: &str, to: &DeltaDiscoveryResponse| DeltaDiscoveryRequest {
        resource_names_unsubscribe: vec![name.to_owned()],
        ..ack(to)
    };
    let mut case = Case::new();
    let both = case.send(subscribe(&["*", "default"])).unwrap();
    assert_eq!(names(&both), ["ROOTCA", "default"]);
    // The star goes: what is named stays.
    assert_eq!(case.send(drop_name("*", &both)), None);
    case.authority = Authority::new("other");
    case.source.set(case.authority.identity(ID));
    let one = case.reply().unwrap();
    assert_eq!((names(&one), one.removed_resources.len()), (vec!["default"], 0));
    // It comes back, and the name goes.
    let both = case.send(DeltaDiscoveryRequest { response_nonce: one.nonce, ..subscribe(&["*"]) }).unwrap();
    let again = case.send(drop_name("default", &both)).unwrap();
    assert_eq!(names(&again), ["default"], "it is meant by the star still");
    assert_eq!(case.send(drop_name("*", &again)), None);
    case.source.set(case.authority.identity(ID));
    assert_eq!(case.reply(), None);
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

/// Two entries of one process; the caller of [`fixtures::view_of`] has both.
fn two_entries() -> (Case, Vec<palisade_wire::agents::Entry>) {
    let case = Case::new();
    let federated = vec!["b.test".to_owned()];
    case.source.set(case.authority.agent_trusting("b.test", &Authority::new("b")));
    let one = palisade_wire::agents::Entry { federates_with: federated, ..entry("one", &["s:1"]) };
    let entries = vec![entry("two", &["s:1"]), one];
    register(&case.roster, &case.authority, entries.clone());
    (case, entries)
}

#[test]
fn what_is_withdrawn_is_named_once_and_comes_back_when_it_is_given_again() {
    let (mut case, entries) = two_entries();
    let asked = ["default", "spiffe://a.test/one", "spiffe://b.test", "spiffe://a.test/never"];
    case.stream.hear(subscribe(&asked), &case.metrics).unwrap();
    let first = case.stream.reply(&view_of(&case.feed, &["s:1"])).unwrap();
    assert_eq!(names(&first), ["spiffe://b.test", "default", "spiffe://a.test/one"]);
    assert!(first.removed_resources.is_empty(), "a name without a secret is left out");
    case.stream.hear(ack(&first), &case.metrics).unwrap();
    register(&case.roster, &case.authority, entries[..1].to_vec());
    let gone = case.stream.reply(&view_of(&case.feed, &["s:1"])).unwrap();
    assert_eq!(gone.removed_resources, ["spiffe://a.test/one", "spiffe://b.test"]);
    assert_eq!(names(&gone), ["default"], "the test's certificates are new each time");
    assert_ne!(gone.nonce, first.nonce);
    case.stream.hear(ack(&gone), &case.metrics).unwrap();
    assert_eq!(case.stream.reply(&view_of(&case.feed, &["s:1"])), None);
    register(&case.roster, &case.authority, entries);
    let again = case.stream.reply(&view_of(&case.feed, &["s:1"])).unwrap();
    assert!(names(&again).contains(&"spiffe://a.test/one") && again.removed_resources.is_empty());
}

#[test]
fn what_is_only_withheld_is_not_removed() {
    let (mut case, _) = two_entries();
    case.stream.hear(subscribe(&["default", "spiffe://a.test/one"]), &case.metrics).unwrap();
    case.stream.reply(&view_of(&case.feed, &["s:1"])).unwrap();
    // Their certificates are gone, the entries are there.
    case.roster.update(|state| state.svids = Arc::default());
    assert_eq!(case.stream.reply(&view_of(&case.feed, &["s:1"])), None);
}

#[test]
fn a_reconnecting_client_learns_what_was_withdrawn_meanwhile() {
    let (mut case, _) = two_entries();
    let held = HashMap::from([("spiffe://a.test/old".to_owned(), "1".to_owned())]);
    let request = DeltaDiscoveryRequest { initial_resource_versions: held, ..subscribe(&["spiffe://a.test/old"]) };
    case.stream.hear(request, &case.metrics).unwrap();
    let gone = case.stream.reply(&view_of(&case.feed, &["s:1"])).unwrap();
    assert_eq!((names(&gone).len(), gone.removed_resources), (0, vec!["spiffe://a.test/old".to_owned()]));
}
