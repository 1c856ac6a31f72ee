//! What one caller may have at one moment.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use palisade_identity::{UnixTime, X509Svid};
use palisade_wire::workload::{X509svid, X509svidResponse};

use super::encoded::{self, Resource, version_of};
use super::trust::Trust;
use super::{ALL_NAME, CERTIFICATE_NAME, ROOTS_NAME};
use crate::roster::Entry;

/// Why a certificate is withheld that was never there.
pub(super) const BEING_MADE: &str = "its certificate is being made";

/// Is an identity meant for the caller?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The server has not said yet who gets what.
    Unknown,
    /// None.
    Nobody,
    /// At least one, whether or not it can be served now.
    Entitled,
}

/// One identity meant for the caller.
pub(crate) struct Slot {
    /// Unset for the agent's own identity.
    pub(crate) entry: Option<Arc<Entry>>,
    /// Its certificate, or why it is withheld.
    pub(crate) served: Result<Arc<Served>, Arc<str>>,
}

impl Slot {
    fn is_being_made(&self) -> bool {
        self.served.as_ref().is_err_and(|why| **why == *BEING_MADE)
    }
}

/// One certificate and its encoded forms, made when first asked for and shared by everybody.
pub(crate) struct Served {
    pub(crate) svid: Arc<X509Svid>,
    pub(crate) version: String,
    by_default: OnceLock<Arc<Resource>>,
    by_id: OnceLock<Arc<Resource>>,
}

/// What one caller may have at one moment.
pub(crate) struct View {
    pub(crate) standing: Standing,
    /// In the server's order; the first is the default.
    pub(crate) slots: Vec<Slot>,
    /// The bundles; unset before there are any.
    pub(crate) trust: Option<Arc<Trust>>,
    good: Option<(UnixTime, UnixTime)>,
    version: String,
    svids: OnceLock<X509svidResponse>,
}

impl Served {
    pub(super) fn new(svid: Arc<X509Svid>) -> Self {
        // The leaf names its key, so the chain alone tells one content from another and no hash of a key is published.
        let version = version_of(&[svid.chain_pem().as_bytes()]);
        Self { svid, version, by_default: OnceLock::new(), by_id: OnceLock::new() }
    }

    fn secret(&self, name: &str) -> Arc<Resource> {
        let place = if name == CERTIFICATE_NAME { &self.by_default } else { &self.by_id };
        Arc::clone(place.get_or_init(|| Arc::new(encoded::certificate(name, &self.svid, &self.version))))
    }
}

impl View {
    pub(super) fn nothing(standing: Standing) -> Self {
        let (version, svids) = (String::new(), OnceLock::new());
        Self { standing, slots: Vec::new(), trust: None, good: None, version, svids }
    }

    pub(super) fn new(slots: Vec<Slot>, trust: Option<Arc<Trust>>) -> Self {
        let served = || slots.iter().filter_map(|slot| slot.served.as_ref().ok());
        let from = served().map(|served| served.svid.not_before()).max();
        let until = served().map(|served| served.svid.not_after()).min();
        let whole = slots.iter().all(|slot| slot.served.is_ok());
        let good = from.zip(until).filter(|_| whole);
        let mut parts: Vec<&[u8]> = Vec::new();
        for slot in &slots {
            let hint = slot.entry.as_ref().map_or("", |entry| entry.hint.as_str());
            // What is withheld is no part of the answer, and waiting for it is no news.
            if let Ok(served) = &slot.served {
                parts.extend([served.version.as_bytes(), hint.as_bytes()]);
            }
        }
        parts.extend(trust.as_ref().map(|trust| trust.version.as_bytes()));
        let version = version_of(&parts);
        Self { standing: Standing::Entitled, slots, trust, good, version, svids: OnceLock::new() }
    }

    /// Would the same be found at that time?
    pub(super) fn is_good_at(&self, now: UnixTime) -> bool {
        match self.standing {
            Standing::Unknown | Standing::Nobody => true,
            Standing::Entitled => self
                .good
                .is_some_and(|(from, until)| from.as_secs() <= now.as_secs() && now.as_secs() <= until.as_secs()),
        }
    }

