use std::sync::Arc;

use palisade_wire::envoy::envoy::config::core::v3::Node;
use palisade_wire::envoy::envoy::extensions::transport_sockets::tls::v3::Secret;
use palisade_wire::envoy::google::rpc;
use prost::Message;
use tonic::Code;

use super::*;
use crate::fixtures::{self, Authority, TestClock, TestSource};
use crate::secrets::Feed;

const ID: &str = "spiffe://a.test/ns/web/sa/front";

/// One stream and the agent behind it.
struct Case {
    authority: Authority,
    source: Arc<TestSource>,
    feed: Feed,
    metrics: Metrics,
    stream: Subscription,
}

impl Case {
    fn new() -> Self {
        let case = Self::empty();
        case.rotate();
        case
    }

    fn empty() -> Self {
        let source = TestSource::new(None);
        let (feed, _) = fixtures::feed(&source, &TestClock::new());
        Self {
            authority: Authority::new("a"),
            source,
            feed,
            metrics: Metrics::default(),
            stream: Subscription::default(),
        }
    }

    fn rotate(&self) {
        self.source.set(self.authority.identity(ID));
    }

    fn send(&mut self, request: DiscoveryRequest) -> Option<DiscoveryResponse> {
        self.stream.hear(request, &self.metrics).unwrap();
        self.reply()
    }

    fn reply(&mut self) -> Option<DiscoveryResponse> {
        self.stream.reply(&fixtures::view(&self.feed))
    }
}

