//! What subscribers may have: the current identity, validated and encoded once per change.
//!
//! Envoy acknowledges an expired certificate, a foreign chain and a bundle without any authority, and then fails
//! every handshake. So nothing leaves this module that was not checked, and what fails the check is withheld: the
//! subscriber keeps what it has.

use std::sync::{Arc, Mutex, PoisonError};

use palisade_identity::{Clock, Identity, SvidSource, error_chain};
use rustls_pki_types::UnixTime;
use tokio::sync::watch;

pub(crate) use encoded::{Encoded, Resource};

pub(crate) mod encoded;

/// The SDS names and what they stand for. Other names are unknown here, and left out of answers.
pub(crate) const CERTIFICATE_NAME: &str = "default";
/// The trust bundle of the agent's trust domain.
pub(crate) const ROOTS_NAME: &str = "ROOTCA";

/// Hands out the current identity to any number of streams.
///
/// Cheap to ask: validation of the chain and encoding happen once per identity, the dates are looked at each time.
#[derive(Clone)]
pub(crate) struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    source: Arc<dyn SvidSource>,
    clock: Arc<dyn Clock>,
    changed: Arc<watch::Sender<()>>,
    cache: Mutex<Option<Arc<Prepared>>>,
}

/// An identity and its encoded forms.
struct Prepared {
    identity: Arc<Identity>,
    encoded: Arc<Encoded>,
}

/// What can be served at this moment.
#[derive(Debug, Clone)]
pub(crate) enum Offer {
    /// Certificate and bundle.
    Whole(Arc<Encoded>),
    /// The bundle alone; the certificate must not be served for the reason given.
    RootsOnly(Arc<Encoded>, Arc<str>),
    /// There has never been an identity.
    Nothing,
}

impl Feed {
    pub(crate) fn new(source: Arc<dyn SvidSource>, clock: Arc<dyn Clock>) -> Self {
        let changed = Arc::new(watch::Sender::new(()));
        let wake = Arc::clone(&changed);
        source.on_change(Box::new(move || {
            wake.send_replace(());
        }));
        Self { shared: Arc::new(Shared { source, clock, changed, cache: Mutex::new(None) }) }
    }

    /// Wakes at each change of the identity after this call.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// What can be served now.
    pub(crate) fn offer(&self) -> Offer {
        let Some(identity) = self.shared.source.current() else {
            return Offer::Nothing;
        };
        let now = self.shared.clock.now();
        let mut cache = self.shared.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cache
            .as_ref()
            .filter(|ready| Arc::ptr_eq(&ready.identity, &identity))
            .map(|ready| Arc::clone(&ready.encoded));
        if let Some(encoded) = &known
            && in_dates(&identity, now)
        {
            return Offer::Whole(Arc::clone(encoded));
        }
        let encoded = known.unwrap_or_else(|| Arc::new(Encoded::new(&identity)));
        if let Err(reason) = identity.svid.usable(&identity.bundles, now) {
            return Offer::RootsOnly(encoded, error_chain(&reason).into());
        }
        *cache = Some(Arc::new(Prepared { identity, encoded: Arc::clone(&encoded) }));
        Offer::Whole(encoded)
    }
}

fn in_dates(identity: &Identity, now: UnixTime) -> bool {
    let svid = &identity.svid;
    svid.not_before().as_secs() <= now.as_secs() && now.as_secs() <= svid.not_after().as_secs()
}

impl Offer {
    /// The resource of that SDS name, if it is known and may be served.
    pub(crate) fn resource(&self, name: &str) -> Option<&Resource> {
        match (name, self) {
            (CERTIFICATE_NAME, Self::Whole(encoded)) => Some(&encoded.certificate),
            (ROOTS_NAME, Self::Whole(encoded) | Self::RootsOnly(encoded, _)) => Some(&encoded.roots),
            _ => None,
        }
    }

    /// Is there nothing more to wait for?
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self, Self::Whole(_))
    }
}

/// Is that a name this agent knows?
pub(crate) fn is_known(name: &str) -> bool {
    matches!(name, CERTIFICATE_NAME | ROOTS_NAME)
}

#[cfg(test)]
mod tests;