    /// Is there nothing to wait for?
    pub(crate) fn is_whole(&self) -> bool {
        self.standing == Standing::Entitled && self.slots.iter().all(|slot| slot.served.is_ok())
    }

    /// Is a certificate on its way that has never been there?
    pub(crate) fn is_being_made(&self) -> bool {
        self.slots.iter().any(Slot::is_being_made)
    }

    /// Is it the first?
    pub(crate) fn is_default_being_made(&self) -> bool {
        self.slots.first().is_some_and(Slot::is_being_made)
    }

    /// Why something is withheld.
    pub(crate) fn withheld(&self) -> Option<Arc<str>> {
        self.slots.iter().find_map(|slot| slot.served.as_ref().err().cloned())
    }

    /// Changes when and only when the answer of `FetchX509SVID` does.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The secret of that SDS name, if it is known, meant for the caller, and may be served. It carries that name.
    pub(crate) fn resource(&self, name: &str) -> Option<Arc<Resource>> {
        if is_trust(name) {
            return self.trust.as_ref()?.resource(name);
        }
        // Never another one instead of the first: it would be somebody else.
        if name == CERTIFICATE_NAME {
            return Some(self.slots.first()?.served.as_ref().ok()?.secret(name));
        }
        let served = self.slots.iter().filter_map(|slot| slot.served.as_ref().ok());
        Some(served.into_iter().find(|served| served.svid.id().as_str() == name)?.secret(name))
    }

    /// Is something of that SDS name meant for the caller, whether or not it can be served now? True while that is not known.
    pub(crate) fn is_meant(&self, name: &str) -> bool {
        if self.standing == Standing::Unknown || name == CERTIFICATE_NAME {
            return true;
        }
        if is_trust(name) {
            return self.trust.as_ref().is_none_or(|trust| trust.holds(name));
        }
        self.slots.iter().any(|slot| match (&slot.entry, &slot.served) {
            (Some(entry), _) => entry.spiffe_id.as_str() == name,
            (None, Ok(own)) => own.svid.id().as_str() == name,
            (None, Err(_)) => true,
        })
    }

    /// Answer of `FetchX509SVID`; unset while there is nothing to serve.
    pub(crate) fn svids(&self) -> Option<&X509svidResponse> {
        let trust = self.trust.as_ref()?;
        let any = self.slots.iter().any(|slot| slot.served.is_ok());
        any.then(|| self.svids.get_or_init(|| self.encode(trust)))
    }

    fn encode(&self, trust: &Trust) -> X509svidResponse {
        let mut hints = BTreeSet::new();
        let mut federated: HashMap<String, Vec<u8>> = trust.x509().clone();
        let bundle = federated.remove(&trust.home_id()).unwrap_or_default();
        let served = self.slots.iter().filter_map(|slot| Some((slot.entry.as_ref(), slot.served.as_ref().ok()?)));
        let svids = served.map(|(entry, served)| {
            let svid = &served.svid;
            // A hint that is there already would tell nothing (the standard wants them unique).
            let hint = entry.map(|entry| entry.hint.clone()).filter(|hint| hints.insert(hint.clone()));
            X509svid {
                spiffe_id: svid.id().as_str().to_owned(),
                x509_svid: svid.chain().iter().flat_map(|cert| cert.as_ref().iter().copied()).collect(),
                x509_svid_key: svid.key().as_pkcs8_der().to_vec(),
                bundle: bundle.clone(),
                hint: hint.unwrap_or_default(),
            }
        });
        X509svidResponse { svids: svids.collect(), crl: Vec::new(), federated_bundles: federated }
    }
}

/// Does that name stand for bundles? They go first, for a new certificate may need them.
pub(crate) fn is_trust(name: &str) -> bool {
    let domain = name.strip_prefix("spiffe://");
    matches!(name, ROOTS_NAME | ALL_NAME) || domain.is_some_and(|domain| !domain.contains('/'))
}

/// Could that name ever be served here?
pub(crate) fn is_known(name: &str) -> bool {
    name == CERTIFICATE_NAME || is_trust(name) || name.starts_with("spiffe://")
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("svid", &self.svid).field("version", &self.version).finish_non_exhaustive()
    }
}