fn first(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        node: Some(Node { id: "envoy-1".to_owned(), ..Node::default() }),
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn ack(names: &[&str], response: &DiscoveryResponse) -> DiscoveryRequest {
    DiscoveryRequest {
        node: None,
        version_info: response.version_info.clone(),
        response_nonce: response.nonce.clone(),
        ..first(names)
    }
}

fn nack(names: &[&str], response: &DiscoveryResponse) -> DiscoveryRequest {
    let error = rpc::Status { code: 13, message: "KEY_VALUES_MISMATCH".to_owned(), details: Vec::new() };
    DiscoveryRequest { version_info: String::new(), error_detail: Some(error), ..ack(names, response) }
}

fn names(response: &DiscoveryResponse) -> Vec<String> {
    response.resources.iter().map(|any| Secret::decode(any.value.as_slice()).unwrap().name).collect()
}

#[test]
fn trap_24_the_first_request_is_answered_at_once_and_an_ack_is_not() {
    let mut case = Case::new();
    let response = case.send(first(&["default"])).unwrap();
    assert_eq!(names(&response), ["default"]);
    assert_eq!(response.type_url, SECRET_TYPE_URL);
    assert!(!response.nonce.is_empty() && !response.version_info.is_empty());
    assert_eq!(case.send(ack(&["default"], &response)), None);
    assert_eq!(case.reply(), None);
}

#[test]
fn a_rotation_is_pushed_once_and_only_where_it_changes_something() {
    let mut case = Case::new();
    let mut roots = Subscription::default();
    roots.hear(first(&["ROOTCA"]), &case.metrics).unwrap();
    assert!(roots.reply(&fixtures::view(&case.feed)).is_some());
    let old = case.send(first(&["default"])).unwrap();
    case.send(ack(&["default"], &old));
    case.rotate();
    let new = case.reply().unwrap();
    assert_ne!((&new.version_info, &new.nonce), (&old.version_info, &old.nonce));
    assert_eq!(case.reply(), None);
    assert_eq!(case.send(ack(&["default"], &new)), None);
    assert_eq!(roots.reply(&fixtures::view(&case.feed)), None, "the bundle is the same");
}

#[test]
fn trap_24_a_rejection_is_counted_and_not_answered_until_the_content_changes() {
    let mut case = Case::new();
    let response = case.send(first(&["default"])).unwrap();
    assert_eq!(case.send(nack(&["default"], &response)), None);
    assert_eq!(case.send(nack(&["default"], &response)), None);
    assert_eq!(case.metrics.nacks.get(), 1, "said once, however often it is repeated");
    assert_eq!(case.reply(), None);
    case.rotate();
    assert!(case.reply().is_some());
}

#[test]
fn only_a_rejection_of_bundles_says_that_the_client_lacks_them() {
    for (name, other) in [("default", Answer::Taken), ("ROOTCA", Answer::Rejected("x"))] {
        let mut case = Case::new();
        let response = case.send(first(&[name])).unwrap();
        assert_eq!(case.stream.answer(), Answer::Open);
        case.send(nack(&[name], &response));
        let found = case.stream.answer();
        assert_eq!(std::mem::discriminant(&found), std::mem::discriminant(&other), "{found:?}");
        case.authority = Authority::new("next");
        case.rotate();
        let response = case.reply().unwrap();
        assert_eq!(case.stream.answer(), Answer::Open);
        case.send(ack(&[name], &response));
        assert_eq!(case.stream.answer(), Answer::Taken);
    }
}

/// A question about other names carries the last nonce and the version that the client has, which may be none.
#[test]
fn what_was_rejected_is_not_taken_by_asking_for_something_else() {
    let mut case = Case::new();
    let response = case.send(first(&["ROOTCA"])).unwrap();
    case.send(nack(&["ROOTCA"], &response));
    case.send(DiscoveryRequest { version_info: String::new(), ..ack(&["ROOTCA"], &response) });
    assert!(matches!(case.stream.answer(), Answer::Rejected(_)));
    case.send(ack(&["ROOTCA"], &response));
    assert_eq!(case.stream.answer(), Answer::Taken, "it has that version after all");
}

#[test]
fn trap_24_a_stale_nonce_changes_nothing() {
    let mut case = Case::new();
    let old = case.send(first(&["default"])).unwrap();
    case.rotate();
    let new = case.reply().unwrap();
    assert_eq!(case.send(ack(&["ROOTCA"], &old)), None);
    assert_eq!(case.send(nack(&["default"], &old)), None);
    assert_eq!(case.metrics.nacks.get(), 0, "it speaks of a response that is history");
    assert_eq!(case.send(ack(&["default"], &new)), None);
    case.rotate();
    assert_eq!(names(&case.reply().unwrap()), ["default"], "the names of the stale message were not taken");
}

/// Trap 22: Envoy acknowledges an empty response, a secret of another name and one of another type, and uses none of them.
#[test]
fn trap_22_what_would_be_acknowledged_and_not_used_is_not_sent() {
    for name in ["default", "ROOTCA", "ALL", "spiffe://a.test", ID] {
        let response = Case::new().send(first(&[name])).unwrap();
        assert_eq!(names(&response), [name]);
        let kinds = [&response.type_url, &response.resources[0].type_url];
        assert_eq!(kinds, [SECRET_TYPE_URL; 2]);
    }
    let mut case = Case::new();
    let response = case.send(first(&["default"])).unwrap();
    assert_eq!(case.send(ack(&["nobody's"], &response)), None, "nothing is no answer");
}

#[test]
fn before_there_is_an_identity_the_stream_is_quiet() {
    let mut case = Case::empty();
    assert_eq!(case.send(first(&["default"])), None);
    case.rotate();
    assert_eq!(names(&case.reply().unwrap()), ["default"]);
}

#[test]
fn trap_27_unknown_names_are_left_out_and_the_stream_lives() {
    let mut case = Case::new();
    assert_eq!(case.send(first(&["file-root:system"])), None);
    let mut case = Case::new();
    let response = case.send(first(&["file-root:system", "default"])).unwrap();
    assert_eq!(names(&response), ["default"]);
    assert_eq!(case.send(ack(&["file-root:system", "default"], &response)), None);
}

#[test]
fn roots_come_before_the_certificate() {
    let mut case = Case::new();
    let both = case.send(first(&["default", "ROOTCA", "default"])).unwrap();
    assert_eq!(names(&both), ["ROOTCA", "default"]);
    assert_eq!(case.send(ack(&["default", "ROOTCA"], &both)), None);
    case.rotate();
    assert_eq!(case.reply().unwrap().resources.len(), 2, "the whole state");
}

#[test]
fn no_names_at_first_means_everything_and_later_nothing() {
    let mut case = Case::new();
    let response = case.send(first(&[])).unwrap();
    assert_eq!(response.resources.len(), 2);
    assert_eq!(case.send(ack(&[], &response)), None);
    let named = case.send(ack(&["default"], &response)).unwrap();
    assert_eq!(names(&named), ["default"]);
    assert_eq!(case.send(ack(&[], &named)), None);
    case.rotate();
    assert_eq!(case.reply(), None, "nothing is asked for any more");
}

#[test]
fn new_names_are_answered_even_if_that_version_was_sent_before() {
    let mut case = Case::new();
    let one = case.send(first(&["default"])).unwrap();
    let two = case.send(ack(&["ROOTCA"], &one)).unwrap();
    let three = case.send(ack(&["default"], &two)).unwrap();
    assert_eq!(one.version_info, three.version_info);
    assert_ne!(one.nonce, three.nonce);
}

#[test]
fn a_reconnecting_client_is_answered_though_it_has_that_version() {
    let mut case = Case::new();
    let response = case.send(first(&["default"])).unwrap();
    case.stream = Subscription::default();
    let again = DiscoveryRequest { version_info: response.version_info, ..first(&["default"]) };
    assert!(case.send(again).is_some());
}

#[test]
fn what_no_client_of_ours_sends_ends_the_stream() {
    let metrics = Metrics::default();
    let mut stream = Subscription::default();
    let cluster = DiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        ..first(&["default"])
    };
    assert_eq!(stream.hear(cluster, &metrics).unwrap_err().code(), Code::InvalidArgument);
    let many: Vec<String> = (0..257).map(|n| n.to_string()).collect();
    let crowd = DiscoveryRequest { resource_names: many, ..first(&[]) };
    assert_eq!(stream.hear(crowd, &metrics).unwrap_err().code(), Code::ResourceExhausted);
}

#[test]
fn a_client_cannot_write_lines_into_the_log() {
    let text = rejection::excerpt(&format!("a\nb\u{1b}[31m{}", "x".repeat(500)));
    assert!(text.starts_with("a b [31m") && text.chars().count() == 200, "{text}");
}
