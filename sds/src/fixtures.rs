//! Certificates, sources and clocks that the tests of this crate own.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use palisade_identity::{Clock, Identity, PrivateKey, SvidSource, TrustBundle, TrustBundles, TrustDomain, X509Svid};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime};
use time::OffsetDateTime;

use palisade_wire::{UnixCaller, agents};

use crate::attest::Evidence;
use crate::roster::{Entries, Entry, Held, Roster};
use crate::secrets::{Feed, View};

/// The moment at which every test begins.
pub(crate) const START: u64 = 1_800_000_000;

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("a.test").unwrap()
}

/// A clock that stands still until it is set.
#[derive(Debug)]
pub(crate) struct TestClock(Mutex<u64>);

impl TestClock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(START)))
    }

    pub(crate) fn set(&self, seconds: u64) {
        *self.0.lock().unwrap() = seconds;
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        at(*self.0.lock().unwrap())
    }
}

/// A root with an intermediate that signs leaves.
pub(crate) struct Authority {
    pub(crate) root: CertifiedIssuer<'static, KeyPair>,
    pub(crate) intermediate: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let root = CertifiedIssuer::self_signed(signer(name, "root"), KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let intermediate = CertifiedIssuer::signed_by(signer(name, "intermediate"), key, &root).unwrap();
        Self { root, intermediate }
    }

    pub(crate) fn root_der(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    /// A leaf for the public half of `key`.
    pub(crate) fn leaf(&self, id: &str, key: &PrivateKey, not_before: u64, not_after: u64) -> rcgen::Certificate {
        let pair = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.as_pkcs8_der())).unwrap();
        self.sign(id, &pair, not_before, not_after)
    }

    /// A leaf for a public key, also good for a server that is called `localhost`.
    pub(crate) fn sign(
        &self,
        id: &str,
        key: &impl PublicKeyData,
        not_before: u64,
        not_after: u64,
    ) -> rcgen::Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names =
            vec![SanType::URI(id.try_into().unwrap()), SanType::DnsName("localhost".try_into().unwrap())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.not_before = date(not_before);
        params.not_after = date(not_after);
        params.signed_by(key, &self.intermediate).unwrap()
    }

    /// The identity of the agent `a.test/agent` that trusts another domain besides.
    pub(crate) fn agent_trusting(&self, name: &str, other: &Self) -> Arc<Identity> {
        let identity = self.identity("spiffe://a.test/agent");
        let mut bundles = identity.bundles.as_ref().clone();
        let domain = TrustDomain::parse(name).unwrap();
        bundles.insert(TrustBundle::new(domain, vec![other.root_der()]).unwrap());
        Arc::new(Identity { svid: identity.svid.clone(), bundles: Arc::new(bundles) })
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::new(domain(), vec![self.root_der()]).unwrap()
    }

    /// An identity valid for an hour around [`START`].
    pub(crate) fn identity(&self, id: &str) -> Arc<Identity> {
        self.identity_between(id, START - 60, START + 3540)
    }

    pub(crate) fn identity_between(&self, id: &str, not_before: u64, not_after: u64) -> Arc<Identity> {
        let key = PrivateKey::generate_p256().unwrap();
        let leaf = self.leaf(id, &key, not_before, not_after);
        self.assemble(vec![leaf.der().clone(), self.intermediate.der().clone()], key)
    }

    /// What a server presents whose root is known to its clients by hash only.
    pub(crate) fn server(&self, id: &str, not_before: u64, not_after: u64) -> Arc<Identity> {
        let key = PrivateKey::generate_p256().unwrap();
        let leaf = self.leaf(id, &key, not_before, not_after);
        self.assemble(vec![leaf.der().clone(), self.intermediate.der().clone(), self.root_der()], key)
    }

    fn assemble(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Arc<Identity> {
        let mut bundles = TrustBundles::default();
        bundles.insert(self.bundle());
        Arc::new(Identity { svid: Arc::new(X509Svid::new(chain, key).unwrap()), bundles: Arc::new(bundles) })
    }
}

fn signer(name: &str, kind: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{name} {kind}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = date(START - 400_000_000);
    params.not_after = date(START + 400_000_000);
    params
}

fn date(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap()).unwrap()
}

/// A feed of `source` for the own user, with a roster whose entries are known: there are none.
pub(crate) fn feed(source: &Arc<TestSource>, clock: &Arc<TestClock>) -> (Feed, Arc<Roster>) {
    let roster = Arc::new(Roster::default());
    roster.update(|state| state.entries = Some(Arc::default()));
    (Feed::new(source.clone(), roster.clone(), clock.clone(), &[]), roster)
}

/// What a process shows that runs as the own user.
pub(crate) fn evidence(selectors: &[&str]) -> Evidence {
    let uid = rustix::process::geteuid().as_raw();
    let selectors = selectors.iter().map(|&selector| selector.to_owned()).collect();
    Evidence { caller: UnixCaller { uid, gid: 0, pid: 1, started: Some(1) }, selectors, unknown: Vec::new() }
}

/// What a process of the own user may have.
pub(crate) fn view(feed: &Feed) -> Arc<View> {
    view_of(feed, &["unix:uid:own"])
}

/// What a process with these selectors may have.
pub(crate) fn view_of(feed: &Feed, selectors: &[&str]) -> Arc<View> {
    feed.view(&feed.caller(&evidence(selectors)))
}

/// An entry for `spiffe://a.test/<id>`.
pub(crate) fn entry(id: &str, selectors: &[&str]) -> agents::Entry {
    agents::Entry {
        id: id.to_owned(),
        spiffe_id: format!("spiffe://a.test/{id}"),
        selectors: selectors.iter().map(|&selector| selector.to_owned()).collect(),
        ..agents::Entry::default()
    }
}

/// Makes these the entries of a roster, each with a certificate by `authority`, valid for an hour around [`START`].
pub(crate) fn register(roster: &Roster, authority: &Authority, entries: Vec<agents::Entry>) {
    let entries = Entries::new(entries.into_iter().map(|entry| Entry::parse(entry, &domain()).unwrap()));
    let held = |entry: &Arc<Entry>| {
        let svid = authority.identity(entry.spiffe_id.as_str()).svid.clone();
        let held = Held { svid, made_for: entry.clone(), due: at(START + 1800), issuers: Vec::new(), epoch: 0 };
        (entry.id.clone(), Arc::new(held))
    };
    let svids = Arc::new(entries.iter().map(held).collect());
    roster.update(|state| {
        state.svids = svids;
        state.entries = Some(Arc::new(entries));
    });
}

type Callback = Box<dyn Fn() + Send + Sync>;

/// A source whose identity the test sets.
#[derive(Default)]
pub(crate) struct TestSource {
    current: Mutex<Option<Arc<Identity>>>,
    callbacks: Mutex<Vec<Callback>>,
}

impl TestSource {
    pub(crate) fn new(identity: Option<Arc<Identity>>) -> Arc<Self> {
        Arc::new(Self { current: Mutex::new(identity), callbacks: Mutex::default() })
    }

    pub(crate) fn set(&self, identity: Arc<Identity>) {
        *self.current.lock().unwrap() = Some(identity);
        for callback in self.callbacks.lock().unwrap().iter() {
            callback();
        }
    }
}

impl SvidSource for TestSource {
    fn current(&self) -> Option<Arc<Identity>> {
        self.current.lock().unwrap().clone()
    }

    fn on_change(&self, callback: Callback) {
        self.callbacks.lock().unwrap().push(callback);
    }
}
