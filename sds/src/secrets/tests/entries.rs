//! Several identities on one agent.

use palisade_wire::agents;
use palisade_wire::envoy::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, SpiffeCertValidatorConfig,
};

use super::*;
use crate::fixtures::{entry, register, view_of};

fn hinted(id: &str, selectors: &[&str], hint: &str) -> agents::Entry {
    agents::Entry { hint: hint.to_owned(), ..entry(id, selectors) }
}

fn context(view: &View, name: &str) -> CertificateValidationContext {
    let resource = view.resource(name).unwrap();
    let secret = Secret::decode(resource.secret.value.as_slice()).unwrap();
    assert_eq!(secret.name, name, "it carries the name that was asked");
    match secret.r#type {
        Some(Type::ValidationContext(context)) => context,
        other => panic!("{other:?}"),
    }
}

/// The trust domains of a SPIFFE validator, in their order, with their PEM.
fn domains(view: &View, name: &str) -> Vec<(String, String)> {
    let context = context(view, name);
    assert!(context.trusted_ca.is_none());
    let custom = context.custom_validator_config.unwrap();
    assert_eq!(custom.name, "envoy.tls.cert_validator.spiffe");
    let config = SpiffeCertValidatorConfig::decode(custom.typed_config.unwrap().value.as_slice()).unwrap();
    config.trust_domains.into_iter().map(|domain| (domain.name, inline(domain.trust_bundle))).collect()
}

struct Case {
    authority: Authority,
    other: Authority,
    source: Arc<TestSource>,
    clock: Arc<TestClock>,
    roster: Arc<Roster>,
    feed: Feed,
}

impl Case {
    fn new(entries: Vec<agents::Entry>) -> Self {
        let (authority, other) = (Authority::new("a"), Authority::new("b"));
        let source = TestSource::new(Some(authority.agent_trusting("b.test", &other)));
        let clock = TestClock::new();
        let (feed, roster) = fixtures::feed(&source, &clock);
        register(&roster, &authority, entries);
        Self { authority, other, source, clock, roster, feed }
    }
}

#[test]
fn a_process_gets_what_its_selectors_say_and_the_agents_own_identity_never_beside_entries() {
    let case =
        Case::new(vec![hinted("one", &["s:1"], "x"), hinted("two", &["s:1", "s:2"], "x"), entry("three", &["s:3"])]);
    let ids = |selectors: &[&str]| -> Vec<(String, String)> {
        let view = view_of(&case.feed, selectors);
        let svids = view.svids().map(|answer| answer.svids.clone()).unwrap_or_default();
        svids.into_iter().map(|svid| (svid.spiffe_id.replace("spiffe://a.test/", ""), svid.hint)).collect()
    };
    let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
        list.iter().map(|&(id, hint)| (id.to_owned(), hint.to_owned())).collect()
    };
    assert_eq!(ids(&["s:1"]), pairs(&[("one", "x")]));
    assert_eq!(ids(&["s:1", "s:2"]), pairs(&[("one", "x"), ("two", "")]), "a hint is unique");
    assert_eq!(ids(&["s:3"]), pairs(&[("three", "")]));
    // The own user is among the allowed ones, and entries exist.
    assert_eq!(view_of(&case.feed, &["s:4"]).standing, Standing::Nobody);
    register(&case.roster, &case.authority, Vec::new());
    assert_eq!(ids(&["s:4"]), pairs(&[("agent", "")]), "without entries it is as it was before there were any");
}

#[test]
fn federated_bundles_are_for_those_who_federate() {
    let federated = agents::Entry { federates_with: vec!["b.test".to_owned()], ..entry("two", &["s:2"]) };
    let case = Case::new(vec![entry("one", &["s:1"]), federated]);
    let (one, two) = (view_of(&case.feed, &["s:1"]), view_of(&case.feed, &["s:2"]));
    assert!(one.svids().unwrap().federated_bundles.is_empty());
    let theirs = [("spiffe://b.test".to_owned(), case.other.root_der().to_vec())];
    assert_eq!(two.svids().unwrap().federated_bundles, theirs.into());
    assert!(one.resource("spiffe://b.test").is_none());
    assert_eq!(domains(&one, "ALL").len(), 1);
    assert_eq!(domains(&two, "spiffe://b.test")[0].1.matches("BEGIN").count(), 1);
    let all: Vec<String> = domains(&two, "ALL").into_iter().map(|(name, _)| name).collect();
    assert_eq!(all, ["a.test", "b.test"], "names without a scheme, sorted");
}

/// Trap 11: roots of several trust domains are never pooled.
#[test]
fn trap_11_rootca_holds_the_own_domain_alone() {
    let federated = agents::Entry { federates_with: vec!["b.test".to_owned()], ..entry("two", &["s:2"]) };
    let case = Case::new(vec![federated]);
    let view = view_of(&case.feed, &["s:2"]);
    assert_eq!(inline(context(&view, "ROOTCA").trusted_ca), case.authority.bundle().to_pem());
    for (name, pem) in domains(&view, "ALL") {
        let expected = if name == "a.test" { case.authority.root.pem() } else { case.other.root.pem() };
        let der = |text: &str| text.lines().filter(|line| !line.starts_with('-')).collect::<String>();
        assert_eq!(der(&pem), der(&expected), "{name}");
    }
}

