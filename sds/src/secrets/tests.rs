use std::sync::Arc;

use palisade_wire::envoy::envoy::config::core::v3::data_source::Specifier;
use palisade_wire::envoy::envoy::extensions::transport_sockets::tls::v3::{Secret, secret::Type};
use prost::Message;

use super::*;
use crate::fixtures::{self, Authority, START, TestClock, TestSource};

const ID: &str = "spiffe://a.test/ns/web/sa/front";

mod entries;

fn feed(identity: Option<Arc<Identity>>) -> (Arc<TestSource>, Arc<TestClock>, Feed) {
    let (source, clock) = (TestSource::new(identity), TestClock::new());
    let (feed, _) = fixtures::feed(&source, &clock);
    (source, clock, feed)
}

fn secret(view: &View, name: &str) -> Secret {
    Secret::decode(view.resource(name).unwrap().secret.value.as_slice()).unwrap()
}

fn inline(source: Option<palisade_wire::envoy::envoy::config::core::v3::DataSource>) -> String {
    match source.unwrap().specifier.unwrap() {
        Specifier::InlineBytes(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("not inline: {other:?}"),
    }
}

#[test]
fn trap_17_default_is_chain_and_key_without_the_root() {
    let authority = Authority::new("a");
    let identity = authority.identity(ID);
    let (_, _, feed) = feed(Some(identity.clone()));
    let secret = secret(&fixtures::view(&feed), "default");
    assert_eq!(secret.name, "default");
    let Some(Type::TlsCertificate(certificate)) = secret.r#type else { panic!("no certificate") };
    let chain = inline(certificate.certificate_chain);
    assert_eq!(chain.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(chain, identity.svid.chain_pem());
    let key = inline(certificate.private_key);
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"), "PKCS#8");
    assert_eq!(key, *identity.svid.key().to_pem());
}

#[test]
fn rootca_is_a_plain_validation_context() {
    let authority = Authority::new("a");
    let (_, _, feed) = feed(Some(authority.identity(ID)));
    let secret = secret(&fixtures::view(&feed), "ROOTCA");
    assert_eq!(secret.name, "ROOTCA");
    let Some(Type::ValidationContext(context)) = secret.r#type else { panic!("no context") };
    assert_eq!(inline(context.trusted_ca), authority.bundle().to_pem());
    assert!(context.custom_validator_config.is_none());
}

#[test]
fn nothing_before_there_is_an_identity() {
    let (source, _, feed) = feed(None);
    let changed = feed.subscribe();
    assert!(fixtures::view(&feed).resource("ROOTCA").is_none() && fixtures::view(&feed).svids().is_none());
    source.set(Authority::new("a").identity(ID));
    assert!(changed.has_changed().unwrap());
    assert!(fixtures::view(&feed).is_whole());
}

#[test]
fn trap_21_an_expired_certificate_is_withheld_and_the_roots_are_not() {
    let (_, clock, feed) = feed(Some(Authority::new("a").identity(ID)));
    assert!(fixtures::view(&feed).is_whole());
    clock.set(START + 3541);
    let offer = fixtures::view(&feed);
    assert!(offer.resource("default").is_none());
    assert!(offer.resource("ROOTCA").is_some());
    let reason = offer.withheld().unwrap();
    assert!(reason.contains(ID), "{reason}");
    clock.set(START);
    assert!(fixtures::view(&feed).is_whole(), "a clock set right makes it good again");
}

#[test]
fn a_certificate_of_the_future_is_withheld() {
    let (_, clock, feed) = feed(Some(Authority::new("a").identity_between(ID, START + 60, START + 600)));
    assert!(!fixtures::view(&feed).is_whole());
    clock.set(START + 60);
    assert!(fixtures::view(&feed).is_whole());
}

#[test]
fn a_chain_that_the_bundle_does_not_sign_is_withheld() {
    let (ours, theirs) = (Authority::new("a"), Authority::new("b"));
    let mixed = Identity { svid: ours.identity(ID).svid.clone(), bundles: theirs.identity(ID).bundles.clone() };
    let (_, _, feed) = feed(Some(Arc::new(mixed)));
    assert!(fixtures::view(&feed).resource("default").is_none());
}

#[test]
fn trap_23_versions_follow_the_content_of_each_secret() {
    let authority = Authority::new("a");
    let (source, _, feed) = feed(Some(authority.identity(ID)));
    let before = fixtures::view(&feed);
    source.set(authority.identity(ID));
    let after = fixtures::view(&feed);
    let version = |view: &View, name: &str| view.resource(name).unwrap().version.clone();
    assert_ne!(version(&before, "default"), version(&after, "default"));
    assert_eq!(version(&before, "ROOTCA"), version(&after, "ROOTCA"));
}

#[test]
fn keys_never_show_in_debug() {
    let identity = Authority::new("a").identity(ID);
    let (_, _, feed) = feed(Some(identity.clone()));
    let view = fixtures::view(&feed);
    let shown = format!("{:?} {:?}", view.slots[0].served, view.resource("default"));
    assert!(shown.contains("default") && !shown.contains("PRIVATE"), "{shown}");
}

#[test]
fn length_prefixes_keep_parts_apart() {
    use super::encoded::version_of;
    assert_ne!(version_of(&[b"ab", b"c"]), version_of(&[b"a", b"bc"]));
    assert_eq!(version_of(&[]).len(), 32);
}