#[test]
fn secrets_are_asked_for_by_name_or_by_id_and_carry_what_was_asked() {
    let case = Case::new(vec![entry("one", &["s:1"]), entry("two", &["s:1"])]);
    let view = view_of(&case.feed, &["s:1"]);
    for (name, id) in [("default", "one"), ("spiffe://a.test/one", "one"), ("spiffe://a.test/two", "two")] {
        let resource = view.resource(name).unwrap();
        assert_eq!(Secret::decode(resource.secret.value.as_slice()).unwrap().name, name);
        assert_eq!(resource.version, case.roster.now().svids[id].svid.version(), "{name}");
    }
    for unknown in ["spiffe://a.test/three", "spiffe://c.test", "spiffe://b.test/one", "", "nonsense"] {
        assert!(view.resource(unknown).is_none(), "{unknown}");
    }
}

#[test]
fn another_identity_never_stands_in_for_the_default() {
    let case = Case::new(vec![entry("one", &["s:1"]), entry("two", &["s:1"])]);
    case.roster.update(|state| {
        let kept = state.svids.iter().filter(|(id, _)| *id == "two").map(|(id, held)| (id.clone(), held.clone()));
        state.svids = Arc::new(kept.collect());
    });
    let view = view_of(&case.feed, &["s:1"]);
    assert!(view.resource("default").is_none() && view.resource("spiffe://a.test/two").is_some());
    assert!(view.is_being_made());
    assert_eq!(view.svids().unwrap().svids.len(), 1);
}

#[test]
fn equal_callers_share_what_is_made_and_it_outlives_changes_of_others() {
    let case = Case::new(vec![entry("one", &["s:1"]), entry("two", &["s:2"])]);
    let (first, again) = (view_of(&case.feed, &["s:1"]), view_of(&case.feed, &["s:1"]));
    assert!(Arc::ptr_eq(&first, &again));
    let before = (first.resource("default").unwrap(), first.resource("ROOTCA").unwrap());
    case.roster.update(|state| state.jwks = Arc::new([("a.test".to_owned(), "{}".to_owned())].into()));
    let after = view_of(&case.feed, &["s:1"]);
    assert!(Arc::ptr_eq(&before.0, &after.resource("default").unwrap()), "encoded once");
    assert_eq!(before.1.version, after.resource("ROOTCA").unwrap().version);
    assert_eq!(first.version(), after.version(), "keys of tokens are no news for certificates");
}

/// Trap 21: what a peer would not accept is not pushed, however it came about.
#[test]
fn trap_21_a_certificate_out_of_its_dates_or_of_another_root_or_denied_is_withheld() {
    let case = Case::new(vec![entry("one", &["s:1"])]);
    let served = || view_of(&case.feed, &["s:1"]).resource("default").is_some();
    assert!(served());
    for moment in [START - 61, START + 3541] {
        case.clock.set(moment);
        assert!(!served(), "at {moment}");
    }
    case.clock.set(START);
    assert!(served());
    let identity = case.source.current().unwrap();
    let mut bundles = identity.bundles.as_ref().clone();
    bundles.with_denied([case.roster.now().svids["one"].svid.serial().to_owned()].into());
    case.source.set(Arc::new(Identity { svid: identity.svid.clone(), bundles: Arc::new(bundles) }));
    assert!(!served(), "denied");
    case.source.set(Authority::new("elsewhere").identity("spiffe://a.test/agent"));
    assert!(!served(), "another root");
}

/// Trap 47: in Envoy a list that lacks one authority or is out of date breaks every handshake, and the SPIFFE validator asks
/// for none. So revocation is no list here: what is denied is withheld, and not a byte of the contexts changes.
#[test]
fn trap_47_no_context_holds_a_revocation_list() {
    let federated = agents::Entry { federates_with: vec!["b.test".to_owned()], ..entry("two", &["s:2"]) };
    let case = Case::new(vec![federated]);
    let contexts = || {
        let view = view_of(&case.feed, &["s:2"]);
        ["ROOTCA", "ALL", "spiffe://a.test", "spiffe://b.test"].map(|name| context(&view, name))
    };
    let before = contexts();
    assert!(before.iter().all(|context| context.crl.is_none() && !context.only_verify_leaf_cert_crl));
    assert!(view_of(&case.feed, &["s:2"]).svids().unwrap().crl.is_empty());
    let identity = case.source.current().unwrap();
    let mut bundles = identity.bundles.as_ref().clone();
    bundles.with_denied([case.roster.now().svids["two"].svid.serial().to_owned()].into());
    case.source.set(Arc::new(Identity { svid: identity.svid.clone(), bundles: Arc::new(bundles) }));
    assert!(view_of(&case.feed, &["s:2"]).resource("default").is_none(), "it is denied");
    assert_eq!(contexts(), before);
}

trait Version {
    fn version(&self) -> String;
}

impl Version for Arc<palisade_identity::X509Svid> {
    fn version(&self) -> String {
        super::super::encoded::version_of(&[self.chain_pem().as_bytes()])
    }
}
